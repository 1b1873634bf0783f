//! `diff --since`: what became of the rows of a table between two points.

use std::process::ExitCode;

use audit_core::json::object;
use audit_core::position::Position;
use audit_history::row::{Diff, Known, State};
use audit_history::rows::{Change, TableAt};
use serde_json::{Map, Value, json};

use super::Args;
use crate::cli::row::shown;
use crate::cli::{as_of, point, subject};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{note, print_exactly, table};

/// Number of rows that are shown to people without `--limit`.
const SHOWN: u64 = 100;

/// How many rows there are of each kind.
#[derive(Default)]
struct Counts {
    added: u64,
    removed: u64,
    changed: u64,
    unknown: u64,
}

/// What became of a row, as it is told.
struct Line {
    key: String,
    what: &'static str,
    /// Old and new values as JSON texts, in the table's order.
    changes: Vec<(String, String, String)>,
    unknown: Vec<(String, &'static str)>,
}

pub async fn run(args: &Args, since: &str, config: &Config) -> Result<ExitCode, CliError> {
    let (store, clock) = args.source.open(config).await?;
    let source = &config.source.name;
    let name = subject::table(config, &store, &args.table).await?;
    let (from, to) = (point::read(since, &clock)?, point::read(args.until.as_deref().unwrap_or("now"), &clock)?);
    let from = point::before(&store, source, &from, &clock).await?;
    let to = point::before(&store, source, &to, &clock).await?;
    if to < from {
        return Err(CliError::new("--since is after --until").code(code::USAGE));
    }
    let place = |position: Position| position.previous().unwrap_or_default();
    note(format!("{name}: position {} and {}", place(from), place(to)));
    let mut counts = Counts::default();
    let mut rows = table(&["row", "what", "columns"]);
    let (is_table, mut told) = (!args.source.json && !args.stat, 0_u64);
    let limit = args.limit.unwrap_or(if is_table { SHOWN } else { u64::MAX });
    for (tenant, at) in as_of::tables(&store, (source, &config.rules()), &[name], to, args.memory).await? {
        let mut changes = at.changes(from);
        while let Some(change) = changes.next().await? {
            let line = Line::of(&at, change);
            counts.count(line.what);
            told += 1;
            if args.stat || told > limit {
                continue;
            }
            match is_table {
                true => rows.add_row([line.key.clone(), line.what.to_owned(), line.columns(&at)]),
                false => print_exactly(line.json(&at, tenant.as_deref()))?,
            }
        }
    }
    if is_table && told > 0 {
        rows.print()?;
    }
    counts.tell(args)?;
    if told > limit && !args.stat {
        note(format!("{limit} of {told} rows are shown: --limit shows more"));
    }
    let differs = args.exit_code && told > 0;
    let code = if differs { ExitCode::from(code::FINDINGS) } else { ExitCode::SUCCESS };
    Ok(args.source.strict.close(&store.coverage(source).await?.up_to(place(to)), code))
}

impl Counts {
    fn count(&mut self, what: &str) {
        match what {
            "added" => self.added += 1,
            "removed" => self.removed += 1,
            "changed" => self.changed += 1,
            _ => self.unknown += 1,
        }
    }

    fn tell(&self, args: &Args) -> Result<(), CliError> {
        let Counts { added, removed, changed, unknown } = self;
        let doubt = if *unknown > 0 { format!(", {unknown} not known") } else { String::new() };
        let text = format!("rows: {added} added, {removed} removed, {changed} changed{doubt}");
        match (args.stat, args.source.json) {
            (true, true) => {
                print_exactly(json!({"added": added, "removed": removed, "changed": changed, "unknown": unknown}))
            }
            (true, false) => print_exactly(text),
            (false, _) => {
                note(text);
                Ok(())
            }
        }
    }
}

impl Line {
    fn of(table: &TableAt, change: Change) -> Line {
        let line = |key: String, what, changes, unknown| Line { key, what, changes, unknown };
        match change {
            Change::Added(row) => line(row.key, "added", sides(table, &row.standing.state, false), Vec::new()),
            Change::Removed { key, was } => {
                let changes = was.map_or_else(Vec::new, |was| sides(table, &was.state, true));
                line(key, "removed", changes, Vec::new())
            }
            Change::Changed { row, diff } => {
                let what = if diff.changes.is_empty() { "unknown" } else { "changed" };
                let (changes, unknown) = compared(table, diff);
                line(row.key, what, changes, unknown)
            }
            Change::Unseen(row) => {
                let columns = row.standing.state.keys().map(|column| (column.clone(), "first"));
                line(row.key, "unknown", Vec::new(), columns.collect())
            }
        }
    }

    /// `state open → paid, total ?`.
    fn columns(&self, table: &TableAt) -> String {
        let version = table.facts.shape_at(table.at()).map_or(0, |shape| shape.schema_version);
        let side = |column: &str, json: &str| shown(&table.facts, version, column, &Known::Stated(json.into()));
        let changes = self.changes.iter().map(|(column, old, new)| match self.what {
            "changed" => format!("{column} {} → {}", side(column, old), side(column, new)),
            "removed" => format!("{column} {}", side(column, old)),
            _ => format!("{column} {}", side(column, new)),
        });
        let unknown = self.unknown.iter().map(|(column, _)| format!("{column} ?"));
        changes.chain(unknown).collect::<Vec<_>>().join(", ")
    }

    fn json(&self, table: &TableAt, tenant: Option<&str>) -> String {
        let sides: Vec<(&str, String)> =
            self.changes.iter().map(|(column, old, new)| (column.as_str(), format!("[{old},{new}]"))).collect();
        let unknown: Map<String, Value> =
            self.unknown.iter().map(|(column, why)| (column.clone(), Value::from(*why))).collect();
        let members = [
            ("table_name", json!(table.name()).to_string()),
            ("tenant", json!(tenant).to_string()),
            ("key", json!(self.key).to_string()),
            ("what", json!(self.what).to_string()),
            ("changes", object(sides.iter().map(|(column, sides)| (*column, sides.as_str())))),
            ("unknown", Value::Object(unknown).to_string()),
        ];
        let shown = members.iter().filter(|(name, _)| *name != "tenant" || tenant.is_some());
        object(shown.map(|(name, json)| (*name, json.as_str())))
    }
}

/// The values of a row that is there at one point only.
fn sides(table: &TableAt, state: &State, old: bool) -> Vec<(String, String, String)> {
    let known = state.iter().filter_map(|(column, known)| Some((column.clone(), known.value()?.to_owned())));
    let null = || Known::NULL.to_owned();
    let mut sides: Vec<(String, String, String)> =
        known.map(|(column, value)| if old { (column, value, null()) } else { (column, null(), value) }).collect();
    sides.sort_by_cached_key(|(column, ..)| table.facts.place(column));
    sides
}

type Compared = (Vec<(String, String, String)>, Vec<(String, &'static str)>);

fn compared(table: &TableAt, diff: Diff) -> Compared {
    let value = |known: &Known| known.value().unwrap_or(Known::NULL).to_owned();
    let mut changes: Vec<(String, String, String)> =
        diff.changes.into_iter().map(|change| (change.column, value(&change.old), value(&change.new))).collect();
    changes.sort_by_cached_key(|(column, ..)| table.facts.place(column));
    (changes, diff.unknown.into_iter().map(|(column, why)| (column, why.name())).collect())
}
