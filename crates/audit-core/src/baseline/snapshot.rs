//! Which transactions a reader sees: [`Snapshot`], as `pg_current_snapshot()` prints it.

use std::fmt;
use std::str::FromStr;

use crate::position::ParseError;

/// `xmin:xmax:xip`: transactions below `xmin` are finished, those from `xmax` on are not, and between the two all are
/// finished but those in `xip`.
///
/// Numbers are 64-bit here and 32-bit in the stream and in rows. Every transaction that is asked about is within 2^31
/// of `xmax`, so the nearer of the two possible 64-bit numbers is the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    /// The numbers of `xip`, sorted.
    running: Vec<u64>,
}

impl Snapshot {
    pub fn xmin(&self) -> u64 {
        self.xmin
    }

    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// Whether the transaction had ended when the snapshot was taken, so that the reader sees its result.
    pub fn finished(&self, xid: u32) -> bool {
        let xid = self.widen(xid);
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }

    /// Whether every transaction up to `xid` had ended.
    pub fn all_finished(&self, xid: u32) -> bool {
        self.widen(xid) < self.xmin
    }

    fn widen(&self, xid: u32) -> u64 {
        let distance = xid.wrapping_sub(self.xmax as u32) as i32;
        self.xmax.saturating_add_signed(distance.into())
    }
}

/// Whether transaction `a` began before `b`, compared as PostgreSQL does with numbers that wrap around
/// (`TransactionIdPrecedes`).
pub fn precedes(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl FromStr for Snapshot {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Snapshot, ParseError> {
        let parse = || {
            let mut parts = s.split(':');
            let (xmin, xmax, list) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
            let numbers = list.split(',').filter(|_| !list.is_empty());
            let running = numbers.map(|number| number.parse::<u64>().ok()).collect::<Option<Vec<u64>>>()?;
            let in_order = running.is_sorted() && running.iter().all(|xid| (xmin..xmax).contains(xid));
            let shaped = parts.next().is_none() && xmin <= xmax && in_order;
            shaped.then_some(Snapshot { xmin, xmax, running })
        };
        parse().ok_or(ParseError { what: "snapshot (like 10:20:10,14)" })
    }
}

/// Prints the form that [`Snapshot::from_str`] reads.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (i, xid) in self.running.iter().enumerate() {
            write!(f, "{}{xid}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_had_ended_is_finished() {
        let snapshot: Snapshot = "10:20:10,14".parse().unwrap();
        let finished: Vec<u32> = (8..23).filter(|xid| snapshot.finished(*xid)).collect();
        assert_eq!(finished, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
        assert!(snapshot.all_finished(9) && !snapshot.all_finished(10) && !snapshot.all_finished(11));
    }

    #[test]
    fn numbers_wrap_around() {
        // The upper bound is 2^32 + 5, and two transactions from before the wraparound are still running.
        let snapshot: Snapshot = "4294967290:4294967301:4294967290,4294967294".parse().unwrap();
        for (xid, finished) in [(4294967289, true), (4294967290, false), (4294967293, true), (4294967294, false)] {
            assert_eq!(snapshot.finished(xid), finished, "{xid}");
        }
        for (xid, finished) in [(3, true), (4, true), (5, false), (2_000_000_000, false), (2_200_000_000, true)] {
            assert_eq!(snapshot.finished(xid), finished, "{xid}");
        }
        assert!(precedes(4294967295, 3) && !precedes(3, 4294967295) && !precedes(3, 3));
    }

    #[test]
    fn the_first_transactions_of_a_cluster_have_nothing_before_them() {
        let snapshot: Snapshot = "3:5:3".parse().unwrap();
        assert!(
            snapshot.finished(4294967290) && !snapshot.finished(3) && snapshot.finished(4) && !snapshot.finished(5)
        );
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        for text in ["", "1:2", "1:2:3:4", "5:4:", "1:9:0", "1:9:9", "1:9:4,3", "1:9:4,,5", "a:b:", "1:9:-4"] {
            assert!(text.parse::<Snapshot>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_snapshot_comes_back_from_its_text(
            xmin in 3u64..1 << 40, running in prop::collection::btree_set(0u64..1000, 0..8), more in 0u64..1000
        ) {
            let running: Vec<u64> = running.into_iter().map(|offset| xmin + offset).collect();
            let xmax = running.last().map_or(xmin, |last| last + 1) + more;
            let snapshot = Snapshot { xmin, xmax, running: running.clone() };
            prop_assert_eq!(snapshot.to_string().parse::<Snapshot>(), Ok(snapshot.clone()));
            for xid in xmin.saturating_sub(5)..xmax + 5 {
                let expected = xid < xmax && !running.contains(&xid);
                prop_assert_eq!(snapshot.finished(xid as u32), expected);
            }
        }
    }
}
