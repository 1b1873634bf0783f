//! `versions_table` of `[[tables]]`: which table of a hot database takes a table's versions ([`VersionsTable`]).

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shape::Shape;

/// The table for all versions that have no table of their own.
pub const COMMON: &str = "versions";

/// Longest name in bytes: the suffixes of the table's partitions and views have to fit into PostgreSQL's 63 bytes too.
pub const NAME_MAX: usize = 52;

/// A name, in which `{schema}`, `{table}` and `{tenant}` stand for what they say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct VersionsTable {
    written: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Schema,
    Table,
    Tenant,
}

/// Why a name is not valid. Characters are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionsTableError {
    #[error("the name is empty: give one such as \"orders_versions\", or take the key out")]
    Empty,
    #[error("the name has a schema: leave it out, for the table lies in schema cdc_audit")]
    Schema,
    #[error(
        "the name cannot hold character {0}: take a to z, 0 to 9 and _, beside {{schema}}, {{table}} and {{tenant}}"
    )]
    Character(usize),
    #[error("the bracket at character {0} has no other: write {{schema}}, {{table}} or {{tenant}}")]
    Bracket(usize),
    #[error("nothing is known as {{{0}}}: write {{schema}}, {{table}} or {{tenant}}")]
    Placeholder(String),
    #[error(
        "the name is longer than {NAME_MAX} bytes: its partitions have names that begin with it, and 63 is all there is"
    )]
    Long,
}

impl VersionsTable {
    /// Whether each tenant has a table of its own.
    pub fn has_tenant(&self) -> bool {
        self.pieces.contains(&Piece::Tenant)
    }

    /// The name, if it is the same for every table and tenant.
    pub fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Text(name)] => Some(name),
            _ => None,
        }
    }

    /// The name for the table of this shape and a tenant. It may have any length and any characters that their names
    /// have.
    pub fn fill(&self, shape: &Shape, tenant: &str) -> String {
        let text = |piece: &'_ Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Schema => shape.schema.clone(),
            Piece::Table => shape.table.clone(),
            Piece::Tenant => tenant.to_owned(),
        };
        self.pieces.iter().map(text).collect()
    }
}

impl FromStr for VersionsTable {
    type Err = VersionsTableError;

    fn from_str(written: &str) -> Result<VersionsTable, VersionsTableError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut chars = written.chars().zip(1..).peekable();
        while let Some((c, at)) = chars.next() {
            match c {
                'a'..='z' | '0'..='9' | '_' => literal.push(c),
                '.' => return Err(VersionsTableError::Schema),
                '{' => {
                    let name: String =
                        std::iter::from_fn(|| chars.next_if(|(c, _)| *c != '}')).map(|(c, _)| c).collect();
                    chars.next().ok_or(VersionsTableError::Bracket(at))?;
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut literal)));
                    }
                    pieces.push(match name.as_str() {
                        "schema" => Piece::Schema,
                        "table" => Piece::Table,
                        "tenant" => Piece::Tenant,
                        _ => return Err(VersionsTableError::Placeholder(name)),
                    });
                }
                '}' => return Err(VersionsTableError::Bracket(at)),
                _ => return Err(VersionsTableError::Character(at)),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        let text = |piece: &Piece| if let Piece::Text(text) = piece { text.len() } else { 0 };
        if pieces.is_empty() {
            Err(VersionsTableError::Empty)
        } else if pieces.iter().map(text).sum::<usize>() > NAME_MAX {
            Err(VersionsTableError::Long)
        } else {
            Ok(VersionsTable { written: written.to_owned(), pieces })
        }
    }
}

impl TryFrom<String> for VersionsTable {
    type Error = VersionsTableError;

    fn try_from(written: String) -> Result<VersionsTable, VersionsTableError> {
        written.parse()
    }
}

impl From<VersionsTable> for String {
    fn from(table: VersionsTable) -> String {
        table.written
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::table::Table;

    fn parse(text: &str) -> Result<VersionsTable, VersionsTableError> {
        text.parse()
    }

    #[test]
    fn placeholders_are_filled() {
        let table = Table::pseudo("sales.Or ders");
        let fill = |text: &str, tenant: &str| parse(text).unwrap().fill(&table.shape, tenant);
        assert_eq!(fill("orders_versions", "x"), "orders_versions");
        assert_eq!(fill("{schema}_{table}", "x"), "sales_Or ders");
        assert_eq!(fill("tenant_{tenant}_versions", "a {b}"), "tenant_a {b}_versions");
        assert_eq!(parse("orders").unwrap().literal(), Some("orders"));
        assert_eq!(parse("{table}").unwrap().literal(), None);
        assert!(parse("{tenant}").unwrap().has_tenant() && !parse("{table}").unwrap().has_tenant());
    }

    #[test]
    fn what_is_no_name_is_said_with_its_place() {
        for (text, error) in [
            ("", VersionsTableError::Empty),
            ("audit.orders", VersionsTableError::Schema),
            ("ordErs", VersionsTableError::Character(4)),
            ("a{table", VersionsTableError::Bracket(2)),
            ("a}", VersionsTableError::Bracket(2)),
            ("{tennant}", VersionsTableError::Placeholder("tennant".to_owned())),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert!(parse(&"a".repeat(NAME_MAX)).is_ok());
        assert_eq!(parse(&format!("{}{{table}}a", "a".repeat(NAME_MAX))), Err(VersionsTableError::Long));
    }
}
