//! Versions as Parquet: the record's fields as columns, documents as JSON text.

use std::io;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use audit_core::stored::{Json, Record};
use parquet::arrow::ArrowWriter;
use parquet::basic::{GzipLevel, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::file::{Compression, Hashed};

/// Versions that are turned into columns at a time, and their bytes at most.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: u64 = 8 << 20;

/// A row group is closed when its encoded bytes are this many, which bounds the memory.
const GROUP_BYTES: usize = 32 << 20;

/// A Parquet file that is being written.
pub struct Columns {
    schema: SchemaRef,
    writer: ArrowWriter<Hashed>,
    batch: Vec<Record>,
    batch_bytes: u64,
}

fn failed(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => io::Error::other(error),
        error => io::Error::other(error),
    }
}

fn schema() -> Schema {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let time = |name: &str| Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false);
    Schema::new(vec![
        text("source", false),
        text("position", false),
        text("table_name", false),
        text("item_type", false),
        text("key", true),
        text("old_key", true),
        text("event", false),
        text("changes", true),
        text("before", true),
        text("after", true),
        text("changed", true),
        Field::new("before_known", DataType::Boolean, false),
        text("unknown", false),
        text("included", true),
        text("actor_id", true),
        text("actor", true),
        text("reason", true),
        text("context", true),
        text("actor_source", true),
        Field::new("context_verified", DataType::Boolean, true),
        Field::new("xid", DataType::Int64, false),
        time("committed_at"),
        time("recorded_at"),
        Field::new("schema_version", DataType::Int32, false),
        Field::new("baseline", DataType::Int32, true),
        text("tenant", true),
        text("summary", false),
    ])
}

impl Columns {
    pub fn new(compression: Option<Compression>, out: Hashed) -> io::Result<Columns> {
        let compression = match compression {
            Some(Compression::Gzip) => parquet::basic::Compression::GZIP(GzipLevel::default()),
            Some(Compression::Zstd) | None => parquet::basic::Compression::ZSTD(ZstdLevel::default()),
        };
        let schema = Arc::new(schema());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(failed)?;
        Ok(Columns { schema, writer, batch: Vec::new(), batch_bytes: 0 })
    }

    pub fn push(&mut self, record: &Record) -> io::Result<u64> {
        let bytes = size(record);
        self.batch.push(record.clone());
        self.batch_bytes += bytes;
        if self.batch.len() >= BATCH_ROWS || self.batch_bytes >= BATCH_BYTES {
            self.write()?;
        }
        Ok(bytes)
    }

    fn write(&mut self) -> io::Result<()> {
        let batch = RecordBatch::try_new(self.schema.clone(), columns(&self.batch)).map_err(io::Error::other)?;
        self.batch.clear();
        self.batch_bytes = 0;
        self.writer.write(&batch).map_err(failed)?;
        if self.writer.in_progress_size() >= GROUP_BYTES {
            self.writer.flush().map_err(failed)?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<Hashed> {
        if !self.batch.is_empty() {
            self.write()?;
        }
        self.writer.into_inner().map_err(failed)
    }
}

/// Bytes of a version before compression.
fn size(record: &Record) -> u64 {
    let documents = [&record.changes, &record.before, &record.after, &record.included, &record.actor, &record.context];
    let documents: usize = documents.into_iter().flatten().map(|json| json.get().len()).sum();
    let texts: usize = [&record.key, &record.old_key, &record.reason].into_iter().flatten().map(String::len).sum();
    (documents + texts + record.summary.len() + 256) as u64
}

/// The columns, in the order of the schema.
fn columns(records: &[Record]) -> Vec<ArrayRef> {
    fn text(records: &[Record], of: impl Fn(&Record) -> Option<String>) -> ArrayRef {
        Arc::new(records.iter().map(of).collect::<StringArray>())
    }
    let json = |of: fn(&Record) -> &Option<Json>| {
        text(records, |record| of(record).as_deref().map(|json| json.get().to_owned()))
    };
    let maybe = |of: fn(&Record) -> &Option<String>| text(records, |record| of(record).clone());
    let names = |names: &[String]| serde_json::Value::from(names.to_vec()).to_string();
    let time = |of: fn(&Record) -> i64| -> ArrayRef {
        Arc::new(
            records.iter().map(|record| Some(of(record))).collect::<TimestampMicrosecondArray>().with_timezone("UTC"),
        )
    };
    let flag =
        |of: fn(&Record) -> Option<bool>| -> ArrayRef { Arc::new(records.iter().map(of).collect::<BooleanArray>()) };
    let number = |of: fn(&Record) -> Option<u32>| -> ArrayRef {
        Arc::new(records.iter().map(|record| of(record).map(|number| number as i32)).collect::<Int32Array>())
    };
    vec![
        text(records, |record| Some(record.source.clone())),
        text(records, |record| Some(record.position.to_string())),
        text(records, |record| Some(record.table_name.clone())),
        text(records, |record| Some(record.item_type.clone())),
        maybe(|record| &record.key),
        maybe(|record| &record.old_key),
        text(records, |record| Some(record.event.clone())),
        json(|record| &record.changes),
        json(|record| &record.before),
        json(|record| &record.after),
        text(records, |record| record.changed.as_deref().map(names)),
        flag(|record| Some(record.before_known)),
        text(records, |record| Some(names(&record.unknown))),
        json(|record| &record.included),
        maybe(|record| &record.actor_id),
        json(|record| &record.actor),
        maybe(|record| &record.reason),
        json(|record| &record.context),
        maybe(|record| &record.actor_source),
        flag(|record| record.context_verified),
        Arc::new(records.iter().map(|record| Some(i64::from(record.xid))).collect::<Int64Array>()),
        time(|record| record.committed_at.0),
        time(|record| record.recorded_at.0),
        number(|record| Some(record.schema_version)),
        number(|record| record.baseline),
        maybe(|record| &record.tenant),
        text(records, |record| Some(record.summary.clone())),
    ]
}
