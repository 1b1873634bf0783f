//! Whether the stream continues what the sinks have. Pure: facts come in, a verdict comes out.
//!
//! WAL can be lost in many ways (slot dropped, invalidated, recreated, moved; failover; restored backup), but all of
//! them show in few facts: the system identifier, the timeline's history, where the server's WAL ends, and where the
//! slot begins.

use std::fmt;
use std::sync::Arc;

use audit_capture::replication::{Identity, TimelineFork};
use audit_capture::slot::SlotState;
use audit_core::batch::Progress;
use audit_core::position::{Lsn, Position};
use audit_core::sink::Checkpoint;

/// The source as it was after START_REPLICATION succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub system_id: u64,
    pub timeline: u32,
    /// Earlier timelines, and where each was left.
    pub forks: Vec<(u32, Lsn)>,
    /// The end of the server's WAL.
    pub wal_end: Lsn,
    /// Where the slot begins to send: everything before this was acknowledged, by us or by someone else.
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

    /// Where a timeline ends in the server's history; `None` if it is not part of it.
    fn end_of(&self, timeline: u32) -> Option<Lsn> {
        if timeline == self.timeline {
            return Some(self.wal_end);
        }
        self.forks.iter().find(|(left, _)| *left == timeline).map(|(_, fork)| *fork)
    }

    /// Where a timeline of the server's history began, which is where the one before it was left.
    pub(crate) fn start_of(&self, timeline: u32) -> Lsn {
        let before = self.forks.iter().take_while(|(left, _)| *left != timeline);
        before.last().map_or(Lsn::ZERO, |(_, fork)| *fork)
    }
}

/// A stretch of WAL that a sink will never get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub sink: Arc<str>,
    /// The position up to which the sink has everything.
    pub from: Lsn,
    /// Where the stream begins.
    pub to: Lsn,
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another cluster answers at the same address.
    System,
    /// The server's history does not contain what the sink has: a restored backup, or a failover that lost commits.
    History,
    /// The slot begins after what the sink has: it was dropped, moved or invalidated.
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

    /// A description of the cause.
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

/// How to begin a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub epoch: u16,
    /// Transactions that committed before this position belong to the previous epoch: it is history that the old server
    /// and this one share, and the sinks may have a part of it. Zero if no epoch begins.
    pub boundary: Lsn,
    /// Where the slot begins to send.
    pub slot_start: Lsn,
    /// Lost stretches that nobody has accepted yet. If there are any, the daemon must not continue without permission.
    pub gaps: Vec<Gap>,
    /// Sinks that still lack the record of a gap that was accepted before.
    pub owed: Vec<Gap>,
}

impl Verdict {
    /// The epoch of a transaction, determined by its commit.
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

    /// The position of a `gap` record: just before the first transaction after the gap. A commit record starts at a
    /// multiple of eight, so no version can have this position.
    pub fn gap_position(&self) -> Position {
        Position::new(self.epoch, Lsn(self.slot_start.max(self.boundary).0.saturating_sub(1)), 0)
    }
}

/// Compares the server with what each sink has. Sinks without a checkpoint start at the slot's position.
pub fn judge(server: &Server, sinks: &[(Arc<str>, Option<Checkpoint>)]) -> Verdict {
    let stored = stored(sinks);
    let highest = highest_epoch(&stored);
    let gap = |sink: &Arc<str>, checkpoint: &Checkpoint, reason| gap(server, sink, checkpoint, reason);
    let (current, behind): (Vec<_>, Vec<_>) = stored.iter().partition(|(_, c)| c.position.epoch == highest);
    let broken = current.iter().find_map(|(_, checkpoint)| discontinuity(server, checkpoint));
    // An epoch that any of its sinks cannot continue ends for all of them: positions in it would be ambiguous.
    if let Some(reason) = broken {
        return ended(server, sinks, reason, boundary(server, &stored));
    }
    let lost = current.iter().filter(|(_, checkpoint)| server.slot_start > checkpoint.flushed_lsn);
    Verdict {
        epoch: highest,
        boundary: boundary_again(server, &current, &behind),
        slot_start: server.slot_start,
        gaps: lost.map(|(sink, checkpoint)| gap(sink, checkpoint, Reason::Slot)).collect(),
        owed: behind.iter().map(|(sink, checkpoint)| gap(sink, checkpoint, Reason::History)).collect(),
    }
}

/// The verdict if the stream does not send what a sink has, although nothing else shows that the history was replaced.
/// Then no shared history is known, and the whole stream counts as new.
pub fn diverged(server: &Server, sinks: &[(Arc<str>, Option<Checkpoint>)]) -> Verdict {
    ended(server, sinks, Reason::History, Lsn::ZERO)
}

/// Ends the epoch for every sink; the next one begins at `boundary`.
fn ended(server: &Server, sinks: &[(Arc<str>, Option<Checkpoint>)], reason: Reason, boundary: Lsn) -> Verdict {
    let stored = stored(sinks);
    Verdict {
        epoch: highest_epoch(&stored).saturating_add(1),
        boundary,
        slot_start: server.slot_start,
        gaps: stored.iter().map(|(sink, checkpoint)| gap(server, sink, checkpoint, reason)).collect(),
        owed: Vec::new(),
    }
}

fn stored(sinks: &[(Arc<str>, Option<Checkpoint>)]) -> Vec<(&Arc<str>, &Checkpoint)> {
    sinks.iter().filter_map(|(name, checkpoint)| checkpoint.as_ref().map(|c| (name, c))).collect()
}

fn highest_epoch(stored: &[(&Arc<str>, &Checkpoint)]) -> u16 {
    stored.iter().map(|(_, checkpoint)| checkpoint.position.epoch).max().unwrap_or(1).max(1)
}

fn gap(server: &Server, sink: &Arc<str>, checkpoint: &Checkpoint, reason: Reason) -> Gap {
    Gap { sink: sink.clone(), from: checkpoint.flushed_lsn, to: server.slot_start, reason }
}

/// The boundary of an epoch that only some of the sinks have begun, or an earlier position. A later one would put
/// commits that a sink in this epoch still lacks into the previous epoch: the sink would skip them as old.
fn boundary_again(server: &Server, current: &[(&Arc<str>, &Checkpoint)], behind: &[(&Arc<str>, &Checkpoint)]) -> Lsn {
    // A gap is just before a commit, and commits start at multiples of eight.
    let reached = current.iter().map(|(_, checkpoint)| Lsn(checkpoint.position.commit_lsn.0.next_multiple_of(8)));
    let boundary = boundary(server, behind).min(reached.min().unwrap_or(Lsn::ZERO));
    // The boundary is proved to be in shared history when such a sink receives its last change again there. A sink
    // whose history ends at a fork needs no proof.
    let unproven = |checkpoint: &Checkpoint| {
        checkpoint.position.commit_lsn >= boundary && discontinuity(server, checkpoint).is_none()
    };
    if behind.is_empty() || behind.iter().any(|(_, checkpoint)| unproven(checkpoint)) { Lsn::ZERO } else { boundary }
}

/// Where the old history ends. Only the timelines' history shows it. Without it the whole stream counts as new, because
/// skipping a new commit as old would lose it.
fn boundary(server: &Server, sinks: &[(&Arc<str>, &Checkpoint)]) -> Lsn {
    let forks = sinks.iter().filter(|(_, c)| c.system_id == server.system_id).map(|(_, checkpoint)| {
        let shared = checkpoint.timeline != server.timeline && same_timeline(server, checkpoint);
        server.end_of(checkpoint.timeline).filter(|_| shared).unwrap_or(Lsn::ZERO)
    });
    forks.min().unwrap_or(Lsn::ZERO)
}

/// Why the server does not continue the checkpoint; `None` if it does.
fn discontinuity(server: &Server, checkpoint: &Checkpoint) -> Option<Reason> {
    if checkpoint.system_id != server.system_id {
        return Some(Reason::System);
    }
    let reaches = |end: Lsn| end >= checkpoint.flushed_lsn && end > checkpoint.position.commit_lsn;
    let continues = server.end_of(checkpoint.timeline).is_some_and(reaches)
        && same_timeline(server, checkpoint)
        && !before_gap(server, checkpoint);
    (!continues).then_some(Reason::History)
}

/// Whether the timeline is the same. Two restores may give their timelines the same number, but hardly the same
/// beginning.
fn same_timeline(server: &Server, checkpoint: &Checkpoint) -> bool {
    checkpoint.timeline_start.is_none_or(|start| start == server.start_of(checkpoint.timeline))
}

/// Whether the slot was moved back to before the gap that the sink's checkpoint is at. What the stream sends from there
/// would be skipped as old, and there is no change at the gap that could be recognised. Before a gap at a fork of the
/// history is shared history, which the sink has.
fn before_gap(server: &Server, checkpoint: &Checkpoint) -> bool {
    let gap = checkpoint.position.commit_lsn;
    let at_fork = server.forks.iter().any(|(_, fork)| fork.0 == gap.0.saturating_add(1));
    checkpoint.change_lsn == Lsn::ZERO && server.slot_start <= gap && gap != Lsn::ZERO && !at_fork
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
            timeline_start: None,
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

    /// What was written since then hides the loss, but not that the timeline began elsewhere.
    #[test]
    fn a_timeline_of_the_same_number_may_be_another_one() {
        let began =
            |timeline, at| checkpoint(1, timeline, 600, 608).map(|c| Checkpoint { timeline_start: Some(Lsn(at)), ..c });
        let second = || server(2, &[(1, 500)], 900, 400);
        let third = || server(3, &[(1, 500), (2, 800)], 900, 400);
        for (server, checkpoint, epoch) in [
            (second(), began(2, 500), 1),
            (second(), began(2, 504), 2),
            (second(), checkpoint(1, 2, 600, 608), 1),
            (third(), began(2, 500), 1),
            (third(), began(2, 504), 2),
            (third(), began(3, 800), 1),
            (third(), began(3, 500), 2),
        ] {
            let shown = format!("{server:?} {checkpoint:?}");
            let verdict = judge(&server, &[(Arc::from("hot"), checkpoint)]);
            assert_eq!(verdict.epoch, epoch, "{shown}");
            assert_eq!(verdict.boundary, Lsn::ZERO, "nothing is known to be shared: {shown}");
        }
    }

    #[test]
    fn a_slot_put_back_to_before_a_gap_does_not_continue() {
        let at_gap = |commit| checkpoint(2, 1, commit, 608).map(|c| Checkpoint { change_lsn: Lsn::ZERO, ..c });
        assert_eq!(judged(server(1, &[], 900, 600), &[at_gap(599)]).0, 2, "as it was when the gap was accepted");
        assert_eq!(judged(server(1, &[], 900, 592), &[at_gap(599)]).0, 3);
        assert_eq!(judged(server(1, &[], 900, 592), &[at_gap(0)]).0, 2, "only begun");
        // Between the slot and a fork is what the sink has in the previous epoch.
        let forked = server(2, &[(1, 600)], 900, 592);
        let gap = at_gap(599).map(|c| Checkpoint { timeline: 2, ..c });
        assert_eq!(judged(forked, &[gap]).0, 2);
    }

    /// Only the stream shows this case: it counts as new from its beginning.
    #[test]
    fn a_stream_that_does_not_continue_ends_the_epoch_of_all_sinks() {
        let forked = server(2, &[(1, 700)], 900, 500);
        let sinks = [checkpoint(1, 1, 600, 608), None].map(|c| (Arc::from("hot"), c));
        assert_eq!(judge(&forked, &sinks).epoch, 1);
        let verdict = diverged(&forked, &sinks);
        assert_eq!((verdict.epoch, verdict.epoch_at(Lsn(500)), verdict.gaps.len()), (2, 2, 1));
    }

    /// Only some sinks have begun the epoch, on timelines that were left at several places.
    #[test]
    fn a_boundary_that_is_found_again_is_never_later() {
        let forked = || server(3, &[(1, 3000), (2, 5000)], 9000, 1000);
        let boundary = |hot, lake| {
            let sinks = [hot, lake].map(|c| (Arc::from("sink"), c));
            judge(&forked(), &sinks).boundary
        };
        let (first, second) = (checkpoint(1, 1, 2000, 2008), checkpoint(1, 2, 5096, 5104));
        assert_eq!(boundary(first.clone(), second.clone()), Lsn(3000));
        let in_epoch_two =
            |commit, change| checkpoint(2, 3, commit, commit + 8).map(|c| Checkpoint { change_lsn: Lsn(change), ..c });
        for (has, expected) in
            [(in_epoch_two(2999, 0), 3000), (in_epoch_two(3504, 3496), 3504), (in_epoch_two(6000, 5992), 5000)]
        {
            assert_eq!(boundary(has, second.clone()), Lsn(expected));
        }
        // The second sink's history may continue after its change: then that change must be received again, or
        // everything counts as new.
        let unbroken = checkpoint(1, 2, 4000, 4008);
        assert_eq!(boundary(in_epoch_two(6000, 5992), unbroken.clone()), Lsn(5000));
        assert_eq!(boundary(in_epoch_two(3504, 3496), unbroken), Lsn::ZERO);
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
