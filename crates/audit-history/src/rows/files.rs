//! Files of rows, one for each table, and a manifest that proves them: [`Folder`].
//!
//! A file gets its name only when it is whole and on disk, and the manifest is written last. Every column is text, as
//! PostgreSQL writes its values, because a protected value has another type than its column.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use audit_core::json::unquote;
use audit_core::position::{Micros, Position};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::Digest as _;

use super::{Row, TableAt, line};
use crate::csv;
use crate::export::{
    ExportError, Form, Format, Hashed, MANIFEST, folder_of, make_folder, name_of, prepare, pretty, private, write_whole,
};
use crate::row::{Known, Standing};
use crate::timeline::Coverage;

/// The columns that follow those of the table: the key as it is stored, and the columns of which the value is not known,
/// with the reason, as JSON.
const FURTHER: [&str; 2] = ["cdc_audit_key", "cdc_audit_unknown"];

/// Rows that are turned into columns at a time, and their bytes at most.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;

/// A row group is closed when its encoded bytes are this many, which bounds the memory.
const GROUP_BYTES: usize = 32 << 20;

/// Describes what was written.
#[derive(Debug, Serialize)]
pub struct RowsManifest {
    pub format: &'static str,
    pub source: String,
    /// The point that was asked for.
    pub as_of: String,
    /// The position that it stands for: everything up to here counts.
    pub position: Position,
    pub written_at: String,
    pub file_format: Format,
    pub rows: u64,
    pub files: Vec<RowsFile>,
    /// Tables of which the rows cannot be told, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    pub coverage: Coverage,
}

#[derive(Clone, Debug, Serialize)]
pub struct RowsFile {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    pub table: String,
    pub rows: u64,
    /// Number of rows with a value that is not known.
    pub unknown: u64,
    pub bytes: u64,
    pub sha256: String,
}

/// A folder that rows are written into.
pub struct Folder {
    to: PathBuf,
    format: Format,
}

/// The file of one table that is being written.
pub struct TableFile {
    writer: Writer,
    part: PathBuf,
    path: PathBuf,
    entry: RowsFile,
}

enum Writer {
    Json(Hashed),
    Csv { out: Hashed, columns: Vec<String> },
    Parquet(Box<Columns>),
}

impl Folder {
    /// # Errors
    /// Fails if the folder is not empty, or cannot be made.
    pub fn open(to: &Path, format: Format) -> Result<Folder, ExportError> {
        prepare(to)?;
        Ok(Folder { to: to.to_owned(), format })
    }

    /// Begins the file of a table.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn begin(&self, table: &TableAt, tenant: Option<&str>) -> Result<TableFile, ExportError> {
        let folder = tenant.map(folder_of);
        let form = Form { format: self.format, ..Form::default() };
        let name = format!("{}.{}", name_of(table.name()), form.ending());
        let name = folder.iter().fold(name, |name, folder| format!("{folder}/{name}"));
        if let Some(folder) = folder.map(|folder| self.to.join(folder)) {
            make_folder(&folder).map_err(|source| ExportError::Write { path: folder, source })?;
        }
        let (path, part) = (self.to.join(&name), self.to.join(format!("{name}.part")));
        let begin = || {
            let file = private().create(true).truncate(true).open(&part)?;
            let out = Hashed::to_file(file);
            Writer::begin(self.format, out, table.columns())
        };
        let writer = begin().map_err(|source| ExportError::Write { path: part.clone(), source })?;
        let (table, tenant) = (table.name().to_owned(), tenant.map(str::to_owned));
        let entry = RowsFile { path: name, tenant, table, rows: 0, unknown: 0, bytes: 0, sha256: String::new() };
        Ok(TableFile { writer, part, path, entry })
    }

    /// Writes the manifest, after which the folder is whole.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn finish(self, manifest: &RowsManifest) -> Result<(), ExportError> {
        let written = pretty(manifest).and_then(|text| write_whole(&self.to, MANIFEST, &text));
        written.map_err(|source| ExportError::Write { path: self.to.join(MANIFEST), source })
    }
}

impl TableFile {
    /// Adds a row.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn push(&mut self, table: &TableAt, row: &Row) -> Result<(), ExportError> {
        self.entry.rows += 1;
        self.entry.unknown += u64::from(row.standing.has_unknown());
        let tenant = self.entry.tenant.as_deref();
        let written = match &mut self.writer {
            Writer::Json(out) => writeln!(out, "{}", line(table, tenant, row)),
            Writer::Csv { out, columns } => writeln!(out, "{}", csv_line(columns, row)),
            Writer::Parquet(file) => file.push(row),
        };
        written.map_err(|source| ExportError::Write { path: self.part.clone(), source })
    }

    /// Removes the file, because the rows cannot be told.
    ///
    /// # Errors
    /// Fails if it cannot be removed.
    pub fn discard(self) -> Result<(), ExportError> {
        fs::remove_file(&self.part).map_err(|source| ExportError::Write { path: self.part.clone(), source })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn finish(self) -> Result<RowsFile, ExportError> {
        let TableFile { writer, part, path, mut entry } = self;
        let write = || {
            let mut out = match writer {
                Writer::Json(out) | Writer::Csv { out, .. } => out,
                Writer::Parquet(file) => file.finish()?,
            };
            out.sync()?;
            fs::rename(&part, &path)?;
            entry.bytes = out.bytes;
            entry.sha256 = hex::encode(out.digest.finalize());
            Ok(())
        };
        match write() {
            Ok(()) => Ok(entry),
            Err(source) => Err(ExportError::Write { path, source }),
        }
    }
}

impl RowsManifest {
    pub fn new(source: &str, as_of: &str, position: Position, file_format: Format, coverage: Coverage) -> RowsManifest {
        RowsManifest {
            format: "cdc-audit rows 1",
            source: source.to_owned(),
            as_of: as_of.to_owned(),
            position,
            written_at: Micros::now().to_string(),
            file_format,
            rows: 0,
            files: Vec::new(),
            left_out: Vec::new(),
            coverage,
        }
    }
}

impl Writer {
    fn begin(format: Format, mut out: Hashed, columns: Vec<String>) -> io::Result<Writer> {
        match format {
            Format::Jsonl => Ok(Writer::Json(out)),
            Format::Csv => {
                writeln!(out, "{}", csv_header(&columns))?;
                Ok(Writer::Csv { out, columns })
            }
            Format::Parquet => Ok(Writer::Parquet(Box::new(Columns::new(columns, out)?))),
        }
    }
}

impl Standing {
    /// Whether a value is not known.
    pub fn has_unknown(&self) -> bool {
        self.state.values().any(|known| known.why().is_some())
    }
}

/// The first line of a CSV file of rows with these columns.
pub fn csv_header(columns: &[String]) -> String {
    let all = columns.iter().map(String::as_str).chain(FURTHER);
    all.map(csv::field).collect::<Vec<_>>().join(",")
}

/// A row as a line of CSV. NULL is nothing, an empty text is `""`, and a value that is not known is `?`.
pub fn csv_line(columns: &[String], row: &Row) -> String {
    cells(columns, row).into_iter().map(field).collect::<Vec<_>>().join(",")
}

/// What a cell holds.
enum Cell {
    Null,
    Text(String),
    Unknown,
}

/// The cells of the columns, and of the further ones.
fn cells(columns: &[String], row: &Row) -> Vec<Cell> {
    let state = &row.standing.state;
    let cell = |column: &String| match state.get(column) {
        None | Some(Known::Unknown(_)) => Cell::Unknown,
        Some(known) => match known.value().unwrap_or(Known::NULL) {
            Known::NULL => Cell::Null,
            json if json.starts_with('"') => Cell::Text(unquote(json).into_owned()),
            json => Cell::Text(json.to_owned()),
        },
    };
    let unknown = state.iter().filter_map(|(column, known)| Some((column.clone(), Value::from(known.why()?.name()))));
    let unknown: Map<String, Value> = unknown.collect();
    let unknown = if unknown.is_empty() { Cell::Null } else { Cell::Text(Value::Object(unknown).to_string()) };
    columns.iter().map(cell).chain([Cell::Text(row.key.clone()), unknown]).collect()
}

fn field(cell: Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Text(text) if text.is_empty() => "\"\"".to_owned(),
        Cell::Text(text) => csv::field(&text),
        Cell::Unknown => "?".to_owned(),
    }
}

/// A Parquet file of rows. A value that is not known is null there, and its column is named in `cdc_audit_unknown`.
struct Columns {
    schema: SchemaRef,
    columns: Vec<String>,
    writer: ArrowWriter<Hashed>,
    batch: Vec<Vec<Option<String>>>,
    rows: usize,
    bytes: usize,
}

impl Columns {
    fn new(columns: Vec<String>, out: Hashed) -> io::Result<Columns> {
        let names = columns.iter().map(String::as_str).chain(FURTHER);
        let fields: Vec<Field> = names.map(|name| Field::new(name, DataType::Utf8, true)).collect();
        let batch = vec![Vec::new(); fields.len()];
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(io::Error::other)?;
        Ok(Columns { schema, columns, writer, batch, rows: 0, bytes: 0 })
    }

    fn push(&mut self, row: &Row) -> io::Result<()> {
        for (values, cell) in self.batch.iter_mut().zip(cells(&self.columns, row)) {
            let text = match cell {
                Cell::Text(text) => Some(text),
                Cell::Null | Cell::Unknown => None,
            };
            self.bytes += text.as_ref().map_or(0, String::len);
            values.push(text);
        }
        self.rows += 1;
        match self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
            true => self.write(),
            false => Ok(()),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let column =
            |values: &mut Vec<Option<String>>| -> ArrayRef { Arc::new(values.drain(..).collect::<StringArray>()) };
        let arrays: Vec<ArrayRef> = self.batch.iter_mut().map(column).collect();
        let batch = RecordBatch::try_new(self.schema.clone(), arrays).map_err(io::Error::other)?;
        (self.rows, self.bytes) = (0, 0);
        self.writer.write(&batch).map_err(io::Error::other)?;
        if self.writer.in_progress_size() >= GROUP_BYTES {
            self.writer.flush().map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Hashed> {
        if self.rows > 0 {
            self.write()?;
        }
        self.writer.into_inner().map_err(io::Error::other)
    }
}
