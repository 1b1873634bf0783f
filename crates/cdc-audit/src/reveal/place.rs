//! Where values stand in the database, as far as a record and the rules say: what ciphertexts are bound to, and tokens are made for.

use std::collections::HashMap;

use audit_cipher::{Aad, Row};
use audit_core::mac::Space;
use audit_core::method::Method;
use audit_core::position::Lsn;
use audit_core::rules::matches;
use audit_core::table::{companion_name, companion_of};
use serde_json::value::RawValue;

use super::found::{Found, Parts};
use super::table::Table;

impl Table {
    /// What ciphertexts of a record may be bound to: the columns of the row after, and of the row before; all of them, and the first ones,
    /// down to none.
    pub fn bound(&self, parts: &Parts<'_>) -> Vec<Vec<(String, Option<String>)>> {
        let object = |part: Option<&RawValue>| {
            part.and_then(|part| serde_json::from_str::<HashMap<String, Box<RawValue>>>(part.get()).ok())
        };
        let [changes, before, after, included] = [parts.changes, parts.before, parts.after, parts.included]
            .map(|part| object(part.filter(|_| !self.bind.is_empty())));
        let side = |image: &Option<HashMap<String, Box<RawValue>>>, index: usize| {
            let value = |column: &String| {
                let changed = changes.as_ref().and_then(|changes| changes.get(column));
                let changed = changed.and_then(|sides| serde_json::from_str::<Vec<Box<RawValue>>>(sides.get()).ok());
                let changed = changed.and_then(|mut sides| (sides.len() == 2).then(|| sides.swap_remove(index)));
                let kept = || included.as_ref().and_then(|included| included.get(column)).cloned();
                let value = match image {
                    Some(image) => image.get(column).cloned(),
                    None => changed.or_else(kept),
                };
                (column.clone(), value.and_then(|value| as_text(&value)))
            };
            self.bind.iter().map(value).collect::<Vec<_>>()
        };
        let sides = [side(&after, 1), side(&before, 0)];
        let mut all = Vec::new();
        for count in (0..=self.bind.len()).rev() {
            for side in sides.iter().map(|side| side[..count].to_vec()) {
                if !all.contains(&side) {
                    all.push(side);
                }
            }
        }
        all
    }
}

/// PostgreSQL's text of what `bind` takes: a number as it is, a string without its quotes.
fn as_text(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        text if text.starts_with('"') => serde_json::from_str(text).ok(),
        text => Some(text.to_owned()),
    }
}

/// Where a record's values stand.
pub struct Place<'a> {
    pub source: &'a str,
    pub table: &'a str,
    pub position: &'a str,
    pub key: Option<&'a str>,
    pub xid: u32,
    pub lsn: Lsn,
    pub seq: u64,
}

impl Place<'_> {
    /// The contexts that a ciphertext may have been made in, the likeliest first.
    pub fn aads(&self, found: &[&Found], bound: &[Vec<(String, Option<String>)>]) -> Vec<Vec<u8>> {
        let Place { source, table, key, xid, lsn, seq, .. } = *self;
        let row = Row { source, table, key, xid, lsn: lsn.0, seq };
        let mut columns: Vec<&String> = found.iter().flat_map(|found| &found.columns).collect();
        columns.dedup();
        let mut all = Vec::new();
        let mut aad = Aad::new();
        for with in bound {
            aad.row(&row, with.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
            all.extend(columns.iter().map(|column| aad.column(column).to_vec()));
        }
        all
    }

    /// The domains that a token may have been made for: its column's own, its member's, and those that a rule for it names. A token that
    /// somebody pasted into another column stays closed. What a further method left is under a name made of both.
    pub fn domains(&self, found: &[&Found], named: &[NamedDomain]) -> Vec<Vec<u8>> {
        let mut all: Vec<Space> = Vec::new();
        for found in found {
            let table = found.columns.iter().chain(&found.members).map(|name| (self.table, name));
            for (table, name) in table.chain(found.said.iter().map(|name| ("context", name))) {
                let base = companion_of(name).filter(|base| companion_name(base, Method::Token) == *name);
                all.extend([Some(name.as_str()), base].into_iter().flatten().map(|name| Space::column(table, name)));
            }
        }
        let meant = named.iter().filter(|domain| found.iter().any(|found| domain.is_for(self.table, found)));
        all.extend(meant.map(|named| Space::domain(&named.domain)));
        all.into_iter().map(|space| space.bytes().to_vec()).collect()
    }
}

/// A domain with a name, and which values a rule makes tokens of in it.
#[derive(Clone, Debug)]
pub struct NamedDomain {
    /// A pattern for tables; `context` of what applications say.
    pub table: String,
    /// A pattern for columns, members and fields.
    pub column: String,
    pub domain: String,
}

impl NamedDomain {
    fn is_for(&self, table: &str, found: &Found) -> bool {
        let in_row =
            matches(&self.table, table) && found.columns.iter().chain(&found.members).any(|name| self.names(name));
        let said = matches(&self.table, "context") && found.said.iter().any(|name| self.names(name));
        in_row || said
    }

    /// Rules name a member by its path from the column, or by its own name, wherever it is. Case does not matter, as where tokens are made.
    fn names(&self, name: &str) -> bool {
        let plain = companion_of(name).unwrap_or(name);
        let ends = plain.match_indices('.').map(|(at, _)| &plain[at + 1..]);
        let column = self.column.to_lowercase();
        [name, plain].into_iter().chain(ends).any(|name| matches(&column, &name.to_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_means_a_column_whatever_its_case() {
        let rule = |column: &str| NamedDomain { table: "*".into(), column: column.into(), domain: "mail".into() };
        for (column, name) in [("*email", "userEmail"), ("*_EMAIL", "user_email"), ("email", "doc.Email")] {
            assert!(rule(column).names(name), "{column} {name}");
        }
        assert!(!rule("*email").names("note"));
    }
}
