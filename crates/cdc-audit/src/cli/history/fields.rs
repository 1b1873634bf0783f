//! `history --field`: the changes of some columns.

use audit_core::json::object;
use audit_history::row::{Known, Version, Why};
use serde_json::json;

use super::Wanted;
use crate::cli::row::{Asked, shown, text};
use crate::error::CliError;
use crate::output::{print_exactly, table};

/// What one version did to one column.
pub struct Entry<'v> {
    column: &'v str,
    old: Known,
    new: Known,
}

impl Entry<'_> {
    /// Whether it is known that the column changed.
    pub fn is_certain(&self) -> bool {
        self.old.value().is_some() && self.new.value().is_some()
    }

    fn why(&self) -> Option<Why> {
        self.old.why().or(self.new.why())
    }
}

/// What a version did to the columns that are wanted, as far as they became one of the values that are wanted.
pub fn entries<'v>(version: &'v Version, wanted: &'v Wanted<'_>) -> impl Iterator<Item = Entry<'v>> {
    let is_field = |column: &str| wanted.fields.iter().any(|field| field == column);
    let became = |new: &Known| {
        let is =
            |json: &str| wanted.to.iter().any(|to| if json == Known::NULL { to == "null" } else { *to == text(json) });
        wanted.to.is_empty() || new.value().is_none_or(is)
    };
    let changes = version.changes.iter().filter(|change| !change.is_null());
    let changes = changes.map(|change| (change.column.as_str(), change.old.clone(), change.new.clone()));
    let maybe =
        version.unknown.iter().map(|(column, why)| (column.as_str(), Known::Unknown(*why), Known::Unknown(*why)));
    let all = changes.chain(maybe).filter(move |(column, ..)| is_field(column));
    all.map(|(column, old, new)| Entry { column, old, new }).filter(move |entry| became(&entry.new))
}

pub fn show(asked: &Asked, versions: &[Version], wanted: &Wanted<'_>, json: bool) -> Result<(), CliError> {
    let all = versions.iter().flat_map(|version| entries(version, wanted).map(move |entry| (version, entry)));
    if json {
        return all.map(|(version, entry)| as_json(version, &entry)).try_for_each(print_exactly);
    }
    let when = format!("when ({})", asked.zone());
    let mut rows = table(&["v", &when, "column", "what", "who", "why"]);
    for (version, entry) in all {
        let record = &version.record;
        let side = |known: &Known| shown(&asked.facts, record.schema_version, entry.column, known);
        rows.add_row([
            version.number.map(|number| number.to_string()).unwrap_or_default(),
            asked.time(record.committed_at),
            entry.column.to_owned(),
            entry
                .why()
                .map_or_else(|| format!("{} → {}", side(&entry.old), side(&entry.new)), |why| format!("?  {why}")),
            record.actor_id.clone().unwrap_or_default(),
            record.reason.clone().unwrap_or_default(),
        ]);
    }
    rows.print()
}

fn as_json(version: &Version, entry: &Entry<'_>) -> String {
    let record = &version.record;
    let text = |value: serde_json::Value| value.to_string();
    object([
        ("field", text(json!(entry.column)).as_str()),
        ("before", entry.old.value().unwrap_or("null")),
        ("after", entry.new.value().unwrap_or("null")),
        ("at", text(json!(record.committed_at.to_string())).as_str()),
        ("by", text(json!(record.actor_id)).as_str()),
        ("reason", text(json!(record.reason)).as_str()),
        ("version", text(json!(version.number)).as_str()),
        ("position", text(json!(record.position)).as_str()),
        ("derived", text(json!(entry.old.is_derived())).as_str()),
        ("unknown_why", text(json!(entry.why().map(Why::name))).as_str()),
    ])
}
