//! What people and scripts see of an undo.

use std::process::ExitCode;

use audit_core::stored::Record;
use audit_undo::{Conflict, Error, Estimate, Outcome, Report, Resolved, Trail};
use serde_json::{Value, json};

use super::operator::How;
use super::question::Question;
use crate::error::{CliError, code};
use crate::output::{print, print_json, table};

/// A refusal is a conflict for scripts: nothing was written.
pub fn error(error: Error) -> CliError {
    match error {
        Error::Refused(refusal) => {
            let shown = CliError::new(refusal.what).hint(refusal.hint).code(code::CONFLICT);
            refusal.details.into_iter().fold(shown, CliError::detail)
        }
        Error::Dependents(dependents) => self::error(Error::Refused(dependents.refusal)),
        error => CliError::of(&error),
    }
}

/// Conflicts of one row are looked up once; of more rows than these only the first ones.
const EXPLAINED: usize = 20;

/// Shows what each value was after the version, what it would become, what it is now, and who changed it since.
pub async fn conflicts(
    question: &Question,
    trail: &Trail,
    json: bool,
    conflicts: Vec<Conflict>,
) -> Result<ExitCode, CliError> {
    let mut by = Vec::new();
    for conflict in conflicts.iter().take(EXPLAINED) {
        by.push(changed_by(question, trail, conflict).await?);
    }
    by.resize(conflicts.len(), None);
    if json {
        let shown = |(conflict, by): (&Conflict, &Option<Value>)| {
            let mut shown = serde_json::to_value(conflict).unwrap_or_default();
            shown["by"] = json!(by);
            shown
        };
        let conflicts: Vec<Value> = conflicts.iter().zip(&by).map(shown).collect();
        print_json(&json!({ "applied": false, "conflicts": conflicts }))?;
    } else {
        three_ways(&conflicts, &by)?;
    }
    let rows = conflicts.iter().map(|conflict| format!("{} {}: {}", conflict.table, conflict.key, conflict.what));
    let mut rows: Vec<String> = rows.collect();
    rows.dedup();
    let more = rows.len().saturating_sub(EXPLAINED);
    rows.truncate(EXPLAINED);
    rows.extend((more > 0).then(|| format!("and {more} more rows")));
    let error = CliError::new("rows are no longer what they were after the version; nothing was written").hint(
        "--keep-later puts back the other rows, --with-later undoes what came later too, --force overwrites it, --fields \
         chooses columns"
            .to_owned(),
    );
    Err(rows.into_iter().fold(error, CliError::detail).code(code::CONFLICT))
}

fn three_ways(conflicts: &[Conflict], by: &[Option<Value>]) -> Result<(), CliError> {
    let mut rows = table(&["row", "column", "after the version", "would become", "is now", "by"]);
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "∅".to_owned());
    for (conflict, by) in conflicts.iter().zip(by) {
        let Some(column) = &conflict.column else { continue };
        rows.add_row([
            format!("{} {}", conflict.table, conflict.key),
            column.clone(),
            text(&conflict.then),
            text(&conflict.undone_to),
            text(&conflict.now),
            by.as_ref().and_then(|by| by["actor_id"].as_str()).unwrap_or_default().to_owned(),
        ]);
    }
    match conflicts.iter().any(|conflict| conflict.column.is_some()) {
        true => rows.print(),
        false => Ok(()),
    }
}

/// The newest version of the row that may have changed the column after those that are undone.
async fn changed_by(question: &Question, trail: &Trail, conflict: &Conflict) -> Result<Option<Value>, CliError> {
    let of_row = |record: &&Record| record.key.as_deref() == Some(&*conflict.key);
    let Some(last) = trail.records.iter().rev().find(of_row) else { return Ok(None) };
    let newest = question.store.history(&question.source, &last.table_name, &conflict.key, 20).await?;
    let touches = |record: &&Record| match (&record.changed, &conflict.column) {
        (Some(changed), Some(column)) => changed.contains(column),
        _ => true,
    };
    let by = newest.iter().filter(|record| record.position > last.position).find(touches);
    Ok(by.map(|by| json!({ "actor_id": by.actor_id, "reason": by.reason, "position": by.position, "at": by.committed_at.to_string() })))
}

/// More rows than these are worth an estimate.
const LARGE: usize = 100;

/// Says what there is to do before it is done.
pub fn estimate(estimate: Estimate) {
    match estimate {
        Estimate::Rows { rows, tables } if rows > LARGE => {
            eprintln!("{rows} rows of {tables} tables are to be put back, each by a statement of its own");
        }
        Estimate::Rows { .. } => {}
        Estimate::Time { seconds, rows_per_second } => {
            eprintln!("this will take about {seconds} s, at {rows_per_second} rows a second");
        }
    }
}

/// Shows what was done, or tried.
pub fn report(
    how: &How,
    question: &Question,
    report: &Report,
    resolved: &Resolved,
    versions: &[Record],
) -> Result<ExitCode, CliError> {
    match how.json {
        true => print_json(&as_json(report, resolved, versions))?,
        false => in_words(how, question, report, resolved, versions)?,
    }
    if report.outcome == Outcome::Bent {
        return Err(CliError::new("triggers changed more than what is put back; it was rolled back")
            .hint("if that is meant: --accept-triggers".to_owned())
            .code(code::CONFLICT));
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(report: &Report, resolved: &Resolved, versions: &[Record]) -> Value {
    json!({
        "applied": report.outcome == Outcome::Committed, "statements": report.statements, "conflicts": [],
        "kept": report.kept, "left_alone": report.left_alone, "dropped": resolved.dropped,
        "side_effects": report.effects, "warnings": report.warnings, "xid": report.xid, "plan": report.plan,
        "versions": versions,
    })
}

fn in_words(
    how: &How,
    question: &Question,
    report: &Report,
    resolved: &Resolved,
    versions: &[Record],
) -> Result<(), CliError> {
    for statement in &report.statements {
        let done = if statement.rows == 0 { "a trigger had done it already" } else { "1 row" };
        print(format!("{};  -- {done}", statement.sql))?;
    }
    for effect in &report.effects {
        let key = effect.key.as_ref().map(|key| format!(" {key}")).unwrap_or_default();
        let column = effect.column.as_ref().map(|column| format!(", {column}")).unwrap_or_default();
        print(format!("triggers: {}{key}{column}: {}", effect.table, effect.what))?;
    }
    for left in &report.left_alone {
        print(format!("left alone: {}.{} ({})", left.table, left.column, left.why))?;
    }
    for (table, columns) in &resolved.dropped {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        print(format!("cannot be put back: {table} has no {} any more", columns.join(", ")))?;
    }
    for kept in &report.kept {
        let column = kept.column.as_ref().map(|column| format!(", {column}")).unwrap_or_default();
        print(format!("kept: {} {}{column}: {}", kept.table, kept.key, kept.what))?;
    }
    report.warnings.iter().try_for_each(|warning| print(format!("warning: {warning}")))?;
    match (report.outcome, &how.sql) {
        (Outcome::Committed, _) => self::versions(false, versions),
        (_, Some(file)) => {
            print(format!("ran and rolled back on {}; written to {}", question.login.describe(), file.display()))
        }
        (Outcome::Bent, _) => Ok(()),
        (Outcome::Tried, None) => print(format!(
            "ran and rolled back on {}; with --yes it is committed, recorded as an undo, and can be undone",
            question.login.describe()
        )),
    }
}

/// Lists what is undone because it came later.
pub fn later<'r>(records: impl Iterator<Item = &'r Record>) {
    for record in records {
        let by = record.actor_id.as_deref().map(|actor| format!(" by {actor}")).unwrap_or_default();
        let key = record.key.as_deref().unwrap_or_default();
        eprintln!("undone too: {} {} {key} was {}{by}", record.position, record.table_name, record.event);
    }
}

/// Shows the versions that an undo made.
pub fn versions(json: bool, versions: &[Record]) -> Result<(), CliError> {
    if json {
        let xid = versions.first().map(|version| version.xid.to_string());
        return print_json(&json!({ "applied": true, "xid": xid, "versions": versions }));
    }
    if versions.is_empty() {
        return print("committed; the trail does not have its versions yet");
    }
    let mut rows = table(&["position", "table", "key", "event", "what"]);
    for version in versions {
        rows.add_row([
            version.position.to_string(),
            version.table_name.clone(),
            version.key.clone().unwrap_or_default(),
            version.event.clone(),
            version.summary.clone(),
        ]);
    }
    print("committed, and recorded as:")?;
    rows.print()
}
