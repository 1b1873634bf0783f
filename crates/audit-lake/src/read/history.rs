//! The trail of one row through changes of its key.
//!
//! The trail is a list of stretches: a key, and the range of positions in which the row had it. A version that changed
//! the key has the new key as `key` and the old one as `old_key`, and so joins two stretches:
//!
//! ```text
//! key A   ──created───updated──┐                        asked for: B
//!                              │ old_key A, key B
//! key B                        └──updated──┐
//!                                          │ old_key B, key C
//! key C                                    └──updated──deleted
//! ```

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::error::ArrowError;
use audit_core::position::Position;
use audit_core::stored::Record;
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};

use super::files::{self, DataFile};
use super::groups::Groups;
use super::record::Rows;
use crate::commit::TableLog;
use crate::error::LakeError;

/// Number of times that a history is begun while files are being replaced and removed.
const TRIES_MAX: u32 = 10;
/// Maximum number of stretches. The trail of a row whose key changed more often is followed no further.
const STRETCHES_MAX: usize = 1_000;
const BATCH_ROWS: usize = 512;

/// The beginning of a stretch that has no earlier bound.
const START: Option<Position> = None;

/// The versions under `key`, at or after `from` and before `to`.
#[derive(Clone, Debug)]
struct Stretch {
    key: String,
    from: Option<Position>,
    to: Option<Position>,
}

impl Stretch {
    fn holds(&self, position: Position) -> bool {
        self.from.is_none_or(|from| from <= position) && self.to.is_none_or(|to| position < to)
    }
}

/// A version that begins or ends a stretch: it created or deleted the row, or changed its key.
#[derive(Clone, Debug)]
struct Turn {
    position: Position,
    deleted: bool,
    key: Option<String>,
    old_key: Option<String>,
}

impl Turn {
    fn leaves(&self, key: &str) -> bool {
        self.old_key.as_deref() == Some(key)
    }
}

/// Reads the trail. If a file was replaced and removed in the meantime, the log is read again.
pub async fn history(logs: &[TableLog], key: &str, limit: usize) -> Result<Vec<Record>, LakeError> {
    let mut tries = 1;
    loop {
        match read_history(logs, key, limit).await {
            Err(error) if error.is_gone() && tries < TRIES_MAX => tries += 1,
            done => return done,
        }
    }
}

async fn read_history(logs: &[TableLog], key: &str, limit: usize) -> Result<Vec<Record>, LakeError> {
    let mut trail = Trail { logs, turns: HashMap::new(), groups: Groups::default() };
    let stretches = trail.stretches(key).await?;
    let mut newest = trail.versions(&stretches, limit).await?;
    // Versions that are beyond the limit must not decide which truncations are shown.
    if let Some(oldest) = newest.keys().next().copied() {
        trail.add_truncations(oldest, &mut newest).await?;
    }
    Ok(newest.into_values().rev().take(limit).collect())
}

/// The position immediately after a position.
fn after(position: Position) -> Position {
    match position.seq.checked_add(1) {
        Some(seq) => Position { seq, ..position },
        None => Position::new(position.epoch, audit_core::position::Lsn(position.commit_lsn.0 + 1), 0),
    }
}

struct Trail<'t> {
    /// The logs of one table, in every store that may have versions of the row.
    logs: &'t [TableLog],
    /// By key: the turns that have it as `key` or `old_key`, in order.
    turns: HashMap<String, Vec<Turn>>,
    groups: Groups,
}

impl Trail<'_> {
    async fn stretches(&mut self, key: &str) -> Result<Vec<Stretch>, LakeError> {
        let mut stretches = vec![Stretch { key: key.to_string(), from: START, to: None }];
        let turns = self.turns(key).await?.to_vec();
        for turn in &turns {
            if turn.key.as_deref() == Some(key) && turn.old_key.is_some() {
                self.backward(&mut stretches, turn.old_key.clone(), turn.position).await?;
            }
        }
        for turn in turns.iter().filter(|turn| turn.leaves(key)) {
            self.forward(&mut stretches, turn.key.clone(), turn.position).await?;
        }
        Ok(stretches)
    }

    /// Follows the row, which had `key` before position `to`, into its past.
    async fn backward(
        &mut self,
        stretches: &mut Vec<Stretch>,
        key: Option<String>,
        to: Position,
    ) -> Result<(), LakeError> {
        let (mut next, mut to) = (key, to);
        while let Some(key) = next.take().filter(|_| stretches.len() < STRETCHES_MAX) {
            let turn = self.turns(&key).await?.iter().rev().find(|turn| turn.position < to);
            let mut from = START;
            if let Some(turn) = turn {
                // An earlier row that was deleted, or that gave this key up, has its own history.
                let another = turn.deleted || turn.leaves(&key);
                from = Some(if another { after(turn.position) } else { turn.position });
                next = if another { None } else { turn.old_key.clone() };
            }
            stretches.push(Stretch { key, from, to: Some(to) });
            match from {
                Some(from) => to = from,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Follows the row, which has `key` from position `from` on, into its future.
    async fn forward(
        &mut self,
        stretches: &mut Vec<Stretch>,
        key: Option<String>,
        from: Position,
    ) -> Result<(), LakeError> {
        let (mut next, mut from) = (key, from);
        while let Some(key) = next.take().filter(|_| stretches.len() < STRETCHES_MAX) {
            let ends = |turn: &&Turn| turn.position > from && (turn.leaves(&key) || turn.old_key.is_none());
            let turn = self.turns(&key).await?.iter().find(ends);
            let mut to = None;
            if let Some(turn) = turn {
                to = Some(if turn.deleted { after(turn.position) } else { turn.position });
                next = turn.key.clone().filter(|_| turn.leaves(&key));
            }
            stretches.push(Stretch { key, from: Some(from), to });
            match to {
                Some(to) => from = to,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    async fn turns(&mut self, key: &str) -> Result<&[Turn], LakeError> {
        if !self.turns.contains_key(key) {
            let turns = read_turns(self.logs, key, &mut self.groups).await?;
            self.turns.insert(key.to_string(), turns);
        }
        Ok(self.turns.get(key).map_or(&[], Vec::as_slice))
    }

    /// The newest versions of the stretches.
    async fn versions(&mut self, stretches: &[Stretch], limit: usize) -> Result<BTreeMap<Position, Record>, LakeError> {
        let mut newest = BTreeMap::new();
        let any = |stats: &files::Stats| stretches.iter().any(|stretch| stats.may_hold("cdc_key", &stretch.key));
        let mut files = files::select(self.logs, any).await?;
        files.sort_by_key(|file| std::cmp::Reverse(file.name.last));
        let keys: Vec<String> = stretches.iter().map(|stretch| stretch.key.clone()).collect();
        for file in files {
            // Files are sorted by their last versions, so no newer version follows.
            if newest.len() >= limit && newest.keys().next().is_some_and(|oldest| file.name.last < *oldest) {
                break;
            }
            let path = file.shown();
            for batch in matching(&file, &["cdc_key"], &keys, None, &mut self.groups).await? {
                let rows = Rows::new(batch);
                for at in 0..rows.len() {
                    let (position, key) = (rows.position(at, &path)?, rows.text("cdc_key", at).unwrap_or_default());
                    if stretches.iter().any(|stretch| stretch.key == key && stretch.holds(position)) {
                        newest.insert(position, rows.record(at, &path)?);
                    }
                    if newest.len() > limit {
                        newest.pop_first();
                    }
                }
            }
        }
        Ok(newest)
    }

    /// Adds the truncations after `oldest` that removed the row.
    async fn add_truncations(
        &mut self,
        oldest: Position,
        newest: &mut BTreeMap<Position, Record>,
    ) -> Result<(), LakeError> {
        let files = files::select(self.logs, |stats| stats.may_have_nulls("cdc_key")).await?;
        let mut all: BTreeMap<Position, Option<Record>> = BTreeMap::new();
        for file in files.iter().filter(|file| file.name.last > oldest) {
            let path = file.shown();
            for batch in matching(file, &["cdc_event"], &["truncated".to_string()], None, &mut self.groups).await? {
                let rows = Rows::new(batch);
                for at in 0..rows.len() {
                    let position = rows.position(at, &path)?;
                    if position > oldest {
                        all.insert(position, Some(rows.record(at, &path)?));
                    }
                }
            }
        }
        let mut there = false;
        let mut own = newest.iter().map(|(position, record)| (*position, record.event != "deleted")).peekable();
        let mut found = Vec::new();
        for (position, record) in all {
            while let Some((_, present)) = own.next_if(|(at, _)| *at < position) {
                there = present;
            }
            if std::mem::take(&mut there) {
                found.extend(record.map(|record| (position, record)));
            }
        }
        newest.extend(found);
        Ok(())
    }
}

async fn read_turns(logs: &[TableLog], key: &str, groups: &mut Groups) -> Result<Vec<Turn>, LakeError> {
    let files =
        files::select(logs, |stats| stats.may_hold("cdc_key", key) || stats.may_hold("cdc_old_key", key)).await?;
    let mut turns = Vec::new();
    for file in files {
        let path = file.shown();
        let columns = ["cdc_position", "cdc_event", "cdc_key", "cdc_old_key"];
        for batch in matching(&file, &["cdc_key", "cdc_old_key"], &[key.to_string()], Some(&columns), groups).await? {
            let rows = Rows::new(batch);
            for at in 0..rows.len() {
                let text = |column: &str| rows.text(column, at).map(str::to_string);
                let event = rows.text("cdc_event", at).unwrap_or_default();
                let turn = Turn {
                    position: rows.position(at, &path)?,
                    deleted: event == "deleted",
                    key: text("cdc_key"),
                    old_key: text("cdc_old_key"),
                };
                if turn.deleted || event == "created" || turn.old_key.is_some() {
                    turns.push(turn);
                }
            }
        }
    }
    turns.sort_by_key(|turn| turn.position);
    Ok(turns)
}

/// The `error` records that name no row. If a file was replaced and removed in the meantime, the log is read again.
pub async fn errors(logs: &[TableLog]) -> Result<Vec<Record>, LakeError> {
    let mut tries = 1;
    loop {
        match read_errors(logs).await {
            Err(error) if error.is_gone() && tries < TRIES_MAX => tries += 1,
            done => return done,
        }
    }
}

async fn read_errors(logs: &[TableLog]) -> Result<Vec<Record>, LakeError> {
    let (mut groups, mut errors) = (Groups::default(), Vec::new());
    for file in files::select(logs, |stats| stats.may_have_nulls("cdc_key")).await? {
        let path = file.shown();
        for batch in matching(&file, &["cdc_event"], &["error".to_string()], None, &mut groups).await? {
            let rows = Rows::new(batch);
            for at in (0..rows.len()).filter(|at| rows.text("cdc_key", *at).is_none()) {
                errors.push(rows.record(at, &path)?);
            }
        }
    }
    errors.sort_by_key(|record| record.position);
    Ok(errors)
}

/// The rows of a file in which one of `columns` has one of `values`, with the columns in `asked`, or all.
async fn matching(
    file: &DataFile,
    columns: &[&'static str],
    values: &[String],
    asked: Option<&[&str]>,
    groups: &mut Groups,
) -> Result<Vec<RecordBatch>, LakeError> {
    let failed = |source| LakeError::Read { path: file.shown(), source };
    let mut builder = files::open(file).await?;
    let groups = groups.select(&file.shown(), &mut builder, columns, values).await.map_err(failed)?;
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
