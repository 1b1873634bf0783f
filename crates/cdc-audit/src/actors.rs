//! The names of actors, `[actors]`: read when somebody asks, shown, and never stored.
//!
//! A name is what the table says today. It is no evidence of who acted: that is the id, and what the context said then.
//! So filters do not look at names, and a name that cannot be read is no error.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use audit_config::visible;
use audit_core::shape::ShapeColumn;
use audit_core::stored::Record;
use audit_core::value::Kind;
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::config::Config;
use crate::output::note;

/// Ids whose names are read for one question.
const IDS_MAX: usize = 10_000;
/// Characters of a name.
const NAME_MAX: usize = 100;
/// A question waits no longer for names.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The names that were read so far.
#[derive(Default)]
pub struct Actors<'c> {
    /// `None` if no names are configured, or wanted.
    config: Option<&'c Config>,
    known: HashMap<String, Option<String>>,
}

/// Why names are not shown.
#[derive(Debug, thiserror::Error)]
enum NoNames {
    #[error(transparent)]
    Connect(#[from] audit_connect::ConnectError),
    #[error(transparent)]
    Query(#[from] tokio_postgres::Error),
    #[error("the column {column} of {table} is protected; `allow` it, or give a `query`")]
    Protected { table: String, column: String },
    #[error("there is no column {column} in {table}")]
    NoColumn { table: String, column: String },
    #[error("the database did not answer within {} s", TIMEOUT.as_secs())]
    Late,
}

impl<'c> Actors<'c> {
    /// `raw` says that only ids are wanted.
    pub fn new(config: &'c Config, raw: bool) -> Actors<'c> {
        let is_given = config.actors.table.is_some() || config.actors.query.is_some();
        Actors { config: Some(config).filter(|_| is_given && !raw), known: HashMap::new() }
    }

    /// Reads the names of those who made these versions.
    pub async fn read<'r>(&mut self, records: impl IntoIterator<Item = &'r Record>) {
        self.read_ids(records.into_iter().filter_map(|record| record.actor_id.as_deref())).await;
    }

    /// Reads the names that are not known yet. ⚠ A failure is told and is no error: the answer does not depend on names.
    pub async fn read_ids<'r>(&mut self, ids: impl IntoIterator<Item = &'r str>) {
        let Some(config) = self.config else { return };
        let room = IDS_MAX.saturating_sub(self.known.len());
        let mut seen = HashSet::new();
        let ids = ids.into_iter().filter(|id| !self.known.contains_key(*id) && seen.insert(*id));
        let new: Vec<&str> = ids.take(room).collect();
        if new.is_empty() {
            return;
        }
        let found = tokio::time::timeout(TIMEOUT, names(config, &new)).await.unwrap_or(Err(NoNames::Late));
        self.known.extend(new.iter().map(|id| ((*id).to_owned(), None)));
        match found {
            Ok(found) => self.known.extend(found.into_iter().map(|(id, name)| (id, Some(name)))),
            Err(error) => {
                note(format!("warning: names of actors are not shown: {}", audit_config::Chain(&error)));
                self.config = None;
            }
        }
    }

    /// The name that an actor has today.
    pub fn name(&self, id: Option<&str>) -> Option<&str> {
        self.known.get(id?)?.as_deref()
    }

    /// An id with its name.
    pub fn shown<'i>(&self, id: &'i str) -> Cow<'i, str> {
        self.name(Some(id)).map_or(Cow::Borrowed(id), |name| Cow::Owned(format!("{id} {name}")))
    }

    /// The id with the name that the context said; in brackets the name of today, if it is another one.
    pub fn of(&self, record: &Record) -> String {
        #[derive(Deserialize)]
        struct Said {
            name: Option<String>,
        }
        let said = record.actor.as_deref().and_then(|actor| serde_json::from_str::<Said>(actor.get()).ok());
        let said = said.and_then(|actor| actor.name);
        let today = self.name(record.actor_id.as_deref()).map(str::to_owned);
        let today = match (&said, today) {
            (Some(said), Some(today)) if *said == today => None,
            (Some(_), Some(today)) => Some(format!("({today})")),
            (_, today) => today,
        };
        [record.actor_id.clone(), said, today].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// A version as JSON, with the name of who made it.
#[derive(Serialize)]
pub struct Named<'n, T> {
    #[serde(flatten)]
    pub version: &'n T,
    /// The name of today; never part of the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_name: Option<&'n str>,
}

async fn names(config: &Config, ids: &[&str]) -> Result<Vec<(String, String)>, NoNames> {
    let endpoint = config.actors.connection.as_ref().unwrap_or(&config.source.endpoint);
    let client = audit_connect::connect(endpoint, "cdc-audit actors").await?;
    let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {}", TIMEOUT.as_millis());
    client.batch_execute(&begin).await?;
    let query = match (&config.actors.table, &config.actors.query) {
        (Some(table), _) => of_table(config, &client, table).await?,
        (None, query) => query.clone().unwrap_or_default(),
    };
    let query = query.trim().trim_end_matches(';');
    let statement = format!(
        "SELECT id::text, left(name::text, {NAME_MAX}) FROM (\n{query}\n) AS actors (id, name) \
         WHERE id::text = ANY ($1) AND name IS NOT NULL LIMIT {IDS_MAX}"
    );
    let rows = client.query(&statement, &[&ids]).await?;
    // ⚠ A name is anybody's text: it must not drive the terminal, nor begin a line.
    let name = |row: &tokio_postgres::Row| (row.get(0), visible(row.get(1)).into_owned());
    Ok(rows.iter().map(name).collect())
}

/// The query for a table, unless what it would show is protected there.
async fn of_table(config: &Config, client: &Client, table: &str) -> Result<String, NoNames> {
    let (id, name) = (config.actors.id.as_deref().unwrap_or("id"), config.actors.name.as_deref().unwrap_or("name"));
    let facts = "SELECT format('%I.%I', n.nspname, c.relname), quote_ident($2), quote_ident($3), a.atttypid, a.atttypmod, \
                 format_type(a.atttypid, a.atttypmod) \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $3 AND a.attnum > 0 AND NOT a.attisdropped \
                 WHERE n.nspname || '.' || c.relname = $1";
    let column = || (table.to_owned(), name.to_owned());
    let Some(row) = client.query_opt(facts, &[&table, &id, &name]).await? else {
        let (table, column) = column();
        return Err(NoNames::NoColumn { table, column });
    };
    let (type_oid, typmod, type_name) = (row.get(3), row.get(4), row.get(5));
    let shaped = ShapeColumn {
        name: name.to_owned(),
        type_oid,
        typmod,
        type_name,
        holds: Vec::new(),
        kind: Kind::of(type_oid, typmod).unwrap_or(Kind::Text),
        attnum: None,
        in_identity: false,
    };
    if !config.rules().for_name(table.to_owned()).methods(&shaped).is_empty() {
        let (table, column) = column();
        return Err(NoNames::Protected { table, column });
    }
    let [place, id, name]: [String; 3] = [row.get(0), row.get(1), row.get(2)];
    Ok(format!("SELECT {id}, {name} FROM {place}"))
}
