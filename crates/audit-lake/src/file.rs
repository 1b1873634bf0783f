//! One file while it is written: rows, then row groups, then an object in the store.
//!
//! Few rows are kept in builders, which are cheap; the Parquet writer opens when there is enough to encode. A closed row group leaves memory
//! at once: a small file is one put at its end, a larger one an upload in parts to a staged name. It gets its own name, which tells its last
//! version, when it is whole; so readers that list never see part of a file.

use std::sync::Arc;

use audit_core::batch::Version;
use audit_core::position::Position;
use bytes::Bytes;
use deltalake_core::kernel::Add;
use object_store::path::Path;
use object_store::{Error as StoreError, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use serde::{Deserialize, Serialize};

use crate::encode;
use crate::error::{LakeError, fault};
use crate::layout::{Chunks, Day, FileName, TMP};
use crate::rows::{Rows, Shared, TooLarge};
use crate::schema::RowPlan;
use crate::stats;
use crate::store::Store;

/// Keys of a file's Parquet metadata.
pub const CHUNKS_KEY: &str = "cdc_audit.chunks";

/// Rows are encoded in steps of about this size.
const STEP_BYTES: usize = 2 << 20;
const STEP_ROWS: usize = 8192;
/// Parts of an upload. The clouds want 5 MiB at least, some want all the same.
const PART_BYTES: usize = 8 << 20;

/// The chunks in a file, as its metadata has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkNote {
    pub baseline: u32,
    pub first: u32,
    pub last: u32,
    /// No chunk of the baseline follows.
    pub done: bool,
}

/// What files need to know of the sink they belong to.
#[derive(Clone, Debug)]
pub struct FileContext {
    pub store: Store,
    /// Name and folder of the table.
    pub table: Arc<str>,
    pub folder: Arc<str>,
    pub owner: u64,
    pub settings: encode::Settings,
}

/// A file that rows are still added to.
#[derive(Debug)]
pub struct OpenFile {
    pub day: Day,
    pub chunks: Option<ChunkNote>,
    pub rows_total: u64,
    /// Of encoded rows.
    pub encoded_bytes: u64,
    /// Large rows may come: set before the writer opens, or never.
    pub large: bool,
    first: Position,
    last: Position,
    plan: Arc<RowPlan>,
    rows: Rows,
    writer: Option<ArrowWriter<Vec<u8>>>,
    /// Encoded and not yet uploaded.
    pending: Vec<u8>,
    upload: Option<Upload>,
}

#[derive(Debug)]
struct Upload {
    parts: Box<dyn MultipartUpload>,
    staged: Path,
}

/// A file that is whole, but perhaps not in its place.
#[derive(Clone, Debug)]
pub struct WholeFile {
    body: Body,
    add: Add,
}

#[derive(Clone, Debug)]
enum Body {
    Memory(Bytes),
    Staged(Path),
}

impl OpenFile {
    pub fn new(plan: Arc<RowPlan>, day: Day, first: Position) -> OpenFile {
        OpenFile {
            day,
            chunks: None,
            rows_total: 0,
            encoded_bytes: 0,
            large: false,
            first,
            last: first,
            rows: Rows::new(plan.clone()),
            plan,
            writer: None,
            pending: Vec::new(),
            upload: None,
        }
    }

    /// Whether a large row may come in.
    pub fn takes_large(&self) -> bool {
        self.large || self.writer.is_none()
    }

    /// Appends a version; true when rows should be encoded before more come.
    pub fn append(&mut self, version: &Version<'_>, shared: Shared<'_>) -> Result<bool, TooLarge> {
        self.rows.append(version, shared)?;
        self.large |= version.is_larger_than(encode::LARGE);
        Ok(self.appended(version))
    }

    /// Appends event `error` in place of the version.
    pub fn append_error(&mut self, version: &Version<'_>, shared: Shared<'_>, note: &str) -> bool {
        self.rows.append_error(version, shared, note);
        self.appended(version)
    }

    fn appended(&mut self, version: &Version<'_>) -> bool {
        self.last = version.position();
        self.rows_total += 1;
        self.is_due()
    }

    /// Whether rows should be encoded before more come.
    pub fn is_due(&self) -> bool {
        self.rows.bytes() >= STEP_BYTES || self.rows.len() >= STEP_ROWS
    }

    /// Memory held, in bytes.
    pub fn held_bytes(&self) -> usize {
        let writer = self.writer.as_ref().map_or(0, |writer| writer.memory_size() + encode::WRITER_BYTES);
        self.rows.bytes() + writer + self.pending.capacity()
    }

    /// Encodes the rows that were appended. Takes processor time.
    pub fn encode(&mut self, context: &FileContext) -> Result<(), LakeError> {
        self.encode_rows(context, false)
    }

    fn encode_rows(&mut self, context: &FileContext, closing: bool) -> Result<(), LakeError> {
        let failed = |source| LakeError::Parquet { table: context.table.to_string(), source };
        if self.rows.len() > 0 {
            let batch = self.rows.finish().map_err(|error| failed(error.into()))?;
            let writer = match &mut self.writer {
                Some(writer) => writer,
                none => none.insert(encode::open(&batch, &context.settings, closing, self.large).map_err(failed)?),
            };
            writer.write(&batch).map_err(failed)?;
        }
        if let Some(writer) = &mut self.writer {
            writer.sync().map_err(|error| failed(error.into()))?;
            let encoded = std::mem::take(writer.inner_mut());
            self.encoded_bytes += encoded.len() as u64;
            if self.pending.is_empty() {
                self.pending = encoded;
            } else {
                self.pending.extend_from_slice(&encoded);
            }
        }
        Ok(())
    }

    /// Encodes all rows and ends their row group, if a writer is open. Takes processor time.
    pub fn end_row_group(&mut self, context: &FileContext) -> Result<(), LakeError> {
        if self.writer.is_none() {
            return Ok(());
        }
        self.encode_rows(context, false)?;
        if let Some(writer) = &mut self.writer {
            writer.flush().map_err(|source| LakeError::Parquet { table: context.table.to_string(), source })?;
        }
        self.encode_rows(context, false)
    }

    /// About the size that the file would have if it were closed now.
    pub fn size(&self) -> u64 {
        self.encoded_bytes + self.writer.as_ref().map_or(0, |writer| writer.in_progress_size() as u64)
    }

    pub fn wants_upload(&self) -> bool {
        self.pending.len() >= PART_BYTES
    }

    /// Uploads what is encoded, in whole parts.
    pub async fn upload(&mut self, context: &FileContext) -> Result<(), LakeError> {
        if self.pending.len() < PART_BYTES {
            return Ok(());
        }
        let mut pending = Bytes::from(std::mem::take(&mut self.pending));
        while pending.len() >= PART_BYTES {
            self.put_part(pending.split_to(PART_BYTES), context).await?;
        }
        self.pending = pending.to_vec();
        Ok(())
    }

    async fn put_part(&mut self, part: Bytes, context: &FileContext) -> Result<(), LakeError> {
        let lost = |source| LakeError::upload_lost(&context.table, source);
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => {
                let staged = Path::from(format!("{TMP}/{:016x}.parquet", rand::random::<u64>()));
                let parts = context.store.objects().put_multipart(&staged).await.map_err(lost)?;
                none.insert(Upload { parts, staged })
            }
        };
        upload.parts.put_part(part.into()).await.map_err(lost)
    }

    /// Ends the file. What is in memory is lost with an error: the stream has to begin again.
    pub async fn close(mut self, context: &FileContext) -> Result<WholeFile, LakeError> {
        let failed = |source| LakeError::Parquet { table: context.table.to_string(), source };
        let (footer, this) = encode::on_cpu(move || {
            self.encode_rows(context, true)?;
            let chunks = self.chunks.map(|note| serde_json::to_string(&note).unwrap_or_default());
            let Some(writer) = &mut self.writer else {
                return Err(failed(parquet::errors::ParquetError::EOF("no rows".into())));
            };
            if let Some(note) = chunks {
                writer.append_key_value_metadata(KeyValue::new(CHUNKS_KEY.to_string(), note));
            }
            let footer = writer.finish().map_err(failed)?;
            let encoded = std::mem::take(writer.inner_mut());
            self.encoded_bytes += encoded.len() as u64;
            self.pending.extend_from_slice(&encoded);
            self.writer = None;
            Ok((footer, self))
        })?;
        let stats = stats::of_file(&footer, &this.plan).map_err(failed)?;
        this.seal(context, stats).await
    }

    async fn seal(mut self, context: &FileContext, stats: String) -> Result<WholeFile, LakeError> {
        let chunks = self.chunks.map(|note| Chunks { baseline: note.baseline, first: note.first, last: note.last });
        let name = FileName { first: self.first, last: self.last, owner: context.owner, chunks };
        let add = add_action(self.day, &name, self.encoded_bytes, stats);
        let rest = Bytes::from(std::mem::take(&mut self.pending));
        if self.upload.is_none() && rest.len() <= PART_BYTES {
            return Ok(WholeFile { body: Body::Memory(rest), add });
        }
        let mut rest = rest;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(PART_BYTES));
            self.put_part(part, context).await?;
        }
        match self.upload {
            Some(Upload { mut parts, staged }) => {
                let lost = |source| LakeError::upload_lost(&context.table, source);
                parts.complete().await.map_err(lost)?;
                Ok(WholeFile { body: Body::Staged(staged), add })
            }
            None => Ok(WholeFile { body: Body::Memory(Bytes::new()), add }),
        }
    }
}

/// The `add` action of a file.
pub fn add_action(day: Day, name: &FileName, size: u64, stats: String) -> Add {
    let partition = [("year", i64::from(day.year)), ("month", day.month.into()), ("day", day.day.into())];
    Add {
        path: format!("{}/{name}", day.folder()),
        partition_values: partition
            .into_iter()
            .map(|(key, value)| (key.to_string(), Some(value.to_string())))
            .collect(),
        size: size as i64,
        modification_time: audit_core::position::Micros::now().0 / 1000,
        data_change: true,
        stats: Some(stats),
        ..Add::default()
    }
}

impl WholeFile {
    /// Gives the file its place among the table's, and says how the log names it. A repeat changes nothing.
    pub async fn put(&self, context: &FileContext) -> Result<Add, LakeError> {
        fault!("lake::before_put");
        let objects = context.store.objects();
        let path = Path::from(format!("{}/{}", context.folder, self.add.path));
        let failed = |source| LakeError::store("write", context.store.show(&path), source);
        let put = match &self.body {
            Body::Memory(bytes) => {
                let payload = PutPayload::from_bytes(bytes.clone());
                objects.put_opts(&path, payload, PutMode::Create.into()).await.map(|_| ())
            }
            Body::Staged(staged) => objects.rename(staged, &path).await,
        };
        match put {
            Ok(()) => {}
            // The name is this daemon's alone, so it holds these bytes: an earlier try whose answer was lost.
            Err(StoreError::AlreadyExists { .. } | StoreError::NotFound { .. })
                if objects.head(&path).await.is_ok_and(|meta| meta.size == self.add.size as u64) => {}
            Err(error) => return Err(failed(error)),
        }
        fault!("lake::after_put");
        Ok(self.add.clone())
    }

    pub fn held_bytes(&self) -> usize {
        match &self.body {
            Body::Memory(bytes) => bytes.len(),
            Body::Staged(_) => 0,
        }
    }
}
