//! The transactions that the stream has delivered, kept while a reader may not see them yet: [`Delivered`].

use std::collections::VecDeque;

use super::snapshot::{Snapshot, precedes};

/// Number of transactions that are remembered one by one, 4 bytes each: thirty seconds of the busiest stream. The
/// runner reports more often than that which transactions have ended. Of older transactions only the highest number is
/// kept, which makes a reader wait longer than necessary.
const REMEMBERED_MAX: usize = 1 << 20;

/// Remembers delivered transactions from the beginning of the stream. What was delivered to an earlier process is not
/// known here; instead, the runner waits for every transaction that holds a lock on a table before it begins to read
/// that table.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    recent: VecDeque<u32>,
    forgotten: Option<u32>,
}

/// Transactions that were in the stream before a watch began and may not be visible to readers yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    xids: Vec<u32>,
    /// The highest number of those that are no longer remembered one by one.
    forgotten: Option<u32>,
}

impl Seen {
    /// Whether a reader with this snapshot sees all of them. Until it does, its rows may be older than what the stream
    /// has delivered.
    pub fn finished_in(&self, snapshot: &Snapshot) -> bool {
        self.xids.iter().all(|xid| snapshot.finished(*xid))
            && self.forgotten.is_none_or(|xid| snapshot.all_finished(xid))
    }
}

impl Delivered {
    /// Notes that a transaction begins in the stream; the server sends only committed ones.
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
        // 1000 and 2000 were dropped to make room.
        assert_eq!(delivered.seen().forgotten, Some(2000));
        let xmax = 2000 + REMEMBERED_MAX;
        assert!(!delivered.seen().finished_in(&snapshot(&format!("900:{xmax}:900"))));
        assert!(delivered.seen().finished_in(&snapshot(&format!("2001:{xmax}:"))));
        delivered.settle(&snapshot(&format!("2001:{xmax}:")));
        assert_eq!(delivered.seen(), Seen::default());
    }
}
