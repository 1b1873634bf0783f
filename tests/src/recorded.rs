//! What the sinks hold ([`Recorded`]), and what happened in the source ([`History`]).

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::decoded::{Cell, Name, Transaction, What};
use crate::hot::Shapes;
use crate::trail::{self, Hole, Version};

/// Everything that was recorded, from both sinks and in both ways of reading the lake.
pub struct Recorded {
    pub hot: Vec<Version>,
    pub by_log: Vec<Version>,
    pub by_listing: Vec<Version>,
    /// `None` if there is no such sink.
    pub kafka: Option<Vec<Version>>,
    /// Keys that are not in order in Kafka.
    pub disorder: Vec<String>,
    pub shapes: Shapes,
}

/// What happened in the source between two times at which it was put back, which is one epoch.
pub struct History {
    pub transactions: Vec<Transaction>,
    pub roots: HashMap<Name, Name>,
    pub published: Published,
}

/// Tells whether the publication contained a table at the LSN of a change.
pub type Published = Box<dyn Fn(&Name, u64) -> bool>;

impl History {
    /// Removes the values with this beginning, which are those of protected columns.
    pub fn without_values(mut self, beginning: &str) -> History {
        let shown = |cell: &Cell| !matches!(cell, Cell::Is(Some(text)) if text.starts_with(beginning));
        for change in self.transactions.iter_mut().flat_map(|transaction| &mut transaction.changes) {
            let (old, new) = match &mut change.what {
                What::Insert { new } => (None, Some(new)),
                What::Update { old, new } => (old.as_mut(), Some(new)),
                What::Delete { old } => (old.as_mut(), None),
                What::Truncate => (None, None),
            };
            old.into_iter().chain(new).for_each(|row| row.retain(|_, cell| shown(cell)));
        }
        self
    }
}

impl Recorded {
    /// Removes the columns whose values were withheld.
    pub fn without_protected(mut self) -> Recorded {
        let trails = [&mut self.hot, &mut self.by_log, &mut self.by_listing].into_iter().chain(&mut self.kafka);
        for trail in trails {
            *trail = std::mem::take(trail).into_iter().map(Version::without_protected).collect();
        }
        self
    }

    /// Returns one trail of each sink, by the sink's name.
    pub fn trails(&self) -> impl Iterator<Item = (&'static str, &Vec<Version>)> {
        [("hot", &self.hot), ("archive", &self.by_log)]
            .into_iter()
            .chain(self.kafka.iter().map(|trail| ("stream", trail)))
    }

    /// Positions of versions that hot has and Kafka has not, at most twenty.
    pub fn missing_in_kafka(&self) -> BTreeSet<&str> {
        let there: BTreeSet<&str> = self.kafka.iter().flatten().map(|version| version.position.as_str()).collect();
        let shared = self.hot.iter().filter(|version| version.event != "snapshot" && version.event != "gap");
        shared.map(|version| version.position.as_str()).filter(|position| !there.contains(position)).take(20).collect()
    }

    /// Lists rows of which a sink has two snapshots in one baseline of a table with a key.
    pub fn snapshots_twice(&self) -> Vec<String> {
        let mut twice = Vec::new();
        for (name, trail) in self.trails() {
            let mut seen = HashSet::new();
            let keyed = trail.iter().filter(|version| version.event == "snapshot" && version.key.is_some());
            let again = keyed.filter(|version| !seen.insert((&version.table, version.baseline, &version.key)));
            twice.extend(again.map(|version| format!("{name}: a second snapshot: {}", version.place())).take(5));
        }
        twice
    }

    /// Lists the places where a trail contradicts itself, or the sinks contradict each other.
    pub fn disagreements(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, trail) in [("hot", &self.hot), ("Delta log", &self.by_log), ("listing", &self.by_listing)] {
            wrong.extend(trail::flaws(trail).into_iter().map(|flaw| format!("{name}: {flaw}")));
        }
        for (name, trail) in self.trails().skip(1) {
            let (one, other) = (shared("hot", &self.hot, name, trail), shared(name, trail, "hot", &self.hot));
            wrong.extend(trail::differences("hot", &one, name, &other));
        }
        if let Some(kafka) = &self.kafka {
            wrong.extend(trail::flaws(kafka).into_iter().map(|flaw| format!("kafka: {flaw}")));
            wrong.extend(self.disorder.iter().cloned());
        }
        wrong.extend(trail::differences("Delta log", &self.by_log, "listing", &self.by_listing));
        wrong
    }
}

/// Returns the versions that another sink must have too. These are no snapshots, which each sink has at the position
/// where they were read for it, perhaps another one after a kill; no gaps that only one of the two has; and nothing
/// that a gap in the other one covers.
fn shared(name: &str, trail: &[Version], other_name: &str, other: &[Version]) -> Vec<Version> {
    let holes: Vec<Hole> = trail::holes(trail, name).into_iter().chain(trail::holes(other, other_name)).collect();
    // A transaction ends after its commit record begins.
    let covered = |version: &Version| holes.iter().any(|hole| hole.covers(version.epoch(), version.commit_lsn + 1));
    let is_shared = |version: &&Version| match version.event.as_str() {
        "snapshot" => false,
        "gap" => version.is_gap_of(name) && version.is_gap_of(other_name),
        _ => !covered(version),
    };
    trail.iter().filter(is_shared).cloned().collect()
}
