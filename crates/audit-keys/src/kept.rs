//! Keeps the wrapped keys that this process uses, so that they can be stored again ([`Kept`]).
//!
//! A key store that goes back to an earlier state (a backup was restored, or a lagging copy took over) loses keys under
//! which values were encrypted meanwhile. The process that made them still has their wrapped form.

use std::collections::{HashSet, VecDeque};

use audit_cipher::{KeyId, Kind};

use crate::store::{StoredKey, StoredSubject};

/// Maximum number of keys of each sort that are kept: the newest ones, about 300 bytes each.
const KEPT_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Kept {
    keys: VecDeque<StoredKey>,
    subjects: VecDeque<StoredSubject>,
}

impl Kept {
    pub fn key(&mut self, key: &StoredKey) {
        if self.keys.iter().any(|kept| kept.key == key.key) {
            return;
        }
        self.keys.push_back(key.clone());
        if self.keys.len() > KEPT_MAX
            && let Some(oldest) = self.keys.iter().position(|kept| kept.kind == Kind::Data)
        {
            self.keys.remove(oldest);
        }
    }

    pub fn subject(&mut self, key: StoredSubject) {
        self.subjects.push_back(key);
        if self.subjects.len() > KEPT_MAX {
            self.subjects.pop_front();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.subjects.is_empty()
    }

    pub fn ids(&self) -> (Vec<KeyId>, Vec<KeyId>) {
        let keys = self.keys.iter().map(|key| key.key.clone());
        (keys.collect(), self.subjects.iter().map(|key| key.key.clone()).collect())
    }

    /// Returns the kept keys of `asked` that are not among `found`, which the store has. Keys that were destroyed there
    /// are no longer kept.
    pub fn lost(&mut self, asked: &[KeyId], found: &[(KeyId, bool)]) -> (Vec<StoredKey>, Vec<StoredSubject>) {
        let destroyed: HashSet<&KeyId> = found.iter().filter(|(_, destroyed)| *destroyed).map(|(id, _)| id).collect();
        self.keys.retain(|key| !destroyed.contains(&key.key));
        self.subjects.retain(|key| !destroyed.contains(&key.key));
        let found: HashSet<&KeyId> = found.iter().map(|(id, _)| id).collect();
        let lost: HashSet<&KeyId> = asked.iter().filter(|id| !found.contains(id)).collect();
        let keys = self.keys.iter().filter(|key| lost.contains(&key.key)).cloned();
        (keys.collect(), self.subjects.iter().filter(|key| lost.contains(&key.key)).cloned().collect())
    }

    /// Forgets a key, because another one took its place.
    pub fn forget(&mut self, key: &KeyId) {
        self.keys.retain(|kept| kept.key != *key);
        self.subjects.retain(|kept| kept.key != *key);
    }
}
