//! The trail of one row: how [`audit_core::trail`] reads a lake ([`RowTrail`]).

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::error::ArrowError;
use audit_core::position::{Position, Window};
use audit_core::stored::Record;
use audit_core::trail::{Stretch, Trail, Turn};
use futures::{Stream, StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};

use super::files::{self, DataFile, Logs};
use super::groups::Groups;
use super::record::{Rows, SNAPSHOT};
use crate::error::LakeError;

/// Number of times that a question is begun while files are being replaced and removed.
pub(super) const TRIES_MAX: u32 = 10;
const BATCH_ROWS: usize = 512;

/// The versions of one table, in every store that may have versions of the row.
pub struct RowTrail {
    logs: Arc<Logs>,
    window: Window,
    /// By key: the turns that have it as `key` or `old_key`, in order.
    turns: HashMap<String, Vec<Turn>>,
    groups: Groups,
}

/// Asks, and asks again with a new snapshot of each log if a file was replaced and removed in the meantime. What a
/// question asks for does not depend on the snapshot: versions move from file to file, and never change.
macro_rules! while_files_move {
    ($trail:ident, $ask:expr) => {{
        let mut tries = 1;
        loop {
            match $ask.await {
                Err(error) if error.is_gone() && tries < TRIES_MAX => {
                    tries += 1;
                    $trail.logs = Arc::new($trail.logs.again().await?);
                }
                done => break done,
            }
        }
    }};
}

impl Trail for RowTrail {
    type Error = LakeError;

    async fn changes(&mut self, key: &str) -> Result<Vec<Turn>, LakeError> {
        let turns = self.turns(key).await?.iter();
        Ok(turns.filter(|turn| turn.old_key.is_some()).cloned().collect())
    }

    async fn last_turn(&mut self, key: &str, window: Window) -> Result<Option<Turn>, LakeError> {
        let turns = self.turns(key).await?;
        Ok(turns.iter().rev().find(|turn| window.holds(turn.position)).cloned())
    }

    async fn first_turn(&mut self, key: &str, window: Window) -> Result<Option<Turn>, LakeError> {
        let ends = |turn: &&Turn| window.holds(turn.position) && (turn.leaves(key) || turn.old_key.is_none());
        Ok(self.turns(key).await?.iter().find(ends).cloned())
    }

    async fn newest(&mut self, stretches: &[Stretch], limit: usize) -> Result<Vec<Record>, LakeError> {
        while_files_move!(self, self.read_newest(stretches, limit))
    }

    async fn truncations(&mut self, window: Window) -> Result<Vec<Record>, LakeError> {
        while_files_move!(self, self.read_rowless("truncated", window))
    }
}

impl RowTrail {
    pub(super) fn new(logs: Arc<Logs>, window: Window) -> RowTrail {
        RowTrail { logs, window, turns: HashMap::new(), groups: Groups::default() }
    }

    /// The table's `error` records that name no row, in the order of their positions.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub(super) async fn errors(&mut self) -> Result<Vec<Record>, LakeError> {
        while_files_move!(self, self.read_rowless("error", Window::ALL))
    }

    /// The stretches' snapshot rows: position, baseline and key.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn snapshots(&mut self, stretches: &[Stretch]) -> Result<Vec<(Position, (u32, String))>, LakeError> {
        while_files_move!(self, self.read_snapshots(stretches))
    }

    async fn read_snapshots(&mut self, stretches: &[Stretch]) -> Result<Vec<(Position, (u32, String))>, LakeError> {
        let any = |stats: &files::Stats| stretches.iter().any(|stretch| stats.may_hold("cdc_key", &stretch.key));
        let keys: Vec<String> = stretches.iter().map(|stretch| stretch.key.clone()).collect();
        let mut found = Vec::new();
        let asked = Sought { columns: &["cdc_key"], values: &keys, projection: Some(&SNAPSHOT), groups: &self.groups };
        let mut files = pin!(asked.each(self.logs.select(self.window, any).await?));
        while let Some((path, batches)) = files.try_next().await? {
            for batch in batches {
                let rows = Rows::new(batch);
                for at in 0..rows.len() {
                    let position = rows.position(at, &path)?;
                    let snapshot = rows.snapshot(at).filter(|(_, key)| {
                        let of = |stretch: &Stretch| stretch.key == *key && stretch.window.holds(position);
                        self.window.holds(position) && stretches.iter().any(of)
                    });
                    found.extend(snapshot.map(|snapshot| (position, snapshot)));
                }
            }
        }
        Ok(found)
    }

    async fn turns(&mut self, key: &str) -> Result<&[Turn], LakeError> {
        if !self.turns.contains_key(key) {
            let turns = while_files_move!(self, self.read_turns(key))?;
            self.turns.insert(key.to_string(), turns);
        }
        Ok(self.turns.get(key).map_or(&[], Vec::as_slice))
    }

    async fn read_turns(&mut self, key: &str) -> Result<Vec<Turn>, LakeError> {
        let may_hold = |stats: &files::Stats| stats.may_hold("cdc_key", key) || stats.may_hold("cdc_old_key", key);
        let mut turns = Vec::new();
        let values = [key.to_string()];
        let asked = Sought {
            columns: &["cdc_key", "cdc_old_key"],
            values: &values,
            projection: Some(&["cdc_position", "cdc_event", "cdc_key", "cdc_old_key"]),
            groups: &self.groups,
        };
        let mut files = pin!(asked.each(self.logs.select(self.window, may_hold).await?));
        while let Some((path, batches)) = files.try_next().await? {
            for batch in batches {
                let rows = Rows::new(batch);
                for at in 0..rows.len() {
                    let turn = turn(&rows, at, &path)?;
                    turns.extend(turn.filter(|turn| self.window.holds(turn.position)));
                }
            }
        }
        turns.sort_by_key(|turn| turn.position);
        Ok(turns)
    }

    async fn read_newest(&mut self, stretches: &[Stretch], limit: usize) -> Result<Vec<Record>, LakeError> {
        let mut newest: BTreeMap<Position, Record> = BTreeMap::new();
        let any = |stats: &files::Stats| stretches.iter().any(|stretch| stats.may_hold("cdc_key", &stretch.key));
        let mut files = self.logs.select(self.window, any).await?;
        files.sort_by_key(|file| std::cmp::Reverse(file.name.last));
        let keys: Vec<String> = stretches.iter().map(|stretch| stretch.key.clone()).collect();
        let asked = Sought { columns: &["cdc_key"], values: &keys, projection: None, groups: &self.groups };
        let lasts: Vec<Position> = files.iter().map(|file| file.name.last).collect();
        let mut files = pin!(asked.each(files));
        for last in lasts {
            // Files are sorted by their last versions, so no newer version follows.
            if newest.len() >= limit && newest.keys().next().is_none_or(|oldest| last < *oldest) {
                break;
            }
            let Some((path, batches)) = files.try_next().await? else { break };
            for batch in batches {
                let rows = Rows::new(batch);
                for at in 0..rows.len() {
                    let (position, key) = (rows.position(at, &path)?, rows.text("cdc_key", at).unwrap_or_default());
                    let of_row = stretches.iter().any(|stretch| stretch.key == key && stretch.window.holds(position));
                    if of_row && self.window.holds(position) {
                        newest.insert(position, rows.record(at, &path)?);
                    }
                    if newest.len() > limit {
                        newest.pop_first();
                    }
                }
            }
        }
        Ok(newest.into_values().collect())
    }

    /// The records of an event that name no row.
    async fn read_rowless(&mut self, event: &str, window: Window) -> Result<Vec<Record>, LakeError> {
        let window = window.within(self.window);
        let files = self.logs.select(window, |stats| stats.may_have_nulls("cdc_key")).await?;
        let values = [event.to_string()];
        let asked = Sought { columns: &["cdc_event"], values: &values, projection: None, groups: &self.groups };
        let mut files = pin!(asked.each(files));
        let mut found = BTreeMap::new();
        while let Some((path, batches)) = files.try_next().await? {
            for batch in batches {
                let rows = Rows::new(batch);
                for at in 0..rows.len() {
                    let position = rows.position(at, &path)?;
                    if window.holds(position) && rows.text("cdc_key", at).is_none() {
                        found.insert(position, rows.record(at, &path)?);
                    }
                }
            }
        }
        Ok(found.into_values().collect())
    }
}

/// The turn in a row, if it is one.
fn turn(rows: &Rows, at: usize, path: &str) -> Result<Option<Turn>, LakeError> {
    let text = |column: &str| rows.text(column, at).map(str::to_string);
    let event = rows.text("cdc_event", at).unwrap_or_default();
    let turn = Turn {
        position: rows.position(at, path)?,
        deleted: event == "deleted",
        key: text("cdc_key"),
        old_key: text("cdc_old_key"),
    };
    let is_one = turn.deleted || event == "created" || turn.old_key.is_some();
    Ok(is_one.then_some(turn))
}

/// The rows in which one of `columns` has one of `values`, with the columns of the projection, or all.
#[derive(Clone, Copy)]
struct Sought<'s> {
    columns: &'s [&'static str],
    values: &'s [String],
    projection: Option<&'s [&'s str]>,
    groups: &'s Groups,
}

impl<'s> Sought<'s> {
    /// Reads several files at a time; the rows of each come with its path, in the order of the files.
    fn each(self, files: Vec<DataFile>) -> impl Stream<Item = Result<(String, Vec<RecordBatch>), LakeError>> + use<'s> {
        let read = move |file: DataFile| async move { Ok((file.shown(), matching(&file, self).await?)) };
        futures::stream::iter(files).map(read).buffered(files::AHEAD)
    }
}

async fn matching(
    file: &DataFile,
    Sought { columns, values, projection: asked, groups }: Sought<'_>,
) -> Result<Vec<RecordBatch>, LakeError> {
    let failed = |source| LakeError::Read { path: file.shown(), source };
    let mut builder = files::open(file).await?;
    let groups = groups.select(&file.shown(), &mut builder, columns, values).await.map_err(failed)?;
    file.meter.row_groups(groups.len(), builder.metadata().num_row_groups());
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let schema = builder.parquet_schema();
    let filter_columns = ProjectionMask::columns(schema, columns.iter().copied());
    let projection =
        asked.map_or_else(ProjectionMask::all, |asked| ProjectionMask::columns(schema, asked.iter().copied()));
    let wanted = values.to_vec();
    let filter = ArrowPredicateFn::new(filter_columns, move |batch| Ok::<_, ArrowError>(any_equal(&batch, &wanted)));
    let stream = builder
        .with_row_groups(groups)
        .with_row_filter(RowFilter::new(vec![Box::new(filter)]))
        .with_projection(projection)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(failed)?;
    stream.try_collect().await.map_err(failed)
}

/// For each row, whether one of its columns has one of the values.
fn any_equal(batch: &RecordBatch, values: &[String]) -> BooleanArray {
    let columns: Vec<_> = batch.columns().iter().filter_map(|column| column.as_string_opt::<i32>()).collect();
    let equal = |row: usize| {
        columns.iter().any(|column| column.is_valid(row) && values.iter().any(|value| value == column.value(row)))
    };
    (0..batch.num_rows()).map(|row| Some(equal(row))).collect()
}
