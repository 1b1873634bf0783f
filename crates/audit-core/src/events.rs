//! Choices of events, as the configuration makes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    Created,
    Updated,
    Deleted,
    Truncated,
    Snapshot,
    Gap,
    Error,
    /// An update that set a column by which the application marks rows as deleted.
    Discarded,
    /// An update that removed that mark.
    Restored,
}

impl Event {
    pub const ALL: [Event; 9] = [
        Event::Created,
        Event::Updated,
        Event::Deleted,
        Event::Truncated,
        Event::Snapshot,
        Event::Gap,
        Event::Error,
        Event::Discarded,
        Event::Restored,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Event::Created => "created",
            Event::Updated => "updated",
            Event::Deleted => "deleted",
            Event::Truncated => "truncated",
            Event::Snapshot => "snapshot",
            Event::Gap => "gap",
            Event::Error => "error",
            Event::Discarded => "discarded",
            Event::Restored => "restored",
        }
    }

    /// Whether the row existed before and exists after.
    pub fn is_update(self) -> bool {
        matches!(self, Event::Updated | Event::Discarded | Event::Restored)
    }
}

/// What can happen to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowEvent {
    Created,
    Updated,
    Deleted,
    Truncated,
    Discarded,
    Restored,
}

impl RowEvent {
    pub const ALL: [RowEvent; 6] = [
        RowEvent::Created,
        RowEvent::Updated,
        RowEvent::Deleted,
        RowEvent::Truncated,
        RowEvent::Discarded,
        RowEvent::Restored,
    ];

    fn event(self) -> Event {
        match self {
            RowEvent::Created => Event::Created,
            RowEvent::Updated => Event::Updated,
            RowEvent::Deleted => Event::Deleted,
            RowEvent::Truncated => Event::Truncated,
            RowEvent::Discarded => Event::Discarded,
            RowEvent::Restored => Event::Restored,
        }
    }
}

/// `true`, `false`, or the events for which it is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Required {
    Always(bool),
    On(Vec<RowEvent>),
}

impl Required {
    /// Rows that a baseline reads were changed by nobody: they never need an actor.
    pub fn events(&self) -> EventSet {
        match self {
            Required::Always(true) => EventSet::of(&RowEvent::ALL),
            Required::Always(false) => EventSet::default(),
            Required::On(events) => EventSet::of(events),
        }
    }
}

/// One name, or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Columns {
    One(String),
    Several(Vec<String>),
}

impl Columns {
    pub fn names(&self) -> &[String] {
        match self {
            Columns::One(name) => std::slice::from_ref(name),
            Columns::Several(names) => names,
        }
    }
}

/// A set of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSet(u16);

impl EventSet {
    pub fn of(events: &[RowEvent]) -> EventSet {
        EventSet(events.iter().fold(0, |set, event| set | bit(event.event())))
    }

    /// The same set with snapshots, about which the baseline's own setting decides.
    pub fn with_snapshots(self) -> EventSet {
        EventSet(self.0 | bit(Event::Snapshot))
    }

    pub fn contains(self, event: Event) -> bool {
        self.0 & bit(event) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

fn bit(event: Event) -> u16 {
    1 << event as u16
}
