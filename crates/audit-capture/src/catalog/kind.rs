//! The form of a column's values, determined through domains and arrays: [`Kinds`].

use std::collections::{BTreeSet, HashMap};

use audit_core::value::Kind;
use serde::Deserialize;
use tokio_postgres::Client;

use crate::query::{QueryError, rows};

/// From this number on, oids are assigned by `initdb` and later, and differ from server to server
/// (`FirstGenbkiObjectId`).
const FIRST_UNFIXED: u32 = 10_000;

/// Limit for domains over domains. Nobody nests them so deep; it keeps a damaged catalog from ending the daemon.
const DEPTH_MAX: usize = 32;

/// Types that only the catalog knows.
pub(super) struct Kinds {
    types: HashMap<u32, TypeRow>,
}

#[derive(Deserialize)]
struct TypeRow {
    oid: u32,
    /// The base type of a domain, and the modifier that it adds.
    base: Option<(u32, i32)>,
    /// The element type of an array that is written in braces.
    element: Option<u32>,
    /// The type's name without a modifier.
    name: String,
    /// The types that its values contain: a domain's base, elements, fields, bounds of a range.
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

    /// The kind of a type. Enums, composite types, ranges, types of extensions, and types that no longer exist are
    /// text.
    pub(super) fn of(&self, oid: u32, typmod: i32) -> Kind {
        self.resolve(oid, typmod, DEPTH_MAX)
    }

    /// Names of all types that values of the type contain, at any depth.
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
