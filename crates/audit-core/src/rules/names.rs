//! Which rules hold for an object that had another name, or was part of another table: [`FormerNames`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Rules, TableRules};
use crate::position::Lsn;
use crate::shape::TableName;

/// The names under which objects were captured, by oid: those that a table had, and for a partition those of its root. The stage and the runner of
/// baselines share them, so that both find the same rules for an object.
#[derive(Clone, Debug, Default)]
pub struct FormerNames(Arc<Mutex<HashMap<u32, Vec<Name>>>>);

#[derive(Clone, Debug)]
struct Name {
    name: TableName,
    /// It was seen by then. ⚠ To what the stream has from before, it may be a name of the future, and its rules are not meant for that.
    seen: Lsn,
    /// The source has it.
    stored: bool,
}

/// After everything.
const EVER: Lsn = Lsn(u64::MAX);

/// A name as it is stored.
pub type Called = (u32, TableName, Lsn);

impl FormerNames {
    /// The object was captured under this name at or before `seen`.
    pub fn called(&self, oid: u32, name: &TableName, seen: Lsn) {
        self.note(oid, name, seen, false);
    }

    /// The source has that the objects were captured under these names.
    pub fn stored(&self, names: impl IntoIterator<Item = Called>) {
        names.into_iter().for_each(|(oid, name, seen)| self.note(oid, &name, seen, true));
    }

    /// `part` belongs to the table `root`: what holds for the table holds for it, also when it is detached.
    pub fn part(&self, part: u32, root: u32, name: &TableName, seen: Lsn) {
        let before = self.of(root, EVER);
        before.iter().rev().chain([name]).for_each(|name| self.called(part, name, seen));
    }

    /// What the source does not have yet.
    pub fn unstored(&self) -> Vec<Called> {
        let names = self.lock();
        let all = names.iter().flat_map(|(oid, names)| names.iter().map(move |name| (oid, name)));
        all.filter(|(_, name)| !name.stored).map(|(oid, name)| (*oid, name.name.clone(), name.seen)).collect()
    }

    /// The names that the object had by `at`, the latest first.
    pub fn of(&self, oid: u32, at: Lsn) -> Vec<TableName> {
        let names = self.lock();
        let known = names.get(&oid).into_iter().flatten().rev().filter(|name| name.seen <= at);
        known.map(|name| name.name.clone()).collect()
    }

    /// What the rules say at `at` of the object that is called `name` there: see [`Rules::for_renamed`].
    pub fn rules(&self, rules: &Rules, name: &TableName, oid: u32, at: Lsn) -> TableRules {
        let mut former = self.of(oid, at);
        former.retain(|other| other != name);
        let found = rules.for_renamed(name, &former);
        // A rename that was taken back leaves nothing out.
        let captured = found.captured || self.is_first(oid, name) && rules.for_table(name).captured;
        TableRules { captured, ..found }
    }

    /// Whether the object had no name before this one.
    fn is_first(&self, oid: u32, name: &TableName) -> bool {
        let names = self.lock();
        names.get(&oid).into_iter().flatten().min_by_key(|known| known.seen).is_some_and(|known| known.name == *name)
    }

    /// The same of how it is called in the catalog now.
    pub fn rules_now(&self, rules: &Rules, name: &TableName, oid: u32) -> TableRules {
        self.rules(rules, name, oid, EVER)
    }

    fn note(&self, oid: u32, name: &TableName, seen: Lsn, stored: bool) {
        let mut names = self.lock();
        let known = names.entry(oid).or_default();
        match known.iter_mut().find(|known| known.name == *name) {
            Some(known) => {
                known.seen = known.seen.min(seen);
                known.stored |= stored;
            }
            None => known.push(Name { name: name.clone(), seen, stored }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Vec<Name>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
