//! Whether the stream continues what the sinks have. Pure: facts in, a verdict out.
//!
//! WAL can be lost in many ways (slot dropped, invalidated, recreated, moved; failover; restored backup), but they show in few facts:
//! the system identifier, the timeline's history, where the server's WAL ends, and where the slot begins.

use std::fmt;
use std::sync::Arc;

use audit_capture::replication::{Identity, TimelineFork};
use audit_capture::slot::SlotState;
use audit_core::batch::Progress;
use audit_core::position::{Lsn, Position};
use audit_core::sink::Checkpoint;

/// The source as found after START_REPLICATION succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub system_id: u64,
    pub timeline: u32,
    /// Earlier timelines, and where each was left.
    pub forks: Vec<(u32, Lsn)>,
    /// The end of the server's WAL.
    pub wal_end: Lsn,
    /// Where the slot begins to send: everything before was acknowledged, by us or by someone else.
    pub slot_start: Lsn,
}

impl Server {
    pub(crate) fn new(system: &Identity, forks: Vec<TimelineFork>, slot: &SlotState) -> Server {
        Server {
            system_id: system.system_id,
            timeline: system.timeline,
            forks: forks.into_iter().map(|fork| (fork.timeline, fork.fork_lsn)).collect(),
            wal_end: slot.current,
            slot_start: slot.confirmed_flush_lsn.unwrap_or(Lsn::ZERO),
        }
    }
}

/// A stretch of WAL that a sink will never get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub sink: Arc<str>,
    /// What the sink has.
    pub from: Lsn,
    /// Where the stream begins.
    pub to: Lsn,
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another cluster answers under the same address.
    System,
    /// The server's history does not contain what the sink has: a restored backup, or a failover that lost commits.
    History,
    /// The slot begins behind what the sink has: it was dropped, moved or invalidated.
    Slot,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Reason::System => "another cluster",
            Reason::History => "history that was replaced",
            Reason::Slot => "a slot that begins later",
        }
    }

    /// How that comes about.
    fn explained(self) -> &'static str {
        match self {
            Reason::System => "another cluster answers at this address",
            Reason::History => {
                "a restored backup, or a failover that lost commits, replaced the history that the sink has"
            }
            Reason::Slot => "the slot was moved or made anew by someone else",
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { sink, from, to, reason } = self;
        write!(f, "sink {sink} has everything to {from}, the slot begins at {to}: {}", reason.explained())
    }
}

/// How to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub epoch: u16,
    /// Transactions that committed before here belong to the epoch before: history that the old server and this one share, which the
    /// sinks may have in part. Zero where no epoch begins.
    pub boundary: Lsn,
    /// Where the slot begins to send.
    pub slot_start: Lsn,
    /// Lost stretches that nobody has accepted yet. Not empty: the daemon must not go on without being told.
    pub gaps: Vec<Gap>,
    /// Sinks that still lack the record of a gap that was accepted before.
    pub owed: Vec<Gap>,
}

impl Verdict {
    /// The epoch of a transaction by its commit.
    pub fn epoch_at(&self, commit_lsn: Lsn) -> u16 {
        if commit_lsn < self.boundary { self.epoch.saturating_sub(1) } else { self.epoch }
    }

    /// Where the stream begins.
    pub fn start(&self) -> Progress {
        Progress {
            position: Position::new(self.epoch_at(self.slot_start), Lsn::ZERO, 0),
            change_lsn: Lsn::ZERO,
            flushed_lsn: self.slot_start,
        }
    }

    /// Where a `gap` record stands: just before the first transaction behind it. A commit record starts at a multiple of eight, so no
    /// version can have this position.
    pub fn gap_position(&self) -> Position {
        Position::new(self.epoch, Lsn(self.slot_start.max(self.boundary).0.saturating_sub(1)), 0)
    }
}

/// Compares the server with what each sink has. Sinks without a checkpoint start at the slot's position.
pub fn judge(server: &Server, sinks: &[(Arc<str>, Option<Checkpoint>)]) -> Verdict {
    let stored: Vec<(&Arc<str>, &Checkpoint)> =
        sinks.iter().filter_map(|(name, checkpoint)| checkpoint.as_ref().map(|c| (name, c))).collect();
    let highest = stored.iter().map(|(_, c)| c.position.epoch).max().unwrap_or(1).max(1);
    let gap = |sink: &Arc<str>, checkpoint: &Checkpoint, reason| Gap {
        sink: sink.clone(),
        from: checkpoint.flushed_lsn,
        to: server.slot_start,
        reason,
    };
    let (current, behind): (Vec<_>, Vec<_>) = stored.iter().partition(|(_, c)| c.position.epoch == highest);
    let broken = current.iter().find_map(|(_, checkpoint)| discontinuity(server, checkpoint));
    // An epoch that any of its sinks cannot continue is over for all of them: positions in it would be ambiguous.
    if let Some(reason) = broken {
        return Verdict {
            epoch: highest.saturating_add(1),
            boundary: boundary(server, &stored),
            slot_start: server.slot_start,
            gaps: stored.iter().map(|(sink, checkpoint)| gap(sink, checkpoint, reason)).collect(),
            owed: Vec::new(),
        };
    }
    let lost = current.iter().filter(|(_, checkpoint)| server.slot_start > checkpoint.flushed_lsn);
    Verdict {
        epoch: highest,
        boundary: if behind.is_empty() { Lsn::ZERO } else { boundary(server, &behind) },
        slot_start: server.slot_start,
        gaps: lost.map(|(sink, checkpoint)| gap(sink, checkpoint, Reason::Slot)).collect(),
        owed: behind.iter().map(|(sink, checkpoint)| gap(sink, checkpoint, Reason::History)).collect(),
    }
}

/// Where the old history ends. Only the timelines' history tells; without it the whole stream counts as new, for to skip a new
/// commit as old would lose it.
fn boundary(server: &Server, sinks: &[(&Arc<str>, &Checkpoint)]) -> Lsn {
    let forks = sinks.iter().filter(|(_, c)| c.system_id == server.system_id).map(|(_, checkpoint)| {
        server.forks.iter().find(|(timeline, _)| *timeline == checkpoint.timeline).map_or(Lsn::ZERO, |(_, fork)| *fork)
    });
    forks.min().unwrap_or(Lsn::ZERO)
}

/// Why the server does not continue the checkpoint; `None` where it does.
fn discontinuity(server: &Server, checkpoint: &Checkpoint) -> Option<Reason> {
    if checkpoint.system_id != server.system_id {
        return Some(Reason::System);
    }
    let end = if checkpoint.timeline == server.timeline {
        server.wal_end
    } else {
        match server.forks.iter().find(|(timeline, _)| *timeline == checkpoint.timeline) {
            Some((_, fork)) => *fork,
            None => return Some(Reason::History),
        }
    };
    let continues = end >= checkpoint.flushed_lsn && end > checkpoint.position.commit_lsn;
    (!continues).then_some(Reason::History)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn checkpoint(epoch: u16, timeline: u32, commit: u64, flushed: u64) -> Option<Checkpoint> {
        Some(Checkpoint {
            source: "shop".into(),
            system_id: 7,
            timeline,
            position: Position::new(epoch, Lsn(commit), 0),
            change_lsn: Lsn(commit.saturating_sub(8)),
            flushed_lsn: Lsn(flushed),
        })
    }

    fn server(timeline: u32, forks: &[(u32, u64)], wal_end: u64, slot_start: u64) -> Server {
        Server {
            system_id: 7,
            timeline,
            forks: forks.iter().map(|(t, l)| (*t, Lsn(*l))).collect(),
            wal_end: Lsn(wal_end),
            slot_start: Lsn(slot_start),
        }
    }

    fn judged(server: Server, sinks: &[Option<Checkpoint>]) -> (u16, Vec<(String, Reason)>, Vec<String>) {
        let sinks: Vec<_> = ["hot", "lake"].into_iter().map(Arc::from).zip(sinks.iter().cloned()).collect();
        let verdict = judge(&server, &sinks);
        (
            verdict.epoch,
            verdict.gaps.iter().map(|g| (g.sink.to_string(), g.reason)).collect(),
            verdict.owed.iter().map(|g| g.sink.to_string()).collect(),
        )
    }

    #[test]
    fn new_sinks_start_at_the_slot() {
        assert_eq!(judged(server(1, &[], 900, 500), &[None, None]), (1, vec![], vec![]));
        assert_eq!(judged(server(1, &[], 900, 500), &[checkpoint(1, 1, 600, 608), None]), (1, vec![], vec![]));
    }

    #[test]
    fn a_slot_behind_or_at_the_checkpoint_continues() {
        assert_eq!(
            judged(server(1, &[], 900, 608), &[checkpoint(1, 1, 600, 608), checkpoint(1, 1, 700, 708)]).1,
            vec![]
        );
    }

    #[test]
    fn a_slot_beyond_a_checkpoint_was_moved_by_someone_else() {
        let (epoch, gaps, _) =
            judged(server(1, &[], 900, 650), &[checkpoint(1, 1, 600, 608), checkpoint(1, 1, 700, 708)]);
        assert_eq!((epoch, gaps), (1, vec![("hot".to_string(), Reason::Slot)]));
    }

    #[test]
    fn a_restore_to_an_earlier_lsn_starts_a_new_epoch() {
        let sinks = [checkpoint(1, 1, 600, 608), checkpoint(1, 1, 300, 308)];
        let (epoch, gaps, _) = judged(server(1, &[], 500, 300), &sinks);
        assert_eq!(epoch, 2);
        assert_eq!(gaps.len(), 2, "the epoch is over for every sink");
    }

    #[test]
    fn a_failover_that_lost_the_last_commits_starts_a_new_epoch() {
        let sinks = [checkpoint(1, 1, 600, 608), None];
        assert_eq!(judged(server(2, &[(1, 608)], 900, 500), &sinks).0, 1, "the fork is behind what was captured");
        assert_eq!(judged(server(2, &[(1, 600)], 900, 500), &sinks).0, 2, "the fork cuts the last commit off");
        assert_eq!(judged(server(3, &[(2, 700)], 900, 500), &sinks).0, 2, "an unknown timeline");
    }

    #[test]
    fn history_that_both_servers_share_stays_in_its_epoch() {
        let verdict = judge(&server(2, &[(1, 600)], 900, 500), &[(Arc::from("hot"), checkpoint(1, 1, 600, 608))]);
        assert_eq!((verdict.epoch_at(Lsn(592)), verdict.epoch_at(Lsn(600))), (1, 2));
        assert_eq!(verdict.start().position.epoch, 1);
        assert_eq!(verdict.gap_position(), Position::new(2, Lsn(599), 0));
        let unknown = judge(&server(1, &[], 590, 500), &[(Arc::from("hot"), checkpoint(1, 1, 600, 608))]);
        assert_eq!(unknown.epoch_at(Lsn(500)), 2, "a commit that may be new is never skipped as old");
    }

    #[test]
    fn another_cluster_is_never_continued() {
        let server = Server { system_id: 8, ..server(1, &[], 900, 500) };
        assert_eq!(judged(server, &[checkpoint(1, 1, 600, 608), None]).1, vec![("hot".into(), Reason::System)]);
    }

    #[test]
    fn a_sink_in_an_older_epoch_is_owed_its_gap_record() {
        let sinks = [checkpoint(2, 1, 600, 608), checkpoint(1, 1, 800, 808)];
        assert_eq!(judged(server(1, &[], 900, 500), &sinks), (2, vec![], vec!["lake".to_string()]));
    }

    #[test]
    fn a_gap_stands_where_no_commit_can_and_before_all_that_follow() {
        let verdict = judge(&server(1, &[], 900, 656), &[(Arc::from("hot"), checkpoint(1, 1, 600, 608))]);
        let position = verdict.gap_position();
        assert!(position > checkpoint(1, 1, 600, 608).unwrap().position && !position.commit_lsn.0.is_multiple_of(8));
        assert!(position < Position::new(1, Lsn(656), 0));
    }
}
