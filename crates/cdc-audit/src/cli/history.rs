//! `cdc-audit history`.

mod fields;
mod lines;

use std::process::ExitCode;

use audit_core::json::object;
use audit_core::position::{Position, Window};
use audit_history::row::{Found, Then, Told, Undone, Version};
use serde_json::json;

use super::row::{Asked, RowArgs};
use crate::access::{Purpose, report, revealer};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{note, print_exactly, print_json};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit history orders 42\n  cdc-audit history order_items 42,3      a key of two columns\n  \
    cdc-audit history orders 42 --field state --to paid,refunded\n  \
    cdc-audit history orders 42 --field state --changed-within 90d      exit code 0 or 8\n  \
    cdc-audit history orders 42 --net      without what was undone\n  cdc-audit history orders 42 --from archive --json\n  \
    cdc-audit history users 42 --decrypt --purpose \"claim 4711\"\n\n\
    Exit codes: 0 shown, 8 --changed-within found no change, 9 it cannot tell, or --strict and something is missing."
)]
pub struct Args {
    #[command(flatten)]
    row: RowArgs,
    /// At most so many versions, the newest.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Only versions before this position: the next page, after the oldest version of the last one.
    #[arg(long, value_name = "POSITION")]
    before: Option<Position>,
    /// Only versions at or before this position: the head of the first page, so that new versions do not shift pages.
    #[arg(long, value_name = "POSITION")]
    head: Option<Position>,
    /// One JSON object: `items`, `next` for --before, `head` for --head, and `coverage`: what the answer covers.
    #[arg(long, conflicts_with_all = ["json", "field", "diff", "shape", "with_row"])]
    page: bool,
    /// Only changes of these columns.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    field: Vec<String>,
    /// Only changes to one of these values; `null` is NULL.
    #[arg(long, value_name = "VALUE", value_delimiter = ',', requires = "field")]
    to: Vec<String>,
    /// Say by the exit code whether there was such a change in that time: `90d`, or since a time.
    #[arg(long, value_name = "TIME")]
    changed_within: Option<String>,
    /// Old and new values on lines of their own.
    #[arg(long, conflicts_with_all = ["json", "field", "shape"])]
    diff: bool,
    /// `trail`: one JSON list with event, changes, time, actor and reason of each version.
    #[arg(long, value_name = "SHAPE")]
    shape: Option<Shape>,
    /// The row as it is now, with its trail inside, as JSON.
    #[arg(long, conflicts_with_all = ["diff", "field"])]
    with_row: bool,
    /// Also updates that are known to have changed nothing.
    #[arg(long)]
    all: bool,
    /// Without what an undo has put back, and without that undo.
    #[arg(long)]
    net: bool,
    /// Columns under the names that they had then.
    #[arg(long)]
    raw: bool,
    /// Show encrypted values in plain; each is written to the access log first.
    #[arg(long)]
    decrypt: bool,
    #[command(flatten)]
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shape {
    Trail,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let Args { row, limit, before, head, page, .. } = args;
    let Args { field, to, changed_within, diff, shape, with_row, all, net, raw, decrypt, purpose, .. } = args;
    let json = row.source.json;
    let mut revealer = match decrypt {
        true => Some(revealer((&purpose, &row.source.reader), config, "history", u64::MAX).await?),
        false => None,
    };
    let asked = Asked::read(row, config).await?;
    field.iter().try_for_each(|field| asked.has_column(field))?;
    let then = asked.then(None);
    let wanted = Wanted { fields: &field, to: &to, all };
    if let Some(within) = changed_within {
        return changed(&asked, &then, &wanted, &within).map(|code| asked.close(code));
    }
    let window = Window { from: None, to: before.into_iter().chain(head.map(Position::next)).min() };
    let undone = Undone::of(&then.versions);
    let is_hidden = |at: Position| net && undone.hides(at);
    let is_asked = |version: &&Version| {
        let at = version.record.position;
        window.holds(at) && !is_hidden(at) && wanted.has(version)
    };
    let mut versions: Vec<Version> = then.versions.iter().rev().filter(is_asked).take(limit).cloned().collect();
    if let Some(revealer) = &mut revealer {
        for version in &mut versions {
            let plain = revealer.record(version.record.clone()).await?;
            *version = version.clone().revealed(&asked.facts, plain);
        }
    }
    let coverage = head.map_or_else(|| asked.coverage.clone(), |head| asked.coverage.clone().up_to(head));
    let next = versions.last().filter(|_| versions.len() == limit).map(|oldest| oldest.record.position);
    match (json, shape.is_some() || with_row, field.is_empty()) {
        _ if page => {
            let items: Vec<Told> =
                versions.iter().map(|version| Told::of(&asked.facts, version, &undone, raw)).collect();
            print_json(&json!({ "items": items, "next": next, "head": coverage.head, "coverage": coverage }))?;
        }
        (_, true, _) => print_exactly(trail(&asked, &then, (&versions, &undone), with_row, raw))?,
        (true, _, true) => {
            let told = |version| print_json(&Told::of(&asked.facts, version, &undone, raw));
            versions.iter().try_for_each(told)?;
        }
        (_, _, false) => fields::show(&asked, &versions, &wanted, json)?,
        (false, _, true) if diff => lines::diff(&asked, &versions)?,
        (false, _, true) => lines::show(&asked, &versions, &undone, raw)?,
    }
    if let Some((next, head)) = next.zip(coverage.head).filter(|_| !json && !page) {
        note(format!("The newest {limit}; older ones with --limit, or with --before {next} --head {head}."));
    }
    revealer.as_ref().map_or(Ok(()), report)?;
    let code = asked.strict.close(&coverage, ExitCode::SUCCESS);
    asked.explain();
    Ok(code)
}

/// Which versions are wanted.
struct Wanted<'a> {
    fields: &'a [String],
    to: &'a [String],
    all: bool,
}

impl Wanted<'_> {
    fn has(&self, version: &Version) -> bool {
        match self.fields.is_empty() {
            true => self.all || !version.is_nothing(),
            false => fields::entries(version, self).next().is_some(),
        }
    }
}

/// Whether there was a change after a time. ⚠ A version of which it is not known whether it changed the column is
/// neither yes nor no.
fn changed(asked: &Asked, then: &Then<'_>, wanted: &Wanted<'_>, within: &str) -> Result<ExitCode, CliError> {
    let refused =
        |error: audit_history::question::time::NotATime| CliError::of(&error).hint(error.hint()).code(code::USAGE);
    let since = asked.clock.time(within).map_err(refused)?;
    let recent = || then.versions.iter().filter(|version| version.record.committed_at >= since);
    let certain = |version: &&Version| match wanted.fields.is_empty() {
        true => !version.is_nothing() && (!version.is_update() || !version.changes.is_empty()),
        false => fields::entries(version, wanted).any(|entry| entry.is_certain()),
    };
    let row = format!("{} {}", asked.table, asked.given);
    if let Some(version) = recent().rfind(certain) {
        note(format!("{row} changed at {} {}", asked.time(version.record.committed_at), asked.zone()));
        return Ok(ExitCode::SUCCESS);
    }
    match recent().find(|version| wanted.has(version)) {
        Some(version) => Err(CliError::new(format!("{row}: what changed at {} is not known", version.record.position))
            .hint("cdc-audit history shows why".to_owned())
            .code(code::INCOMPLETE)),
        None => {
            note(format!("{row} has not changed since {} {}", asked.time(since), asked.zone()));
            Ok(ExitCode::from(code::NOT_FOUND))
        }
    }
}

/// `[{event, changes, at, by, reason}]`, or the row with that inside.
fn trail(
    asked: &Asked,
    then: &Then<'_>,
    (versions, undone): (&[Version], &Undone),
    with_row: bool,
    raw: bool,
) -> String {
    let entry = |version: &Version| {
        let record = Told::of(&asked.facts, version, undone, raw).record;
        object([
            ("event", serde_json::Value::from(record.event).to_string().as_str()),
            ("changes", record.changes.as_deref().map_or("null", |json| json.get())),
            ("at", serde_json::Value::from(record.committed_at.to_string()).to_string().as_str()),
            ("by", serde_json::Value::from(record.actor_id).to_string().as_str()),
            ("reason", serde_json::Value::from(record.reason).to_string().as_str()),
        ])
    };
    let trail = format!("[{}]", versions.iter().map(entry).collect::<Vec<_>>().join(","));
    if !with_row {
        return trail;
    }
    let state = match then.row(&asked.key) {
        Found::Row(standing) => standing.state,
        Found::Absent(_) => Default::default(),
    };
    let columns = asked.in_order(&state);
    let known = columns.iter().filter_map(|(column, known)| Some((column.as_str(), known.value()?)));
    object(known.chain([("audit_trail", trail.as_str())]))
}
