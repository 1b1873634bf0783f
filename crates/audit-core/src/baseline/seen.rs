//! The transactions that the stream has delivered, as long as a reader may not see them yet: [`Delivered`].

use std::collections::VecDeque;

use super::snapshot::{Snapshot, precedes};

/// Transactions that are remembered one by one, 4 bytes each. Thirty seconds of the busiest stream; the runner says more often than
/// that which have ended. Of older ones only the highest number is kept: then a reader waits longer than it must.
const REMEMBERED_MAX: usize = 1 << 20;

/// Remembers delivered transactions from the stream's beginning. What an earlier process was delivered is not known here: the runner waits
/// for whoever holds a lock on a table before it begins with it.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    recent: VecDeque<u32>,
    forgotten: Option<u32>,
}

/// Transactions that were in the stream before a watch began and that may not be visible yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    xids: Vec<u32>,
    /// The highest of those that are not remembered one by one.
    forgotten: Option<u32>,
}

impl Seen {
    /// Whether a reader with this snapshot sees all of them. Until it does its rows may be older than what the stream has said.
    pub fn finished_in(&self, snapshot: &Snapshot) -> bool {
        self.xids.iter().all(|xid| snapshot.finished(*xid))
            && self.forgotten.is_none_or(|xid| snapshot.all_finished(xid))
    }
}

impl Delivered {
    /// A transaction begins in the stream; the server sends only what has committed.
    pub fn begin(&mut self, xid: u32) {
        if self.recent.len() == REMEMBERED_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            self.forgotten = Some(self.forgotten.filter(|highest| precedes(oldest, *highest)).unwrap_or(oldest));
        }
        self.recent.push_back(xid);
    }

    pub fn settle(&mut self, snapshot: &Snapshot) {
        self.recent.retain(|xid| !snapshot.finished(*xid));
        self.forgotten = self.forgotten.filter(|xid| !snapshot.all_finished(*xid));
    }

    pub fn seen(&self) -> Seen {
        Seen { xids: self.recent.iter().copied().collect(), forgotten: self.forgotten }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    #[test]
    fn a_delivered_transaction_is_remembered_until_a_snapshot_sees_it() {
        let mut delivered = Delivered::default();
        delivered.begin(99);
        assert!(!delivered.seen().finished_in(&snapshot("99:99:")));
        delivered.settle(&snapshot("100:100:"));
        assert_eq!(delivered.seen(), Seen::default());
        delivered.begin(103);
        delivered.begin(101);
        assert!(!delivered.seen().finished_in(&snapshot("101:110:101")));
        assert!(delivered.seen().finished_in(&snapshot("102:110:102")));
        delivered.settle(&snapshot("101:110:101"));
        assert_eq!(delivered.seen().xids, [101]);
    }

    #[test]
    fn what_is_no_longer_remembered_is_waited_for_as_a_whole() {
        let mut delivered = Delivered::default();
        delivered.begin(1000);
        for xid in 0..REMEMBERED_MAX as u32 {
            delivered.begin(2000 + xid);
        }
        delivered.begin(500);
        // 1000 and 2000 made room.
        assert_eq!(delivered.seen().forgotten, Some(2000));
        let xmax = 2000 + REMEMBERED_MAX;
        assert!(!delivered.seen().finished_in(&snapshot(&format!("900:{xmax}:900"))));
        assert!(delivered.seen().finished_in(&snapshot(&format!("2001:{xmax}:"))));
        delivered.settle(&snapshot(&format!("2001:{xmax}:")));
        assert_eq!(delivered.seen(), Seen::default());
    }
}
