//! `cdc-audit show`.

use std::process::ExitCode;

use audit_core::json::{object, unquote};
use audit_history::row::{Absent, Found, Known, Standing, Then, knowledge};
use serde_json::{Value, json};

use super::row::{Asked, RowArgs, absent_name, ended, shown};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{note, on_terminal, print, print_exactly, table};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit show orders 42\n  cdc-audit show orders 42 --as-of '2026-01-15 12:00'\n  \
    cdc-audit show orders 42 --as-of v1 --field state      the bare value, for scripts\n  \
    cdc-audit show orders 42 --check      whether what is derived agrees with what later snapshots say\n\n\
    Exit codes: 0 shown, 8 the row was not there, or the value of --field is not known, 9 --strict and something may be missing, 10 --check found a difference."
)]
pub struct Args {
    #[command(flatten)]
    row: RowArgs,
    /// The row as it was then: a time, `v3` (after its third version), `v-1` (before its newest), a position, "before POSITION", "before xid:N".
    #[arg(long, value_name = "POINT")]
    as_of: Option<String>,
    /// Print the value of this column and nothing else.
    #[arg(long, value_name = "COLUMN")]
    field: Option<String>,
    /// Compare the values that are derived with what snapshots in the row's trail say.
    #[arg(long, conflicts_with = "field")]
    check: bool,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let json = args.row.source.json;
    let asked = Asked::read(args.row, config).await?;
    if let Some(field) = &args.field {
        asked.has_column(field)?;
    }
    let then = asked.then(asked.until(args.as_of.as_deref()).await?);
    if args.check {
        return check(&asked, &then, json).map(|code| asked.close(code));
    }
    match (then.row(&asked.key), &args.field) {
        (Found::Absent(absent), _) if json => {
            print_exactly(absent_json(&asked, &then, &absent, args.as_of.as_deref()))?;
            return Ok(asked.close(ExitCode::from(code::NOT_FOUND)));
        }
        (Found::Absent(absent), _) => return Err(asked.absent(&then, &absent)),
        (Found::Row(row), Some(field)) => value(&asked, &row, field, json)?,
        (Found::Row(row), None) if json => print_exactly(row_json(&asked, &then, &row, args.as_of.as_deref()))?,
        (Found::Row(row), None) => show(&asked, &then, &row)?,
    }
    Ok(asked.close(ExitCode::SUCCESS))
}

fn show(asked: &Asked, then: &Then<'_>, row: &Standing) -> Result<(), CliError> {
    note(heading(asked, then, row));
    let mut rows = table(&["column", "value", "set by"]);
    for (column, known) in asked.in_order(&row.state) {
        let value = shown(&asked.facts, row.schema_version, column, known);
        rows.add_row([column.clone(), value, set_by(asked, then, row, column, known)]);
    }
    for column in asked.facts.untracked(row.schema_version) {
        rows.add_row([column, "not tracked".to_owned(), String::new()]);
    }
    rows.print()
}

/// `public.orders 7 as of position 0001:…, v1 of 3`.
fn heading(asked: &Asked, then: &Then<'_>, row: &Standing) -> String {
    let last = then.last_of(row.row);
    let version = last.and_then(|version| version.number).map(|number| format!(", v{number}")).unwrap_or_default();
    let at = last.map(|version| version.record.position).unwrap_or(then.at);
    let time = last.map(|version| asked.time(version.record.committed_at)).unwrap_or_default();
    let key = then.key_of(row.row).filter(|key| **key != asked.key);
    let key = key.map(|key| format!("; its key is {key} now")).unwrap_or_default();
    let of = if row.row > 1 { format!(" (row {} of this key)", row.row) } else { String::new() };
    format!("{} {}{of} as of {time} {} (position {at}{version}){key}", asked.table, asked.given, asked.zone())
}

/// `31, 2026-01-15 09:00:00`; of a value that is not known, nothing.
fn set_by(asked: &Asked, then: &Then<'_>, row: &Standing, column: &str, known: &Known) -> String {
    let setter = then.blame(row.row).and_then(|blame| blame.setter(column)).filter(|_| known.value().is_some());
    let Some(setter) = setter else { return String::new() };
    let time = asked.time(setter.at);
    match (setter.certain, &setter.actor_id) {
        (false, _) => format!("before {time}"),
        (true, Some(actor)) => format!("{actor}, {time}"),
        (true, None) => time,
    }
}

/// One value for a script: a string without its quotes.
fn value(asked: &Asked, row: &Standing, field: &str, json: bool) -> Result<(), CliError> {
    let known = row.state.get(field);
    let why =
        known.map_or_else(|| Some("it is not tracked".to_owned()), |known| known.why().map(|why| why.to_string()));
    let value = known.and_then(Known::value).ok_or_else(|| {
        let why = why.unwrap_or_default();
        CliError::new(format!("{} {}: the value of {field} is not known: {why}", asked.table, asked.given))
            .code(code::NOT_FOUND)
    })?;
    match (json, value) {
        (true, value) => print_exactly(value),
        (false, "null") => print_exactly(""),
        (false, value) if value.starts_with('"') && on_terminal() => print(unquote(value)),
        (false, value) if value.starts_with('"') => print_exactly(unquote(value)),
        (false, value) => print_exactly(value),
    }
}

fn row_json(asked: &Asked, then: &Then<'_>, row: &Standing, as_of: Option<&str>) -> String {
    let columns = asked.in_order(&row.state);
    let values = columns.iter().filter_map(|(column, known)| Some((column.as_str(), known.value()?)));
    let told = columns.iter().filter_map(|(column, known)| {
        Some(((*column).clone(), Value::from(knowledge(&asked.facts, row.schema_version, column, known)?)))
    });
    let untracked = asked.facts.untracked(row.schema_version).into_iter().map(|column| (column, "not_tracked".into()));
    let told: serde_json::Map<String, Value> = told.chain(untracked).collect();
    let last = then.last_of(row.row);
    let version = json!(last.and_then(|version| version.number)).to_string();
    let position = json!(last.map(|version| version.record.position)).to_string();
    object([
        ("exists", "true"),
        ("row", &object(values)),
        ("knowledge", &Value::Object(told).to_string()),
        ("key", &json!(then.key_of(row.row)).to_string()),
        ("version", &version),
        ("position", &position),
        ("as_of", &json!(as_of.unwrap_or("now")).to_string()),
        ("coverage", &asked.coverage_json()),
    ])
}

fn absent_json(asked: &Asked, then: &Then<'_>, absent: &Absent, as_of: Option<&str>) -> Value {
    let end = ended(then, absent).map(|version| &version.record);
    json!({
        "exists": false,
        "why": absent_name(absent),
        "key": asked.key,
        "position": end.map(|record| record.position),
        "at": end.map(|record| record.committed_at.to_string()),
        "by": end.and_then(|record| record.actor_id.as_deref()),
        "reason": end.and_then(|record| record.reason.as_deref()),
        "as_of": as_of.unwrap_or("now"),
    })
}

/// A snapshot says what the row has, whatever was derived until there. ⚠ A difference means that a change was not
/// captured, or that the table was rewritten, and is never explained away.
fn check(asked: &Asked, then: &Then<'_>, json: bool) -> Result<ExitCode, CliError> {
    let snapshots =
        || then.versions.iter().filter(|version| version.record.event == "snapshot" && version.previous.is_some());
    let mut rows = table(&["snapshot", "column", "derived", "snapshot says"]);
    let mut differences = 0;
    for version in snapshots() {
        for change in &version.changes {
            differences += 1;
            let side = |known| shown(&asked.facts, version.record.schema_version, &change.column, known);
            let (old, new) = (side(&change.old), side(&change.new));
            if json {
                let found = json!({"position": version.record.position, "column": change.column});
                let sides = [("derived", change.old.value()), ("stated", change.new.value())];
                let sides = sides.map(|(name, value)| (name, value.unwrap_or("null")));
                let place = found["position"].to_string();
                let column = found["column"].to_string();
                print_exactly(object(
                    [("position", place.as_str()), ("column", column.as_str())].into_iter().chain(sides),
                ))?;
            } else {
                rows.add_row([version.record.position.to_string(), change.column.clone(), old, new]);
            }
        }
    }
    if differences > 0 && !json {
        rows.print()?;
    }
    note(match (snapshots().count(), differences) {
        (0, _) => "no snapshot of the row came after its first version: there is nothing to compare with".to_owned(),
        (count, 0) => format!("{count} snapshots of the row say the same as what was derived"),
        (_, found) => {
            format!("{found} values differ: changes of the row were not captured, or its table was rewritten")
        }
    });
    Ok(if differences > 0 { ExitCode::from(code::FINDINGS) } else { ExitCode::SUCCESS })
}
