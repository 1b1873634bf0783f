//! How a table's rows are found in order, and the SQL for it: [`Access`].
//!
//! Rows are ordered and compared by the operators of the index that makes the key unique, in its collation. ⚠ A plain
//! `>` would be looked up in the session's `search_path`. A type of an extension (`citext`) has no such operator there
//! and would be compared as `text`, which sorts differently: rows between two chunks would be lost.

use std::collections::BTreeMap;

use audit_core::shape::Identity;
use postgres_protocol::escape::escape_identifier;
use serde::Deserialize;
use tokio_postgres::Client;

use crate::catalog::PublishedTable;
use crate::query::{QueryError, rows};

/// How rows are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// By the columns of a unique key, which every change in the stream contains.
    Key(Vec<KeyPart>),
    /// By place, because nothing else distinguishes rows.
    Ctid,
}

/// A column of the key, in the key's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyPart {
    /// Index of the column in the relation.
    pub column: usize,
    name: String,
    type_name: String,
    /// The collation, quoted, if it is not the column's own.
    collation: Option<String>,
    /// The operators by B-tree strategy (1 `<`, 2 `<=`, 3 `=`, 4 `>=`, 5 `>`), each as `OPERATOR(schema.name)`. Empty
    /// if the index is not a B-tree.
    operators: BTreeMap<u8, String>,
}

#[derive(Deserialize)]
struct PartRow {
    attnum: i16,
    collation: Option<String>,
    operators: Option<BTreeMap<u8, String>>,
}

/// Finds the key, as the shape of the stream's relation will have it: the replica identity's index, else the primary
/// key. A key that is not published completely does not count.
pub(super) async fn access(client: &Client, table: &PublishedTable) -> Result<Access, QueryError> {
    let by_index = matches!(table.identity, Identity::Default | Identity::Index) && !table.identity_key.is_empty();
    let key = if by_index { &table.identity_key } else { &table.catalog.primary_key };
    let relation = table.relation();
    let published = |attnum: &i16| {
        let column = table.catalog.columns.iter().find(|column| column.attnum == *attnum)?;
        let index = relation.columns.iter().position(|published| published.name == column.name)?;
        Some((index, column))
    };
    let columns: Option<Vec<_>> = key.iter().map(published).collect();
    let Some(columns) = columns.filter(|columns| !columns.is_empty()) else { return Ok(Access::Ctid) };

    let sql = include_str!("../sql/key.sql");
    let found: Vec<PartRow> = rows(client, "read a table's key", sql, &[&table.catalog.oid, key]).await?;
    let part = |(index, column): (usize, &audit_core::shape::CatalogColumn)| {
        let row = found.iter().find(|row| row.attnum == column.attnum);
        KeyPart {
            column: index,
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            collation: row.and_then(|row| row.collation.clone()),
            operators: row.and_then(|row| row.operators.clone()).unwrap_or_default(),
        }
    };
    Ok(Access::Key(columns.into_iter().map(part).collect()))
}

/// The identity of a baseline by key: bounds hold as long as it stays the same.
pub(super) fn identity(parts: &[KeyPart]) -> Vec<String> {
    let identity = |part: &KeyPart| {
        let order = part.operators.get(&1).map_or("<", String::as_str);
        format!("{} {} {order} {}", part.name, part.type_name, part.collation.as_deref().unwrap_or_default())
    };
    parts.iter().map(identity).collect()
}

/// A bound of a chunk. Its values are in settings of the transaction, because they are raw keys, and statements appear
/// in the server's views and logs and are carried elsewhere from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Lower,
    Upper,
}

impl Bound {
    /// The prefix of the names of its settings; after it comes the column's place in the key, from 1.
    pub fn prefix(self) -> &'static str {
        match self {
            Bound::Lower => "cdc_audit.chunk_lower_",
            Bound::Upper => "cdc_audit.chunk_upper_",
        }
    }
}

/// The condition that rows are above the lower bound.
pub(super) fn beyond_lower(parts: &[KeyPart]) -> String {
    if is_plain(parts) { row_comparison(parts, ">", Bound::Lower) } else { nested(parts, 5, 5, Bound::Lower) }
}

/// The condition that rows are not above the upper bound.
pub(super) fn up_to_upper(parts: &[KeyPart]) -> String {
    if is_plain(parts) { row_comparison(parts, "<=", Bound::Upper) } else { nested(parts, 1, 2, Bound::Upper) }
}

pub(super) fn order(parts: &[KeyPart]) -> String {
    let item = |part: &KeyPart| match part.operators.get(&1) {
        Some(operator) if !is_plain(parts) => format!("{} USING {operator}", part.expression()),
        _ => part.expression(),
    };
    parts.iter().map(item).collect::<Vec<_>>().join(", ")
}

/// Whether the operators are those that plain symbols find. Then a comparison of whole rows can be used, which reads a
/// range of the index.
fn is_plain(parts: &[KeyPart]) -> bool {
    const SYMBOLS: [&str; 5] = ["<", "<=", "=", ">=", ">"];
    let plain = |(strategy, symbol): (u8, &&str)| {
        let built_in = format!("OPERATOR(pg_catalog.{symbol})");
        parts.iter().all(|part| part.operators.get(&strategy).is_none_or(|operator| *operator == built_in))
    };
    (1..).zip(SYMBOLS.iter()).all(plain)
}

fn row_comparison(parts: &[KeyPart], symbol: &str, bound: Bound) -> String {
    let columns: Vec<String> = parts.iter().map(KeyPart::expression).collect();
    let values: Vec<String> = (1..).zip(parts).map(|(place, part)| part.value(bound, place)).collect();
    match (columns.as_slice(), values.as_slice()) {
        ([column], [value]) => format!("{column} {symbol} {value}"),
        _ => format!("({}) {symbol} ({})", columns.join(", "), values.join(", ")),
    }
}

/// `a > x OR (a = x AND b > y)`, preceded by `a >= x AND`, which an index can use. `last` is the strategy for the last
/// column.
fn nested(parts: &[KeyPart], strategy: u8, last: u8, bound: Bound) -> String {
    let mut condition = String::new();
    for (index, part) in parts.iter().enumerate().rev() {
        let compare = |strategy| part.compare(strategy, bound, index + 1);
        condition = if index + 1 == parts.len() {
            compare(last)
        } else {
            format!("({} OR ({} AND {condition}))", compare(strategy), compare(3))
        };
    }
    match parts {
        [first, _, ..] => {
            let edge = if strategy == 5 { 4 } else { 2 };
            format!("{} AND {condition}", first.compare(edge, bound, 1))
        }
        _ => condition,
    }
}

impl KeyPart {
    fn expression(&self) -> String {
        let name = escape_identifier(&self.name);
        match &self.collation {
            Some(collation) => format!("{name} COLLATE {collation}"),
            None => name,
        }
    }

    /// The value cast to its type with the modifier: `bit` alone would be `bit(1)`, and the value would be cut.
    fn value(&self, bound: Bound, place: usize) -> String {
        format!("CAST(current_setting('{}{place}') AS {})", bound.prefix(), self.type_name)
    }

    fn compare(&self, strategy: u8, bound: Bound, place: usize) -> String {
        const SYMBOLS: [&str; 6] = ["", "<", "<=", "=", ">=", ">"];
        let symbol = SYMBOLS.get(usize::from(strategy)).copied().unwrap_or_default();
        let operator = self.operators.get(&strategy).map_or(symbol, String::as_str);
        format!("{} {operator} {}", self.expression(), self.value(bound, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, type_name: &str, schema: &str) -> KeyPart {
        let operators = (1..).zip(["<", "<=", "=", ">=", ">"]);
        KeyPart {
            column: 0,
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            collation: None,
            operators: operators.map(|(strategy, name)| (strategy, format!("OPERATOR({schema}.{name})"))).collect(),
        }
    }

    #[test]
    fn built_in_types_are_compared_as_rows() {
        let key = [part("id", "integer", "pg_catalog"), part("Odd \"name\"", "character(10)", "pg_catalog")];
        assert_eq!(
            beyond_lower(&key),
            r#"("id", "Odd ""name""") > (CAST(current_setting('cdc_audit.chunk_lower_1') AS integer), CAST(current_setting('cdc_audit.chunk_lower_2') AS character(10)))"#
        );
        assert_eq!(up_to_upper(&key[..1]), r#""id" <= CAST(current_setting('cdc_audit.chunk_upper_1') AS integer)"#);
        assert_eq!(order(&key), r#""id", "Odd ""name""""#);
    }

    #[test]
    fn types_of_extensions_are_compared_by_their_own_operators() {
        let key = [part("id", "integer", "pg_catalog"), part("name", "public.citext", "public")];
        let short = |condition: String| condition.replace("current_setting('cdc_audit.chunk_", "('");
        assert_eq!(
            short(beyond_lower(&key)),
            "\"id\" OPERATOR(pg_catalog.>=) CAST(('lower_1') AS integer) AND (\"id\" OPERATOR(pg_catalog.>) CAST(('lower_1') AS integer) \
             OR (\"id\" OPERATOR(pg_catalog.=) CAST(('lower_1') AS integer) AND \
             \"name\" OPERATOR(public.>) CAST(('lower_2') AS public.citext)))"
        );
        assert_eq!(
            short(up_to_upper(&key)),
            "\"id\" OPERATOR(pg_catalog.<=) CAST(('upper_1') AS integer) AND (\"id\" OPERATOR(pg_catalog.<) CAST(('upper_1') AS integer) \
             OR (\"id\" OPERATOR(pg_catalog.=) CAST(('upper_1') AS integer) AND \
             \"name\" OPERATOR(public.<=) CAST(('upper_2') AS public.citext)))"
        );
        assert_eq!(short(up_to_upper(&key[1..])), "\"name\" OPERATOR(public.<=) CAST(('upper_1') AS public.citext)");
        assert_eq!(order(&key), "\"id\" USING OPERATOR(pg_catalog.<), \"name\" USING OPERATOR(public.<)");
    }

    #[test]
    fn a_collation_of_the_index_orders_and_compares() {
        let mut key = [part("name", "text", "pg_catalog")];
        key[0].collation = Some("pg_catalog.\"C\"".to_owned());
        assert_eq!(order(&key), "\"name\" COLLATE pg_catalog.\"C\"");
        assert_eq!(
            beyond_lower(&key),
            "\"name\" COLLATE pg_catalog.\"C\" > CAST(current_setting('cdc_audit.chunk_lower_1') AS text)"
        );
    }
}
