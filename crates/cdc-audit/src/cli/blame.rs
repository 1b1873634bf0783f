//! `cdc-audit blame`.

use std::process::ExitCode;

use audit_core::json::object;
use audit_core::stored::Record;
use audit_history::row::{Found, Known, Setter, Standing, Through, knowledge};
use regex::Regex;
use serde_json::json;

use super::row::{Asked, RowArgs, shown, span};
use crate::config::Config;
use crate::error::CliError;
use crate::output::{note, print_exactly, table};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit blame orders 42\n  cdc-audit blame orders 42 --ignore-actor backfill,formatter\n  \
    cdc-audit blame orders 42 --through-undo\n  cdc-audit blame orders 42 --as-of '2026-01-15 12:00' --json\n\n\
    Exit codes: 0 shown, 8 the row was not there, 9 --strict and something may be missing."
)]
pub struct Args {
    #[command(flatten)]
    row: RowArgs,
    /// The values that it had then: a time, `v3`, `v-1`, a position, "before POSITION", "before xid:N".
    #[arg(long, value_name = "POINT")]
    as_of: Option<String>,
    /// Look through what these actors did.
    #[arg(long, value_name = "ACTOR", value_delimiter = ',')]
    ignore_actor: Vec<String>,
    /// Look through versions whose reason this regular expression matches.
    #[arg(long, value_name = "RE")]
    ignore_reason: Option<Regex>,
    /// What an undo put back was set by whoever set it first, and not by who undid it.
    #[arg(long)]
    through_undo: bool,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let Args { row, as_of, ignore_actor, ignore_reason, through_undo } = args;
    let json = row.source.json;
    let asked = Asked::read(row, config).await?;
    let ignored = |record: &Record| {
        let by = record.actor_id.as_ref().is_some_and(|actor| ignore_actor.contains(actor));
        by || record
            .reason
            .as_ref()
            .zip(ignore_reason.as_ref())
            .is_some_and(|(reason, pattern)| pattern.is_match(reason))
    };
    let through = |record: &Record| match (ignored(record), through_undo) {
        (true, _) => Through::Version,
        (_, true) => Through::Undo,
        _ => Through::Nothing,
    };
    let then = asked.then_through(asked.until(as_of.as_deref()).await?, through);
    let row = match then.row(&asked.key) {
        Found::Row(row) => row,
        Found::Absent(absent) => return Err(asked.absent(&then, &absent)),
    };
    let blame = then.blame(row.row);
    let setter = |column: &str| blame.and_then(|blame| blame.setter(column));
    let columns = asked.in_order(&row.state);
    if json {
        let line =
            |(column, known): &(&String, &Known)| print_exactly(as_json(&asked, &row, column, known, setter(column)));
        columns.iter().try_for_each(line)?;
        return Ok(asked.close(ExitCode::SUCCESS));
    }
    note(format!("{} {}: who set each value · {}", asked.table, asked.given, asked.zone()));
    let mut rows = table(&["column", "value", "since", "age", "by", "why", "what it was"]);
    columns.iter().for_each(|(column, known)| rows.add_row(line(&asked, &row, column, known, setter(column))));
    rows.print()?;
    Ok(asked.close(ExitCode::SUCCESS))
}

fn line(asked: &Asked, row: &Standing, column: &str, known: &Known, setter: Option<&Setter>) -> [String; 7] {
    let value = |known: &Known| shown(&asked.facts, row.schema_version, column, known);
    let Some(setter) = setter.filter(|_| known.value().is_some()) else {
        return [
            column.to_owned(),
            value(known),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ];
    };
    let (since, age) = (asked.time(setter.at), span((asked.clock.now.0 - setter.at.0) / 1_000_000));
    let caution = if setter.verified == Some(false) { "?" } else { "" };
    let by = setter.actor_id.as_ref().map(|actor| format!("{actor}{caution}")).unwrap_or_default();
    let why = setter.reason.clone().unwrap_or_default();
    match (setter.certain, setter.event.as_str()) {
        (true, "created") => [column.to_owned(), value(known), since, age, by, why, "(created)".to_owned()],
        (true, _) => {
            let before = setter.before.as_ref().map(value).unwrap_or_default();
            [column.to_owned(), value(known), since, age, by, why, before]
        }
        (false, _) => {
            let baseline = setter.baseline.map(|number| format!("baseline {number}")).unwrap_or_default();
            let before = format!("before {since}");
            [column.to_owned(), value(known), before, "–".to_owned(), "unknown".to_owned(), baseline, "?".to_owned()]
        }
    }
}

fn as_json(asked: &Asked, row: &Standing, column: &str, known: &Known, setter: Option<&Setter>) -> String {
    let certain = setter.filter(|setter| setter.certain);
    let text = |value: serde_json::Value| value.to_string();
    let before = setter.and_then(|setter| setter.before.as_ref()).and_then(Known::value).unwrap_or("null");
    let derived = setter.and_then(|setter| setter.before.as_ref()).is_some_and(Known::is_derived);
    object([
        ("column", text(json!(column)).as_str()),
        ("value", known.value().unwrap_or("null")),
        ("knowledge", text(json!(knowledge(&asked.facts, row.schema_version, column, known))).as_str()),
        ("since", text(json!(certain.map(|setter| setter.at.to_string()))).as_str()),
        ("not_after", text(json!(setter.map(|setter| setter.at.to_string()))).as_str()),
        ("version", text(json!(certain.and_then(|setter| setter.version))).as_str()),
        ("position", text(json!(setter.map(|setter| setter.position))).as_str()),
        ("by", text(json!(certain.and_then(|setter| setter.actor_id.as_deref()))).as_str()),
        ("reason", text(json!(certain.and_then(|setter| setter.reason.as_deref()))).as_str()),
        ("verified", text(json!(certain.and_then(|setter| setter.verified))).as_str()),
        ("before", before),
        ("derived", text(json!(derived)).as_str()),
    ])
}
