//! One file while it is written: rows, then row groups, then an object in the store.
//!
//! Rows are collected in builders, then as Arrow until they fill a row group, which is sorted by key and position and
//! then encoded. So a file of one row group is sorted completely; in a larger one each row group is sorted, which
//! `sorting_columns` in its footer declares. Files with large rows keep the order in which the rows came.
//!
//! A file gets its name, which contains its last version, when it is complete, so readers that list never see a part of
//! a file. On disk a finished row group leaves memory at once: a larger file is written under a staged name. In a
//! bucket nothing can be renamed: encoded row groups wait in memory until their file is complete, within the sink's
//! memory limit. Then the file is one put or, if it is large, an upload in parts. Only the put is create-only on every
//! cloud. The upload need not be: only this daemon uses the name, and a repeat puts the same bytes.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use audit_core::batch::Version;
use audit_core::position::Position;
use bytes::Bytes;
use deltalake_core::kernel::Add;
use object_store::path::Path;
use object_store::{
    Error as StoreError, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use serde::{Deserialize, Serialize};

use crate::encode;
use crate::error::{LakeError, fault};
use crate::layout::{Chunks, DATA, FRESH, FileName, TMP};
use crate::partition::Partition;
use crate::parts::{self, PART_BYTES};
use crate::rows::{Rows, Shared, TooLarge};
use crate::schema::RowPlan;
use crate::sort::{Order, Sorter};
use crate::stats;
use crate::store::Store;

/// The key of a file's Parquet metadata that holds its chunks.
pub const CHUNKS_KEY: &str = "cdc_audit.chunks";

/// Rows leave their builders in steps of about this size.
const STEP_BYTES: usize = 2 << 20;
const STEP_ROWS: usize = 8192;
/// About how many bytes a file holds from its first row on for each builder of a column, in addition to its rows.
const BUILDER_BYTES: usize = 512;
/// About how many bytes an open file keeps for its footer for each column of each row group.
const CHUNK_BYTES: usize = 1024;
/// Size in bytes of the largest file that is written with one put.
const PUT_BYTES: usize = 2 * PART_BYTES;

/// The chunks in a file, as stored in its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkNote {
    pub baseline: u32,
    pub first: u32,
    pub last: u32,
    /// No chunk of the baseline follows.
    pub done: bool,
}

impl ChunkNote {
    fn named(self, spread: bool) -> Chunks {
        Chunks { baseline: self.baseline, first: self.first, last: self.last, spread }
    }
}

/// What files need to know about the sink that they belong to.
#[derive(Clone, Debug)]
pub struct FileContext {
    pub store: Store,
    /// Name and folder of the table.
    pub table: Arc<str>,
    pub folder: Arc<str>,
    pub owner: u64,
    pub settings: encode::Settings,
    /// A file that reaches these limits goes to `data/`.
    pub data: Limits,
    /// Some readers list `data/`, so a file that the log does not name must not stay there.
    pub listed: bool,
}

/// When something is large enough.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: u64,
    pub rows: u64,
}

impl Limits {
    pub fn reached(self, bytes: u64, rows: u64) -> bool {
        bytes >= self.bytes || rows >= self.rows
    }
}

/// A file that rows are still added to.
#[derive(Debug)]
pub struct OpenFile {
    pub partition: Partition,
    pub chunks: Option<ChunkNote>,
    /// Rows of its chunks go to other tables too.
    pub spread: bool,
    pub rows_total: u64,
    /// Bytes of encoded rows.
    pub encoded_bytes: u64,
    /// Large rows may come. It is set before the writer opens or never.
    pub large: bool,
    first: Position,
    last: Position,
    plan: Arc<RowPlan>,
    rows: Rows,
    /// Rows of the next row group.
    group: Group,
    writer: Option<ArrowWriter<Vec<u8>>>,
    /// Bytes that are encoded but not uploaded.
    pending: Vec<Bytes>,
    upload: Option<Upload>,
}

/// Rows in the order in which they came.
#[derive(Debug, Default)]
struct Group {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Group {
    fn push(&mut self, batch: RecordBatch) {
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
    }

    fn is_full(&self, settings: &encode::Settings) -> bool {
        self.bytes >= settings.row_group_bytes || self.rows >= settings.row_group_rows
    }

    fn write(
        self,
        by_key: bool,
        mut write: impl FnMut(&RecordBatch) -> Result<(), LakeError>,
    ) -> Result<(), LakeError> {
        if !by_key {
            return self.batches.iter().try_for_each(write);
        }
        let mut sorter = Sorter::new(Order::Key, usize::MAX);
        self.batches.into_iter().try_for_each(|batch| sorter.push(batch)).map_err(LakeError::Sort)?;
        let mut sorted = sorter.finish().map_err(LakeError::Sort)?;
        while let Some(batch) = sorted.next().map_err(LakeError::Sort)? {
            write(&batch)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Upload {
    parts: Box<dyn MultipartUpload>,
    staged: Path,
}

/// A complete file that may not have been put in its place yet.
#[derive(Clone, Debug)]
pub struct WholeFile {
    body: Body,
    add: Add,
}

#[derive(Clone, Debug)]
enum Body {
    Memory(PutPayload),
    Staged(Path),
}

impl OpenFile {
    pub fn new(plan: Arc<RowPlan>, partition: Partition, first: Position) -> OpenFile {
        OpenFile {
            partition,
            chunks: None,
            spread: false,
            rows_total: 0,
            encoded_bytes: 0,
            large: false,
            first,
            last: first,
            rows: Rows::new(plan.clone()),
            plan,
            group: Group::default(),
            writer: None,
            pending: Vec::new(),
            upload: None,
        }
    }

    /// Whether a large row may be added.
    pub fn takes_large(&self) -> bool {
        self.large || self.writer.is_none()
    }

    /// Appends a version. Returns true if rows should be encoded before more are added.
    pub fn append(&mut self, version: &Version<'_>, shared: Shared<'_>) -> Result<bool, TooLarge> {
        self.rows.append(version, shared)?;
        self.large |= version.is_larger_than(encode::LARGE);
        Ok(self.appended(version))
    }

    fn appended(&mut self, version: &Version<'_>) -> bool {
        self.last = version.position();
        self.rows_total += 1;
        self.is_due()
    }

    /// Whether rows should leave their builders before more are added.
    pub fn is_due(&self) -> bool {
        self.rows.bytes() >= STEP_BYTES || self.rows.len() >= STEP_ROWS
    }

    /// Memory in use, in bytes.
    pub fn held_bytes(&self) -> usize {
        let writer = self.writer.as_ref().map_or(0, |writer| writer.memory_size() + encode::WRITER_BYTES);
        let rows = BUILDER_BYTES * self.plan.builders() + self.rows.bytes() + self.group.bytes;
        rows + writer + self.footer_bytes() + self.pending_bytes()
    }

    fn footer_bytes(&self) -> usize {
        let row_groups = self.writer.as_ref().map_or(0, |writer| writer.flushed_row_groups().len());
        row_groups * self.plan.builders() * CHUNK_BYTES
    }

    /// Whether the file has reached its size, or what it keeps for the footer of many columns takes as much memory as a
    /// row group.
    pub fn is_full(&self, limits: Limits, settings: &encode::Settings) -> bool {
        limits.reached(self.size(), self.rows_total) || self.footer_bytes() >= settings.row_group_bytes
    }

    /// Adds the appended rows to their row group, and encodes the group if it is full. Takes processor time.
    pub fn encode(&mut self, context: &FileContext) -> Result<(), LakeError> {
        self.gather(context)?;
        if self.large || self.group.is_full(&context.settings) { self.encode_group(context, false) } else { Ok(()) }
    }

    fn gather(&mut self, context: &FileContext) -> Result<(), LakeError> {
        if self.rows.len() > 0 {
            let failed =
                |error: ArrowError| LakeError::Parquet { table: context.table.to_string(), source: error.into() };
            self.group.push(self.rows.finish().map_err(failed)?);
        }
        Ok(())
    }

    /// Encodes the collected rows, in their order, as a row group.
    fn encode_group(&mut self, context: &FileContext, closing: bool) -> Result<(), LakeError> {
        let failed = |source| LakeError::Parquet { table: context.table.to_string(), source };
        let group = std::mem::take(&mut self.group);
        let rows = encode::Rows { group: closing.then_some(group.rows), large: self.large, by_key: !self.large };
        group.write(rows.by_key, |batch| {
            let writer = match &mut self.writer {
                Some(writer) => writer,
                none => none.insert(encode::open(batch, &context.settings, rows).map_err(failed)?),
            };
            writer.write(batch).map_err(failed)
        })?;
        // Large rows are encoded at once, and their size ends the row group.
        if rows.by_key { self.flush(context) } else { self.drain(context) }
    }

    /// Ends the row group.
    fn flush(&mut self, context: &FileContext) -> Result<(), LakeError> {
        if let Some(writer) = &mut self.writer {
            writer.flush().map_err(|source| LakeError::Parquet { table: context.table.to_string(), source })?;
        }
        self.drain(context)
    }

    /// Takes the encoded bytes out of the writer.
    fn drain(&mut self, context: &FileContext) -> Result<(), LakeError> {
        if let Some(writer) = &mut self.writer {
            let failed =
                |source: std::io::Error| LakeError::Parquet { table: context.table.to_string(), source: source.into() };
            writer.sync().map_err(failed)?;
            let encoded = std::mem::take(writer.inner_mut());
            self.pend(encoded);
        }
        Ok(())
    }

    fn pend(&mut self, mut encoded: Vec<u8>) {
        if !encoded.is_empty() {
            self.encoded_bytes += encoded.len() as u64;
            encoded.shrink_to_fit();
            self.pending.push(encoded.into());
        }
    }

    fn pending_bytes(&self) -> usize {
        self.pending.iter().map(Bytes::len).sum()
    }

    /// Encodes all rows and ends their row group, unless the only rows are still in builders. Takes processor time.
    pub fn end_row_group(&mut self, context: &FileContext) -> Result<(), LakeError> {
        if self.writer.is_none() && self.group.rows == 0 {
            return Ok(());
        }
        self.gather(context)?;
        self.encode_group(context, false)?;
        self.flush(context)
    }

    /// About the size that the file would have if it were closed now.
    pub fn size(&self) -> u64 {
        self.encoded_bytes + self.writer.as_ref().map_or(0, |writer| writer.in_progress_size() as u64)
    }

    /// Whether enough is encoded to be staged.
    pub fn wants_upload(&self, context: &FileContext) -> bool {
        context.store.stages() && self.pending_bytes() >= PART_BYTES
    }

    /// Stages what is encoded.
    pub async fn upload(&mut self, context: &FileContext) -> Result<(), LakeError> {
        if self.wants_upload(context) {
            for piece in std::mem::take(&mut self.pending) {
                self.put_part(piece, context).await?;
            }
        }
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

    /// Ends the file. After an error the rows in memory are lost, and the stream has to begin again.
    pub async fn close(mut self, context: &FileContext) -> Result<WholeFile, LakeError> {
        let failed = |source| LakeError::Parquet { table: context.table.to_string(), source };
        let (footer, this) = encode::on_cpu(move || {
            self.gather(context)?;
            self.encode_group(context, true)?;
            let chunks = self.chunks.map(|note| serde_json::to_string(&note).unwrap_or_default());
            let Some(writer) = &mut self.writer else {
                return Err(failed(parquet::errors::ParquetError::EOF("no rows".into())));
            };
            if let Some(note) = chunks {
                writer.append_key_value_metadata(KeyValue::new(CHUNKS_KEY.to_string(), note));
            }
            let footer = writer.finish().map_err(failed)?;
            let encoded = std::mem::take(writer.inner_mut());
            self.pend(encoded);
            self.writer = None;
            Ok((footer, self))
        })?;
        let stats = stats::of_file(&footer, &this.plan).map_err(failed)?;
        this.seal(context, stats).await
    }

    async fn seal(mut self, context: &FileContext, stats: String) -> Result<WholeFile, LakeError> {
        let chunks = self.chunks.map(|note| note.named(self.spread));
        let name = FileName { first: self.first, last: self.last, owner: context.owner, chunks, mark: None };
        // A baseline is read only once, so its chunks must be found in `data/` after a kill, however small they are.
        // Rolls sort in little memory, so a file with large rows is not rolled.
        let stays = chunks.is_some() || self.large;
        let fresh = !stays && !context.data.reached(self.encoded_bytes, self.rows_total);
        let root = if fresh { FRESH } else { DATA };
        let add = add_action(root, self.partition, &name, self.encoded_bytes, stats);
        // If a part of the file was staged, the rest is staged too.
        let stage = self.upload.is_some() || self.wants_upload(context);
        let rest = std::mem::take(&mut self.pending);
        if !stage {
            return Ok(WholeFile { body: Body::Memory(rest.into_iter().collect()), add });
        }
        for piece in rest {
            self.put_part(piece, context).await?;
        }
        match self.upload {
            Some(Upload { mut parts, staged }) => {
                let lost = |source| LakeError::upload_lost(&context.table, source);
                parts.complete().await.map_err(lost)?;
                Ok(WholeFile { body: Body::Staged(staged), add })
            }
            None => Ok(WholeFile { body: Body::Memory(PutPayload::new()), add }),
        }
    }
}

/// The `add` action of a file under one of the table's folders.
pub fn add_action(root: &str, partition: Partition, name: &FileName, size: u64, stats: String) -> Add {
    Add {
        path: format!("{}/{name}", partition.folder(root)),
        partition_values: partition.values().collect(),
        size: size as i64,
        modification_time: audit_core::position::Micros::now().0 / 1000,
        data_change: true,
        stats: Some(stats),
        ..Add::default()
    }
}

impl WholeFile {
    /// Gives the file its place among the table's files, and returns the `add` action for the log. A repeat changes
    /// nothing.
    pub async fn put(&self, context: &FileContext) -> Result<Add, LakeError> {
        fault!("lake::before_put");
        let objects = context.store.objects();
        let path = Path::from(format!("{}/{}", context.folder, self.add.path));
        let failed = |source| LakeError::store("write", context.store.show(&path), source);
        let attributes = context.store.attributes_of(&self.add.path);
        let put = match &self.body {
            Body::Memory(payload) if payload.content_length() <= PUT_BYTES => {
                let options = PutOptions { attributes, ..PutMode::Create.into() };
                objects.put_opts(&path, payload.clone(), options).await.map(|_| ())
            }
            Body::Memory(payload) => parts::put(objects.as_ref(), &path, payload.clone(), attributes).await,
            Body::Staged(staged) => objects.rename(staged, &path).await,
        };
        match put {
            Ok(()) => {}
            // Only this daemon uses the name, so the object holds these bytes: an earlier attempt lost its answer or
            // failed at its end.
            Err(StoreError::AlreadyExists { .. } | StoreError::NotFound { .. })
                if objects.head(&path).await.is_ok_and(|meta| meta.size == self.add.size as u64) =>
            {
                context.store.sync(&path).await?;
            }
            Err(error) => return Err(failed(error)),
        }
        fault!("lake::after_put");
        Ok(self.add.clone())
    }

    pub fn held_bytes(&self) -> usize {
        match &self.body {
            Body::Memory(payload) => payload.content_length(),
            Body::Staged(_) => 0,
        }
    }
}
