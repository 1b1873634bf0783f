//! What the server is told, and when: [`Feedback`]. It does no I/O and has no clock of its own.
//!
//! A standby status update (manual, "Streaming Replication Protocol") reports how far WAL has arrived and how far it is
//! safe. Only the second position matters to a logical slot: the server may forget what is before it. So it is exactly
//! what the sinks have stored, never what was merely received. An update is sent
//!
//! - every `interval`, whatever happens: a receiver that is held back by its consumer does not see the server's
//!   requests, which wait unread in the socket, and `wal_sender_timeout` must not end the connection because of that;
//! - at once when the server asks;
//! - soon after more has become safe, at most ten times a second.
//!
//! **A server that shuts down** sends everything it has, then asks again and again, because it waits until everything
//! is safe. Some of it may never be, because positions without changes are stored rarely, and a sink in the same server
//! can no longer store anything. So the answers are slowed down, and after [`SHUTDOWN_PATIENCE`] the connection is
//! closed: then the server stops, and nothing is lost, because the slot keeps what was not acknowledged.

use std::time::{Duration, Instant};

use audit_core::position::{Lsn, Micros};

use super::inbox::Asked;

/// The shortest time between two reports of progress, or between two answers to a server that shuts down.
const RATE: Duration = Duration::from_millis(100);

/// How long a server that shuts down is kept waiting.
pub(crate) const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);

/// This number of requests in a row, with no WAL between them, is a shutdown and not pings: a ping comes once in half a
/// `wal_sender_timeout`.
const SHUTDOWN_REQUESTS: u32 = 3;

/// Requests further apart than this are pings.
const SHUTDOWN_GAP: Duration = Duration::from_millis(500);

pub(crate) struct Feedback {
    interval: Duration,
    last_sent: Instant,
    sent_safe: Lsn,
    answered: u64,
    run: Run,
}

/// A series of requests in quick succession.
#[derive(Default)]
struct Run {
    length: u32,
    noted: u64,
    last: Option<Instant>,
    shutdown_since: Option<Instant>,
}

impl Feedback {
    /// The first update is due at once: it tells a server with a short timeout that the receiver is there.
    pub(crate) fn new(interval: Duration, now: Instant) -> Feedback {
        let last_sent = now.checked_sub(interval).unwrap_or(now);
        Feedback { interval, last_sent, sent_safe: Lsn::ZERO, answered: 0, run: Run::default() }
    }

    /// Notes the requests that the server has sent so far.
    pub(crate) fn note(&mut self, asked: Asked, now: Instant) {
        self.run.note(asked, now);
    }

    /// When the next update is due, given the safe position and the server's requests.
    pub(crate) fn due(&self, safe: Lsn, asked: Asked) -> Instant {
        let periodic = self.last_sent + self.interval;
        let is_asked = asked.total > self.answered;
        if is_asked && self.run.shutdown_since.is_none() {
            return self.last_sent;
        }
        if is_asked || safe > self.sent_safe { periodic.min(self.last_sent + RATE) } else { periodic }
    }

    /// When to close the connection to a server that shuts down.
    pub(crate) fn give_up_at(&self) -> Option<Instant> {
        self.run.shutdown_since.map(|since| since + SHUTDOWN_PATIENCE)
    }

    /// The update, as a complete protocol message. The caller has to send it.
    pub(crate) fn update(&mut self, received: Lsn, safe: Lsn, asked: Asked, now: Instant, clock: Micros) -> Vec<u8> {
        self.last_sent = now;
        self.sent_safe = self.sent_safe.max(safe);
        self.answered = asked.total;
        status_update(received.max(safe), safe, clock)
    }
}

impl Run {
    fn note(&mut self, asked: Asked, now: Instant) {
        if asked.in_a_row == 0 {
            *self = Run { noted: asked.total, ..Run::default() };
        } else if asked.total > self.noted {
            let is_quick = self.last.is_some_and(|last| now.saturating_duration_since(last) < SHUTDOWN_GAP);
            self.length = if is_quick { (self.length + 1).min(asked.in_a_row) } else { 1 };
            self.noted = asked.total;
            self.last = Some(now);
            if self.length < SHUTDOWN_REQUESTS {
                self.shutdown_since = None;
            } else {
                self.shutdown_since.get_or_insert(now);
            }
        }
    }
}

/// CopyData with a standby status update: the received and the safe position (as flushed and as applied), the time, and
/// no answer requested.
fn status_update(received: Lsn, safe: Lsn, clock: Micros) -> Vec<u8> {
    let mut message = Vec::with_capacity(39);
    message.push(b'd');
    message.extend(38u32.to_be_bytes());
    message.push(b'r');
    for lsn in [received, safe, safe] {
        message.extend(lsn.0.to_be_bytes());
    }
    message.extend(clock.to_postgres().to_be_bytes());
    message.push(0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);
    const NOTHING: Asked = Asked { total: 0, in_a_row: 0 };

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn asked(total: u64, in_a_row: u32) -> Asked {
        Asked { total, in_a_row }
    }

    #[test]
    fn updates_are_due_periodically_on_progress_and_on_request() {
        let start = Instant::now();
        let mut feedback = Feedback::new(INTERVAL, start);
        assert!(feedback.due(Lsn::ZERO, NOTHING) <= start, "at once");
        feedback.update(Lsn(5), Lsn::ZERO, NOTHING, start, Micros(0));
        assert_eq!(feedback.due(Lsn::ZERO, NOTHING), start + INTERVAL);
        assert_eq!(feedback.due(Lsn(4), NOTHING), start + RATE, "progress is reported soon");
        assert!(feedback.due(Lsn(4), asked(1, 1)) <= start, "a request is answered at once");
        feedback.update(Lsn(5), Lsn(4), asked(1, 1), start + millis(7), Micros(0));
        assert_eq!(feedback.due(Lsn(4), asked(1, 1)), start + millis(7) + INTERVAL);
        feedback.note(asked(2, 1), start + millis(9));
        assert!(feedback.due(Lsn(4), asked(2, 1)) <= start + millis(9), "the next request too");
    }

    #[test]
    fn the_update_says_what_is_received_and_what_is_safe() {
        let mut feedback = Feedback::new(INTERVAL, Instant::now());
        let mut update =
            |received, safe| feedback.update(received, safe, NOTHING, Instant::now(), Micros::from_postgres(3));
        let lsn = |n: u64| n.to_be_bytes();
        let expected = [&b"d\0\0\0\x26r"[..], &lsn(0x20), &lsn(0x10), &lsn(0x10), &lsn(3), b"\0"].concat();
        assert_eq!(update(Lsn(0x20), Lsn(0x10)), expected);
        // This was stored before, by an earlier session.
        assert_eq!(update(Lsn::ZERO, Lsn(0x30))[6..14], lsn(0x30));
    }

    #[test]
    fn a_server_that_shuts_down_is_answered_slowly_and_then_left() {
        let mut now = Instant::now();
        let mut feedback = Feedback::new(INTERVAL, now);
        for n in 1..3 {
            feedback.note(asked(u64::from(n), n), now);
            assert!(feedback.due(Lsn(1), asked(u64::from(n), n)) <= now);
            feedback.update(Lsn(5), Lsn(1), asked(u64::from(n), n), now, Micros(0));
            now += millis(1);
        }
        feedback.note(asked(3, 3), now);
        assert!(feedback.due(Lsn(1), asked(3, 3)) > now, "slowed down");
        assert_eq!(feedback.give_up_at(), Some(now + SHUTDOWN_PATIENCE));
        // The slower pace of the answers does not end the shutdown state.
        feedback.update(Lsn(5), Lsn(1), asked(3, 3), now + RATE, Micros(0));
        feedback.note(asked(4, 4), now + RATE);
        assert_eq!(feedback.give_up_at(), Some(now + SHUTDOWN_PATIENCE));
        feedback.note(asked(4, 0), now + RATE);
        assert_eq!(feedback.give_up_at(), None, "WAL again: it goes on after all");
    }

    #[test]
    fn pings_are_no_shutdown() {
        let mut now = Instant::now();
        let mut feedback = Feedback::new(INTERVAL, now);
        for n in 1..20 {
            now += Duration::from_secs(1);
            feedback.note(asked(u64::from(n), n), now);
            feedback.update(Lsn(5), Lsn(1), asked(u64::from(n), n), now, Micros(0));
            assert_eq!(feedback.give_up_at(), None);
        }
    }
}
