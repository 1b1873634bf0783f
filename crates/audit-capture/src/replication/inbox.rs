//! The receiver's buffer: bytes in as the socket gives them, chunks of whole messages out. No I/O.
//!
//! ```text
//!  0                       complete            len           capacity
//!  ├── whole messages ────────┼── part of one ──┼── free ───────┤
//! ```
//!
//! Memory is bounded: [`CAPACITY`], or exactly the one message that is larger than that, up to the message limit. Such a
//! message grows the buffer once, to its announced length, and the buffer goes with it. One that takes a good part of the
//! limit grows it only when told to ([`Inbox::grow`]): two of them at a time would be more than was planned for.
//!
//! A logical message that is larger than the buffer is no such message: it is shortened ([`shorten`]), and the rest of it is discarded
//! as it arrives.

use audit_connect::ServerError;
use audit_core::position::{Lsn, Micros};
use postgres_protocol::message::backend;

use super::error::ReplicationError;
use super::frame::{self, Frame, FrameError, HEADER, XLOG_HEAD};
use super::logical::{Shortened, shorten};

/// Bytes of one buffer, and so of the largest chunk with more than one message.
pub(crate) const CAPACITY: usize = 256 * 1024;

/// A message larger than this part of the message limit is large.
const LARGE_PART: usize = 16;

pub(crate) struct Inbox {
    bytes: Vec<u8>,
    complete: usize,
    message_limit: usize,
    /// Length of the large message at the front, while there is no room for it.
    large: Option<usize>,
    /// Bytes that are still to come of a message that was shortened.
    discarding: usize,
    seen: Seen,
}

/// What the messages of the stream said to the receiver itself.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How far the server has sent.
    pub(crate) received: Lsn,
    pub(crate) asked: Asked,
    /// By the server's clock, how long ago what it last sent was committed.
    pub(crate) lag_micros: i64,
    committed_at: Micros,
    /// The server has finished.
    pub(crate) end: Option<End>,
}

/// Keep-alives that asked for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) total: u64,
    /// Since the last WAL.
    pub(crate) in_a_row: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum End {
    Done,
    Error(ServerError),
}

impl Inbox {
    /// With bytes that were read before the stream began.
    pub(crate) fn new(head: &[u8], message_limit: usize) -> Inbox {
        let mut bytes = Vec::with_capacity(CAPACITY.max(head.len()));
        bytes.extend_from_slice(head);
        Inbox { bytes, complete: 0, message_limit, large: None, discarding: 0, seen: Seen::default() }
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Bytes of whole messages that wait to be handed over.
    pub(crate) fn complete(&self) -> usize {
        self.complete
    }

    pub(crate) fn has_room(&self) -> bool {
        self.bytes.len() < self.bytes.capacity() && self.seen.end.is_none()
    }

    /// A large message stands at the front, and has no room yet.
    pub(crate) fn is_at_large(&self) -> bool {
        self.large.is_some()
    }

    /// Makes room for the large message.
    pub(crate) fn grow(&mut self) {
        if let Some(len) = self.large.take() {
            self.bytes.reserve_exact(len - self.bytes.len());
        }
    }

    /// Where to append what the socket gives; ask [`Inbox::has_room`] first, and [`Inbox::scan`] afterwards.
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

    /// The whole messages. What is left begins the next chunk; scan it again, for it may need room.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let chunk = if self.complete < self.bytes.capacity() / 4 {
            // Whoever keeps a chunk for long keeps little more than its bytes.
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

    /// Forgets the whole messages.
    pub(crate) fn discard(&mut self) {
        self.bytes.drain(..self.complete);
        self.complete = 0;
    }

    /// Drops what has arrived of the message that was shortened.
    fn discard_rest(&mut self) {
        let arrived = self.discarding.min(self.bytes.len() - self.complete);
        self.bytes.drain(self.complete..self.complete + arrived);
        self.discarding -= arrived;
    }

    /// Before a message that is not all there: refuses it if it is over the limit, or grows to hold it once it stands
    /// at the front. A logical message is shortened.
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
            // Its position is in its first bytes; if they are not there yet, the next scan refuses it.
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

/// pgoutput's Begin: the position of the commit, its time, the transaction's number.
#[inline]
fn committed_at(data: &[u8]) -> Option<Micros> {
    if data.first() != Some(&b'B') {
        return None;
    }
    let time = data.get(9..17)?.first_chunk()?;
    Some(Micros::from_postgres(i64::from_be_bytes(*time)))
}

/// What the server sends when it will send no more of the stream.
fn end(kind: u8, rest: &[u8]) -> Option<End> {
    match kind {
        b'E' => {
            let error = match backend::Message::parse(&mut rest.into()) {
                Ok(Some(backend::Message::ErrorResponse(body))) => ServerError::from_fields(body.fields()),
                // Unreadable, and an error all the same.
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
