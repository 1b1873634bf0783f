//! `cdc-audit diff`.

mod rows;

use std::process::ExitCode;

use audit_config::ByteSize;
use audit_core::json::object;
use audit_history::row::{Diff, Found, Known, Side, diff};
use serde_json::{Value, json};

use super::row::{Asked, RowArgs, SourceArgs, shown, side};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{note, print_exactly, table};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit diff orders 42 v1\n  cdc-audit diff orders 42 '2026-01-15 08:00' yesterday\n  \
    cdc-audit diff orders 42 v-1 --exit-code      what the newest version changed\n  \
    cdc-audit diff orders --since yesterday --stat      how many rows were added, removed and changed\n\n\
    Exit codes: 0 compared, 8 the row was there at neither point, 9 --strict and something may be missing, 10 with --exit-code: something differs, or may."
)]
pub struct Args {
    /// `schema.table`, or the table's name or label alone where only one table has it.
    table: String,
    /// The row's key, as for `show`; without it, and with --since, all rows of the table are compared.
    #[arg(required_unless_present = "since", conflicts_with = "since")]
    key: Option<String>,
    /// A time, `v3` (after its third version), `v-1` (before its newest), a position, "before POSITION", "before xid:N".
    #[arg(required_unless_present = "since")]
    a: Option<String>,
    /// The same.
    #[arg(default_value = "now")]
    b: String,
    /// Compare all rows of the table at this point with those at another: a time, a position, "before POSITION", "before xid:N".
    #[arg(long, value_name = "POINT")]
    since: Option<String>,
    /// The other point. Default: now.
    #[arg(long, value_name = "POINT", requires = "since")]
    until: Option<String>,
    /// Only how many rows were added, removed and changed.
    #[arg(long, requires = "since")]
    stat: bool,
    /// At most so many rows. Default: 100 in a table for people, else all.
    #[arg(long, value_name = "ROWS", requires = "since")]
    limit: Option<u64>,
    /// The memory that rows may take, about; what does not fit is read in further passes.
    #[arg(long, value_name = "SIZE", default_value = "256 MiB", requires = "since")]
    memory: ByteSize,
    /// Exit with 10 if the two differ.
    #[arg(long)]
    exit_code: bool,
    /// Columns of one row under the names that they had then, and actors by their ids alone.
    #[arg(long, conflicts_with = "since")]
    raw: bool,
    #[command(flatten)]
    source: SourceArgs,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    if let Some(since) = &args.since {
        return rows::run(&args, since, config).await;
    }
    let json = args.source.json;
    let Args { table, key, a: first, b: second, exit_code, raw, source, .. } = args;
    let (key, first) = (key.unwrap_or_default(), first.unwrap_or_default());
    let asked = Asked::read(RowArgs { table, key, raw, source }, config).await?;
    let (from, to) = (asked.until(Some(&first)).await?, asked.until(Some(&second)).await?);
    let (then, now) = (asked.then(from), asked.then(to));
    let (a, b) = (then.row(&asked.key), now.row(&asked.key));
    if let (Found::Absent(_), Found::Absent(absent)) = (&a, &b) {
        return Err(asked.absent(&now, absent));
    }
    let ((shape_a, state_a), (shape_b, state_b)) = (side(&a), side(&b));
    let sides = [Side { schema_version: shape_a, state: &state_a }, Side { schema_version: shape_b, state: &state_b }];
    let found = diff(&asked.facts, sides[0], sides[1]);
    if json {
        print_exactly(as_json(&asked, &found, shape_b, &first, &second))?;
    } else {
        note(format!("{} {}: {} and {}", asked.table, asked.given, first, second));
        let set_by = |column: &str| match &b {
            Found::Row(row) => now.blame(row.row).and_then(|blame| blame.setter(column)),
            Found::Absent(_) => None,
        };
        let set_by = |column: &str| {
            let setter = set_by(column)?;
            let number = setter.version.map(|number| format!("v{number} ")).unwrap_or_default();
            let who = setter.actor_id.as_deref().map(|id| asked.actors.shown(id)).unwrap_or_default();
            Some(format!("{number}{who}"))
        };
        show(&asked, &found, (shape_a, shape_b), set_by)?;
    }
    let differs = exit_code && !found.is_same();
    Ok(asked.close(if differs { ExitCode::from(code::FINDINGS) } else { ExitCode::SUCCESS }))
}

fn show(
    asked: &Asked<'_>,
    found: &Diff,
    (shape_a, shape_b): (u32, u32),
    set_by: impl Fn(&str) -> Option<String>,
) -> Result<(), CliError> {
    let mut lines: Vec<(&str, String, String)> = Vec::new();
    for change in &found.changes {
        let old = shown(&asked.facts, shape_a, &change.column, &change.old);
        let new = shown(&asked.facts, shape_b, &change.column, &change.new);
        lines.push((&change.column, format!("{old} → {new}"), set_by(&change.column).unwrap_or_default()));
    }
    let same =
        |(column, known): (&'_ String, &Known)| format!("{} (same)", shown(&asked.facts, shape_b, column, known));
    lines.extend(found.same.iter().map(|(column, known)| (column.as_str(), same((column, known)), String::new())));
    lines.extend(found.unknown.iter().map(|(column, why)| (column.as_str(), format!("?  {why}"), String::new())));
    lines.sort_by_cached_key(|(column, ..)| asked.facts.place(column));
    let mut rows = table(&["column", "then → now", "by"]);
    lines.into_iter().for_each(|(column, what, by)| {
        rows.add_row([asked.called(shape_b, column).as_ref(), what.as_str(), by.as_str()])
    });
    rows.print()
}

fn as_json(asked: &Asked<'_>, found: &Diff, schema_version: u32, a: &str, b: &str) -> String {
    let called = |column: &str| asked.called(schema_version, column).into_owned();
    let mut changes: Vec<(&str, String)> = found
        .changes
        .iter()
        .filter_map(|change| {
            Some((change.column.as_str(), format!("[{},{}]", change.old.value()?, change.new.value()?)))
        })
        .collect();
    changes.sort_by_cached_key(|(column, _)| asked.facts.place(column));
    let changes: Vec<(String, String)> = changes.into_iter().map(|(column, sides)| (called(column), sides)).collect();
    let mut same: Vec<&String> = found.same.keys().collect();
    same.sort_by_cached_key(|column| asked.facts.place(column));
    let same: Vec<String> = same.into_iter().map(|column| called(column)).collect();
    let unknown: serde_json::Map<String, Value> =
        found.unknown.iter().map(|(column, why)| (called(column), why.name().into())).collect();
    object([
        ("a", json!(a).to_string().as_str()),
        ("b", json!(b).to_string().as_str()),
        ("changes", object(changes.iter().map(|(column, sides)| (column.as_str(), sides.as_str()))).as_str()),
        ("same", json!(same).to_string().as_str()),
        ("unknown", Value::Object(unknown).to_string().as_str()),
    ])
}
