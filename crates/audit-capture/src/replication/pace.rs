//! When to read at once, and when to let bytes gather: [`Pace`].
//!
//! The walsender calls `send` once for each message. Over TCP two thirds of its time go into that call, most of it into
//! waking a receiver that reads each message by itself. A receiver that naps for 0.3 ms after a short read lets the
//! server run at up to twice the speed, and needs a hundredth of the time for reading. But a nap delays what has just
//! been committed, and does harm on a Unix socket. So the receiver naps only while three things are true:
//!
//! - the bytes come through TCP;
//! - the read was short and came right after another: small messages in quick succession, from a server that is busy
//!   sending them rather than waiting for commits;
//! - the stream lags: by the server's own clock, what it sends was committed a while ago. The commit time is in each
//!   transaction's Begin, the time of sending in each message, so no two clocks are compared. A transaction of millions
//!   of rows counts too, because its Begin grows old while it is sent.
//!
//! While the stream lags and reads are in quick succession, on any kind of socket, the consumer is not woken for each
//! read either: chunks gather first. At low load neither is true, and each message is handed over the moment it
//! arrives.

use std::time::{Duration, Instant};

/// How long bytes gather. A nap of 1 ms is better for narrow inserts and worse for updates under FULL; even longer ones
/// fill the socket's window and slow the server down again.
pub(crate) const NAP: Duration = Duration::from_micros(300);

/// A read of fewer bytes is short: it interrupted the server for little.
const SHORT: usize = 64 * 1024;

/// Reads are in quick succession if no more time than this is between them: it covers a nap, which usually takes longer
/// than requested, and the reading.
const QUICK: Duration = Duration::from_millis(3);

/// The stream lags if commits are sent later than this, in microseconds. A server that keeps up sends them within 0.1
/// ms.
const BEHIND: i64 = 2_000;

/// What to do with the bytes that were just read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Hand them over.
    HandOver,
    /// More bytes will arrive in a moment, so hand over when it is worthwhile.
    Gather,
    /// The same, and do not even read for a moment.
    Nap,
}

pub(crate) struct Pace {
    is_tcp: bool,
    last_read: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(is_tcp: bool) -> Pace {
        Pace { is_tcp, last_read: None }
    }

    /// Classifies a read of `bytes` that ended at `now` because the socket had no more.
    pub(crate) fn judge(&mut self, bytes: usize, lag_micros: i64, now: Instant) -> Haste {
        if bytes == 0 {
            return Haste::HandOver;
        }
        let before = self.last_read.replace(now);
        let is_quick = before.is_some_and(|before| now.saturating_duration_since(before) < QUICK);
        match is_quick && lag_micros > BEHIND {
            false => Haste::HandOver,
            true if self.is_tcp && bytes < SHORT => Haste::Nap,
            true => Haste::Gather,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Haste::{Gather, HandOver, Nap};

    /// Reads as (milliseconds since the one before, bytes, lag in microseconds).
    fn check(is_tcp: bool, reads: &[(u64, usize, i64)], expected: &[Haste]) {
        let mut pace = Pace::new(is_tcp);
        let mut now = Instant::now();
        let judged: Vec<Haste> = reads
            .iter()
            .map(|&(millis, bytes, lag)| {
                now += Duration::from_millis(millis);
                pace.judge(bytes, lag, now)
            })
            .collect();
        assert_eq!(judged, expected);
    }

    #[test]
    fn naps_only_while_behind() {
        check(true, &[(0, 200, 9_000), (0, 200, 9_000), (0, 90_000, 9_000)], &[HandOver, Nap, Gather]);
        check(false, &[(0, 200, 9_000), (0, 200, 9_000)], &[HandOver, Gather]);
    }

    #[test]
    fn hands_over_at_once_when_the_stream_keeps_up_or_is_idle() {
        check(true, &[(0, 200, 100), (0, 200, 100), (0, 90_000, 100)], &[HandOver; 3]);
        check(true, &[(0, 200, 9_000), (5, 200, 9_000), (5, 200, 9_000)], &[HandOver; 3]);
        check(true, &[(0, 200, 9_000), (0, 0, 9_000)], &[HandOver; 2]);
    }
}
