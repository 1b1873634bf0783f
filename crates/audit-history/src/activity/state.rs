//! The state of a row before a version: [`States`].
//!
//! A version says it itself if its state changed, or if an image of the row was kept. Else it is what the version before
//! left, which is remembered, or looked up.

use std::collections::HashMap;

use audit_core::stored::Record;
use serde_json::Value;

use crate::store::StoreError;
use crate::timeline::Timeline;

/// Maximum number of rows whose state is remembered, which bounds the memory.
const ROWS_MAX: usize = 100_000;

/// Number of versions of a row that are looked at to find its state.
const LOOK_BACK: u32 = 200;

/// The states of a table's rows.
#[derive(Debug)]
pub struct States {
    column: String,
    /// The state after the last version that was seen, by key; null is a state too.
    known: HashMap<String, Value>,
}

impl States {
    pub fn new(column: &str) -> States {
        States { column: column.to_owned(), known: HashMap::new() }
    }

    /// The state before the version, and whether it was taken from an earlier version; `None` if it is not known, or if
    /// there was no row.
    pub async fn before(&mut self, store: &Timeline, version: &Record) -> Result<Option<(Value, bool)>, StoreError> {
        let before = match (version.event.as_str(), self.said_before(version)) {
            ("created" | "truncated", _) => None,
            (_, Some(said)) => Some((said, false)),
            (_, None) => self.of_predecessor(store, version).await?.map(|state| (state, true)),
        };
        self.remember(version, before.as_ref().map(|(state, _)| state));
        Ok(before)
    }

    fn said_before(&self, version: &Record) -> Option<Value> {
        let changed = image(&version.changes, &self.column).and_then(|pair| pair.get(0).cloned());
        // Only an old row that was sent says what was before; else the first of the pair is null.
        let is_told = version.before_known || version.event == "deleted";
        let changed = changed.filter(|_| is_told);
        let unchanged = || {
            let same = version.event == "updated" && version.before_known;
            same.then(|| self.said_after(version)).flatten()
        };
        changed.or_else(|| image(&version.before, &self.column)).or_else(unchanged)
    }

    fn said_after(&self, version: &Record) -> Option<Value> {
        let changed = image(&version.changes, &self.column).and_then(|pair| pair.get(1).cloned());
        let kept = || image(&version.after, &self.column);
        changed.or_else(kept).or_else(|| image(&version.included, &self.column))
    }

    async fn of_predecessor(&self, store: &Timeline, version: &Record) -> Result<Option<Value>, StoreError> {
        let key = version.old_key.as_ref().or(version.key.as_ref());
        let Some(key) = key else { return Ok(None) };
        if let Some(known) = self.known.get(key) {
            return Ok(Some(known.clone()));
        }
        let trail = store.history(&version.source, &version.table_name, key, LOOK_BACK).await?;
        for earlier in trail.iter().filter(|earlier| earlier.position < version.position) {
            if matches!(earlier.event.as_str(), "deleted" | "truncated" | "error") {
                return Ok(None);
            }
            if let Some(state) = self.said_after(earlier) {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    fn remember(&mut self, version: &Record, before: Option<&Value>) {
        if version.event == "truncated" {
            self.known.clear();
        }
        version.old_key.as_ref().map(|key| self.known.remove(key));
        let Some(key) = &version.key else { return };
        // Not named in `changes` means that it stayed, where the old row is known.
        let stayed = || before.filter(|_| version.before_known).cloned();
        match self.said_after(version).filter(|_| version.event != "deleted").or_else(stayed) {
            Some(state) if version.event != "deleted" => {
                if self.known.len() >= ROWS_MAX {
                    self.known.clear();
                }
                self.known.insert(key.clone(), state);
            }
            _ => drop(self.known.remove(key)),
        }
    }
}

fn image(json: &Option<audit_core::stored::Json>, column: &str) -> Option<Value> {
    let object: HashMap<String, Value> = serde_json::from_str(json.as_deref()?.get()).ok()?;
    object.into_iter().find(|(name, _)| name == column).map(|(_, value)| value)
}

/// A value as a rule names it.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
