//! `cdc-audit undo`.

use std::process::ExitCode;

use audit_core::position::Position;
use audit_core::search::Commit;
use audit_core::stored::Record;
use audit_history::transaction::Which;
use audit_undo::fold;

use self::span::is_filter;
use crate::cli::subject::{self, KeyOf};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::argument;

mod derive;
mod later;
mod operator;
mod question;
mod show;
mod span;
mod task;
mod wait;

pub use self::operator::How;
pub use self::question::Question;
pub use self::task::Task;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit undo public.orders 7 v2 --as postgres://ann@db.internal/shop --actor ann --reason \"wrong order\"\n  \
    cdc-audit undo xid:7311 --as postgres://ann@db.internal/shop --actor ann --reason \"import of the wrong file\" --yes\n  \
    cdc-audit undo 0001:0000000016b37430:0000000002 --as postgres://ann@db.internal/shop --actor ann --reason typo --fields state\n  \
    cdc-audit undo actor:31 since:09:00 --keep-later --as postgres://ann@db.internal/shop --actor ann --reason \"stolen password\"\n\n\
    A row that was changed later is in the way, unless one of these is given: --keep-later leaves it as it is, --with-later undoes what was \
    done later too, --force overwrites it.\n\n\
    Without --yes it is tried: everything runs on the source, constraints and triggers too, is shown and rolled back. Sequences that were \
    used stay used, and what triggers do outside of the database is done.\n\nExit codes: 0 put back, or tried; 8 no such version; 11 refused: \
    a row was changed later, a constraint or a trigger is in the way; nothing was written."
)]
pub struct Args {
    /// TABLE KEY v2 [v3 …]; or positions; or `xid:7311`, or `tx POSITION`, for all that one transaction changed; or filters as
    /// of `search`: `actor:31 since:09:00 until:10:00`.
    #[arg(required = true, value_name = "WHAT")]
    what: Vec<String>,
    /// Of a transaction or a span, only this table; several times for several.
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// What is undone.
enum What {
    Row {
        table: String,
        key: String,
        versions: Vec<u32>,
    },
    Positions(Vec<Position>),
    Transaction(Which),
    /// What filters name.
    Span(Vec<String>),
}

/// More positions are not named one by one.
const POSITIONS: usize = 100;

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let what = what(&args.what)?;
    let question = args.how.ask(config, "undo").await?;
    let whole = matches!(what, What::Transaction(_)) && !args.how.with_later;
    let records = match what {
        What::Row { table, key, versions } => of_row(config, &question, &table, &key, &versions).await?,
        What::Positions(positions) => of_positions(&question, &positions).await?,
        What::Transaction(which) => of_transaction(config, &question, which, &args.tables).await?,
        What::Span(words) => {
            let mut tables = named(config, &question, &args.tables).await?;
            if tables.is_empty() {
                tables = question.store.tables(&question.source).await?;
            }
            question.span(&words, tables, config).await?
        }
    };
    let with_later = args.how.with_later;
    let mut task = Task::new(args.how, question, records).await?;
    if with_later {
        task = task.with_later(config).await?;
    }
    task.run(config, whole, |changes| Ok(fold(changes))).await
}

fn what(words: &[String]) -> Result<What, CliError> {
    let usage = |what: &str| {
        CliError::new(what)
            .hint("give TABLE KEY v2, a position, xid:7311, tx POSITION, or actor:31 since:09:00".to_owned())
            .code(code::USAGE)
    };
    let of = |position: Position| Which::Of(Commit::of(position));
    let transaction = |word: &str| match word.strip_prefix("xid:") {
        Some(number) => number.parse().map(Which::Xid).map_err(|_| usage("xid: wants the number of a transaction")),
        None => word.parse().map(of).map_err(|_| usage("tx wants a position or xid:NUMBER")),
    };
    let positions: Result<Vec<Position>, _> = words.iter().map(|word| word.parse()).collect();
    match words {
        [word] if word.starts_with("xid:") => Ok(What::Transaction(transaction(word)?)),
        [tx, word] if tx == "tx" => Ok(What::Transaction(transaction(word)?)),
        words if positions.is_err() && words.iter().all(|word| is_filter(word)) => Ok(What::Span(words.to_vec())),
        words if words.len() > POSITIONS => Err(usage("too many versions at once")),
        [table, key, versions @ ..] if positions.is_err() && !versions.is_empty() => {
            let number =
                |word: &String| word.strip_prefix('v').and_then(|number| number.parse().ok()).filter(|n| *n > 0);
            let versions = versions.iter().map(number).collect::<Option<Vec<u32>>>();
            let versions = versions.ok_or_else(|| usage("versions of a row are called v1, v2 and so on"))?;
            Ok(What::Row { table: table.clone(), key: argument(key.clone())?, versions })
        }
        _ => positions.map(What::Positions).map_err(|_| usage("it is not clear what to undo")),
    }
}

async fn of_row(
    config: &Config,
    question: &Question,
    table: &str,
    key: &str,
    versions: &[u32],
) -> Result<Vec<Record>, CliError> {
    let table = subject::table(config, &question.store, table).await?;
    let key = KeyOf::table(config, &question.store, &table).await?.stored(key)?;
    let all = question.row(&table, &key, &[]).await?;
    // The row that had the key last, where several had it.
    let row = all.iter().map(|version| version.row).max().unwrap_or_default();
    let of_row = || all.iter().filter(|version| version.row == row);
    let mut found = Vec::new();
    for number in versions {
        let version = of_row().find(|version| version.number == Some(*number)).ok_or_else(|| {
            let count = of_row().count();
            CliError::new(format!("{table} {key} has no version v{number}, but {count}")).code(code::NOT_FOUND)
        })?;
        found.push(version.record.clone());
    }
    found.sort_by_key(|record| record.position);
    Ok(found)
}

async fn of_positions(question: &Question, positions: &[Position]) -> Result<Vec<Record>, CliError> {
    let mut found: Vec<Record> = Vec::new();
    for position in positions {
        let transaction = question.transaction(Which::Of(Commit::of(*position))).await?;
        let record = transaction.into_iter().find(|record| record.position == *position);
        found.push(
            record.ok_or_else(|| CliError::new(format!("there is no version at {position}")).code(code::NOT_FOUND))?,
        );
    }
    found.sort_by_key(|record| record.position);
    found.dedup_by_key(|record| record.position);
    Ok(found)
}

/// The whole names of tables.
async fn named(config: &Config, question: &Question, tables: &[String]) -> Result<Vec<String>, CliError> {
    let mut named = Vec::new();
    for table in tables {
        named.push(subject::table(config, &question.store, table).await?);
    }
    Ok(named)
}

async fn of_transaction(
    config: &Config,
    question: &Question,
    which: Which,
    tables: &[String],
) -> Result<Vec<Record>, CliError> {
    let only = named(config, question, tables).await?;
    let mut records = question.transaction(which).await?;
    let mut commits: Vec<Commit> = records.iter().map(|record| Commit::of(record.position)).collect();
    commits.dedup();
    if commits.len() > 1 {
        let commits: Vec<String> = commits.iter().map(|commit| format!("tx {}", commit.bounds().0)).collect();
        return Err(CliError::new("several transactions had this number").hint(commits.join(", ")).code(code::USAGE));
    }
    let before = records.len();
    records.retain(|record| only.is_empty() || only.contains(&record.table_name));
    if records.is_empty() {
        return Err(question.has_no_version());
    }
    if records.len() < before {
        eprintln!("{} versions of other tables in this transaction are not undone", before - records.len());
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        match what(&words) {
            Ok(What::Row { table, key, versions }) => format!("{table} {key} {versions:?}"),
            Ok(What::Positions(positions)) => format!("{} positions", positions.len()),
            Ok(What::Transaction(which)) => format!("{which:?}"),
            Ok(What::Span(words)) => format!("{} filters", words.len()),
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn versions_positions_and_transactions_are_told_apart() {
        const AT: &str = "0001:0000000016b37430:0000000002";
        assert_eq!(read(&["orders", "7", "v2", "v3"]), "orders 7 [2, 3]");
        assert_eq!(read(&[AT]), "1 positions");
        assert_eq!(read(&[AT, AT, AT]), "3 positions");
        assert_eq!(read(&["actor:31", "since:2 days ago"]), "2 filters");
        assert_eq!(read(&["xid:7"]), "Xid(7)");
        assert!(read(&["tx", AT]).starts_with("Of("));
        for wrong in [&["orders", "7"][..], &["orders"], &["orders", "7", "v0"], &["xid:x"], &["tx", "7"]] {
            assert!(read(wrong).starts_with("error:"), "{wrong:?}");
        }
    }
}
