//! Who set each column's present value: [`Blame`].

use std::collections::BTreeMap;

use audit_core::position::{Micros, Position};
use audit_core::stored::Record;

use super::fold::Version;
use super::known::Known;

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

/// Follows the columns of one row through its versions.
#[derive(Clone, Debug, Default)]
pub struct Blame {
    setters: BTreeMap<String, Setter>,
}

impl Blame {
    /// Takes the row's next version. One that is `ignored` is looked through: its values count as set by whoever set
    /// those before.
    pub fn push(&mut self, version: &Version, ignored: bool) {
        if version.previous.is_none() {
            self.setters.clear();
        }
        for change in &version.changes {
            if !ignored || !self.setters.contains_key(&change.column) {
                let first = version.record.event == "snapshot" && version.previous.is_none();
                let setter = Setter::of(version, (!first).then(|| change.old.clone()));
                self.setters.insert(change.column.clone(), setter);
            }
        }
        // A value that may have changed here was set here at the latest.
        for column in version.unknown.keys().filter(|_| !ignored) {
            self.setters.insert(column.clone(), Setter::of(version, None));
        }
    }

    pub fn setter(&self, column: &str) -> Option<&Setter> {
        self.setters.get(column)
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
