#![allow(clippy::unwrap_used, clippy::panic)]

use super::super::frame::Chunk;
use super::super::frame::tests::{keep_alive, xlog_data};
use super::*;

const LIMIT: usize = 4 * CAPACITY;

/// Feeds the bytes in pieces as a socket would, takes chunks in between, and returns the lengths of the data seen.
fn feed(inbox: &mut Inbox, bytes: &[u8], piece: usize, take_at: usize) -> Result<Vec<usize>, ReplicationError> {
    let (mut rest, mut lengths) = (bytes, Vec::new());
    while !rest.is_empty() || inbox.complete() > 0 {
        if inbox.has_room() && !rest.is_empty() {
            let buffer = inbox.buffer();
            let n = piece.min(rest.len()).min(buffer.capacity() - buffer.len());
            let before = buffer.capacity();
            buffer.extend_from_slice(&rest[..n]);
            assert_eq!(buffer.capacity(), before, "reading never grows the buffer");
            rest = &rest[n..];
            inbox.scan()?;
            inbox.grow();
        }
        if inbox.complete() > 0 && (inbox.complete() >= take_at || !inbox.has_room() || rest.is_empty()) {
            let chunk = inbox.take();
            assert!(chunk.capacity() <= CAPACITY.max(chunk.len()).max(4 * chunk.len()), "little more than its bytes");
            let chunk = Chunk::new(chunk);
            lengths.extend(chunk.frames().filter_map(|frame| match frame.unwrap() {
                Frame::XLogData { data, .. } => Some(data.len()),
                Frame::KeepAlive { .. } => None,
            }));
            inbox.scan()?;
            inbox.grow();
        }
    }
    Ok(lengths)
}

#[test]
fn chunks_hold_whole_messages_however_the_bytes_arrive() {
    let sizes = [0, 1, 100, CAPACITY - 40, CAPACITY, 3 * CAPACITY, 7, 20_000, 2 * CAPACITY + 1, 0];
    let bytes: Vec<u8> = sizes.iter().flat_map(|&size| xlog_data(1, &vec![b'I'; size])).collect();
    for piece in [1, 7, 1000, usize::MAX] {
        for take_at in [1, 50_000, usize::MAX] {
            let mut inbox = Inbox::new(&[], LIMIT);
            assert_eq!(feed(&mut inbox, &bytes, piece, take_at).unwrap(), sizes, "{piece} {take_at}");
            assert_eq!(inbox.bytes.capacity(), CAPACITY, "a large message leaves no large buffer");
        }
    }
}

#[test]
fn a_large_message_grows_the_buffer_to_its_length() {
    let mut inbox = Inbox::new(&[], LIMIT);
    let large = xlog_data(1, &vec![b'I'; 2 * CAPACITY]);
    inbox.buffer().extend_from_slice(&[&keep_alive(1, false), &large[..1000]].concat());
    inbox.scan().unwrap();
    assert_eq!(inbox.bytes.capacity(), CAPACITY, "what is before it goes first");
    inbox.take();
    inbox.scan().unwrap();
    assert!(inbox.is_at_large());
    assert_eq!(inbox.bytes.capacity(), CAPACITY, "a large message waits for its room");
    inbox.grow();
    assert!(!inbox.is_at_large());
    assert_eq!(inbox.bytes.capacity(), large.len());
    let mut inbox = Inbox::new(&[], LARGE_PART * large.len());
    inbox.buffer().extend_from_slice(&large[..1000]);
    inbox.scan().unwrap();
    assert_eq!(inbox.bytes.capacity(), large.len(), "one that is small against the limit does not");
}

#[test]
fn a_message_over_the_limit_is_refused_before_it_is_read() {
    let bytes = [keep_alive(1, false), xlog_data(0x16_B374_D848, &vec![b'I'; LIMIT])].concat();
    for piece in [1, 1000, usize::MAX] {
        let error = feed(&mut Inbox::new(&[], LIMIT), &bytes, piece, 1).unwrap_err();
        let expected = format!(
            "a message of {} bytes at 16/B374D848 exceeds the limit of {LIMIT} bytes for one message",
            LIMIT + 30
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(
            error.hint().unwrap(),
            "raise the memory limit to at least 69 MiB: 64 MiB and four times the message"
        );
    }
}

/// A logical message as pgoutput sends it.
fn logical(prefix: &str, length: usize) -> Vec<u8> {
    let content = vec![b'x'; length];
    let length = u32::try_from(length).unwrap().to_be_bytes();
    xlog_data(0x99, &[b"M\x01", &[7; 8][..], prefix.as_bytes(), b"\0", &length, &content].concat())
}

#[test]
fn a_logical_message_of_any_size_needs_no_memory() {
    let (long, limit) = ("x".repeat(3 * CAPACITY), CAPACITY);
    let (context, after) = (logical("cdc-audit", 10 * CAPACITY), xlog_data(0x100, b"I"));
    for foreign in
        [logical("x", 20 * CAPACITY), logical(&long, 7), logical("", 9 * CAPACITY), logical("cdc", 2 * CAPACITY)]
    {
        let bytes = [&keep_alive(1, false)[..], &foreign, &after, &context, &after].concat();
        for (piece, take_at) in [(1, 1), (1000, 1), (usize::MAX, 1), (usize::MAX, usize::MAX)] {
            let mut inbox = Inbox::new(&[], limit);
            let lengths = feed(&mut inbox, &bytes, piece, take_at).unwrap();
            // The length covers kind, flags, position, the prefix's end and the content's length; for our messages also
            // prefix and beginning.
            assert_eq!(lengths, [15, 1, 15 + "cdc-audit".len() + audit_core::context::BYTES_MAX + 1, 1], "{piece}");
            assert!(inbox.bytes.capacity() <= CAPACITY && inbox.seen().received == Lsn(0x100));
        }
    }
}

#[test]
fn a_row_is_never_taken_for_a_logical_message() {
    let row = xlog_data(1, &[b"I", &vec![b'M'; 2 * CAPACITY][..]].concat());
    assert_eq!(feed(&mut Inbox::new(&[], LIMIT), &row, 1000, 1).unwrap(), [2 * CAPACITY + 1]);
}

#[test]
fn what_the_receiver_must_know_is_noticed() {
    let begin = [&b"B"[..], &9u64.to_be_bytes(), &(-5i64).to_be_bytes(), &1u32.to_be_bytes()].concat();
    let mut inbox = Inbox::new(&[], LIMIT);
    let messages = [xlog_data(0x40, &begin), xlog_data(0, b"R"), keep_alive(0x50, true), keep_alive(0x50, true)];
    inbox.buffer().extend_from_slice(&messages.concat());
    inbox.scan().unwrap();
    assert_eq!((inbox.seen().received, inbox.seen().lag_micros), (Lsn(0x50), 12));
    assert_eq!(inbox.seen().asked, Asked { total: 2, in_a_row: 2 });
    inbox.buffer().extend_from_slice(&xlog_data(0x60, b"C"));
    inbox.scan().unwrap();
    assert_eq!((inbox.seen().received, inbox.seen().asked), (Lsn(0x60), Asked { total: 2, in_a_row: 0 }));
}

#[test]
fn the_servers_last_word_ends_the_stream() {
    let error = b"E\0\0\0\x1fSERROR\0C57P01\0Mgoing down\0\0";
    let mut inbox = Inbox::new(&[], LIMIT);
    inbox.buffer().extend_from_slice(&[&xlog_data(1, b"I"), &error[..], b"anything"].concat());
    inbox.scan().unwrap();
    let Some(End::Error(error)) = &inbox.seen().end else { panic!("no end") };
    assert_eq!(error.to_string(), "going down (SQLSTATE 57P01)");
    assert_eq!(inbox.take(), xlog_data(1, b"I"), "what came before it is handed over");
    assert!(!inbox.has_room() && inbox.complete() == 0);

    let mut inbox = Inbox::new(b"C\0\0\0\x0bCOPY 0\0", LIMIT);
    inbox.scan().unwrap();
    assert!(matches!(inbox.seen().end, Some(End::Done)));
}

#[test]
fn bytes_that_are_no_stream_are_an_error() {
    let mut inbox = Inbox::new(b"HTTP/1.1 200 OK", LIMIT);
    assert!(matches!(inbox.scan(), Err(ReplicationError::MessageTooLarge { .. })), "a length made of letters");
    let mut inbox = Inbox::new(b"Q\0\0\0\x04", LIMIT);
    assert!(matches!(inbox.scan(), Err(ReplicationError::Frame { .. })));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_taken_or_refused_in_bounded_memory(bytes: Vec<u8>, piece in 1..64usize) {
        let mut inbox = Inbox::new(&[], LIMIT);
        for part in bytes.chunks(piece) {
            inbox.buffer().extend_from_slice(part);
            if inbox.scan().is_err() {
                break;
            }
            inbox.take();
        }
        proptest::prop_assert!(inbox.bytes.capacity() <= LIMIT);
    }
}
