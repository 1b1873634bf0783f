//! The forms that the files of an export can have: [`Form`], and what writes them.

use std::io::{self, Write};

use audit_core::stored::{Json, Record};
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::columns::Columns;
use super::file::{Compression, Hashed};
use crate::csv;

/// How versions are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One record a line, as JSON.
    #[default]
    Jsonl,
    /// A header, then one line a version.
    Csv,
    /// Parquet, compressed inside of the file.
    Parquet,
}

/// The form of an export's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    #[serde(default)]
    pub format: Format,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// A file is closed after so many bytes, counted before compression. Without it each table has one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_bytes: Option<u64>,
}

impl Form {
    /// The end of the names of files.
    pub fn ending(&self) -> &'static str {
        match (self.format, self.compression) {
            (Format::Jsonl, None) => "jsonl",
            (Format::Jsonl, Some(Compression::Gzip)) => "jsonl.gz",
            (Format::Jsonl, Some(Compression::Zstd)) => "jsonl.zst",
            (Format::Csv, None) => "csv",
            (Format::Csv, Some(Compression::Gzip)) => "csv.gz",
            (Format::Csv, Some(Compression::Zstd)) => "csv.zst",
            (Format::Parquet, _) => "parquet",
        }
    }

    /// Whether a file that was cut can be continued after its last whole line. Others are begun again.
    pub fn is_continued(&self) -> bool {
        self.format == Format::Jsonl && self.compression.is_none()
    }
}

/// What turns versions into the bytes of a file.
pub enum Encoder {
    Lines { out: Box<Squeezed>, format: Format },
    Columns(Box<Columns>),
}

/// Bytes on their way into a file, compressed or not.
pub enum Squeezed {
    Plain(Hashed),
    Gzip(GzEncoder<Hashed>),
    Zstd(zstd::Encoder<'static, Hashed>),
}

impl Encoder {
    /// Begins a file, or continues one that has its beginning already.
    pub fn begin(form: &Form, out: Hashed) -> io::Result<Encoder> {
        if form.format == Format::Parquet {
            return Ok(Encoder::Columns(Box::new(Columns::new(form.compression, out)?)));
        }
        let is_new = out.bytes == 0;
        let mut out = match form.compression {
            None => Squeezed::Plain(out),
            Some(Compression::Gzip) => Squeezed::Gzip(GzEncoder::new(out, flate2::Compression::default())),
            Some(Compression::Zstd) => Squeezed::Zstd(zstd::Encoder::new(out, 0)?),
        };
        if is_new && form.format == Format::Csv {
            out.write_all(format!("{}\n", HEADER.join(",")).as_bytes())?;
        }
        Ok(Encoder::Lines { out: Box::new(out), format: form.format })
    }

    /// Adds a version. Returns the number of its bytes before compression.
    pub fn push(&mut self, record: &Record) -> io::Result<u64> {
        match self {
            Encoder::Lines { out, format } => {
                let mut line = match format {
                    Format::Csv => fields(record).join(",").into_bytes(),
                    Format::Jsonl | Format::Parquet => serde_json::to_vec(record)?,
                };
                line.push(b'\n');
                out.write_all(&line)?;
                Ok(line.len() as u64)
            }
            Encoder::Columns(columns) => columns.push(record),
        }
    }

    pub fn finish(self) -> io::Result<Hashed> {
        match self {
            Encoder::Lines { out, .. } => match *out {
                Squeezed::Plain(out) => Ok(out),
                Squeezed::Gzip(out) => out.finish(),
                Squeezed::Zstd(out) => out.finish(),
            },
            Encoder::Columns(columns) => columns.finish(),
        }
    }
}

impl Write for Squeezed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Squeezed::Plain(out) => out.write(bytes),
            Squeezed::Gzip(out) => out.write(bytes),
            Squeezed::Zstd(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Squeezed::Plain(out) => out.flush(),
            Squeezed::Gzip(out) => out.flush(),
            Squeezed::Zstd(out) => out.flush(),
        }
    }
}

/// The columns of CSV files. New ones are added at the end.
pub const HEADER: [&str; 27] = [
    "position",
    "table_name",
    "item_type",
    "key",
    "old_key",
    "event",
    "changes",
    "actor_id",
    "actor",
    "reason",
    "committed_at",
    "schema_version",
    "before",
    "after",
    "before_known",
    "unknown",
    "included",
    "context",
    "actor_source",
    "context_verified",
    "xid",
    "recorded_at",
    "baseline",
    "tenant",
    "source",
    "changed",
    "summary",
];

fn fields(record: &Record) -> [String; 27] {
    let text = |text: &str| csv::field(text);
    let maybe = |value: &Option<String>| value.as_deref().map(csv::field).unwrap_or_default();
    let json = |value: &Option<Json>| value.as_deref().map(|json| csv::field(json.get())).unwrap_or_default();
    let list = |names: &[String]| csv::field(&serde_json::Value::from(names.to_vec()).to_string());
    let number = |value: Option<u32>| value.map(|value| value.to_string()).unwrap_or_default();
    let Record { key, old_key, actor_id, reason, actor_source, tenant, .. } = record;
    [
        record.position.to_string(),
        text(&record.table_name),
        text(&record.item_type),
        maybe(key),
        maybe(old_key),
        text(&record.event),
        json(&record.changes),
        maybe(actor_id),
        json(&record.actor),
        maybe(reason),
        record.committed_at.to_string(),
        record.schema_version.to_string(),
        json(&record.before),
        json(&record.after),
        record.before_known.to_string(),
        list(&record.unknown),
        json(&record.included),
        json(&record.context),
        maybe(actor_source),
        record.context_verified.map(|verified| verified.to_string()).unwrap_or_default(),
        record.xid.to_string(),
        record.recorded_at.to_string(),
        number(record.baseline),
        maybe(tenant),
        text(&record.source),
        record.changed.as_deref().map(list).unwrap_or_default(),
        text(&record.summary),
    ]
}
