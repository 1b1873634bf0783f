//! A fold of many rows: what it holds, and how much memory that takes.

use audit_core::position::Position;

use super::{Fold, Living, Standing};
use crate::row::known::{Known, State};

/// What maps and allocations take for each entry beside the bytes of its texts, about.
const ENTRY: usize = 64;

impl Fold<'_> {
    /// Bytes that the row with this key takes, about; 0 if there is none.
    pub fn bytes(&self, key: &str) -> usize {
        self.living.get(key).map_or(0, |living| ENTRY + key.len() + size_of::<Living>() + state_bytes(&living.state))
    }

    /// The keys of the rows that exist, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.living.keys().map(String::as_str)
    }

    /// Forgets the rows of which the key is not wanted.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&str) -> bool) {
        self.living.retain(|key, _| is_wanted(key));
    }

    /// Forgets the row with this key.
    pub fn forget(&mut self, key: &str) {
        self.living.remove(key);
    }

    /// The number of the row that has this key.
    pub fn row_of(&self, key: &str) -> Option<u32> {
        self.living.get(key).map(|living| living.row)
    }

    /// Takes a row out, with its state at position `at`, which is not before its last version.
    pub fn remove(&mut self, key: &str, at: Position) -> Option<Standing> {
        Some(self.living.remove(key)?.standing(self.facts, at))
    }
}

pub(crate) fn state_bytes(state: &State) -> usize {
    let column = |(name, known): (&String, &Known)| {
        size_of::<(String, Known)>() + ENTRY + name.len() + known.value().map_or(0, str::len)
    };
    state.iter().map(column).sum()
}
