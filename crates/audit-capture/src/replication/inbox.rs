//! The receiver's buffer: it takes bytes as the socket gives them, and returns chunks of complete messages. No I/O.
//!
//! ```text
//!  0                       complete            len           capacity
//!  ├── whole messages ────────┼── part of one ──┼── free ───────┤
//! ```
//!
//! Memory is bounded by [`CAPACITY`], or by exactly the one message that is larger than that, up to the message limit.
//! Such a message makes the buffer grow once, to its announced length, and the buffer leaves together with it. A
//! message that takes a good part of the limit makes it grow only on request ([`Inbox::grow`]): two of them at a time
//! would exceed the planned memory.
//!
//! A logical message that is larger than the buffer does not make it grow: it is shortened ([`shorten`]), and the rest
//! of it is discarded as it arrives.

use audit_connect::ServerError;
use audit_core::position::{Lsn, Micros};
use postgres_protocol::message::backend;

use super::error::ReplicationError;
use super::frame::{self, Frame, FrameError, HEADER, XLOG_HEAD};
use super::logical::{Shortened, shorten};

/// Size of one buffer in bytes, and so of the largest chunk with more than one message.
pub(crate) const CAPACITY: usize = 256 * 1024;

/// A message larger than this part of the message limit counts as large.
const LARGE_PART: usize = 16;

pub(crate) struct Inbox {
    bytes: Vec<u8>,
    complete: usize,
    message_limit: usize,
    /// Length of the large message at the beginning of the buffer, while there is no room for it.
    large: Option<usize>,
    /// Number of bytes still to come of a message that was shortened.
    discarding: usize,
    seen: Seen,
}

/// What the receiver itself learned from the messages of the stream.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The position up to which the server has sent.
    pub(crate) received: Lsn,
    pub(crate) asked: Asked,
    /// The age, by the server's clock, of the commit that it last sent.
    pub(crate) lag_micros: i64,
    committed_at: Micros,
    /// Set when the server has finished.
    pub(crate) end: Option<End>,
}

/// Counts keep-alives that asked for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) total: u64,
    /// The number of them since the last WAL.
    pub(crate) in_a_row: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum End {
    Done,
    Error(ServerError),
}

impl Inbox {
    /// Makes a buffer that begins with bytes that were read before the stream began.
    pub(crate) fn new(head: &[u8], message_limit: usize) -> Inbox {
        let mut bytes = Vec::with_capacity(CAPACITY.max(head.len()));
        bytes.extend_from_slice(head);
        Inbox { bytes, complete: 0, message_limit, large: None, discarding: 0, seen: Seen::default() }
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Number of bytes of complete messages that wait to be handed over.
    pub(crate) fn complete(&self) -> usize {
        self.complete
    }

    pub(crate) fn has_room(&self) -> bool {
        self.bytes.len() < self.bytes.capacity() && self.seen.end.is_none()
    }

    /// Whether a large message is at the beginning and has no room yet.
    pub(crate) fn is_at_large(&self) -> bool {
        self.large.is_some()
    }

    /// Makes room for the large message.
    pub(crate) fn grow(&mut self) {
        if let Some(len) = self.large.take() {
            self.bytes.reserve_exact(len - self.bytes.len());
        }
    }

    /// The buffer to append the socket's bytes to; check [`Inbox::has_room`] first, and call [`Inbox::scan`]
    /// afterwards.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Finds the ends of the messages that arrived, and makes room for one that needs more.
    pub(crate) fn scan(&mut self) -> Result<(), ReplicationError> {
        while self.seen.end.is_none() {
            self.discard_rest();
            let rest = &self.bytes[self.complete..];
            let malformed = |what| ReplicationError::Frame { source: FrameError { offset: self.complete, what } };
            match frame::message(rest).map_err(malformed)? {
                Some(message) if message.is_aside() => self.complete += message.len,
                Some(message) => match end(message.kind, rest) {
                    None => {
                        self.seen.note(frame::frame(message.kind, message.body).map_err(malformed)?);
                        self.complete += message.len;
                    }
                    end => self.seen.end = end,
                },
                None => return self.make_room(),
            }
        }
        Ok(())
    }

    /// Takes the complete messages. What is left begins the next chunk; scan it again, because it may need room.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let chunk = if self.complete < self.bytes.capacity() / 4 {
            // Copies the bytes, so that a chunk that is kept for long holds little more than its bytes.
            let chunk = self.bytes[..self.complete].to_vec();
            self.bytes.drain(..self.complete);
            chunk
        } else {
            let rest = &self.bytes[self.complete..];
            let mut next = Vec::with_capacity(CAPACITY.max(rest.len()));
            next.extend_from_slice(rest);
            self.bytes.truncate(self.complete);
            std::mem::replace(&mut self.bytes, next)
        };
        self.complete = 0;
        chunk
    }

    /// Discards the complete messages.
    pub(crate) fn discard(&mut self) {
        self.bytes.drain(..self.complete);
        self.complete = 0;
    }

    /// Discards what has arrived of the message that was shortened.
    fn discard_rest(&mut self) {
        let arrived = self.discarding.min(self.bytes.len() - self.complete);
        self.bytes.drain(self.complete..self.complete + arrived);
        self.discarding -= arrived;
    }

    /// Handles a message that is not complete: refuses it if it is over the limit, or grows the buffer once the message
    /// is at its beginning. A logical message is shortened.
    fn make_room(&mut self) -> Result<(), ReplicationError> {
        let rest = &self.bytes[self.complete..];
        let Ok(Some((_, len))) = frame::header(rest) else { return Ok(()) };
        if len > CAPACITY {
            match shorten(rest) {
                Shortened::No => {}
                Shortened::Later => return Ok(()),
                Shortened::To(message) => {
                    let to_come = len - rest.len();
                    self.bytes.truncate(self.complete);
                    self.bytes.extend_from_slice(&message);
                    self.scan()?;
                    self.discarding = to_come;
                    return Ok(());
                }
            }
        }
        if len > self.message_limit {
            // The message's position is in its first bytes; if they are not there yet, the next scan refuses it.
            let head = rest.get(HEADER + 1..HEADER + 9).and_then(|bytes| bytes.first_chunk());
            return match head {
                Some(lsn) => Err(ReplicationError::MessageTooLarge {
                    lsn: Lsn(u64::from_be_bytes(*lsn)),
                    length: len as u64,
                    limit: self.message_limit as u64,
                }),
                None => Ok(()),
            };
        }
        if self.complete == 0 && len > self.bytes.capacity() {
            self.large = Some(len);
            if len <= self.message_limit / LARGE_PART {
                self.grow();
            }
        }
        Ok(())
    }
}

impl Seen {
    #[inline]
    fn note(&mut self, frame: Frame<'_>) {
        match frame {
            Frame::XLogData { wal_start, sent_at, data, .. } => {
                self.received = self.received.max(wal_start);
                self.asked.in_a_row = 0;
                if let Some(committed_at) = committed_at(data) {
                    self.committed_at = committed_at;
                }
                if self.committed_at != Micros::default() {
                    self.lag_micros = sent_at.0.saturating_sub(self.committed_at.0);
                }
            }
            Frame::KeepAlive { wal_end, reply_requested, .. } => {
                self.received = self.received.max(wal_end);
                if reply_requested {
                    self.asked.total += 1;
                    self.asked.in_a_row = self.asked.in_a_row.saturating_add(1);
                }
            }
        }
    }
}

/// The commit time in pgoutput's Begin, which consists of the commit's position, its time, and the transaction's
/// number.
#[inline]
fn committed_at(data: &[u8]) -> Option<Micros> {
    if data.first() != Some(&b'B') {
        return None;
    }
    let time = data.get(9..17)?.first_chunk()?;
    Some(Micros::from_postgres(i64::from_be_bytes(*time)))
}

/// The message by which the server ends the stream, if it is one.
fn end(kind: u8, rest: &[u8]) -> Option<End> {
    match kind {
        b'E' => {
            let error = match backend::Message::parse(&mut rest.into()) {
                Ok(Some(backend::Message::ErrorResponse(body))) => ServerError::from_fields(body.fields()),
                // The error cannot be read, but it still is an error.
                _ => ServerError { sqlstate: tokio_postgres::error::SqlState::from_code(""), message: String::new() },
            };
            Some(End::Error(error))
        }
        b'c' | b'C' | b'Z' => Some(End::Done),
        _ => None,
    }
}

const _: () = assert!(CAPACITY > HEADER + XLOG_HEAD, "the head of a message always fits");

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
