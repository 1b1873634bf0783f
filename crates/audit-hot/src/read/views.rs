//! The views that a person's SQL sees: `versions`, and one for each table with a column for each value before and after
//! ([`View`]).
//!
//! They are common table expressions of that person's statement, because a transaction that only reads can create no
//! views, and one that could would write to the database.

use std::collections::BTreeMap;

use audit_core::shape::{ColumnNames, Rename, Shape};
use audit_core::value::Kind;

use super::places::Places;
use crate::layout::VERSIONS;
use crate::quote::{ident, literal};
use crate::schema::TRAIL;

/// Longest name in PostgreSQL, in bytes.
const NAME_MAX: usize = 63;

/// Columns of the record that each table's view has, before those of its values.
const RECORD: [&str; 18] = [
    "position",
    "key",
    "old_key",
    "event",
    "changed",
    "changes",
    "before_known",
    "actor_id",
    "actor",
    "reason",
    "context",
    "included",
    "xid",
    "seq",
    "committed_at",
    "schema_version",
    "baseline",
    "tenant",
];

/// A view, and what it is made of.
#[derive(Clone, Debug)]
pub struct View {
    pub name: String,
    /// Names and types of the columns.
    pub columns: Vec<(String, String)>,
    query: String,
}

impl View {
    /// All versions, as the view `cdc_audit.trail` shows them.
    pub(super) fn versions(source: &str, places: &Places) -> View {
        let query = format!("{} FROM {} WHERE source = {}", TRAIL.trim_end(), places.all(), literal(source));
        let columns = VERSIONS.columns.iter().map(|column| (column.name.to_owned(), column.sql_type.to_owned()));
        View { name: "versions".to_owned(), columns: columns.collect(), query }
    }

    /// The versions of one table, with `old_` and `new_` values of the types that the columns have in the source.
    pub(super) fn of_table(name: String, source: &str, table: &str, values: Vec<Values>, places: &Places) -> View {
        let mut columns: Vec<(String, String)> = Vec::new();
        let mut selected: Vec<String> = Vec::new();
        for name in RECORD {
            let known = VERSIONS.columns.iter().find(|column| column.name == name);
            columns.push((name.to_owned(), known.map_or_else(String::new, |column| column.sql_type.to_owned())));
            selected.push(match name {
                "changes" => format!("{} AS changes", whole_changes()),
                name => name.to_owned(),
            });
        }
        for Values { column, kind, stored } in values {
            for (prefix, image, side) in [("old", "before", 0), ("new", "after", 1)] {
                let column_name = free_name(&format!("{prefix}_{column}"), &columns);
                let value = value(&stored, image, side);
                let (sql_type, typed) = typed(kind.as_ref(), &value);
                selected.push(format!("{typed} AS {}", ident(&column_name)));
                columns.push((column_name, sql_type.to_owned()));
            }
        }
        let query = format!(
            "SELECT {} FROM {} WHERE source = {} AND table_name = {}",
            selected.join(", "),
            places.all(),
            literal(source),
            literal(table)
        );
        View { name, columns, query }
    }

    pub(super) fn expression(&self) -> String {
        format!("{} AS NOT MATERIALIZED (\n{}\n)", ident(&self.name), self.query)
    }

    /// Whether a statement may mean this view.
    pub(super) fn is_named_in(&self, statement: &str) -> bool {
        statement.to_lowercase().contains(&self.name.to_lowercase())
    }
}

/// The expression of `cdc_audit.trail` that shows the changes of created and deleted rows too.
fn whole_changes() -> &'static str {
    let expression = TRAIL.split_once("event,\n").and_then(|(_, rest)| rest.split_once(" AS changes"));
    expression.map_or("changes", |(expression, _)| expression.trim())
}

/// The name of a table's view: `orders__versions`, with the schema before it where two schemas have such a table.
pub(super) fn view_name(table: &str, all: &[String]) -> String {
    let (schema, name) = table.rsplit_once('.').unwrap_or(("", table));
    let is_alone =
        all.iter().filter(|other| other.rsplit_once('.').is_some_and(|(_, other)| other == name)).count() < 2;
    let name = if is_alone { format!("{name}__versions") } else { format!("{schema}_{name}__versions") };
    cut(name.replace('"', ""))
}

fn cut(mut name: String) -> String {
    while name.len() > NAME_MAX {
        name.pop();
    }
    name
}

/// A name that no column has yet: a table's column `key` must not become a second `old_key`.
fn free_name(name: &str, columns: &[(String, String)]) -> String {
    let is_free = |name: &String| !columns.iter().any(|(known, _)| known == name);
    let numbered = (2..).map(|number| {
        let suffix = format!("__{number}");
        let mut cut = name.to_owned();
        while cut.len() + suffix.len() > NAME_MAX {
            cut.pop();
        }
        cut + &suffix
    });
    std::iter::once(cut(name.to_owned())).chain(numbered).find(is_free).unwrap_or_default()
}

/// A column's values, under every name that it has had.
pub(super) struct Values {
    /// The name that it has now.
    column: String,
    /// `None` if it was not always the same.
    kind: Option<Kind>,
    /// The names under which versions have it, each with the shapes in which it is this column; none if it always is.
    stored: Vec<(String, Vec<u32>)>,
}

/// The columns of all shapes in the order in which they came.
pub(super) fn values(shapes: &[Shape], renames: &[Rename]) -> Vec<Values> {
    let names = ColumnNames::of(shapes, renames);
    let mut all: Vec<Values> = Vec::new();
    for (shape, column) in shapes.iter().flat_map(|shape| shape.columns.iter().map(move |column| (shape, column))) {
        let (version, kind) = (shape.schema_version, Some(&column.kind));
        let shown = names.shown(version, &column.name);
        let Some(known) = all.iter_mut().find(|known| known.column == shown) else {
            let stored = vec![(column.name.clone(), vec![version])];
            all.push(Values { column: shown.into_owned(), kind: kind.cloned(), stored });
            continue;
        };
        known.kind = known.kind.take().filter(|known| Some(known) == kind);
        match known.stored.iter_mut().find(|(name, _)| *name == column.name) {
            Some((_, versions)) => versions.push(version),
            None => known.stored.push((column.name.clone(), vec![version])),
        }
    }
    let uses = all.iter().flat_map(|values| values.stored.iter().map(|(name, _)| name.clone()));
    let uses = uses.fold(BTreeMap::<String, usize>::new(), |mut uses, name| {
        *uses.entry(name).or_default() += 1;
        uses
    });
    let alone = |name: &String| uses.get(name).is_none_or(|count| *count < 2);
    all.iter_mut().flat_map(|values| &mut values.stored).filter(|(name, _)| alone(name)).for_each(|(_, v)| v.clear());
    all
}

/// The value on one side, as JSON.
fn value(stored: &[(String, Vec<u32>)], image: &str, side: u8) -> String {
    let one = |(name, versions): &(String, Vec<u32>)| {
        let member = literal(name);
        let value = format!("coalesce({image}->{member}, changes->{member}->{side})");
        match versions.as_slice() {
            [] => value,
            versions => {
                let versions: Vec<String> = versions.iter().map(u32::to_string).collect();
                format!("CASE WHEN schema_version IN ({}) THEN {value} END", versions.join(", "))
            }
        }
    };
    match stored {
        [only] => one(only),
        all => format!("coalesce({})", all.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

/// The SQL type for a kind, and the value as that type. A value that does not fit it, for example because it is
/// protected, is null there: no row makes a statement fail. `changes` has every value as it is stored.
fn typed(kind: Option<&Kind>, value: &str) -> (&'static str, String) {
    let text = format!("({value} #>> '{{}}')");
    let matching =
        |pattern: &str, sql_type: &str| format!("CASE WHEN {text} ~ '{pattern}' THEN {text}::{sql_type} END");
    match kind {
        Some(Kind::Bool) => ("boolean", matching("^(true|false)$", "boolean")),
        Some(Kind::Int2 | Kind::Int4 | Kind::Int8) => (
            "bigint",
            format!(
                "CASE WHEN {text} ~ '^-?[0-9]{{1,19}}$' THEN CASE WHEN {text}::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN {text}::bigint END END"
            ),
        ),
        Some(Kind::Float4 | Kind::Float8) => (
            "double precision",
            matching(
                "^(-?[0-9]{1,200}([.][0-9]+)?([eE][-+]?[0-9]{1,2}|[eE][-+]?[12][0-9]{2})?|NaN|-?Infinity)$",
                "float8",
            ),
        ),
        Some(Kind::Numeric(_)) => ("numeric", matching("^(-?[0-9]+([.][0-9]+)?|NaN)$", "numeric")),
        Some(Kind::Date) => ("date", matching("^([0-9]{4}-[0-9]{2}-[0-9]{2}|-?infinity)$", "date")),
        Some(Kind::Timestamp) => {
            ("timestamp without time zone", matching("^([0-9]{4}-[0-9]{2}-[0-9]{2}T.*|-?infinity)$", "timestamp"))
        }
        Some(Kind::TimestampTz) => {
            ("timestamp with time zone", matching("^([0-9]{4}-[0-9]{2}-[0-9]{2}T.*|-?infinity)$", "timestamptz"))
        }
        Some(Kind::Jsonb | Kind::Array(_)) => ("jsonb", value.to_owned()),
        Some(Kind::Bytea | Kind::Uuid | Kind::Json | Kind::Text) | None => ("text", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_called_after_its_table_and_schema_where_the_table_alone_is_not_enough() {
        let all = ["public.orders", "crm.contacts", "hr.contacts"].map(str::to_owned);
        assert_eq!(view_name("public.orders", &all), "orders__versions");
        assert_eq!(view_name("hr.contacts", &all), "hr_contacts__versions");
        assert!(view_name(&format!("public.{}", "ü".repeat(60)), &all).len() <= NAME_MAX);
    }

    #[test]
    fn changes_are_shown_as_the_trail_shows_them() {
        assert!(whole_changes().starts_with("CASE") && whole_changes().ends_with("END"), "{}", whole_changes());
    }

    #[test]
    fn a_column_never_takes_the_name_of_another() {
        let columns = [("old_key".to_owned(), String::new()), ("old_key__2".to_owned(), String::new())];
        assert_eq!(free_name("old_key", &columns), "old_key__3");
        let long = "x".repeat(63);
        let name = free_name(&long, &[(long.clone(), String::new())]);
        assert_eq!((name.len(), &name[60..]), (63, "__2"));
    }
}
