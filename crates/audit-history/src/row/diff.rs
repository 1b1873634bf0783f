//! What differs between two states of a row: [`diff`].

use std::collections::{BTreeMap, BTreeSet};

use super::compare::{Verdict, compare};
use super::facts::{Facts, rules_of, same_column};
use super::fold::Change;
use super::known::{Known, State, Why};

/// A row's state, with the shape that it is in.
#[derive(Clone, Copy, Debug)]
pub struct Side<'s> {
    pub schema_version: u32,
    /// Empty for a row that is not there.
    pub state: &'s State,
}

/// Two states compared, column by column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    pub changes: Vec<Change>,
    pub same: BTreeMap<String, Known>,
    pub unknown: BTreeMap<String, Why>,
}

impl Diff {
    pub fn is_same(&self) -> bool {
        self.changes.is_empty() && self.unknown.is_empty()
    }
}

/// Compares the states that one row had, or two rows that had the same key. A row that is not there has no values.
pub fn diff(facts: &Facts, a: Side<'_>, b: Side<'_>) -> Diff {
    let mut found = Diff::default();
    let columns: BTreeSet<&String> = a.state.keys().chain(b.state.keys()).collect();
    for column in columns {
        let null = Known::Stated(Known::NULL.into());
        let side = |side: Side<'_>| match side.state.get(column) {
            Some(known) => known.clone(),
            None if side.state.is_empty() => null.clone(),
            None => Known::Unknown(Why::Shape(b.schema_version)),
        };
        let (old, new) = (side(a), side(b));
        match verdict(facts, column, (a, &old), (b, &new)) {
            Verdict::Same => drop(found.same.insert(column.clone(), new)),
            Verdict::Differs => found.changes.push(Change { column: column.clone(), old, new }),
            Verdict::Unknown(why) => {
                found.unknown.insert(column.clone(), why);
            }
        }
    }
    found
}

fn verdict(facts: &Facts, column: &str, (a, old): (Side<'_>, &Known), (b, new): (Side<'_>, &Known)) -> Verdict {
    let (old, new) = match (old, new) {
        (Known::Unknown(why), _) | (_, Known::Unknown(why)) => return Verdict::Unknown(*why),
        (old, new) => (old.value().unwrap_or_default(), new.value().unwrap_or_default()),
    };
    let shapes = (facts.shape(a.schema_version), facts.shape(b.schema_version));
    let (Some(from), Some(to)) = shapes else { return compare(None, None, old, new) };
    let names = [facts.stored(from.schema_version, column), facts.stored(to.schema_version, column)];
    let (before, after) = (rules_of(from, &names[0]), rules_of(to, &names[1]));
    let alike =
        before.map(|rules| (&rules.protection, &rules.inside)) == after.map(|rules| (&rules.protection, &rules.inside));
    let absent = a.state.is_empty() || b.state.is_empty();
    if !alike && !absent {
        return Verdict::Unknown(Why::Rekeyed);
    }
    // Values of another type are compared as they are written.
    let kind = to.column(&names[1]).filter(|_| same_column(from, to, &names[0]).is_some()).map(|column| &column.kind);
    match absent {
        true if old == new => Verdict::Same,
        true => Verdict::Differs,
        false => compare(kind, after, old, new),
    }
}
