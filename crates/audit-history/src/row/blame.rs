//! Who set each column's present value: [`Blame`].

use std::collections::BTreeMap;

use audit_core::position::{Micros, Position};
use audit_core::stored::Record;

use super::fold::{Change, Version};
use super::known::Known;
use super::undone::UndoOf;

/// The version that set a column's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setter {
    /// The number of the version among the row's.
    pub version: Option<u32>,
    pub position: Position,
    pub at: Micros,
    pub actor_id: Option<String>,
    pub reason: Option<String>,
    pub verified: Option<bool>,
    pub event: String,
    pub baseline: Option<u32>,
    /// False if the value may have been set before that version, which is only the first one known to have it.
    pub certain: bool,
    /// The value before; unknown if that is not certain.
    pub before: Option<Known>,
}

/// How blame goes on from a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// It set what it changed.
    Nothing,
    /// Its values count as set by whoever set those before.
    Version,
    /// What it put back counts as set by whoever set it first.
    Undo,
}

/// Follows the columns of one row through its versions.
#[derive(Clone, Debug, Default)]
pub struct Blame {
    /// The values that each column had, oldest first.
    values: BTreeMap<String, Vec<Value>>,
}

#[derive(Clone, Debug)]
struct Value {
    /// The version by which the column got the value.
    position: Position,
    /// The value before, if it is known.
    old: Option<Known>,
    /// Who is to blame for it.
    setter: Setter,
}

impl Blame {
    /// Takes the row's next version.
    pub fn push(&mut self, version: &Version, through: Through) {
        if version.previous.is_none() {
            self.values.clear();
        }
        let ignored = through == Through::Version;
        let undo = UndoOf::of(&version.record).filter(|_| through == Through::Undo).unwrap_or_default();
        for change in &version.changes {
            if !ignored || !self.values.contains_key(&change.column) {
                let first = version.record.event == "snapshot" && version.previous.is_none();
                let own = || Setter::of(version, (!first).then(|| change.old.clone()));
                let setter = self.before(&undo, change).unwrap_or_else(own);
                self.set(version, &change.column, Some(change.old.clone()), setter);
            }
        }
        // A value that may have changed here was set here at the latest.
        for column in version.unknown.keys().filter(|_| !ignored) {
            self.set(version, column, None, Setter::of(version, None));
        }
    }

    fn set(&mut self, version: &Version, column: &str, old: Option<Known>, setter: Setter) {
        let value = Value { position: version.record.position, old, setter };
        self.values.entry(column.to_owned()).or_default().push(value);
    }

    /// Who had set the value that an undo puts back. ⚠ Only where it is the value that was there before.
    fn before(&self, undo: &UndoOf, change: &Change) -> Option<Setter> {
        let values = self.values.get(&change.column)?;
        let undone = values.iter().position(|value| undo.positions.contains(&value.position))?;
        let is_back = values.get(undone)?.old.as_ref()?.value()? == change.new.value()?;
        let before = values.get(undone.checked_sub(1)?)?;
        is_back.then(|| before.setter.clone())
    }

    pub fn setter(&self, column: &str) -> Option<&Setter> {
        self.values.get(column)?.last().map(|value| &value.setter)
    }
}

impl Setter {
    fn of(version: &Version, before: Option<Known>) -> Setter {
        let Record { position, committed_at, actor_id, reason, context_verified, event, baseline, .. } =
            &version.record;
        // A snapshot says what was there, and not who put it there.
        let certain = before.is_some() && event != "snapshot";
        Setter {
            version: version.number,
            position: *position,
            at: *committed_at,
            actor_id: actor_id.clone(),
            reason: reason.clone(),
            verified: *context_verified,
            event: event.clone(),
            baseline: *baseline,
            certain,
            before,
        }
    }
}
