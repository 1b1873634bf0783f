//! The form of a column's values, found through domains and arrays: [`Kinds`].

use std::collections::{BTreeSet, HashMap};

use audit_core::value::Kind;
use serde::Deserialize;
use tokio_postgres::Client;

use crate::query::{QueryError, rows};

/// From here on oids are given by `initdb` and later, and differ from server to server (`FirstGenbkiObjectId`).
const FIRST_UNFIXED: u32 = 10_000;

/// A domain over a domain over …: further than anybody goes, so that a damaged catalog does not end the daemon.
const DEPTH_MAX: usize = 32;

/// Types that only the catalog knows.
pub(super) struct Kinds {
    types: HashMap<u32, TypeRow>,
}

#[derive(Deserialize)]
struct TypeRow {
    oid: u32,
    /// Of a domain: its base type and the modifier that it adds.
    base: Option<(u32, i32)>,
    /// Of an array that is written in braces: the type of its elements.
    element: Option<u32>,
    /// Without a modifier.
    name: String,
    /// Types of what its values hold: a domain's base, elements, fields, bounds of a range.
    holds: Vec<u32>,
}

impl Kinds {
    pub(super) async fn read(client: &Client, oids: impl Iterator<Item = u32>) -> Result<Kinds, QueryError> {
        let unknown: Vec<u32> = oids.filter(|oid| *oid >= FIRST_UNFIXED).collect::<BTreeSet<_>>().into_iter().collect();
        if unknown.is_empty() {
            return Ok(Kinds { types: HashMap::new() });
        }
        let found: Vec<TypeRow> = rows(client, "read the types", include_str!("../sql/types.sql"), &[&unknown]).await?;
        Ok(Kinds { types: found.into_iter().map(|row| (row.oid, row)).collect() })
    }

    /// Enums, composite types, ranges, extensions, and types that are gone: text.
    pub(super) fn of(&self, oid: u32, typmod: i32) -> Kind {
        self.resolve(oid, typmod, DEPTH_MAX)
    }

    /// Names of all types that values of the type hold, however deep.
    pub(super) fn names_in(&self, oid: u32) -> Vec<String> {
        let (mut seen, mut at) = (vec![oid], 0);
        while let Some(holder) = seen.get(at) {
            let held = self.types.get(holder).map(|row| row.holds.as_slice()).unwrap_or_default();
            let new: Vec<u32> = held.iter().copied().filter(|oid| !seen.contains(oid)).collect();
            seen.extend(new);
            at += 1;
        }
        seen[1..].iter().filter_map(|oid| Some(self.types.get(oid)?.name.clone())).collect()
    }

    fn resolve(&self, oid: u32, typmod: i32, depth: usize) -> Kind {
        if oid < FIRST_UNFIXED || depth == 0 {
            return Kind::of(oid, typmod).unwrap_or(Kind::Text);
        }
        match self.types.get(&oid) {
            Some(TypeRow { base: Some((base, modifier)), .. }) => self.resolve(*base, *modifier, depth - 1),
            Some(TypeRow { element: Some(element), .. }) => self.resolve(*element, typmod, depth - 1).array(),
            _ => Kind::Text,
        }
    }
}
