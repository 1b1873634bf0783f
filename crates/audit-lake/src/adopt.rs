//! Files that the log does not name: a daemon left them behind when it was killed between a file and its commit.
//!
//! Readers that list a folder see such a file already. Writing its rows again would show them twice, so the file is
//! taken into the log as it is (*adopted*), and the stream, which begins again at or before its first row, skips the
//! rows that it holds. A file whose rows are also in other files is removed instead: it was put by a daemon that had
//! been fenced.
//!
//! ⚠ Neither is done before the table has a commit of our own, which carries our owner epoch. Without that commit, the
//! daemon that wrote the file could wake up late and still commit it, after it was removed or in addition to our
//! adoption.

use std::collections::HashSet;

use arrow::datatypes::SchemaRef;
use audit_core::position::Position;
use audit_core::sink::ChunkProgress;
use deltalake_core::kernel::{Add, Snapshot};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::file::metadata::ParquetMetaData;

use crate::commit::TableLog;
use crate::error::LakeError;
use crate::fetch::ObjectReader;
use crate::file::{CHUNKS_KEY, ChunkNote, add_action};
use crate::layout::{Chunks, DATA, FileName};
use crate::merge::LogFile;
use crate::meter::Meter;
use crate::partition::Partition;
use crate::schema::{self, RowPlan};
use crate::stats;
use crate::store::Store;

/// Number of files that are removed at a time.
const CONCURRENT: usize = 16;

/// A file of ours in a table's folder.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: FileName,
    pub meta: ObjectMeta,
}

/// What to do with the files of a folder.
#[derive(Debug, Default)]
pub struct Found {
    pub adopt: Vec<Seen>,
    pub remove: Vec<Seen>,
}

impl Found {
    pub fn is_empty(&self) -> bool {
        self.adopt.is_empty() && self.remove.is_empty()
    }
}

/// Examines a partition's folder for files of the stream, and for files with chunks that were replaced by another
/// daemon's.
///
/// Files in the log hold no version beyond `position`, and no version or chunk twice. So a file that begins beyond
/// `position` is not in the log, and if no two files overlap, every other file is in it. Only an overlap makes it
/// necessary to read the log itself. Unfinished rolls were settled before; a running roll of this daemon is left alone.
///
/// `stored` is how far the table's baseline is, according to home.
pub async fn look_at(
    log: &TableLog,
    partition: Partition,
    position: Position,
    stored: ChunkProgress,
    owner: u64,
) -> Result<Found, LakeError> {
    let folder = partition.folder(DATA);
    let seen = list(log, &folder, owner).await?;
    let (mut chunks, mut seen): (Vec<Seen>, Vec<Seen>) = seen.into_iter().partition(|file| file.name.chunks.is_some());
    seen.sort_by_key(|file| (file.name.first, file.name.last));
    chunks.sort_by_key(|file| file.name.chunks);
    let overlap = overlaps(&seen);
    let repeated = repeats_a_chunk(&chunks, stored.baseline);
    let known = if overlap || repeated { names_in_log(log, &folder).await? } else { HashSet::new() };
    let mut found = Found::default();
    if repeated {
        // Files that this daemon has put are not committed yet, and chunks beyond `stored` are handled later.
        let is_late = |file: &Seen| {
            let chunks = file
                .name
                .chunks
                .is_some_and(|chunks| (chunks.baseline, chunks.last) <= (stored.baseline, stored.chunk));
            file.name.owner < owner && chunks && !known.contains(&file.name.to_string())
        };
        found.remove.extend(chunks.into_iter().filter(is_late));
    }
    for file in seen {
        let in_log = known.contains(&file.name.to_string());
        match (in_log, file.name.first > position) {
            (true, _) => {}
            (false, true) if found.adopt.iter().any(|other| other.name.overlaps(&file.name)) => found.remove.push(file),
            (false, true) => found.adopt.push(file),
            (false, false) if overlap && file.name.owner < owner => found.remove.push(file),
            (false, false) => {}
        }
    }
    Ok(found)
}

/// Whether two of these files of the stream, which are sorted, overlap.
fn overlaps(files: &[Seen]) -> bool {
    files.windows(2).any(|pair| pair[0].name.overlaps(&pair[1].name))
}

/// Whether two files of the stream among these overlap.
pub fn overlap(mut files: Vec<Seen>) -> bool {
    files.retain(|file| file.name.chunks.is_none());
    files.sort_by_key(|file| (file.name.first, file.name.last));
    overlaps(&files)
}

/// Whether two of these files, which are sorted by their chunks, may hold the same chunk: one with the same number, or
/// one of another baseline than the log's.
fn repeats_a_chunk(files: &[Seen], baseline: u32) -> bool {
    let chunks: Vec<Chunks> = files.iter().filter_map(|file| file.name.chunks).collect();
    let repeats = |pair: &[Chunks]| pair[0].baseline == pair[1].baseline && pair[1].first <= pair[0].last;
    chunks.windows(2).any(repeats) || chunks.iter().any(|chunks| chunks.baseline != baseline)
}

/// Examines a whole table of home for files of the current baseline, in the order of their chunks. Chunks that were
/// spread over several tables do not count until the log says so.
pub async fn look_at_baseline(log: &TableLog, owner: u64) -> Result<Found, LakeError> {
    let stored = log.txn().baseline;
    let mut found = Found::default();
    let mut next = stored.chunk + 1;
    for (chunks, file) in unnamed_chunks(log, owner).await? {
        if chunks.baseline == stored.baseline && chunks.first == next && !chunks.spread {
            next = chunks.last + 1;
            found.adopt.push(file);
        } else {
            found.remove.push(file);
        }
    }
    Ok(found)
}

/// Examines a tenant's table in the same way. Files of the last chunks that home has, from the daemon that wrote home's
/// commit, belong to the table; all other files hold chunks that are read again. The table's own rows of those chunks
/// are in its log, or were rewritten since.
pub async fn look_at_spread(log: &TableLog, stored: ChunkProgress, by: u64, owner: u64) -> Result<Found, LakeError> {
    let mut found = Found::default();
    let own = log.txn().baseline;
    let has = |chunks: Chunks| own.baseline == chunks.baseline && own.chunk >= chunks.last;
    for (chunks, file) in unnamed_chunks(log, owner).await? {
        let counts = (chunks.baseline, chunks.last, file.name.owner) == (stored.baseline, stored.chunk, by);
        match counts {
            true if has(chunks) => {}
            true => found.adopt.push(file),
            false => found.remove.push(file),
        }
    }
    Ok(found)
}

/// Files with chunks that the log does not name, in order.
async fn unnamed_chunks(log: &TableLog, owner: u64) -> Result<Vec<(Chunks, Seen)>, LakeError> {
    let seen = list(log, DATA, owner).await?;
    let mut seen: Vec<_> = seen.into_iter().filter_map(|file| Some((file.name.chunks?, file))).collect();
    if seen.is_empty() {
        return Ok(seen);
    }
    let known = names_in_log(log, DATA).await?;
    seen.retain(|(_, file)| !known.contains(&file.name.to_string()));
    seen.sort_by_key(|(chunks, _)| *chunks);
    Ok(seen)
}

/// Our files under one of the table's folders.
pub async fn list(log: &TableLog, folder: &str, owner: u64) -> Result<Vec<Seen>, LakeError> {
    list_in(log.store(), &log.folder, folder, &log.table, owner).await
}

/// Does the same without an open log; `of` is the table's folder.
pub async fn list_in(store: &Store, of: &str, folder: &str, table: &str, owner: u64) -> Result<Vec<Seen>, LakeError> {
    let path = Path::from(format!("{of}/{folder}"));
    let failed = |error| LakeError::store("list", store.show(&path), error);
    let listed: Vec<ObjectMeta> = store.objects().list(Some(&path)).try_collect().await.map_err(failed)?;
    let ours = |meta: ObjectMeta| FileName::of_path(&meta.location).map(|name| Seen { name, meta });
    // Files of `compact` are handled by `compact` itself.
    let seen: Vec<Seen> = listed.into_iter().filter_map(ours).filter(|file| file.name.mark.is_none()).collect();
    match seen.iter().map(|file| file.name.owner).max() {
        Some(theirs) if theirs > owner => {
            Err(LakeError::Fenced { what: format!("table {table}"), theirs, ours: owner })
        }
        _ => Ok(seen),
    }
}

/// The names of the files under `folder` that the log has.
async fn names_in_log(log: &TableLog, folder: &str) -> Result<HashSet<String>, LakeError> {
    let files = files_in_log(log, folder).await?;
    Ok(files.into_iter().map(|file| file.name.to_string()).collect())
}

/// The files under `folder` that the log has. A day's folder contains the folders of its hours.
pub async fn files_in_log(log: &TableLog, folder: &str) -> Result<Vec<LogFile>, LakeError> {
    Ok(listed_in_log(log, folder).await?.0)
}

/// The same, and the version of the log that was read.
pub async fn listed_in_log(log: &TableLog, folder: &str) -> Result<(Vec<LogFile>, u64), LakeError> {
    let mut found = Vec::new();
    if log.state.is_none() {
        return Ok((found, 0));
    }
    let failed = |error| LakeError::log(&log.table, error);
    let snapshot = Snapshot::try_new(log.log().as_ref(), None).await.map_err(failed)?;
    let mut files = snapshot.file_views(log.log().as_ref(), None);
    while let Some(file) = files.try_next().await.map_err(failed)? {
        let path = file.path();
        if path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')) {
            let rows = file.num_records().unwrap_or(0) as u64;
            found.extend(LogFile::at(&path, log.partitioning(), file.size() as u64, rows));
        }
    }
    Ok((found, snapshot.version() as u64))
}

/// An unknown file that the next commit takes in.
#[derive(Clone, Debug)]
pub struct Adopted {
    pub name: FileName,
    pub rows: u64,
    pub add: Add,
    pub chunks: Option<ChunkNote>,
    pub schema: SchemaRef,
}

/// Reads what the log needs to name the file, and what the file holds. The daemon that put it may have been killed
/// before its folder was synced, so this syncs it.
pub async fn read(log: &TableLog, file: &Seen) -> Result<Adopted, LakeError> {
    log.store().sync(&file.meta.location).await?;
    let path = log.store().show(&file.meta.location);
    let failed = |source| LakeError::Read { path: path.clone(), source };
    let partition = Partition::from_path(log.partitioning(), file.meta.location.as_ref())
        .ok_or_else(|| LakeError::altered(&path, "it lies in no partition's folder"))?;
    let objects = log.store().objects().clone();
    let mut reader =
        ObjectReader { objects, path: file.meta.location.clone(), size: file.meta.size, meter: Meter::default() };
    let footer = reader.get_metadata(None).await.map_err(failed)?;
    let arrow = ArrowReaderMetadata::try_new(footer.clone(), ArrowReaderOptions::new()).map_err(failed)?;
    let schema = arrow.schema().clone();
    let columns = schema::columns_of(&schema);
    let plan = RowPlan { columns, schema: schema.clone(), targets: Vec::new(), before: false };
    let stats = stats::of_file(&footer, &plan).map_err(failed)?;
    let add = add_action(DATA, partition, &file.name, file.meta.size, stats);
    let rows = footer.file_metadata().num_rows() as u64;
    Ok(Adopted { name: file.name, rows, add, chunks: chunks_of(&footer), schema })
}

fn chunks_of(footer: &ParquetMetaData) -> Option<ChunkNote> {
    let pairs = footer.file_metadata().key_value_metadata()?;
    let note = pairs.iter().find(|pair| pair.key == CHUNKS_KEY)?.value.as_deref()?;
    serde_json::from_str(note).ok()
}

/// Removes files whose versions are in other files; the table has a commit of ours.
pub async fn remove(log: &TableLog, files: impl Iterator<Item = Path>) -> Result<(), LakeError> {
    let said = files.inspect(|path| {
        tracing::warn!(path = %log.store().show(path), "removing a file whose versions another commit has");
    });
    delete(log, said).await
}

/// Removes files that the log does not name, one after the other; the table has a commit of ours.
pub async fn delete(log: &TableLog, files: impl Iterator<Item = Path>) -> Result<(), LakeError> {
    for path in files {
        delete_one(log.store(), path).await?;
    }
    Ok(())
}

/// Does the same without an open log, in any order.
pub async fn delete_from(store: &Store, files: Vec<Path>) -> Result<(), LakeError> {
    let deleted = futures::stream::iter(files).map(|path| delete_one(store, path));
    deleted.buffer_unordered(CONCURRENT).try_collect().await
}

async fn delete_one(store: &Store, path: Path) -> Result<(), LakeError> {
    match store.objects().delete(&path).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(LakeError::store("remove", store.show(&path), error)),
    }
}
