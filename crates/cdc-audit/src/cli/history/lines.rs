//! `history` for people: one line a version, or one a value.

use std::collections::BTreeMap;

use audit_history::row::{Told, Undone, Version, Why};

use crate::cli::row::{Asked, shell, shown, span};
use crate::error::CliError;
use crate::output::{note, print, table};

pub fn show(asked: &Asked, versions: &[Version], undone: &Undone, raw: bool) -> Result<(), CliError> {
    if versions.is_empty() {
        return print(format!("{} {}: no versions.", asked.table, asked.given));
    }
    let when = format!("when ({})", asked.zone());
    let mut rows = table(&["v", &when, "after", "event", "who", "what", "why"]);
    for version in versions {
        let told = Told::of(&asked.facts, version, undone, raw);
        rows.add_row([
            number(version),
            asked.time(told.record.committed_at),
            version.seconds_since_previous().map(span).unwrap_or_default(),
            event(version, Some(&told)),
            who(version),
            what(&told, version),
            told.record.reason.unwrap_or_default(),
        ]);
    }
    rows.print()?;
    unknown(asked, versions);
    Ok(())
}

/// `2`; of a row that had the key after another one `2 (row 2)`.
fn number(version: &Version) -> String {
    match (version.number, version.row) {
        (None, _) => String::new(),
        (Some(number), 0 | 1) => number.to_string(),
        (Some(number), row) => format!("{number} (row {row})"),
    }
}

fn event(version: &Version, told: Option<&Told>) -> String {
    let moved = if version.moved { " (moved)" } else { "" };
    let link = match told {
        Some(told) if told.undone_by.is_some() => " (undone)",
        Some(told) if !told.undo_of.is_empty() => " (undo)",
        _ => "",
    };
    format!("{}{moved}{link}", version.record.event)
}

fn who(version: &Version) -> String {
    let who = version.record.actor_id.as_deref().unwrap_or_default();
    let caution = if version.record.actor_source.as_deref() == Some("row_unchanged") { "?" } else { "" };
    format!("{who}{caution}")
}

/// The summary, with what is derived (`~`) and what is not known.
fn what(told: &Told, version: &Version) -> String {
    let key = told.record.old_key.as_ref().map(|old| format!(" (key was {old})")).unwrap_or_default();
    let derived = if told.derived.is_empty() { "" } else { "~" };
    let columns: Vec<&str> = told.unknown_why.keys().map(String::as_str).collect();
    let unknown = match version.changes.is_empty() || columns.is_empty() {
        true => String::new(),
        false => format!(" Not known: {}.", columns.join(", ")),
    };
    format!("{derived}{}{key}{unknown}", told.record.summary)
}

/// Says why some of it is not known, and what would help.
fn unknown(asked: &Asked, versions: &[Version]) {
    let mut reasons: BTreeMap<&str, Why> = BTreeMap::new();
    let not_sent = || versions.iter().filter(|version| !version.record.before_known);
    reasons.extend(not_sent().flat_map(|version| version.unknown.values()).map(|why| (why.name(), *why)));
    for why in reasons.values() {
        note(format!("Not known where PostgreSQL sent no old row: {why}."));
    }
    // What is hidden by its protection stays so.
    let is_cured = |why: &Why| !matches!(why, Why::Protected(_) | Why::Masked | Why::TooLarge);
    if reasons.values().any(is_cured) {
        note(format!(
            "From now on PostgreSQL sends old rows after: cdc-audit setup --replica-identity full --table {}",
            shell(&asked.table)
        ));
    }
}

/// ```text
/// v2  2026-01-15 13:30:00  updated  31  bank transfer
///   - state  open
///   + state  paid
/// ```
pub fn diff(asked: &Asked, versions: &[Version]) -> Result<(), CliError> {
    for version in versions {
        let record = &version.record;
        let number = version.number.map(|number| format!("v{number}  ")).unwrap_or_default();
        let said = [
            asked.time(record.committed_at),
            event(version, None),
            who(version),
            record.reason.clone().unwrap_or_default(),
        ];
        print(format!(
            "{number}{}",
            said.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("  ")
        ))?;
        let mut changes: Vec<_> = version.changes.iter().filter(|change| !change.is_null()).collect();
        changes.sort_by_cached_key(|change| asked.facts.place(&change.column));
        for change in changes {
            for (sign, known) in [('-', &change.old), ('+', &change.new)] {
                let value = shown(&asked.facts, record.schema_version, &change.column, known);
                print(format!("  {sign} {}  {}", change.column, value.replace('\n', "\\n")))?;
            }
        }
        for (column, why) in &version.unknown {
            print(format!("  ? {column}  {why}"))?;
        }
    }
    unknown(asked, versions);
    Ok(())
}
