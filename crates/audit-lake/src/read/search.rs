//! Searching: a table's versions, newest first.
//!
//! Files are read in the order of their latest commit times, row groups from the last to the first, until no older one can
//! add to the answer. Of each row group the few columns with conditions are read first; rows are decoded whole in the
//! order of their times, and no further than the answer needs.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use audit_core::position::{Micros, Window};
use audit_core::search::{Commit, Matches, Moment, Newest, Wanted};
use audit_core::stored::Record;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, RowSelection};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use super::files::{AHEAD, DataFile, Logs, Stats, options};
use super::groups::Groups;
use super::record::Rows;
use crate::error::LakeError;
use crate::fetch::ObjectReader;

/// Number of times that a search is begun while files are being replaced and removed.
const TRIES_MAX: u32 = 10;
/// Rows that are decoded whole at a time.
const CHUNK_ROWS: usize = 512;
const TIME: &str = "cdc_committed_at";

/// Reads the newest versions. If a file was replaced and removed in the meantime, the log is read again.
pub async fn search(
    logs: &Logs,
    wanted: &Wanted,
    matches: Matches<'_>,
    limit: usize,
) -> Result<Vec<Record>, LakeError> {
    let mut newer: Option<Logs> = None;
    for _ in 1..TRIES_MAX {
        match read(newer.as_ref().unwrap_or(logs), wanted, matches, limit).await {
            Err(error) if error.is_gone() => newer = Some(logs.again().await?),
            done => return done,
        }
    }
    read(newer.as_ref().unwrap_or(logs), wanted, matches, limit).await
}

async fn read(logs: &Logs, wanted: &Wanted, matches: Matches<'_>, limit: usize) -> Result<Vec<Record>, LakeError> {
    let may = |stats: &Stats| {
        let any = |(column, values): (&str, &[String])| values.iter().any(|value| stats.may_hold(column, value));
        stats.may_be_committed(wanted.since, wanted.until) && looked_up(wanted).all(any)
    };
    let mut files = logs.select(wanted.window, may).await?;
    if let Some((first, last)) = wanted.commit.map(|commit| commit.bounds()) {
        files.retain(|file| file.name.first <= last && first <= file.name.last);
    }
    files.sort_by_key(|file| Reverse(file.last_committed.unwrap_or(Micros(i64::MAX))));
    let mut newest = Newest::new(limit);
    let open = |file: DataFile| async move { Ok::<_, LakeError>((file.last_committed, File::open(&file).await?)) };
    let mut opened = futures::stream::iter(files).map(open).buffered(AHEAD);
    while let Some((last, file)) = opened.try_next().await? {
        if last.is_some_and(|last| newest.is_done_at(last)) {
            break;
        }
        file.search(wanted, matches, &mut newest).await?;
    }
    Ok(newest.into_records())
}

/// The number of versions that transactions have in a table; their commit times find them.
pub async fn commit_sizes(
    logs: &Logs,
    window: Window,
    commits: &[(Commit, Micros)],
) -> Result<HashMap<Commit, u64>, LakeError> {
    let mut sizes = HashMap::new();
    let (first, last) = (commits.iter().map(|(_, at)| *at).min(), commits.iter().map(|(_, at)| *at).max());
    let until = last.map(|last| Micros(last.0.saturating_add(1)));
    let wanted = Wanted { since: first, until, window, ..Wanted::default() };
    for file in logs.select(window, |stats| stats.may_be_committed(first, until)).await? {
        let is_in = |commit: &Commit| file.name.first <= commit.bounds().1 && commit.bounds().0 <= file.name.last;
        if !commits.iter().any(|(commit, _)| is_in(commit)) {
            continue;
        }
        let opened = File::open(&file).await?;
        for (group, metadata) in opened.metadata.metadata().row_groups().iter().enumerate() {
            if times(metadata).is_some_and(|(first, last)| !commits.iter().any(|(_, at)| first <= *at && *at <= last)) {
                continue;
            }
            for (moment, _) in opened.candidates(group, &wanted).await? {
                let commit = Commit::of(moment.position);
                if commits.iter().any(|(known, _)| *known == commit) {
                    *sizes.entry(commit).or_default() += 1;
                }
            }
        }
    }
    Ok(sizes)
}

/// A file whose metadata was read.
struct File {
    reader: ObjectReader,
    path: String,
    metadata: ArrowReaderMetadata,
}

impl File {
    async fn open(file: &DataFile) -> Result<File, LakeError> {
        let path = file.shown();
        let failed = |source| LakeError::Read { path: path.clone(), source };
        let (mut reader, options) = (file.reader(), options());
        let metadata = reader.get_metadata(Some(&options)).await.map_err(failed)?;
        let metadata = ArrowReaderMetadata::try_new(metadata, options).map_err(failed)?;
        Ok(File { reader, path, metadata })
    }

    async fn search(&self, wanted: &Wanted, matches: Matches<'_>, newest: &mut Newest) -> Result<(), LakeError> {
        let groups = self.metadata.metadata().row_groups();
        let (chosen, mut read) = (self.groups(wanted).await?, 0);
        for (group, metadata) in chosen.into_iter().rev().filter_map(|group| Some((group, groups.get(group)?))) {
            let may = times(metadata).is_none_or(|(first, last)| {
                !newest.is_done_at(last)
                    && wanted.until.is_none_or(|until| first < until)
                    && wanted.since.is_none_or(|since| since <= last)
                    && wanted.before.is_none_or(|before| first <= before.committed_at)
            });
            if may {
                read += 1;
                self.search_group(group, wanted, matches, newest).await?;
            }
        }
        self.reader.meter.row_groups(read, groups.len());
        Ok(())
    }

    /// The row groups that may have every value that is looked for, by their bounds and Bloom filters.
    async fn groups(&self, wanted: &Wanted) -> Result<Vec<usize>, LakeError> {
        let failed = |source| LakeError::Read { path: self.path.clone(), source };
        let mut chosen: Vec<usize> = (0..self.metadata.metadata().num_row_groups()).collect();
        let (mut builder, known) = (self.builder(), Groups::default());
        for (column, values) in looked_up(wanted) {
            let may = known.select(&self.path, &mut builder, &[column], values).await.map_err(failed)?;
            chosen.retain(|group| may.contains(group));
        }
        Ok(chosen)
    }

    async fn search_group(
        &self,
        group: usize,
        wanted: &Wanted,
        matches: Matches<'_>,
        newest: &mut Newest,
    ) -> Result<(), LakeError> {
        let candidates = self.candidates(group, wanted).await?;
        for chunk in candidates.chunks(CHUNK_ROWS) {
            if chunk.first().is_none_or(|(moment, _)| !newest.takes(*moment)) {
                return Ok(());
            }
            let rows: Vec<usize> = chunk.iter().map(|(_, row)| *row).collect();
            self.decode(group, rows, matches, newest).await?;
        }
        Ok(())
    }

    /// The rows of a group that fulfil the conditions, newest first.
    async fn candidates(&self, group: usize, wanted: &Wanted) -> Result<Vec<(Moment, usize)>, LakeError> {
        let failed = |source| LakeError::Read { path: self.path.clone(), source };
        let builder = self.builder().with_row_groups(vec![group]);
        let mask = ProjectionMask::columns(builder.parquet_schema(), conditioned(wanted));
        let mut stream = builder.with_projection(mask).build().map_err(failed)?;
        let (mut candidates, mut first) = (Vec::new(), 0);
        while let Some(batch) = stream.try_next().await.map_err(failed)? {
            let rows = Rows::new(batch);
            for at in 0..rows.len() {
                if !wanted.is_in_span(rows.committed_at(at)) || !is_wanted(&rows, at, wanted) {
                    continue;
                }
                let moment = Moment { committed_at: rows.committed_at(at), position: rows.position(at, &self.path)? };
                if wanted.is_before(moment) && holds(wanted, moment) {
                    candidates.push((moment, first + at));
                }
            }
            first += rows.len();
        }
        candidates.sort_unstable_by_key(|(moment, _)| Reverse(*moment));
        Ok(candidates)
    }

    /// Decodes rows of a group, and adds those that match.
    async fn decode(
        &self,
        group: usize,
        mut rows: Vec<usize>,
        matches: Matches<'_>,
        newest: &mut Newest,
    ) -> Result<(), LakeError> {
        let failed = |source| LakeError::Read { path: self.path.clone(), source };
        rows.sort_unstable();
        let ranges = rows.into_iter().map(|row| Range { start: row, end: row + 1 });
        let count = self.metadata.metadata().row_group(group).num_rows() as usize;
        let selection = RowSelection::from_consecutive_ranges(ranges, count);
        let builder = self.builder().with_row_groups(vec![group]).with_row_selection(selection);
        let mut stream = builder.with_batch_size(CHUNK_ROWS).build().map_err(failed)?;
        while let Some(batch) = stream.try_next().await.map_err(failed)? {
            let rows = Rows::new(batch);
            for at in 0..rows.len() {
                let record = rows.record(at, &self.path)?;
                if newest.takes(Moment::of(&record)) && matches(&record) {
                    newest.add(record);
                }
            }
        }
        Ok(())
    }

    fn builder(&self) -> ParquetRecordBatchStreamBuilder<ObjectReader> {
        ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), self.metadata.clone())
    }
}

/// The first and the last commit time of a row group, if its statistics say so.
fn times(group: &RowGroupMetaData) -> Option<(Micros, Micros)> {
    let column = group.columns().iter().find(|column| column.column_path().string() == TIME)?;
    match column.statistics()? {
        Statistics::Int64(times) => Some((Micros(*times.min_opt()?), Micros(*times.max_opt()?))),
        _ => None,
    }
}

/// The columns in which values are looked for that bounds and Bloom filters can exclude.
fn looked_up(wanted: &Wanted) -> impl Iterator<Item = (&'static str, &[String])> {
    let columns = [("cdc_key", &wanted.keys), ("cdc_event", &wanted.events), ("cdc_actor_id", &wanted.actors)];
    columns.into_iter().filter(|(_, values)| !values.is_empty()).map(|(column, values)| (column, values.as_slice()))
}

/// The columns on which there are conditions, and those that give the order.
fn conditioned(wanted: &Wanted) -> Vec<&'static str> {
    let columns = [
        ("cdc_key", !wanted.keys.is_empty()),
        ("cdc_event", !wanted.events.is_empty()),
        ("cdc_actor_id", !wanted.actors.is_empty()),
        ("cdc_xid", !wanted.xids.is_empty()),
        ("cdc_changed", !wanted.changed.is_empty()),
    ];
    let columns = columns.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name);
    columns.chain(["cdc_position", TIME]).collect()
}

fn is_wanted(rows: &Rows, at: usize, wanted: &Wanted) -> bool {
    let is_one = |list: &Vec<String>, column: &str| {
        list.is_empty() || rows.text(column, at).is_some_and(|text| list.iter().any(|one| one == text))
    };
    is_one(&wanted.keys, "cdc_key")
        && is_one(&wanted.events, "cdc_event")
        && is_one(&wanted.actors, "cdc_actor_id")
        && (wanted.xids.is_empty() || rows.number("cdc_xid", at).is_some_and(|xid| wanted.xids.contains(&xid)))
        && (wanted.changed.is_empty()
            || rows
                .names("cdc_changed", at)
                .is_none_or(|changed| wanted.changed.iter().all(|column| changed.contains(column))))
}

/// Whether the position is a wanted one.
fn holds(wanted: &Wanted, moment: Moment) -> bool {
    wanted.commit.is_none_or(|commit| Commit::of(moment.position) == commit) && wanted.window.holds(moment.position)
}
