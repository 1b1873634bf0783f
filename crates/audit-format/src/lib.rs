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
    /// What messages are partitioned and compacted by; `None` for a table that has no key, and for what concerns no row. The version's
    /// `key`, or, in Debezium's form, its columns as JSON.
    pub key: Option<&'a [u8]>,
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
            Format::Record => Writer::Record(RecordWriter::new(source)),
            Format::CloudEvents => Writer::CloudEvents(CloudEventsWriter::new(source)),
            Format::Debezium => Writer::Debezium(DebeziumWriter::new(config, source)),
        };
        Encoder { tombstones: config.tombstones(), writer, value: Vec::new() }
    }

    /// Gives the messages of a version to `each`, in their order. An error of `each` ends it and is returned.
    ///
    /// `recorded_at` is the same for all of a batch. A `quarantined` version was given up for the sink: event `error` stands at
    /// its position, and nothing of its row.
    pub fn messages<E>(
        &mut self,
        version: &Version<'_>,
        recorded_at: Micros,
        quarantined: bool,
        mut each: impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.value.clear();
        self.value.shrink_to(KEPT_MAX);
        match &mut self.writer {
            Writer::Record(writer) => writer.write(&mut self.value, version, recorded_at, quarantined),
            Writer::CloudEvents(writer) => writer.write(&mut self.value, version, recorded_at, quarantined),
            Writer::Debezium(writer) => {
                writer.shrink_to(KEPT_MAX);
                return writer.messages(version, recorded_at, quarantined, each);
            }
        }
        let key = version.key().map(str::as_bytes);
        each(Message { key, value: Some(&self.value), op: None })?;
        let gone = match version.event() {
            _ if !self.tombstones || quarantined => None,
            Event::Deleted => key,
            // The row lives on under its new key.
            event if event.is_update() => version.old_key().map(str::as_bytes),
            _ => None,
        };
        match gone {
            Some(key) => each(Message { key: Some(key), value: None, op: Some("tombstone") }),
            None => Ok(()),
        }
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
