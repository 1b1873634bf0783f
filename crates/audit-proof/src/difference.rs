//! In which fields two records differ.

use std::collections::{BTreeMap, BTreeSet};

use crate::Canonical;
use crate::unit::{Unit, take_field, take_unit};
use crate::value::Kind;

/// A value, by the name of its field in the version record.
type Fields = BTreeMap<String, (Kind, Vec<u8>)>;

/// The fields of the version record in which the meanings of two records differ, by name: `key`, `row.status`,
/// `changes.status[1]`, which is the new value.
pub fn differing_fields(one: &Canonical, other: &Canonical) -> BTreeSet<String> {
    let (one, other) = (fields(&one.meaning()), fields(&other.meaning()));
    let names = one.keys().chain(other.keys());
    names.filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}

fn fields(meaning: &[u8]) -> Fields {
    let mut rest = meaning.get(1..).unwrap_or_default();
    let mut fields = Fields::new();
    while let Some(unit) = take_unit(&mut rest) {
        match unit.kind {
            Kind::Fields => inner(unit, &mut fields),
            kind => drop(fields.insert(unit.field(), (kind, unit.value.to_vec()))),
        }
    }
    fields
}

fn inner(unit: Unit<'_>, fields: &mut Fields) {
    let mut rest = unit.value;
    while let Some((name, kind, value)) = take_field(&mut rest) {
        fields.insert(name.to_owned(), (kind, value.to_vec()));
    }
}
