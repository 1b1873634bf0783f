//! Encodes versions as the messages of Kafka and webhooks. This crate is pure: a version of a batch in, bytes out.
//!
//! One version makes one or several messages ([`Message::op`]). Keys and values are written into buffers that are
//! reused, so that a version costs no allocation of its own. Every value is one line, without a line feed.

mod cloudevents;
mod config;
mod debezium;
mod record;
mod schema;
mod stamp;

use audit_core::batch::Version;
use audit_core::position::Micros;
use audit_core::version::Event;

pub use config::{Decimals, Format, FormatConfig};
pub use schema::schema;

use cloudevents::CloudEventsWriter;
use debezium::DebeziumWriter;
use record::RecordWriter;

/// A message for a consumer. It is identified by source, position and [`Message::op`].
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The key by which messages are partitioned and compacted: the version's `key` or, in Debezium's format, the key's
    /// columns as JSON. A message about no row (truncation, gap, error) has a key made of its event and position,
    /// because a compacted topic accepts no message without a key. `None` for rows of a table without a key.
    pub key: Option<&'a [u8]>,
    /// True if the key is that of a row: messages of one row must stay in order.
    pub of_row: bool,
    /// The value. `None` is a tombstone, after which compaction removes the key.
    pub value: Option<&'a [u8]>,
    /// Distinguishes the messages of a version that makes several: the header `position` is then `POSITION/op`. `None`
    /// for the first message, then `tombstone`, `create`.
    pub op: Option<&'static str>,
}

/// Turns versions into messages of one format.
#[derive(Debug)]
pub struct Encoder {
    tombstones: bool,
    writer: Writer,
    value: Vec<u8>,
    /// Buffer for the key of a message about no row.
    note: Vec<u8>,
}

#[derive(Debug)]
enum Writer {
    Record(RecordWriter),
    CloudEvents(CloudEventsWriter),
    Debezium(DebeziumWriter),
}

/// Bytes of a buffer that are kept after a message. A buffer that one large value made larger is shrunk to this.
const KEPT_MAX: usize = 2 << 20;

impl Encoder {
    /// Makes an encoder. `source` is the source's configured name, which Debezium calls `topic.prefix`.
    pub fn new(config: &FormatConfig, source: &str) -> Encoder {
        let writer = match config.format {
            Format::Record => Writer::Record(RecordWriter::new(source, config.full_changes)),
            Format::CloudEvents => Writer::CloudEvents(CloudEventsWriter::new(source, config.full_changes)),
            Format::Debezium => Writer::Debezium(DebeziumWriter::new(config, source)),
        };
        Encoder { tombstones: config.tombstones(), writer, value: Vec::new(), note: Vec::new() }
    }

    /// Passes the messages of a version to `each`, in their order. `recorded_at` is the same for all versions of a
    /// batch.
    ///
    /// # Errors
    /// An error of `each` ends the loop and is returned.
    pub fn messages<E>(
        &mut self,
        version: &Version<'_>,
        recorded_at: Micros,
        mut each: impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.value.clear();
        self.value.shrink_to(KEPT_MAX);
        match &mut self.writer {
            Writer::Record(writer) => writer.write(&mut self.value, version, recorded_at),
            Writer::CloudEvents(writer) => writer.write(&mut self.value, version, recorded_at),
            Writer::Debezium(writer) => {
                writer.shrink_to(KEPT_MAX);
                return writer.messages(version, recorded_at, each);
            }
        }
        if is_note(version) {
            write_note_key(&mut self.note, version, false);
            return each(Message { key: Some(&self.note), of_row: false, value: Some(&self.value), op: None });
        }
        let key = version.key().map(str::as_bytes);
        each(Message { key, of_row: key.is_some(), value: Some(&self.value), op: None })?;
        let gone = match version.event() {
            _ if !self.tombstones => None,
            Event::Deleted => key,
            // The row continues to exist under its new key, so only the old key is gone.
            event if event.is_update() => version.old_key().map(str::as_bytes),
            _ => None,
        };
        match gone {
            Some(key) => each(Message { key: Some(key), of_row: true, value: None, op: Some("tombstone") }),
            None => Ok(()),
        }
    }

    /// Returns the media type of a message's value if a header must state it: without the header a receiver does not
    /// recognise an event in structured mode.
    pub fn content_type(&self) -> Option<&'static str> {
        matches!(self.writer, Writer::CloudEvents(_)).then_some("application/cloudevents+json; charset=UTF-8")
    }

    /// Memory that the encoder holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        let own = match &self.writer {
            Writer::Debezium(writer) => writer.held_bytes(),
            Writer::Record(_) | Writer::CloudEvents(_) => 0,
        };
        self.value.capacity() + own
    }
}

/// Tells whether a version's message is about no row. A quarantined version counts as such, because a consumer would
/// take a message under the row's key for the row's last state.
fn is_note(version: &Version<'_>) -> bool {
    matches!(version.event(), Event::Truncated | Event::Gap | Event::Error)
}

/// Writes the key of a message about no row. No other message has it, so that compaction removes none of them. With
/// `schema` the key contains its own schema.
fn write_note_key(out: &mut Vec<u8>, version: &Version<'_>, schema: bool) {
    const SCHEMA: &[u8] = br#"{"schema":{"type":"struct","fields":[{"type":"string","optional":false,"field":"$event"},{"type":"string","optional":false,"field":"position"}],"optional":false,"name":"cdc-audit.Note"},"payload":"#;
    out.clear();
    if schema {
        out.extend_from_slice(SCHEMA);
    }
    out.extend_from_slice(br#"{"$event":""#);
    out.extend_from_slice(version.event().name().as_bytes());
    out.extend_from_slice(br#"","position":""#);
    stamp::write_position(out, version.position());
    out.extend_from_slice(if schema { b"\"}}" } else { b"\"}" });
}
