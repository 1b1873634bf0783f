//! `show --check`: the row of the trail and the live row of the source.

use std::collections::BTreeMap;

use audit_connect::{ConnectError, connect};
use audit_core::json::unquote;
use audit_core::position::Lsn;
use audit_core::rules::Rules;
use audit_core::shape::Shape;
use audit_core::value::write_json_value;
use audit_history::row::{Found, Known, State, Then, Verdict, compare};
use serde_json::value::RawValue;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::cli::row::Asked;
use crate::config::Config;
use crate::error::CliError;

/// Makes the statement: names and values are quoted by the server.
const STATEMENT: &str = "SELECT format('SELECT * FROM %I.%I WHERE %s', $1::text, $2::text, \
    string_agg(format('%I = %L', name, value), ' AND ')) FROM unnest($3::text[], $4::text[]) AS key(name, value)";

/// What the comparison found.
pub enum Compared {
    /// How many values are the same, and which differ.
    Values {
        same: usize,
        differing: Vec<Differing>,
    },
    /// It is there on one side only.
    OnlyLive,
    OnlyInTrail,
    /// On neither.
    Nowhere,
    /// It cannot be found.
    No {
        why: &'static str,
    },
}

/// A column whose values differ, as JSON texts.
pub struct Differing {
    pub column: String,
    pub trail: String,
    pub live: String,
}

/// Reads the live row with the source's login and compares what is known, neither protected nor masked. Also gives the
/// position that the source had reached.
pub async fn compared(asked: &Asked<'_>, then: &Then<'_>, config: &Config) -> Result<(Compared, Lsn), CliError> {
    let found = then.row(&asked.key);
    let client = connect(&config.source.endpoint, "cdc-audit show").await.map_err(|error: ConnectError| {
        CliError::from(error).detail("--check compares with the live row of the source".to_owned())
    })?;
    let Some(shape) = asked.facts.newest() else { return Ok((Compared::No { why: "nothing is recorded" }, Lsn(0))) };
    let live = match key(&now(asked, then, &found), shape, &config.rules()) {
        Ok(key) => row(&client, shape, &key).await?,
        Err(why) => return Ok((Compared::No { why }, Lsn(0))),
    };
    let lsn: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
    let compared = match (&found, live) {
        (Found::Row(row), Some(live)) => values(asked, shape, row.schema_version, &row.state, &live),
        (Found::Row(_), None) => Compared::OnlyInTrail,
        (Found::Absent(_), Some(_)) if shape.rules.as_ref().is_some_and(|rules| rules.filter.is_some()) => {
            Compared::No { why: "the row may not fulfil the `where` of its table" }
        }
        (Found::Absent(_), Some(_)) => Compared::OnlyLive,
        (Found::Absent(_), None) => Compared::Nowhere,
    };
    Ok((compared, lsn.parse().unwrap_or(Lsn(0))))
}

/// The key that the row has now.
fn now(asked: &Asked, then: &Then<'_>, found: &Found) -> String {
    let own = match found {
        Found::Row(row) => then.key_of(row.row),
        Found::Absent(_) => None,
    };
    own.unwrap_or(&asked.key).to_owned()
}

/// Names and values of the key's columns.
fn key(stored: &str, shape: &Shape, rules: &Rules) -> Result<(Vec<String>, Vec<String>), &'static str> {
    let rules = rules.for_table(&shape.name());
    let names = rules.rule.key.clone().unwrap_or_else(|| shape.key.clone());
    let is_protected = |name: &String| shape.column(name).is_some_and(|column| !rules.methods(column).is_empty());
    if names.is_empty() || names.iter().any(is_protected) {
        return Err("its key is protected, so the live row cannot be found");
    }
    if let [_] = names.as_slice() {
        return Ok((names, vec![stored.to_owned()]));
    }
    let parts: Vec<&RawValue> = serde_json::from_str(stored).unwrap_or_default();
    let values: Vec<String> = parts.iter().map(|part| unquote(part.get()).into_owned()).collect();
    match names.len() == values.len() {
        true => Ok((names, values)),
        false => Err("its key has other columns now, so the live row cannot be found"),
    }
}

/// The values of the live row as text; `None` if there is none.
async fn row(
    client: &Client,
    shape: &Shape,
    (names, values): &(Vec<String>, Vec<String>),
) -> Result<Option<BTreeMap<String, Option<String>>>, CliError> {
    let statement: String = client.query_one(STATEMENT, &[&shape.schema, &shape.table, names, values]).await?.get(0);
    let answer = client.simple_query(&statement).await.map_err(|error| {
        CliError::from(error).hint("--check reads with the source's login: GRANT SELECT on the table to it".to_owned())
    })?;
    let row = answer.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let value = |row: &tokio_postgres::SimpleQueryRow, at: usize| {
        (row.columns()[at].name().to_owned(), row.get(at).map(str::to_owned))
    };
    Ok(row.map(|row| (0..row.len()).map(|at| value(&row, at)).collect()))
}

fn values(
    asked: &Asked,
    shape: &Shape,
    schema_version: u32,
    state: &State,
    live: &BTreeMap<String, Option<String>>,
) -> Compared {
    let (mut same, mut differing) = (0, Vec::new());
    for (column, known) in state {
        let rules = asked.facts.rules(schema_version, column);
        let is_plain = rules.is_none_or(|rules| rules.protection.is_none() && rules.inside.is_none());
        let (Some(live), Some(trail), Some(own)) = (live.get(column), known.value(), shape.column(column)) else {
            continue;
        };
        if !is_plain {
            continue;
        }
        let live = live.as_ref().map_or_else(
            || Known::NULL.to_owned(),
            |text| {
                let mut json = Vec::new();
                write_json_value(&mut json, &own.kind, text);
                String::from_utf8(json).unwrap_or_default()
            },
        );
        match compare(Some(&own.kind), None, trail, &live) {
            Verdict::Differs => {
                differing.push(Differing { column: column.clone(), trail: trail.to_owned(), live });
            }
            _ => same += 1,
        }
    }
    Compared::Values { same, differing }
}
