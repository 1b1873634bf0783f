//! Streams a table's versions in order of position.
//!
//! Files are ordered by their first versions, and opened when the stream reaches them. Files of several partitions or
//! of a baseline overlap; their rows are merged. After changes of the owner more than two files may overlap, but not
//! many. A file whose rows are sorted by key is sorted by position when it is opened.
//!
//! An export may take longer than replaced files are kept. If a file is gone, the log is read again, and the stream
//! continues after the last position that it returned, up to the table's end at the time when the export began.

use std::collections::VecDeque;
use std::sync::Arc;

use audit_core::position::{Micros, Position, Window};
use audit_core::stored::Record;
use futures::{Stream, StreamExt, TryStreamExt};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};

use super::files::{self, DataFile, Logs, Stats};
use super::record::Rows;
use crate::encode::on_cpu;
use crate::error::LakeError;
use crate::fetch::ObjectReader;
use crate::sort::{Order, Sorted, Sorter};

/// Number of rows of each open file that are decoded at a time.
const BATCH_ROWS: usize = 512;

/// Bytes of a file that are sorted in memory.
const SORT_BYTES: usize = 32 << 20;

/// The versions in a window that were committed at or after `since` and before `until`.
pub(super) struct Asked {
    pub logs: Arc<Logs>,
    pub window: Window,
    pub since: Option<Micros>,
    pub until: Option<Micros>,
}

struct Merge {
    asked: Asked,
    waiting: VecDeque<DataFile>,
    open: Vec<Cursor>,
    /// The last position that was returned or skipped.
    done: Option<Position>,
    /// The last version that existed when the export began.
    last: Option<Position>,
}

/// The current position in a file.
struct Cursor {
    path: String,
    source: Source,
    rows: Rows,
    at: usize,
    position: Position,
}

/// The rows of a file, in order of position.
enum Source {
    File(Box<ParquetRecordBatchStream<ObjectReader>>),
    Sorted(Sorted),
}

impl Source {
    async fn of(builder: ParquetRecordBatchStreamBuilder<ObjectReader>, path: &str) -> Result<Source, LakeError> {
        let failed = |source| LakeError::Read { path: path.to_string(), source };
        let by_key = builder.metadata().row_groups().iter().any(|group| group.sorting_columns().is_some());
        let mut stream = builder.with_batch_size(BATCH_ROWS).build().map_err(failed)?;
        if !by_key {
            return Ok(Source::File(Box::new(stream)));
        }
        let mut sorter = Sorter::new(Order::Position, SORT_BYTES);
        while let Some(batch) = stream.try_next().await.map_err(failed)? {
            on_cpu(|| sorter.push(batch)).map_err(LakeError::Sort)?;
        }
        on_cpu(|| sorter.finish()).map(Source::Sorted).map_err(LakeError::Sort)
    }
}

/// Streams the versions that were asked for.
pub(super) async fn export(
    asked: Asked,
) -> Result<impl Stream<Item = Result<Record, LakeError>> + Send + use<>, LakeError> {
    let waiting = asked.files(None).await?;
    let last = waiting.iter().map(|file| file.name.last).max();
    let merge = Merge { asked, waiting: waiting.into(), open: Vec::new(), done: None, last };
    let records = futures::stream::try_unfold(merge, |mut merge| async move {
        let next = merge.next().await?;
        Ok::<_, LakeError>(next.map(|record| (record, merge)))
    });
    Ok(records.boxed())
}

impl Asked {
    /// Takes new snapshots of the logs.
    pub async fn again(&mut self) -> Result<(), LakeError> {
        self.logs = Arc::new(self.logs.again().await?);
        Ok(())
    }

    /// The files that the log names now, except those that are completely done.
    pub async fn files(&self, done: Option<Position>) -> Result<Vec<DataFile>, LakeError> {
        let in_span = |stats: &Stats| stats.may_be_committed(self.since, self.until);
        let mut files = self.logs.select(self.window, in_span).await?;
        files.retain(|file| done.is_none_or(|done| file.name.last > done));
        Ok(files)
    }

    /// Whether the version is one of them.
    pub fn wants(&self, position: Position, at: Micros) -> bool {
        self.window.holds(position)
            && self.since.is_none_or(|since| since <= at)
            && self.until.is_none_or(|until| at < until)
    }
}

impl Merge {
    async fn next(&mut self) -> Result<Option<Record>, LakeError> {
        loop {
            match self.next_of_open().await {
                Err(error) if error.is_gone() => self.read_log_again(error).await?,
                next => return next,
            }
        }
    }

    /// Continues after a roll or a compaction has replaced a file that was still to be read. A missing file that the
    /// log still names is lost, which is an error.
    async fn read_log_again(&mut self, error: LakeError) -> Result<(), LakeError> {
        self.asked.again().await?;
        let files = self.asked.files(self.done).await?;
        if matches!(&error, LakeError::Read { path, .. } if files.iter().any(|file| file.shown() == *path)) {
            return Err(error);
        }
        self.open.clear();
        self.waiting = files.into();
        Ok(())
    }

    async fn next_of_open(&mut self) -> Result<Option<Record>, LakeError> {
        loop {
            self.open_next().await?;
            let first = self.open.iter().enumerate().min_by_key(|(_, cursor)| cursor.position).map(|(at, _)| at);
            let Some(at) = first else { return Ok(None) };
            let cursor = &mut self.open[at];
            let position = cursor.position;
            if self.last.is_none_or(|last| position > last) {
                return Ok(None);
            }
            let committed_at = cursor.rows.committed_at(cursor.at);
            let wanted = self.done.is_none_or(|done| position > done) && self.asked.wants(position, committed_at);
            let record = if wanted { Some(cursor.rows.record(cursor.at, &cursor.path)?) } else { None };
            // This row is done only if the step to the next row succeeds; otherwise it would be skipped when the log is
            // read again.
            if !cursor.advance().await? {
                self.open.swap_remove(at);
            }
            self.done = self.done.max(Some(position));
            if record.is_some() {
                return Ok(record);
            }
        }
    }

    /// Opens the files that may hold the next version.
    async fn open_next(&mut self) -> Result<(), LakeError> {
        loop {
            let next = self.open.iter().map(|cursor| cursor.position).min();
            match self.waiting.front() {
                Some(file) if next.is_none_or(|next| file.name.first <= next) => {}
                _ => return Ok(()),
            }
            let Some(file) = self.waiting.pop_front() else { return Ok(()) };
            let builder = files::open(&file).await?;
            file.meter.row_groups(builder.metadata().num_row_groups(), builder.metadata().num_row_groups());
            let path = file.shown();
            let source = Source::of(builder, &path).await?;
            let mut cursor = Cursor { path, source, rows: Rows::default(), at: 0, position: Position::default() };
            if cursor.fill().await? {
                self.open.push(cursor);
            }
        }
    }
}

impl Cursor {
    /// Moves to the next row. Returns false at the end.
    async fn advance(&mut self) -> Result<bool, LakeError> {
        self.at += 1;
        if self.at < self.rows.len() {
            self.position = self.rows.position(self.at, &self.path)?;
            return Ok(true);
        }
        self.fill().await
    }

    async fn fill(&mut self) -> Result<bool, LakeError> {
        let batch = match &mut self.source {
            Source::File(stream) => {
                stream.try_next().await.map_err(|source| LakeError::Read { path: self.path.clone(), source })?
            }
            Source::Sorted(sorted) => on_cpu(|| sorted.next()).map_err(LakeError::Sort)?,
        };
        let Some(batch) = batch else { return Ok(false) };
        self.rows = Rows::new(batch);
        self.at = 0;
        self.position = self.rows.position(0, &self.path)?;
        Ok(true)
    }
}
