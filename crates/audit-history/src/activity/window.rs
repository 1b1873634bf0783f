//! Finds more events than a limit within a time: [`Windows`].

use std::collections::{HashMap, VecDeque};

use audit_core::position::{Micros, Position};

/// Maximum number of windows that are kept at a time, which bounds the memory.
const WINDOWS_MAX: usize = 100_000;

/// Maximum number of positions that a burst names.
const POSITIONS_MAX: usize = 20;

/// Who did what to which row; rows and actors that are not told apart are `None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    pub key: Option<String>,
    pub actor: Option<String>,
}

/// Events of one subject that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burst {
    pub subject: Subject,
    pub count: u64,
    pub from: Micros,
    pub to: Micros,
    /// The first of its positions.
    pub positions: Vec<Position>,
}

#[derive(Debug, Default)]
struct Window {
    /// The last events, at most one more than the limit.
    last: VecDeque<(Micros, Position)>,
    burst: Option<Burst>,
    /// The last event that the burst counts.
    counted: Position,
}

/// A window for each subject.
#[derive(Debug)]
pub struct Windows {
    more_than: usize,
    within: i64,
    windows: HashMap<Subject, Window>,
    /// Events that were not looked at because there were too many subjects at a time.
    pub untold: u64,
}

impl Windows {
    /// `within` is in microseconds.
    pub fn new(more_than: u32, within: i64) -> Windows {
        Windows { more_than: more_than as usize, within, windows: HashMap::new(), untold: 0 }
    }

    /// Adds an event. Returns the bursts that ended and whose windows were given up for others.
    pub fn push(&mut self, subject: Subject, at: Micros, position: Position) -> Vec<Burst> {
        let mut ended = Vec::new();
        if self.windows.len() >= WINDOWS_MAX && !self.windows.contains_key(&subject) {
            ended = self.sweep(at);
            if self.windows.len() >= WINDOWS_MAX {
                self.untold += 1;
                return ended;
            }
        }
        let (more_than, within) = (self.more_than, self.within);
        let window = self.windows.entry(subject.clone()).or_default();
        ended.extend(window.push(&subject, (at, position), more_than, within));
        ended
    }

    /// Gives up the windows that no later event can belong to.
    fn sweep(&mut self, now: Micros) -> Vec<Burst> {
        let within = self.within;
        let is_over = |window: &Window| window.last.back().is_none_or(|(last, _)| now.0 - last.0 > within);
        let over = self.windows.extract_if(|_, window| is_over(window));
        over.filter_map(|(_, window)| window.burst).collect()
    }

    /// The bursts that have not ended yet.
    pub fn finish(self) -> impl Iterator<Item = Burst> {
        self.windows.into_values().filter_map(|window| window.burst)
    }
}

impl Window {
    fn push(
        &mut self,
        subject: &Subject,
        (at, position): (Micros, Position),
        more_than: usize,
        within: i64,
    ) -> Option<Burst> {
        let mut ended = None;
        self.last.push_back((at, position));
        if self.last.len() > more_than + 1 {
            self.last.pop_front();
        }
        // ⚠ Commit times are not in the order of positions, so the first event need not be the earliest.
        let times = || self.last.iter().map(|(at, _)| *at);
        let (first, last) = (times().min().unwrap_or(at), times().max().unwrap_or(at));
        if self.last.len() <= more_than || last.0 - first.0 > within {
            return None;
        }
        match &mut self.burst {
            Some(burst) if first <= burst.to => {
                // Events between may not have been counted when they came.
                let more = self.last.iter().map(|(_, position)| *position).filter(|position| *position > self.counted);
                let more: Vec<Position> = more.collect();
                burst.count += more.len() as u64;
                (burst.from, burst.to) = (burst.from.min(first), burst.to.max(last));
                burst.positions.extend(more.into_iter().take(POSITIONS_MAX.saturating_sub(burst.positions.len())));
            }
            burst => {
                let positions = self.last.iter().map(|(_, position)| *position).take(POSITIONS_MAX).collect();
                let count = self.last.len() as u64;
                ended = burst.replace(Burst { subject: subject.clone(), count, from: first, to: last, positions });
            }
        }
        self.counted = position;
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(key: &str) -> Subject {
        Subject { key: Some(key.to_owned()), actor: None }
    }

    /// The bursts of events at these times, as number, start and end.
    fn bursts(times: &[i64]) -> Vec<(u64, i64, i64)> {
        let mut windows = Windows::new(2, 10);
        let push = |(seq, at): (usize, &i64)| {
            windows.push(subject("1"), Micros(*at), Position { seq: seq as u32, ..Position::default() })
        };
        let mut found: Vec<Burst> = times.iter().enumerate().flat_map(push).collect();
        found.extend(windows.finish());
        found.iter().map(|burst| (burst.count, burst.from.0, burst.to.0)).collect()
    }

    #[test]
    fn a_burst_is_strictly_more_than_the_limit_within_the_time() {
        assert_eq!(bursts(&[0, 5]), []);
        assert_eq!(bursts(&[0, 5, 10]), [(3, 0, 10)]);
        assert_eq!(bursts(&[0, 5, 11]), []);
        assert_eq!(bursts(&[0, 5, 11, 12]), [(3, 5, 12)]);
    }

    #[test]
    fn what_follows_at_once_belongs_to_the_burst_and_what_comes_later_is_another() {
        assert_eq!(bursts(&[0, 5, 10, 14, 15]), [(5, 0, 15)]);
        assert_eq!(bursts(&[0, 5, 10, 19, 20]), [(5, 0, 20)]);
        assert_eq!(bursts(&[0, 1, 2, 100, 101, 102]), [(3, 0, 2), (3, 100, 102)]);
    }

    #[test]
    fn commit_times_need_not_be_in_order() {
        assert_eq!(bursts(&[10, 0, 5]), [(3, 0, 10)]);
        assert_eq!(bursts(&[20, 0, 5]), []);
    }

    #[test]
    fn windows_that_are_over_make_room_and_their_bursts_are_not_lost() {
        let mut windows = Windows::new(0, 10);
        let at = Position::default();
        for number in 0..WINDOWS_MAX {
            assert_eq!(windows.push(subject(&number.to_string()), Micros(0), at), []);
        }
        assert_eq!(windows.push(subject("late"), Micros(5), at), []);
        assert_eq!(windows.untold, 1);
        assert_eq!(windows.push(subject("late"), Micros(50), at).len(), WINDOWS_MAX);
        assert_eq!(windows.finish().count(), 1);
    }
}
