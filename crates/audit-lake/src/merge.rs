//! Makes one file, sorted by key and position, from several files of one partition.
//!
//! Rows are read as a stream, sorted in a window of memory and, if they exceed it, with scratch files, then encoded and
//! uploaded in parts under the file's final name. So memory stays limited, whatever the amount of data. Nothing is
//! committed here.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::{Bytes, BytesMut};
use deltalake_core::kernel::{Add, Remove};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as StoreError, MultipartUpload, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::basic::Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use crate::encode::{self, on_cpu};
use crate::error::{LakeError, fault};
use crate::fetch::{Fetched, ObjectReader};
use crate::file::{FileContext, add_action};
use crate::layout::{DATA, FRESH, FileName};
use crate::meter::Meter;
use crate::partition::{Partition, Partitioning};
use crate::parts::PART_BYTES;
use crate::schema::{self, RECORD_COLUMNS, RowPlan};
use crate::sort::{Order, Sorter};
use crate::stats;

/// A file that the log names.
#[derive(Clone, Debug)]
pub struct LogFile {
    pub name: FileName,
    /// The folder in the table's folder: `data` or `fresh`.
    pub root: &'static str,
    pub partition: Partition,
    pub size: u64,
    pub rows: u64,
}

impl LogFile {
    /// The file at `path`, which is relative to the table's folder; `None` if it is not one of ours.
    pub fn at(path: &str, by: Partitioning, size: u64, rows: u64) -> Option<LogFile> {
        let root = [DATA, FRESH].into_iter().find(|root| path.split('/').next() == Some(root))?;
        let name = FileName::parse(path.rsplit('/').next()?)?;
        Some(LogFile { name, root, partition: Partition::from_path(by, path)?, size, rows })
    }

    /// The file of an `add` action that we committed.
    pub fn of_add(add: &Add, by: Partitioning) -> Option<LogFile> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stats {
            num_records: u64,
        }
        let stats: Stats = serde_json::from_str(add.stats.as_deref()?).ok()?;
        LogFile::at(&add.path, by, add.size as u64, stats.num_records)
    }

    /// The path relative to the table's folder.
    pub fn path(&self) -> String {
        format!("{}/{}", self.partition.folder(self.root), self.name)
    }

    /// The `remove` action of a file whose rows are in another one.
    pub fn removal(&self) -> Remove {
        Remove {
            path: self.path(),
            data_change: false,
            deletion_timestamp: Some(audit_core::position::Micros::now().0 / 1000),
            extended_file_metadata: Some(true),
            partition_values: Some(self.partition.values().collect()),
            size: Some(self.size as i64),
            ..Remove::default()
        }
    }
}

/// The result of merging files.
#[derive(Clone, Debug)]
pub struct Merged {
    /// Its rows are those of the files in `replaces`, each with the same identity.
    pub add: Add,
    pub replaces: Vec<LogFile>,
}

/// Number of rows of one file that are decoded at a time, and the bytes that they should not exceed by much.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 1 << 20;

/// Number of files that are read at a time: in a bucket, most of a roll's time is spent on requests.
pub const READ_AHEAD: usize = 16;
/// Files that are read ahead may take one part in this many of the window.
const READ_SHARE: u64 = 4;

/// Merges the first of `files`, which are all of one partition, into a file in `data/`: as many as have the same
/// schema. `window` is the number of bytes that are sorted in memory. `mark` distinguishes files that several processes
/// make from the same ones.
pub async fn merge(
    context: &FileContext,
    files: &[LogFile],
    window: usize,
    mark: Option<u64>,
) -> Result<Option<Merged>, LakeError> {
    fault!("lake::before_merge");
    let Some(first) = files.first() else { return Ok(None) };
    let mut sorter = Sorter::new(Order::Key, window);
    let mut replaces = Vec::new();
    let mut schema: Option<SchemaRef> = None;
    let ahead = window as u64 / READ_SHARE;
    'files: for group in groups(files, ahead) {
        let open = |file: LogFile| async move { Input::open(context, &file, ahead).await.map(|input| (input, file)) };
        let mut inputs = futures::stream::iter(group).map(open).buffered(READ_AHEAD);
        while let Some((input, file)) = inputs.try_next().await? {
            if schema.as_ref().is_some_and(|schema| *schema != input.schema) {
                break 'files;
            }
            schema = Some(input.schema.clone());
            input.read(&mut sorter).await?;
            replaces.push(file);
        }
    }
    let position =
        |at: fn(&FileName) -> audit_core::position::Position| replaces.iter().map(move |file| at(&file.name));
    let (Some(from), Some(to)) = (position(|name| name.first).min(), position(|name| name.last).max()) else {
        return Ok(None);
    };
    let name = FileName { first: from, last: to, owner: context.owner, chunks: None, mark };
    let add = write(context, sorter, first.partition, &name).await?;
    fault!("lake::after_merge");
    Ok(Some(Merged { add, replaces }))
}

/// Groups of files that are read together: at most `bytes` bytes, or a single file.
fn groups(files: &[LogFile], bytes: u64) -> Vec<Vec<LogFile>> {
    let (mut groups, mut rest) = (Vec::new(), files);
    while !rest.is_empty() {
        let mut sum = 0;
        let fits = |file: &&LogFile| {
            sum += file.size;
            sum <= bytes
        };
        let (group, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        groups.push(group.to_vec());
        rest = others;
    }
    groups
}

/// Whether a file has values that are not in its statistics because they are long: sorting them would take memory that
/// nobody planned for.
pub async fn has_long_values(context: &FileContext, file: &LogFile) -> Result<bool, LakeError> {
    let input = Input::open(context, file, 0).await?;
    let of_row = |name: &str| RECORD_COLUMNS.iter().all(|(known, ..)| *known != name);
    let mut columns = input.metadata.metadata().row_groups().iter().flat_map(|group| group.columns());
    Ok(columns.any(|column| {
        column.column_type() == Type::BYTE_ARRAY
            && column.statistics().is_none()
            && column.column_path().parts().first().is_some_and(|name| of_row(name))
    }))
}

/// A file that is read.
struct Input {
    shown: String,
    schema: SchemaRef,
    metadata: ArrowReaderMetadata,
    reader: Fetched,
}

impl Input {
    /// Reads the whole file if it is no larger than `whole`, otherwise its footer.
    async fn open(context: &FileContext, file: &LogFile, whole: u64) -> Result<Input, LakeError> {
        let path = Path::from(format!("{}/{}", context.folder, file.path()));
        let shown = context.store.show(&path);
        let reader =
            ObjectReader { objects: context.store.objects().clone(), path, size: file.size, meter: Meter::default() };
        let failed = |source| LakeError::Read { path: shown.clone(), source };
        let mut reader = Fetched::open(reader, whole).await.map_err(failed)?;
        let footer = reader.get_metadata(None).await.map_err(failed)?;
        let metadata = ArrowReaderMetadata::try_new(footer, ArrowReaderOptions::new()).map_err(failed)?;
        // A file's metadata about its chunks is not part of its rows.
        let schema = Schema::new(metadata.schema().fields().clone()).into();
        Ok(Input { schema, shown, metadata, reader })
    }

    async fn read(self, sorter: &mut Sorter) -> Result<(), LakeError> {
        let failed = |source| LakeError::Read { path: self.shown.clone(), source };
        let rows = batch_rows(self.metadata.metadata());
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader, self.metadata);
        let mut stream = builder.with_batch_size(rows).build().map_err(failed)?;
        while let Some(batch) = stream.try_next().await.map_err(failed)? {
            let batch = RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec()).map_err(LakeError::Sort)?;
            on_cpu(|| sorter.push(batch)).map_err(LakeError::Sort)?;
        }
        Ok(())
    }
}

/// Number of rows that are decoded at a time, according to their average size.
fn batch_rows(footer: &ParquetMetaData) -> usize {
    let bytes: i64 = footer.row_groups().iter().map(|group| group.total_byte_size()).sum();
    let row = bytes / footer.file_metadata().num_rows().max(1);
    (BATCH_BYTES / usize::try_from(row).unwrap_or(1).max(1)).clamp(1, BATCH_ROWS)
}

/// Encodes the rows, and puts the file in its place.
async fn write(context: &FileContext, sorter: Sorter, partition: Partition, name: &FileName) -> Result<Add, LakeError> {
    let failed = |source| LakeError::Parquet { table: context.table.to_string(), source };
    let path = partition.folder(DATA);
    let mut target = Target::new(context, &format!("{path}/{name}"));
    let mut sorted = on_cpu(|| sorter.finish()).map_err(LakeError::Sort)?;
    let mut writer: Option<ArrowWriter<Vec<u8>>> = None;
    while let Some(rows) = on_cpu(|| sorted.next()).map_err(LakeError::Sort)? {
        let encoded = on_cpu(|| encode(&mut writer, &rows, &context.settings)).map_err(failed)?;
        target.take(encoded).await?;
    }
    let Some(mut writer) = writer else { return Err(failed(ParquetError::EOF("no rows".into()))) };
    let footer = on_cpu(|| writer.finish()).map_err(failed)?;
    target.take(std::mem::take(writer.inner_mut())).await?;
    let size = target.finish().await?;
    let schema = Arc::new(
        parquet::arrow::parquet_to_arrow_schema(
            footer.file_metadata().schema_descr(),
            footer.file_metadata().key_value_metadata(),
        )
        .map_err(failed)?,
    );
    let plan = RowPlan { columns: schema::columns_of(&schema), schema, targets: Vec::new(), before: false };
    let stats = stats::of_file(&footer, &plan).map_err(failed)?;
    Ok(add_action(DATA, partition, name, size, stats))
}

fn encode(
    writer: &mut Option<ArrowWriter<Vec<u8>>>,
    rows: &RecordBatch,
    settings: &encode::Settings,
) -> parquet::errors::Result<Vec<u8>> {
    let writer = match writer {
        Some(writer) => writer,
        none => none.insert(encode::open(rows, settings, encode::Rows { by_key: true, ..Default::default() })?),
    };
    writer.write(rows)?;
    writer.sync()?;
    Ok(std::mem::take(writer.inner_mut()))
}

/// An object that is written as a stream: one create-only put if it is small, otherwise parts of equal size. The latter
/// overwrite an existing object, as everywhere, but only this process uses the name.
struct Target<'c> {
    context: &'c FileContext,
    path: Path,
    shown: String,
    attributes: object_store::Attributes,
    waiting: BytesMut,
    size: u64,
    parts: Option<Box<dyn MultipartUpload>>,
}

impl<'c> Target<'c> {
    fn new(context: &'c FileContext, name: &str) -> Target<'c> {
        let path = Path::from(format!("{}/{name}", context.folder));
        Target {
            shown: context.store.show(&path),
            attributes: context.store.attributes_of(name),
            waiting: BytesMut::new(),
            size: 0,
            parts: None,
            context,
            path,
        }
    }

    async fn take(&mut self, bytes: Vec<u8>) -> Result<(), LakeError> {
        self.size += bytes.len() as u64;
        self.waiting.extend_from_slice(&bytes);
        while self.waiting.len() >= PART_BYTES {
            let part = self.waiting.split_to(PART_BYTES).freeze();
            self.put_part(part).await?;
        }
        Ok(())
    }

    async fn put_part(&mut self, part: Bytes) -> Result<(), LakeError> {
        let failed = |source| LakeError::store("write", self.shown.clone(), source);
        if self.parts.is_none() {
            let options = PutMultipartOptions { attributes: self.attributes.clone(), ..Default::default() };
            let objects = self.context.store.objects();
            self.parts = Some(objects.put_multipart_opts(&self.path, options).await.map_err(failed)?);
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let put = parts.put_part(part.into()).await;
        if put.is_err() {
            // This is best effort: the bucket's own rules remove what a kill leaves.
            let _ = parts.abort().await;
        }
        put.map_err(failed)
    }

    /// Ends the object. Returns its size in bytes.
    async fn finish(mut self) -> Result<u64, LakeError> {
        let rest = self.waiting.split().freeze();
        if self.parts.is_some() && !rest.is_empty() {
            self.put_part(rest.clone()).await?;
        }
        let failed = |source| LakeError::store("write", self.shown.clone(), source);
        if let Some(parts) = &mut self.parts {
            parts.complete().await.map_err(failed)?;
            return Ok(self.size);
        }
        let objects = self.context.store.objects();
        let options = PutOptions { attributes: self.attributes.clone(), ..PutMode::Create.into() };
        match objects.put_opts(&self.path, rest.into(), options).await {
            Ok(_) => Ok(self.size),
            // An earlier attempt lost its answer.
            Err(StoreError::AlreadyExists { .. })
                if objects.head(&self.path).await.is_ok_and(|meta| meta.size == self.size) =>
            {
                Ok(self.size)
            }
            Err(error) => Err(failed(error)),
        }
    }
}
