//! `cdc-audit rollback`.

use std::process::ExitCode;

use audit_core::position::{Micros, Position};
use audit_core::stored::Record;
use audit_history::question::point::Point;
use audit_history::question::time::Clock;
use audit_history::question::zone::zone;
use audit_history::row::Version;
use audit_history::transaction::Which;
use audit_undo::{Cell, Change, Net, Refusal, fold};

use crate::cli::subject::{self, KeyOf};
use crate::cli::undo::{How, Question, Task};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::argument;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit rollback public.orders 7 --to v1 --as postgres://ann@db.internal/shop --actor ann --reason \"wrong order\"\n  \
    cdc-audit rollback orders 7 --to \"2026-01-15 12:00\" --as postgres://ann@db.internal/shop --actor ann --reason \"claim 4711\" --yes\n\n\
    Without --yes it is tried, shown and rolled back, as by `undo`.\n\nExit codes: 0 put back, or tried; 8 no such row or version; 11 \
    refused; nothing was written."
)]
pub struct Args {
    /// `schema.table`; the schema may be left out where there is only one table of that name.
    table: String,
    /// The row's key: of one column its text, of more a JSON array in key order. `-`: a line of standard input.
    key: String,
    /// The point to go back to: v3, v-1, a time in UTC, a position, "before POSITION", "before xid:7311".
    #[arg(long, value_name = "POINT")]
    to: String,
    #[command(flatten)]
    how: How,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    if args.how.with_later {
        let error = CliError::new("a rollback goes back over all later versions of its row anyway");
        let hint = "leave out --with-later; `undo --with-later` undoes rows that belong to it too";
        return Err(error.hint(hint.to_owned()).code(code::USAGE));
    }
    let clock =
        Clock { now: Micros::now(), zone: zone("UTC").map_err(|error| CliError::of(&error).hint(error.hint()))? };
    let point =
        Point::read(&args.to, &clock).map_err(|error| CliError::of(&error).hint(error.hint()).code(code::USAGE))?;
    let question = args.how.ask(config, "rollback").await?;
    let table = subject::table(config, &question.store, &args.table).await?;
    let key = KeyOf::table(config, &question.store, &table).await?.stored(&argument(args.key)?)?;
    let mut records = question.history(&table, &key).await?;
    if records.is_empty() {
        return Err(CliError::new(format!("there are no versions of {table} {key}")).code(code::NOT_FOUND));
    }
    let at = position(&question, point, (&table, &key), &records).await?;
    keep_changes(&mut records, at);
    let again = if args.how.force { Vec::new() } else { used_again(&records) };
    let task = Task::new(args.how, question, records).await?.after(at);
    task.run(config, false, |changes| Ok(vec![net(changes, at, &key, &again)?])).await
}

/// The last position that belongs to the point.
async fn position(
    question: &Question,
    point: Point,
    (table, key): (&str, &str),
    records: &[Record],
) -> Result<Position, CliError> {
    let not_there = || CliError::new("the row has no such version").code(code::NOT_FOUND);
    match point {
        Point::Now => Err(CliError::new("the row is now what it is now").code(code::USAGE)),
        Point::Version(_) | Point::Back(_) => {
            numbered(&question.row(table, key, &[]).await?, point).ok_or_else(not_there)
        }
        Point::At(position) => Ok(position),
        Point::Before(position) => Ok(before(position)),
        Point::BeforeXid(xid) => {
            let commit = question.transaction(Which::Xid(xid)).await?;
            let first = commit.first().ok_or_else(|| question.has_no_version())?;
            Ok(before(Position { seq: 0, ..first.position }))
        }
        // ⚠ Commit times are not in commit order: all before the first version that was committed later.
        Point::Time(time) => match records.iter().find(|record| record.committed_at > time) {
            Some(record) => Ok(before(Position { seq: 0, ..record.position })),
            None => Err(CliError::new("the row was not changed since").code(code::NOT_FOUND)),
        },
    }
}

/// The version with a number, of the row that had the key last.
fn numbered(versions: &[Version], point: Point) -> Option<Position> {
    let row = versions.iter().map(|version| version.row).max()?;
    let mut of_row = versions.iter().filter(|version| version.row == row);
    let found = match point {
        Point::Version(number) => of_row.find(|version| version.number == Some(number)),
        Point::Back(back) => of_row.rev().nth(back as usize),
        _ => None,
    };
    found.map(|version| version.record.position)
}

fn before(position: Position) -> Position {
    match position.seq.checked_sub(1) {
        Some(seq) => Position { seq, ..position },
        None => Position {
            seq: u32::MAX,
            commit_lsn: audit_core::position::Lsn(position.commit_lsn.0.saturating_sub(1)),
            ..position
        },
    }
}

/// A snapshot says what the row was, as if it had been made then; a later one says nothing new. A TRUNCATE removed the row
/// that was there, without saying what it was.
fn keep_changes(records: &mut Vec<Record>, at: Position) {
    records.retain(|record| record.event != "snapshot" || record.position <= at);
    for record in records.iter_mut().filter(|record| record.event == "snapshot") {
        record.event = "created".to_owned();
    }
    for place in 1..records.len() {
        if records[place].event == "truncated" {
            let key = records[place - 1].key.clone();
            let record = &mut records[place];
            (record.event, record.key, record.before_known) = ("deleted".to_owned(), key, false);
        }
    }
    // A row of which only the TRUNCATE is known has nothing to go back to.
    records.retain(|record| record.event != "truncated");
}

/// What happened to the row after the point.
fn net(changes: &[Change], at: Position, key: &str, again: &[Position]) -> Result<Net, Refusal> {
    let split = changes.partition_point(|change| change.position <= at);
    let (past, later) = changes.split_at(split);
    if let Some(other) = again.iter().find(|made| **made > at) {
        return Err(Refusal::new(format!("the row was removed, and another one was made with its key at {other}"))
            .hint("--force makes the row that has the key now what the other one was"));
    }
    let nets = fold(later);
    let is_now = |net: &&Net| net.after.as_deref() == Some(key);
    let was = |net: &&Net| net.after.is_none() && net.before.as_deref() == Some(key);
    let found = nets
        .iter()
        .find(is_now)
        .or_else(|| nets.iter().find(was))
        .or_else(|| nets.iter().find(|net| net.before.as_deref() == Some(key)));
    let mut net = found.cloned().ok_or_else(|| Refusal::new("the row is what it was at that point"))?;
    know(&mut net, past);
    Ok(net)
}

/// Where a key was used again after its row was removed: by a later transaction, and not by an undo of the removal.
fn used_again(records: &[Record]) -> Vec<Position> {
    let is_other = |pair: &&[Record]| {
        let undone = pair[1].context.as_ref().is_some_and(|context| context.get().contains("\"undo_of"));
        let events = (pair[0].event.as_str(), pair[1].event.as_str());
        events == ("deleted", "created") && pair[0].commit_lsn != pair[1].commit_lsn && !undone
    };
    records.windows(2).filter(is_other).map(|pair| pair[1].position).collect()
}

/// The values that the row had at the point, as its last version until then recorded them.
fn know(net: &mut Net, past: &[Change]) {
    let Some(before) = net.before.clone() else { return };
    let Some(last) = past.iter().rev().find(|change| change.table == net.table && change.key == before) else { return };
    for (name, (old, _)) in &mut net.columns {
        if let (Cell::Unknown(_), Some((_, known @ Cell::Known(_)))) = (&*old, last.columns.get(name)) {
            *old = known.clone();
        }
    }
}
