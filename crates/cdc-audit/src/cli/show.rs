//! `cdc-audit show`.

mod live;

use std::process::ExitCode;

use audit_core::json::{object, unquote};
use audit_history::row::{Absent, Found, Known, Standing, Then, knowledge};
use serde_json::{Value, json};

use super::row::{Asked, RowArgs, absent_name, ended, shown, text};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{note, on_terminal, print, print_exactly, table};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit show orders 42\n  cdc-audit show orders 42 --as-of '2026-01-15 12:00'\n  \
    cdc-audit show orders 42 --as-of v1 --field state      the bare value, for scripts\n  \
    cdc-audit show orders 42 --check      whether it agrees with later snapshots and with the live row\n\n\
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
    /// Compare the values that are derived with what snapshots in the row's trail say, and the row with the live row of the source, which is
    /// read with the source's login. Protected columns are not compared.
    #[arg(long, conflicts_with_all = ["field", "as_of"])]
    check: bool,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let json = args.row.source.json;
    let asked = Asked::read(args.row, config).await?;
    let field = args.field.as_deref().map(|field| asked.column(field)).transpose()?;
    let then = asked.then(asked.until(args.as_of.as_deref()).await?);
    if args.check {
        return check(&asked, &then, config, json).await.map(|code| asked.close(code));
    }
    match (then.row(&asked.key), &field) {
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

fn show(asked: &Asked<'_>, then: &Then<'_>, row: &Standing) -> Result<(), CliError> {
    note(heading(asked, then, row));
    let mut rows = table(&["column", "value", "set by"]);
    for (column, known) in asked.in_order(&row.state) {
        let value = shown(&asked.facts, row.schema_version, column, known);
        let set_by = set_by(asked, then, row, column, known);
        rows.add_row([asked.called(row.schema_version, column).into_owned(), value, set_by]);
    }
    for column in asked.facts.untracked(row.schema_version) {
        let column = asked.called(row.schema_version, &column).into_owned();
        rows.add_row([column, "not tracked".to_owned(), String::new()]);
    }
    rows.print()
}

/// `public.orders 7 as of position 0001:…, v1 of 3`.
fn heading(asked: &Asked<'_>, then: &Then<'_>, row: &Standing) -> String {
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
fn set_by(asked: &Asked<'_>, then: &Then<'_>, row: &Standing, column: &str, known: &Known) -> String {
    let setter = then.blame(row.row).and_then(|blame| blame.setter(column)).filter(|_| known.value().is_some());
    let Some(setter) = setter else { return String::new() };
    let time = asked.time(setter.at);
    match (setter.certain, &setter.actor_id) {
        (false, _) => format!("before {time}"),
        (true, Some(actor)) => format!("{}, {time}", asked.actors.shown(actor)),
        (true, None) => time,
    }
}

/// One value for a script: a string without its quotes.
fn value(asked: &Asked<'_>, row: &Standing, field: &str, json: bool) -> Result<(), CliError> {
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

fn row_json(asked: &Asked<'_>, then: &Then<'_>, row: &Standing, as_of: Option<&str>) -> String {
    let columns = asked.in_order(&row.state);
    let called = |column: &str| asked.called(row.schema_version, column).into_owned();
    let values = columns.iter().filter_map(|(column, known)| Some((called(column), known.value()?)));
    let values: Vec<(String, &str)> = values.collect();
    let told = columns.iter().filter_map(|(column, known)| {
        Some((called(column), Value::from(knowledge(&asked.facts, row.schema_version, column, known)?)))
    });
    let untracked =
        asked.facts.untracked(row.schema_version).into_iter().map(|column| (called(&column), "not_tracked".into()));
    let told: serde_json::Map<String, Value> = told.chain(untracked).collect();
    let last = then.last_of(row.row);
    let version = json!(last.and_then(|version| version.number)).to_string();
    let position = json!(last.map(|version| version.record.position)).to_string();
    object([
        ("exists", "true"),
        ("row", &object(values.iter().map(|(column, value)| (column.as_str(), *value)))),
        ("knowledge", &Value::Object(told).to_string()),
        ("key", &json!(then.key_of(row.row)).to_string()),
        ("version", &version),
        ("position", &position),
        ("as_of", &json!(as_of.unwrap_or("now")).to_string()),
        ("coverage", &asked.coverage_json()),
    ])
}

fn absent_json(asked: &Asked<'_>, then: &Then<'_>, absent: &Absent, as_of: Option<&str>) -> Value {
    let end = ended(then, absent).map(|version| &version.record);
    json!({
        "exists": false,
        "why": absent_name(absent),
        "key": asked.key,
        "position": end.map(|record| record.position),
        "at": end.map(|record| record.committed_at.to_string()),
        "by": end.and_then(|record| record.actor_id.as_deref()),
        "actor_name": end.and_then(|record| asked.actors.name(record.actor_id.as_deref())),
        "reason": end.and_then(|record| record.reason.as_deref()),
        "as_of": as_of.unwrap_or("now"),
    })
}

/// A snapshot says what the row has, whatever was derived until there, and so does the live row. ⚠ A difference means
/// that a change was not captured, or that the table was rewritten, and is never explained away.
async fn check(asked: &Asked<'_>, then: &Then<'_>, config: &Config, json: bool) -> Result<ExitCode, CliError> {
    let (compared, lsn) = live::compared(asked, then, config).await?;
    let mut differences: Vec<Difference> = Vec::new();
    let snapshots =
        || then.versions.iter().filter(|version| version.record.event == "snapshot" && version.previous.is_some());
    for version in snapshots() {
        differences.extend(version.changes.iter().map(|change| Difference {
            place: version.record.position.to_string(),
            column: change.column.clone(),
            derived: change.old.value().unwrap_or_default().to_owned(),
            stated: change.new.value().unwrap_or_default().to_owned(),
        }));
    }
    let of_snapshots = differences.len();
    let told = told_of_live(&compared);
    if let live::Compared::Values { differing, .. } = compared {
        differences.extend(differing.into_iter().map(|live::Differing { column, trail, live }| Difference {
            place: "live".to_owned(),
            column,
            derived: trail,
            stated: live,
        }));
    }
    print_differences(&differences, json)?;
    note(match (snapshots().count(), of_snapshots) {
        (0, _) => "no snapshot of the row came after its first version: there is nothing to compare with".to_owned(),
        (count, 0) => format!("{count} snapshots of the row say the same as what was derived"),
        (_, found) => {
            format!("{found} values differ: changes of the row were not captured, or its table was rewritten")
        }
    });
    let (says, differs) = told;
    note(says);
    if let Some(head) = asked.coverage.head.filter(|head| differs && head.commit_lsn < lsn) {
        note(format!(
            "the trail ends at {head}, and the source is at {lsn}: a change in between is not in the trail yet"
        ));
    }
    Ok(if of_snapshots > 0 || differs { ExitCode::from(code::FINDINGS) } else { ExitCode::SUCCESS })
}

/// A value that is not what it should be. The values are JSON texts.
struct Difference {
    /// The snapshot's position, or `live`.
    place: String,
    column: String,
    derived: String,
    stated: String,
}

fn print_differences(differences: &[Difference], json: bool) -> Result<(), CliError> {
    let mut rows = table(&["compared with", "column", "trail", "there"]);
    for Difference { place, column, derived, stated } in differences {
        if json {
            let (place, column) = (json!(place).to_string(), json!(column).to_string());
            print_exactly(object([
                ("compared_with", place.as_str()),
                ("column", column.as_str()),
                ("trail", derived.as_str()),
                ("there", stated.as_str()),
            ]))?;
        } else {
            rows.add_row([place.as_str(), column.as_str(), &text(derived), &text(stated)]);
        }
    }
    if differences.is_empty() || json { Ok(()) } else { rows.print() }
}

/// What the comparison with the live row says, and whether it found a difference.
fn told_of_live(compared: &live::Compared) -> (String, bool) {
    match compared {
        live::Compared::Values { same, differing } if differing.is_empty() => {
            (format!("the live row of the source has the same {same} values that are known and not protected"), false)
        }
        live::Compared::Values { differing, .. } => {
            let columns: Vec<&str> = differing.iter().map(|one| one.column.as_str()).collect();
            (format!("the live row of the source differs in {}", columns.join(", ")), true)
        }
        live::Compared::OnlyLive => {
            ("the source has the row, and the trail says that it is not there".to_owned(), true)
        }
        live::Compared::OnlyInTrail => ("the source does not have the row".to_owned(), true),
        live::Compared::Nowhere => ("the source does not have the row either".to_owned(), false),
        live::Compared::No { why } => (format!("not compared with the live row: {why}"), false),
    }
}
