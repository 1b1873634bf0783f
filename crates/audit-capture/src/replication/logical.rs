//! Logical messages that are too large to be received completely ([`shorten`]).
//!
//! Any login may write a message of any length into the WAL, and the server sends all of them, whatever their prefix.
//! So the length of a message must not cost memory: of a context the beginning is kept, and of any other message only
//! the fact that it existed.

use audit_core::context;

use super::frame::{HEADER, XLOG_HEAD};

/// Offset of the prefix: it comes after the kind `M`, the flags, and the position in the WAL.
const PREFIX: usize = HEADER + XLOG_HEAD + 1 + 1 + 8;

/// Number of bytes that are kept of a context's content: one more than a context may have, so that its reader notices
/// that it was longer.
const KEPT: usize = context::BYTES_MAX + 1;

/// What to do with a message that is too large for the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shortened {
    /// It is not a logical message, so all of it is wanted.
    No,
    /// More of its beginning has to arrive first.
    Later,
    /// Keep these bytes in its place, and discard the rest as it arrives.
    To(Vec<u8>),
}

/// Classifies a large message by its beginning.
pub(crate) fn shorten(beginning: &[u8]) -> Shortened {
    match (beginning.first(), beginning.get(HEADER), beginning.get(HEADER + XLOG_HEAD)) {
        (Some(b'd'), Some(b'w'), Some(b'M')) => {}
        (Some(b'd'), Some(b'w') | None, None) => return Shortened::Later,
        _ => return Shortened::No,
    }
    let Some(rest) = beginning.get(PREFIX..) else { return Shortened::Later };
    let is = |prefix: &&str| rest.strip_prefix(prefix.as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
    match context::PREFIXES.iter().find(|prefix| is(prefix)) {
        Some(prefix) => {
            // The length of the content is between prefix and content.
            let content = PREFIX + prefix.len() + 1 + 4;
            match beginning.get(content..content + KEPT) {
                Some(kept) => Shortened::To(message(beginning, prefix, kept)),
                None => Shortened::Later,
            }
        }
        None if rest.len() > context::PREFIXES.iter().map(|prefix| prefix.len()).max().unwrap_or(0) => {
            Shortened::To(message(beginning, "", &[]))
        }
        None => Shortened::Later,
    }
}

/// The same message with another prefix and content.
fn message(beginning: &[u8], prefix: &str, content: &[u8]) -> Vec<u8> {
    let head = &beginning[HEADER..PREFIX];
    let length = 4 + head.len() + prefix.len() + 1 + 4 + content.len();
    let mut message = Vec::with_capacity(1 + length);
    message.push(b'd');
    message.extend_from_slice(&(length as u32).to_be_bytes());
    message.extend_from_slice(head);
    message.extend_from_slice(prefix.as_bytes());
    message.push(0);
    message.extend_from_slice(&(content.len() as u32).to_be_bytes());
    message.extend_from_slice(content);
    message
}
