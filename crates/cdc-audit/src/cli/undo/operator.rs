//! Who puts rows back, why, and how far: the options that `undo` and `rollback` share.

use std::path::PathBuf;

use audit_config::Span;
use audit_connect::{PgEndpoint, connect};
use audit_core::position::{Lsn, Micros};
use audit_undo::Later;
use tokio_postgres::Client;

use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::argument;
use crate::role::{Reader, endpoint};
use crate::store::open;

use super::question::{Question, incarnation};

#[derive(Debug, clap::Args)]
pub struct How {
    /// Your own login in the source; never the daemon's. Its password comes from PGPASSFILE, ~/.pgpass or PGPASSWORD.
    #[arg(long = "as", value_name = "URL", required = true)]
    login: String,
    /// Who wants it: the actor of the versions that it makes.
    #[arg(long, value_name = "ID")]
    pub actor: String,
    /// Why: the reason of these versions.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Of updates, only these columns: `state,total`.
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub fields: Option<Vec<String>>,
    /// Try it, show it, and roll it back. This is the default.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Commit it.
    #[arg(long)]
    pub yes: bool,
    /// Try it, and approve that somebody else commits exactly that, with the same actor and reason: for so long, and while
    /// this command runs.
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["yes", "sql"])]
    pub approve: Option<Span>,
    /// Try it, and write its statements into a new file, for somebody else to run.
    #[arg(long, value_name = "FILE", conflicts_with = "yes")]
    pub sql: Option<PathBuf>,
    /// Leave rows as they are that were changed later, and put back the others.
    #[arg(long, conflicts_with = "force")]
    keep_later: bool,
    /// Undo what was done later to these rows too, by anybody, and to rows that belong to them. It is listed first.
    #[arg(long, conflicts_with_all = ["keep_later", "force", "fields"])]
    pub with_later: bool,
    /// Overwrite what was changed later, in the columns that are put back.
    #[arg(long)]
    pub force: bool,
    /// Commit even if triggers change more than what is put back.
    #[arg(long)]
    pub accept_triggers: bool,
    /// Where the server did not send old values, take those that earlier versions of the row have, if that is sound.
    #[arg(long)]
    pub allow_derived: bool,
    /// At most so many rows.
    #[arg(long, default_value_t = 1000)]
    pub max_rows: usize,
    /// After the commit wait so long for its versions, and print them; `0s` does not wait.
    #[arg(long, default_value = "30s")]
    pub wait: Span,
    /// The sink to read the versions from. Default: hot tables and lake as one.
    #[arg(long, value_name = "SINK")]
    from: Option<String>,
    /// Only what this tenant has, in a sink that keeps tenants apart. `-`: a line of standard input.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// One JSON record: statements, conflicts, what was left alone, effects of triggers, the new versions.
    #[arg(long)]
    pub json: bool,
}

impl How {
    pub fn later(&self) -> Later {
        match (self.keep_later, self.with_later, self.force) {
            (true, ..) => Later::Keep,
            (_, true, _) => Later::With,
            (.., true) => Later::Force,
            _ => Later::Refuse,
        }
    }

    pub fn reader(&self) -> Reader {
        Reader::new(Some(self.login.clone()))
    }

    /// Opens the trail, and a session of the operator's own in the source.
    pub async fn ask(&self, config: &Config, command: &'static str) -> Result<Question, CliError> {
        for (name, text) in [("--actor", &self.actor), ("--reason", &self.reason)] {
            if text.trim().is_empty() {
                return Err(CliError::new(format!("{name} is empty")).code(code::USAGE));
            }
        }
        let login = self.endpoint(config)?;
        let tenant = self.tenant.clone().map(argument).transpose()?;
        let store = open(config, self.from.as_deref(), tenant.as_deref(), &self.reader()).await?;
        let client = connect(&login, &format!("cdc-audit {command}")).await?;
        let source = config.source.name.clone();
        let system = store.head().map(|head| head.checkpoint.system_id);
        let request_id = format!("undo-{:x}-{:x}", Micros::now().0, std::process::id());
        let incarnation = incarnation(&client).await?;
        let question = Question { command, source, store, client, login, request_id, incarnation };
        question.is_source(config, system).await?;
        Ok(question)
    }

    /// ⚠ Never the daemon's role: what is undone is done with the rights of the person who does it.
    fn endpoint(&self, config: &Config) -> Result<PgEndpoint, CliError> {
        let login = endpoint("--as", &self.login)?;
        if login.parse()?.user() == config.source.endpoint.parse()?.user() {
            return Err(CliError::new("--as names the daemon's own role")
                .hint("log in as yourself: a role with rights on the tables that are put back".to_owned())
                .code(code::USAGE));
        }
        Ok(login)
    }
}

impl Question {
    /// Refuses another server or database than the one whose trail it is.
    async fn is_source(&self, config: &Config, system: Option<u64>) -> Result<(), CliError> {
        let asked = "SELECT current_database()::text, (SELECT system_identifier FROM pg_control_system())";
        let row = self.client.query_one(asked, &[]).await?;
        let (database, own): (String, i64) = (row.get(0), row.get(1));
        let other = system.is_some_and(|system| system != own as u64);
        if other || database != config.source.endpoint.parse()?.dbname() {
            return Err(CliError::new("--as names another database than the source of this trail")
                .hint(format!("give the address of {}, with your own role", config.source.endpoint.describe()))
                .code(code::USAGE));
        }
        Ok(())
    }
}

/// The end of the WAL, which has everything that was committed before.
pub async fn wal_end(client: &Client) -> Result<Lsn, CliError> {
    let row = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?;
    let text: String = row.get(0);
    text.parse().map_err(|_| CliError::new("the server names no place in its WAL"))
}
