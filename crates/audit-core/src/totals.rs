//! How many versions there are, by table, event, actor and time: [`Totals`].
//!
//! Totals of disjoint parts can be added, so each store counts what it holds for itself.

use std::collections::BTreeMap;

use crate::position::{Micros, Position};

/// Microseconds in a quarter of an hour.
pub const QUARTER: i64 = 900_000_000;

/// Maximum number of actors that are told apart, which bounds the memory.
const ACTORS_MAX: usize = 100_000;

/// What part of a trail is counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Start of the commit times, inclusive.
    pub since: Option<Micros>,
    /// End of the commit times, exclusive.
    pub until: Option<Micros>,
    /// Only versions after this position.
    pub after: Option<Position>,
    /// Only versions at or before this position.
    pub up_to: Option<Position>,
}

impl Bounds {
    pub fn has_time(&self, at: Micros) -> bool {
        self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at < until)
    }

    pub fn has_position(&self, position: Position) -> bool {
        self.after.is_none_or(|after| position > after) && self.up_to.is_none_or(|up_to| position <= up_to)
    }

    /// Whether a stretch of positions has any that is within the bounds.
    pub fn meets(&self, first: Position, last: Position) -> bool {
        self.after.is_none_or(|after| last > after) && self.up_to.is_none_or(|up_to| first <= up_to)
    }
}

/// Numbers of versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub versions: u64,
    /// Versions whose context says that an actor was required and missing.
    pub without_actor: u64,
    /// Versions whose context says that a reason was required and missing.
    pub without_reason: u64,
    /// Versions that put back what earlier ones changed.
    pub undoing: u64,
    pub by_table: BTreeMap<String, u64>,
    pub by_event: BTreeMap<String, u64>,
    /// `None` are the versions without an actor.
    pub by_actor: BTreeMap<Option<String>, u64>,
    /// Versions of actors beyond those that are told apart.
    pub further_actors: u64,
    /// By quarters of an hour since 1970-01-01, of which days begin in every time zone.
    pub by_quarter: BTreeMap<i64, u64>,
}

impl Totals {
    pub fn count_actor(&mut self, actor: Option<&str>, versions: u64) {
        let actor = actor.map(str::to_owned);
        if self.by_actor.len() < ACTORS_MAX || self.by_actor.contains_key(&actor) {
            *self.by_actor.entry(actor).or_default() += versions;
        } else {
            self.further_actors += versions;
        }
    }

    /// Adds the totals of a part that is disjoint from what was counted here.
    pub fn add(&mut self, other: Totals) {
        fn sum<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
            from.into_iter().for_each(|(key, count)| *into.entry(key).or_default() += count);
        }
        self.versions += other.versions;
        self.without_actor += other.without_actor;
        self.without_reason += other.without_reason;
        self.undoing += other.undoing;
        self.further_actors += other.further_actors;
        sum(&mut self.by_table, other.by_table);
        sum(&mut self.by_event, other.by_event);
        sum(&mut self.by_quarter, other.by_quarter);
        other.by_actor.iter().for_each(|(actor, count)| self.count_actor(actor.as_deref(), *count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_beyond_the_limit_are_counted_together() {
        let mut totals = Totals::default();
        (0..ACTORS_MAX + 2).for_each(|number| totals.count_actor(Some(&number.to_string()), 1));
        totals.count_actor(Some("0"), 4);
        assert_eq!((totals.by_actor.len(), totals.further_actors), (ACTORS_MAX, 2));
        assert_eq!(totals.by_actor[&Some("0".to_owned())], 5);
    }

    #[test]
    fn bounds_take_the_end_of_positions_and_leave_the_end_of_times() {
        let at = |seq| Position { seq, ..Position::default() };
        let bounds = Bounds { since: Some(Micros(1)), until: Some(Micros(3)), after: Some(at(1)), up_to: Some(at(3)) };
        assert_eq!([0, 1, 2, 3].map(|time| bounds.has_time(Micros(time))), [false, true, true, false]);
        assert_eq!([1, 2, 3, 4].map(|seq| bounds.has_position(at(seq))), [false, true, true, false]);
        assert_eq!(
            [(0, 1), (0, 2), (3, 9), (4, 9)].map(|(a, b)| bounds.meets(at(a), at(b))),
            [false, true, true, false]
        );
    }
}
