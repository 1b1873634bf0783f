//! The messages of a replication stream as they are in a buffer: [`Chunk`], [`Frame`].
//!
//! Pure: bytes in, borrowed frames out. The layouts are those of the manual's chapters "Message Formats" (every message
//! has one byte for its kind and four for the length of itself and what follows) and "Streaming Replication Protocol"
//! (the content of a CopyData message).

use audit_core::position::{Lsn, Micros};
use tokio::sync::OwnedSemaphorePermit;

/// Length in bytes of the kind and the length in front of every message.
pub(crate) const HEADER: usize = 5;

/// Length in bytes of the head of an XLogData frame, before the plugin's own bytes.
pub(crate) const XLOG_HEAD: usize = 25;

/// The content of CopyData messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// One message of the output plugin.
    XLogData {
        /// The position in the WAL that the message comes from. pgoutput sends 0 for messages without a position of
        /// their own (Relation, Type).
        wal_start: Lsn,
        wal_end: Lsn,
        /// The server's time when it sent this.
        sent_at: Micros,
        data: &'a [u8],
    },
    KeepAlive {
        /// Everything up to here that this slot has to send was sent before.
        wal_end: Lsn,
        sent_at: Micros,
        /// Whether the server asked for an answer. The receiver has answered already; the consumer may take it as a
        /// request to report its progress soon.
        reply_requested: bool,
    },
}

/// Bytes that are not a valid stream, with their place in the chunk. The bytes are not shown, because they may be
/// values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset} of the chunk")]
pub struct FrameError {
    pub offset: usize,
    pub what: FrameProblem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameProblem {
    #[error("a message of unknown kind 0x{0:02x}")]
    UnknownMessage(u8),
    #[error("a CopyData message of unknown kind 0x{0:02x}")]
    UnknownFrame(u8),
    #[error("an empty CopyData message")]
    Empty,
    #[error("a message that claims a length of {0}")]
    Length(u32),
    #[error("a message that is cut off")]
    CutOff,
}

/// Complete messages in the order in which they arrived.
#[derive(Debug, Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    large: Option<OwnedSemaphorePermit>,
}

impl Chunk {
    /// Makes a chunk from the bytes of complete protocol messages.
    pub fn new(bytes: Vec<u8>) -> Chunk {
        Chunk::with(bytes, None)
    }

    /// Makes a chunk that also holds the permit under which a large message was received.
    pub(crate) fn with(bytes: Vec<u8>, large: Option<OwnedSemaphorePermit>) -> Chunk {
        Chunk { bytes, large }
    }

    /// The permit of a large message: no other one is received before it is dropped. The caller has to keep it as long
    /// as it holds the message.
    pub fn take_permit(&mut self) -> Option<OwnedSemaphorePermit> {
        self.large.take()
    }

    /// Memory that the chunk holds, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.capacity()
    }

    pub fn frames(&self) -> Frames<'_> {
        Frames { bytes: &self.bytes, offset: 0 }
    }
}

/// The frames of a [`Chunk`]. The iterator ends after the first error.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.offset < self.bytes.len() {
            let offset = self.offset;
            let frame = message(&self.bytes[offset..]).and_then(|found| match found {
                Some(message) => {
                    self.offset += message.len;
                    if message.is_aside() { Ok(None) } else { frame(message.kind, message.body).map(Some) }
                }
                None => Err(FrameProblem::CutOff),
            });
            match frame {
                Ok(Some(frame)) => return Some(Ok(frame)),
                Ok(None) => {}
                Err(what) => {
                    self.offset = self.bytes.len();
                    return Some(Err(FrameError { offset, what }));
                }
            }
        }
        None
    }
}

/// A complete protocol message at the beginning of some bytes.
pub(crate) struct Message<'a> {
    pub(crate) kind: u8,
    pub(crate) body: &'a [u8],
    /// Length including the header.
    pub(crate) len: usize,
}

impl Message<'_> {
    /// Whether it is a notice, a setting or a notification: these may come at any time, and say nothing about the
    /// stream.
    pub(crate) fn is_aside(&self) -> bool {
        matches!(self.kind, b'N' | b'S' | b'A')
    }
}

/// Kind of a message, and its length with the header; `None` if not even the header is complete.
#[inline]
pub(crate) fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>, FrameProblem> {
    let Some((&[kind, a, b, c, d], _)) = bytes.split_first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]);
    match usize::try_from(length) {
        Ok(length) if length >= 4 => Ok(Some((kind, length + 1))),
        _ => Err(FrameProblem::Length(length)),
    }
}

/// The message at the beginning of the bytes; `None` if it is not complete.
#[inline]
pub(crate) fn message(bytes: &[u8]) -> Result<Option<Message<'_>>, FrameProblem> {
    let Some((kind, len)) = header(bytes)? else { return Ok(None) };
    Ok(bytes.get(HEADER..len).map(|body| Message { kind, body, len }))
}

/// The frame that a message contains.
#[inline]
pub(crate) fn frame(kind: u8, body: &[u8]) -> Result<Frame<'_>, FrameProblem> {
    if kind != b'd' {
        return Err(FrameProblem::UnknownMessage(kind));
    }
    let (&kind, rest) = body.split_first().ok_or(FrameProblem::Empty)?;
    match kind {
        b'w' => {
            let (wal_start, rest) = number(rest)?;
            let (wal_end, rest) = number(rest)?;
            let (sent_at, data) = number(rest)?;
            Ok(Frame::XLogData { wal_start: Lsn(wal_start), wal_end: Lsn(wal_end), sent_at: time(sent_at), data })
        }
        b'k' => {
            let (wal_end, rest) = number(rest)?;
            let (sent_at, rest) = number(rest)?;
            let &reply = rest.first().ok_or(FrameProblem::CutOff)?;
            Ok(Frame::KeepAlive { wal_end: Lsn(wal_end), sent_at: time(sent_at), reply_requested: reply != 0 })
        }
        other => Err(FrameProblem::UnknownFrame(other)),
    }
}

#[inline]
fn number(bytes: &[u8]) -> Result<(u64, &[u8]), FrameProblem> {
    let (number, rest) = bytes.split_first_chunk().ok_or(FrameProblem::CutOff)?;
    Ok((u64::from_be_bytes(*number), rest))
}

fn time(micros: u64) -> Micros {
    Micros::from_postgres(micros.cast_signed())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn copy_data(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        [&b"d"[..], &length.to_be_bytes(), body].concat()
    }

    pub(crate) fn xlog_data(lsn: u64, data: &[u8]) -> Vec<u8> {
        copy_data(&[&b"w"[..], &lsn.to_be_bytes(), &lsn.to_be_bytes(), &7i64.to_be_bytes(), data].concat())
    }

    pub(crate) fn keep_alive(lsn: u64, reply: bool) -> Vec<u8> {
        copy_data(&[&b"k"[..], &lsn.to_be_bytes(), &8i64.to_be_bytes(), &[u8::from(reply)]].concat())
    }

    fn check(bytes: Vec<u8>, expected: &[Result<Frame<'_>, FrameError>]) {
        let chunk = Chunk::new(bytes);
        assert_eq!(chunk.frames().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn frames_come_in_order_without_what_is_said_aside() {
        let notice = b"N\0\0\0\x05\0".to_vec();
        check(
            [xlog_data(0x10, b"I1"), notice, keep_alive(0x20, true), xlog_data(0x30, b"")].concat(),
            &[
                Ok(Frame::XLogData {
                    wal_start: Lsn(0x10),
                    wal_end: Lsn(0x10),
                    sent_at: Micros::from_postgres(7),
                    data: b"I1",
                }),
                Ok(Frame::KeepAlive { wal_end: Lsn(0x20), sent_at: Micros::from_postgres(8), reply_requested: true }),
                Ok(Frame::XLogData {
                    wal_start: Lsn(0x30),
                    wal_end: Lsn(0x30),
                    sent_at: Micros::from_postgres(7),
                    data: b"",
                }),
            ],
        );
        check(Vec::new(), &[]);
    }

    #[test]
    fn what_is_no_frame_is_an_error_with_its_place() {
        let error = |offset, what| Err(FrameError { offset, what });
        check(copy_data(b"x"), &[error(0, FrameProblem::UnknownFrame(b'x'))]);
        check(copy_data(b""), &[error(0, FrameProblem::Empty)]);
        check(copy_data(b"w123"), &[error(0, FrameProblem::CutOff)]);
        check(copy_data(b"k12345678"), &[error(0, FrameProblem::CutOff)]);
        check(b"d\0\0\0\x03".to_vec(), &[error(0, FrameProblem::Length(3))]);
        check(b"d\0\0\0\x09w".to_vec(), &[error(0, FrameProblem::CutOff)]);
        check(b"d\0".to_vec(), &[error(0, FrameProblem::CutOff)]);
        let good = keep_alive(1, false);
        let frame = Frame::KeepAlive { wal_end: Lsn(1), sent_at: Micros::from_postgres(8), reply_requested: false };
        check(
            [&good[..], b"Q\0\0\0\x04"].concat(),
            &[Ok(frame), error(good.len(), FrameProblem::UnknownMessage(b'Q'))],
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes: Vec<u8>, body: Vec<u8>) {
            let _ = Chunk::new(bytes).frames().count();
            let _ = Chunk::new(copy_data(&body)).frames().count();
        }
    }
}
