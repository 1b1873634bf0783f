//! Writes `format = "debezium"`: the envelope that Debezium's connector for PostgreSQL writes with its defaults, so
//! that consumers made for Debezium read it without changes. `docs/formats.md` lists the differences.

mod base64;
mod form;
mod number;
mod plan;
mod time;
mod value;

use audit_core::batch::{Image, Version};
use audit_core::position::Micros;
use audit_core::value::write_json_string;
use audit_core::version::Event;

use crate::config::FormatConfig;
use crate::record::RecordWriter;
use crate::stamp::write_number;
use crate::{Message, write_note_key};
use plan::{Plan, Plans};

/// Writes messages of one source.
#[derive(Debug)]
pub(crate) struct DebeziumWriter {
    tombstones: bool,
    inline_schema: bool,
    /// `{"version":"…","connector":"postgresql","name":"…","ts_ms":`
    source_head: Vec<u8>,
    /// `,"db":"…","sequence":"[\"`
    database: Vec<u8>,
    plans: Plans,
    key: Vec<u8>,
    value: Vec<u8>,
    /// Writes the content of gaps and quarantined versions.
    record: RecordWriter,
}

/// The row before and after the change.
#[derive(Clone, Copy)]
struct Sides<'b> {
    before: Option<Image<'b>>,
    after: Option<Image<'b>>,
}

impl DebeziumWriter {
    pub fn new(config: &FormatConfig, source: &str) -> DebeziumWriter {
        let mut source_head = br#"{"version":""#.to_vec();
        source_head.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
        source_head.extend_from_slice(br#"","connector":"postgresql","name":"#);
        write_json_string(&mut source_head, source);
        source_head.extend_from_slice(br#","ts_ms":"#);
        let mut database = br#","db":"#.to_vec();
        write_json_string(&mut database, config.database.as_deref().unwrap_or(source));
        database.extend_from_slice(br#","sequence":"[\""#);
        DebeziumWriter {
            tombstones: config.tombstones(),
            inline_schema: config.inline_schema,
            source_head,
            database,
            plans: Plans::new(source, config),
            key: Vec::new(),
            value: Vec::new(),
            record: RecordWriter::new(source, false),
        }
    }

    /// Shrinks the buffers that one large value made larger.
    pub fn shrink_to(&mut self, bytes: usize) {
        for buffer in [&mut self.key, &mut self.value] {
            buffer.clear();
            buffer.shrink_to(bytes);
        }
    }

    pub fn held_bytes(&self) -> usize {
        self.key.capacity() + self.value.capacity()
    }

    /// Passes the messages of a version to `each`, as [`crate::Encoder::messages`] describes.
    pub fn messages<E>(
        &mut self,
        version: &Version<'_>,
        recorded_at: Micros,
        mut each: impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (before, after) = (version.before(), version.after());
        let row = |op, before, after| (op, Sides { before, after });
        let (op, sides) = match version.event() {
            Event::Gap | Event::Error => return self.note(version, recorded_at, each),
            Event::Created => row("c", None, after),
            Event::Snapshot => row("r", None, after),
            Event::Truncated => {
                self.row(version, recorded_at, "t", Sides { before: None, after: None });
                return self.without_row(version, each);
            }
            Event::Deleted => return self.deleted(version, version.key(), recorded_at, each),
            Event::Updated | Event::Discarded | Event::Restored if version.old_key().is_none() => {
                row("u", before, after)
            }
            Event::Updated | Event::Discarded | Event::Restored => {
                // For Debezium a row with another key is another row: the old one is deleted, the new one created.
                self.deleted(version, version.old_key(), recorded_at, &mut each)?;
                self.row(version, recorded_at, "c", Sides { before: None, after });
                self.key(version, version.key(), after);
                let key = version.key().map(|_| self.key.as_slice());
                return each(Message { key, of_row: key.is_some(), value: Some(&self.value), op: Some("create") });
            }
        };
        self.row(version, recorded_at, op, sides);
        self.key(version, version.key(), after);
        let key = version.key().map(|_| self.key.as_slice());
        each(Message { key, of_row: key.is_some(), value: Some(&self.value), op: None })
    }

    /// Passes on the message that was written, under the key of a message about no row.
    fn without_row<E>(
        &mut self,
        version: &Version<'_>,
        mut each: impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        write_note_key(&mut self.key, version, self.inline_schema);
        each(Message { key: Some(&self.key), of_row: false, value: Some(&self.value), op: None })
    }

    /// Passes on the deletion of the old row and, if configured, the tombstone of its key.
    fn deleted<E>(
        &mut self,
        version: &Version<'_>,
        key: Option<&str>,
        recorded_at: Micros,
        mut each: impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.row(version, recorded_at, "d", Sides { before: version.before(), after: None });
        self.key(version, key, version.before());
        let key = key.map(|_| self.key.as_slice());
        each(Message { key, of_row: key.is_some(), value: Some(&self.value), op: None })?;
        match key.filter(|_| self.tombstones) {
            Some(key) => each(Message { key: Some(key), of_row: true, value: None, op: Some("tombstone") }),
            None => Ok(()),
        }
    }

    /// Writes the envelope into `value`.
    fn row(&mut self, version: &Version<'_>, recorded_at: Micros, op: &str, sides: Sides<'_>) {
        let plan = self.plans.of(version.table());
        let out = &mut self.value;
        out.clear();
        out.extend_from_slice(&plan.value_head);
        out.extend_from_slice(br#"{"before":"#);
        plan.write_row(out, sides.before, false);
        out.extend_from_slice(br#","after":"#);
        plan.write_row(out, sides.after, true);
        out.extend_from_slice(br#","source":"#);
        write_source(out, (&self.source_head, &self.database), version, Some(plan));
        out.extend_from_slice(br#","transaction":null,"op":""#);
        out.extend_from_slice(op.as_bytes());
        out.extend_from_slice(br#"","ts_ms":"#);
        write_times(out, recorded_at);
        out.extend_from_slice(if self.inline_schema { b"}}" } else { b"}" });
    }

    fn key(&mut self, version: &Version<'_>, key: Option<&str>, image: Option<Image<'_>>) {
        self.key.clear();
        if let Some(key) = key {
            self.plans.of(version.table()).write_key(&mut self.key, key, image);
        }
    }

    /// Passes on a version about no row as Debezium's kind for messages (`op` is `m`). Its content is the version
    /// record.
    fn note<E>(
        &mut self,
        version: &Version<'_>,
        recorded_at: Micros,
        each: impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // The key's buffer first holds the content, because the key is written only after it.
        self.key.clear();
        self.record.write(&mut self.key, version, recorded_at);
        let out = &mut self.value;
        out.clear();
        if self.inline_schema {
            plan::write_note_schema(out);
        }
        out.extend_from_slice(br#"{"op":"m","ts_ms":"#);
        write_number(out, recorded_at.0.div_euclid(1_000));
        out.extend_from_slice(br#","source":"#);
        write_source(out, (&self.source_head, &self.database), version, None);
        out.extend_from_slice(br#","transaction":null,"message":{"prefix":"cdc-audit","content":"#);
        base64::write_base64(out, self.key.iter().copied());
        out.extend_from_slice(if self.inline_schema { b"}}}" } else { b"}}" });
        self.without_row(version, each)
    }
}

/// Writes the place of the change. `sequence` is the LSN of the commit and that of the change, so that it rises from
/// change to change.
fn write_source(out: &mut Vec<u8>, (head, database): (&[u8], &[u8]), version: &Version<'_>, plan: Option<&Plan>) {
    let transaction = version.transaction();
    let (commit_lsn, lsn) = (transaction.commit_lsn.0 as i64, version.lsn().0 as i64);
    let micros = transaction.committed_at.0;
    out.extend_from_slice(head);
    write_number(out, micros.div_euclid(1_000));
    let snapshot = version.event() == Event::Snapshot;
    out.extend_from_slice(if snapshot { br#","snapshot":"incremental""# } else { br#","snapshot":"false""# });
    out.extend_from_slice(database);
    write_number(out, commit_lsn);
    out.extend_from_slice(br#"\",\""#);
    write_number(out, lsn);
    out.extend_from_slice(br#"\"]","ts_us":"#);
    write_number(out, micros);
    out.extend_from_slice(br#","ts_ns":"#);
    write_number(out, micros.saturating_mul(1_000));
    match plan {
        Some(plan) => out.extend_from_slice(&plan.source_table),
        None => out.extend_from_slice(br#","schema":"","table":"","txId":"#),
    }
    write_number(out, i64::from(transaction.xid));
    out.extend_from_slice(br#","lsn":"#);
    write_number(out, lsn);
    out.extend_from_slice(br#","xmin":null,"origin":null,"origin_lsn":null}"#);
}

fn write_times(out: &mut Vec<u8>, at: Micros) {
    write_number(out, at.0.div_euclid(1_000));
    out.extend_from_slice(br#","ts_us":"#);
    write_number(out, at.0);
    out.extend_from_slice(br#","ts_ns":"#);
    write_number(out, at.0.saturating_mul(1_000));
}
