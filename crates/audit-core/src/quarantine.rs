//! Versions that operators decided to leave out, because a sink refuses them: [`Quarantine`].
//!
//! An `error` record takes the place of such a version. Of the row it holds only the key. It says which event the
//! version was and who made the change, and who decided to leave it out. Every sink gets the record from here
//! (`Version::unless_quarantined`), so that all of them write the same.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::json;

use crate::context::Context;
use crate::events::Event;
use crate::position::Position;

/// The versions that one sink leaves out.
pub type Quarantine = HashMap<Position, Quarantined>;

/// An operator's decision to leave a version out, as it is recorded in the version's place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// Who decided: the user of the operating system, and the role in the source's database.
    os_user: String,
    db_user: String,
    /// When, in RFC 3339.
    at: String,
    /// Why, in the operator's words.
    note: Option<String>,
    bare: bool,
    /// The record that takes the version's place, made when it is first needed. It is made once, because there is only
    /// one version at a position.
    record: OnceLock<Context>,
}

impl Quarantined {
    pub fn new(os_user: String, db_user: String, at: String, note: Option<String>) -> Quarantined {
        Quarantined { os_user, db_user, at, note, ..Quarantined::default() }
    }

    /// The same decision, for a sink that accepts neither the key nor the actor.
    #[must_use]
    pub fn bare(self) -> Quarantined {
        Quarantined { bare: true, record: OnceLock::new(), ..self }
    }

    /// Whether the record leaves out the key and the actor too.
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    /// The context of an `error` record: what happened to the change, in words that contain no value of a row, and who
    /// made the change, as far as the context `said` so.
    pub fn context(&self, what: &str, event: Option<Event>, said: Option<&Context>) -> Context {
        let Quarantined { os_user, db_user, at, note, .. } = self;
        let mut record = json!({
            "error": what,
            "quarantined": { "os_user": os_user, "db_user": db_user, "at": at, "note": note },
        });
        if let Some(event) = event {
            record["event"] = event.name().into();
        }
        let said = said.cloned().unwrap_or_default();
        Context { actor_id: said.actor_id, actor: said.actor, verified: said.verified, ..Context::note(&record) }
    }

    /// The context of the record that takes the version's place.
    pub(crate) fn record(&self, event: Event, said: Option<&Context>, actor_id: Option<&str>) -> &Context {
        self.record.get_or_init(|| {
            let said = said.filter(|_| !self.bare);
            let record = self.context("refused by the sink and quarantined", Some(event), said);
            // The actor may come from a column instead of the context.
            let actor_id = actor_id.filter(|_| !self.bare).map(str::to_owned);
            Context { actor_id, ..record }
        })
    }
}
