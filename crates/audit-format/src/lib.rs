//! Versions as messages: what Kafka and a webhook carry. Pure: a version of a batch in, bytes out.
//!
//! One version makes one message or several ([`Message::op`]). Keys and values are written into buffers that are used again,
//! so that a version costs no allocation of its own; every value is one line, without a line feed.

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

/// What a consumer is given. Its identity is source, position and [`Message::op`].
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What messages are partitioned and compacted by: the version's `key`, or, in Debezium's form, its columns as JSON. What concerns no
    /// row (truncations, gaps, errors) has a key of its own, its event and position, since a topic that is compacted takes nothing without
    /// one. `None` for rows of a table that has no key.
    pub key: Option<&'a [u8]>,
    /// Whether it is the key of a row: messages of one are to stay in their order.
    pub of_row: bool,
    /// `None` is a tombstone: compaction forgets the key.
    pub value: Option<&'a [u8]>,
    /// Tells the messages of one version apart, where it makes several: the header `position` is then `POSITION/op`. `None` for the
    /// first of them, then `tombstone`, `create`.
    pub op: Option<&'static str>,
}

/// Turns versions into messages of one format.
#[derive(Debug)]
pub struct Encoder {
    tombstones: bool,
    writer: Writer,
    value: Vec<u8>,
    /// The key of what concerns no row.
    note: Vec<u8>,
}

#[derive(Debug)]
enum Writer {
    Record(RecordWriter),
    CloudEvents(CloudEventsWriter),
    Debezium(DebeziumWriter),
}

/// A buffer that one large value has made grow is given back.
const KEPT_MAX: usize = 2 << 20;

impl Encoder {
    /// `source` is the source's configured name. In Debezium's form it is what Debezium calls `topic.prefix`.
    pub fn new(config: &FormatConfig, source: &str) -> Encoder {
        let writer = match config.format {
            Format::Record => Writer::Record(RecordWriter::new(source, config.full_changes)),
            Format::CloudEvents => Writer::CloudEvents(CloudEventsWriter::new(source, config.full_changes)),
            Format::Debezium => Writer::Debezium(DebeziumWriter::new(config, source)),
        };
        Encoder { tombstones: config.tombstones(), writer, value: Vec::new(), note: Vec::new() }
    }

    /// Gives the messages of a version to `each`, in their order. An error of `each` ends it and is returned.
    ///
    /// `recorded_at` is the same for all of a batch.
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
            // The row lives on under its new key.
            event if event.is_update() => version.old_key().map(str::as_bytes),
            _ => None,
        };
        match gone {
            Some(key) => each(Message { key: Some(key), of_row: true, value: None, op: Some("tombstone") }),
            None => Ok(()),
        }
    }

    /// The media type of a message's value, where a header has to say it: without one, a receiver takes an event in structured mode for none.
    pub fn content_type(&self) -> Option<&'static str> {
        matches!(self.writer, Writer::CloudEvents(_)).then_some("application/cloudevents+json; charset=UTF-8")
    }

    /// Memory that it holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        let own = match &self.writer {
            Writer::Debezium(writer) => writer.held_bytes(),
            Writer::Record(_) | Writer::CloudEvents(_) => 0,
        };
        self.value.capacity() + own
    }
}

/// Whether a version concerns no row. One that was quarantined does not either: under the row's key it would be taken for its last state.
fn is_note(version: &Version<'_>) -> bool {
    matches!(version.event(), Event::Truncated | Event::Gap | Event::Error)
}

/// The key of what concerns no row: no other message has it, so that compaction forgets none. `schema`: it carries its own.
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
