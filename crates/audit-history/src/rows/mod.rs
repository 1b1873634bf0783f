//! The rows of a table as they were at a position, and what became of them since an earlier one: [`TableAt`].
//!
//! ```text
//! versions before the position, in their order ──the rows of this pass──▶ Fold ──▶ rows, in the order of their keys
//! ```
//!
//! What a row had is known from all of its versions, so every version is read, and those of one row meet in a
//! [`Fold`](crate::row::Fold). ⚠ Rows that take more memory than is allowed are left to a further pass over the versions: a
//! pass keeps the rows with the smallest keys, and the next one begins with the first key that was left. A row belongs
//! to the key that it began with, so a key that changes does not move it into another pass, and the order of the answer
//! does not depend on the memory.

pub mod files;
mod line;
mod pass;
#[cfg(test)]
mod tests;

use audit_core::position::{Position, Window};
use futures::TryStreamExt;
use futures::stream::StreamExt;

use crate::row::{Diff, Facts, Known, Side, Standing, State, Why, diff};
use crate::store::{Selection, StoreError};
use crate::timeline::Timeline;
use pass::{Entry, Finished, Pass, Then};

pub use line::line;

/// What is asked of a table.
#[derive(Clone, Debug)]
pub struct Asked {
    pub source: String,
    pub table: String,
    /// Everything before this position counts, and nothing else.
    pub before: Position,
    /// Bytes of memory that rows may take, about.
    pub memory: usize,
}

/// The reason why the rows of a table cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{table} has versions without a key: which of them belong to one row is not known")]
    NoKey { table: String },
    #[error("rows of {table} that began with one key take more memory than is allowed")]
    Memory { table: String },
}

impl RowsError {
    pub fn hint(&self) -> Option<String> {
        match self {
            RowsError::Store(error) => error.hint(),
            RowsError::NoKey { .. } => {
                Some("give the table a primary key, or name its `key` in the configuration".to_owned())
            }
            RowsError::Memory { .. } => Some("allow more with --memory".to_owned()),
        }
    }
}

/// A table with what its versions are read with.
pub struct TableAt {
    asked: Asked,
    store: Timeline,
    pub facts: Facts,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    pub key: String,
    /// Its state names every column that is tracked.
    pub standing: Standing,
}

/// What became of a row between two positions.
#[derive(Clone, Debug)]
pub enum Change {
    Added(Row),
    Removed {
        key: String,
        /// `None` if no version before the deletion has the row.
        was: Option<Standing>,
    },
    /// ⚠ What is not known to be the same is not the same.
    Changed {
        row: Row,
        diff: Diff,
    },
    /// Its state at the earlier position is not known.
    Unseen(Row),
}

impl TableAt {
    /// Reads what the versions of the table are read with.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn open(store: &Timeline, asked: Asked) -> Result<TableAt, StoreError> {
        let marks = store.marks(&asked.source, &asked.table).await?;
        let facts = Facts::new(store.shapes(&asked.source, &asked.table).await?, &marks, true);
        let store = store.within(Window { from: None, to: Some(asked.before) });
        Ok(TableAt { asked, store, facts })
    }

    /// The name of the table.
    pub fn name(&self) -> &str {
        &self.asked.table
    }

    /// The last position that counts.
    pub fn at(&self) -> Position {
        self.asked.before.previous().unwrap_or_default()
    }

    /// The columns that were tracked then, in the table's order.
    pub fn columns(&self) -> Vec<String> {
        self.facts.shape_at(self.at()).map_or_else(Vec::new, |shape| self.facts.tracked(shape))
    }

    /// The rows.
    pub fn rows(&self) -> Rows<'_> {
        Rows(self.entries(None))
    }

    /// What became of rows since an earlier position, before which everything counts.
    pub fn changes(&self, since: Position) -> Changes<'_> {
        Changes(self.entries(Some(since)))
    }

    fn entries(&self, since: Option<Position>) -> Entries<'_> {
        Entries { table: self, since, finished: None, from: Some(String::new()) }
    }

    async fn pass(&self, from: String, since: Option<Position>) -> Result<Finished<'_>, RowsError> {
        let Asked { source, table, memory, .. } = &self.asked;
        let selection = Selection {
            source: source.clone(),
            table: table.clone(),
            since: None,
            until: None,
            unattributed: false,
            after: None,
        };
        let versions = self.store.versions(&selection).await?;
        let mut pass = Pass::new(table, &self.facts, *memory, from);
        pass.since = since;
        pass.read(versions.map_err(RowsError::from).boxed()).await?;
        Ok(pass.finish(self.at()))
    }

    fn change(&self, entry: Entry) -> Option<Change> {
        let Entry { key, then, now } = entry;
        let now = now.map(|standing| whole(&self.facts, standing));
        Some(match (then, now) {
            (Then::Untouched, _) | (Then::New, None) => return None,
            (Then::New, Some(standing)) => Change::Added(Row { key, standing }),
            (Then::Unseen, Some(standing)) => Change::Unseen(Row { key, standing }),
            (Then::Unseen, None) => Change::Removed { key, was: None },
            (Then::Row(was), None) => Change::Removed { key, was: Some(whole(&self.facts, was)) },
            (Then::Row(was), Some(standing)) => {
                let was = whole(&self.facts, was);
                let diff = diff(&self.facts, side(&was), side(&standing));
                if diff.is_same() {
                    return None;
                }
                Change::Changed { row: Row { key, standing }, diff }
            }
        })
    }
}

/// ⚠ A column that the table got after the row's last version is not NULL in it: a default may have filled it.
fn whole(facts: &Facts, mut standing: Standing) -> Standing {
    let Some(shape) = facts.shape(standing.schema_version) else { return standing };
    for column in facts.tracked(shape) {
        let why = Known::Unknown(Why::Shape(shape.schema_version));
        standing.state.entry(column).or_insert(why);
    }
    standing
}

fn side(standing: &Standing) -> Side<'_> {
    let state: &State = &standing.state;
    Side { schema_version: standing.schema_version, state }
}

/// Passes over the versions, as many as the rows need.
struct Entries<'t> {
    table: &'t TableAt,
    since: Option<Position>,
    finished: Option<Finished<'t>>,
    /// The first key of the next pass; `None` after the last one.
    from: Option<String>,
}

impl Entries<'_> {
    async fn next(&mut self) -> Result<Option<Entry>, RowsError> {
        loop {
            if let Some(entry) = self.finished.as_mut().and_then(Iterator::next) {
                return Ok(Some(entry));
            }
            let Some(from) = self.from.take() else { return Ok(None) };
            // ⚠ What the last pass held is freed before the next one begins.
            self.finished = None;
            let finished = self.table.pass(from, self.since).await?;
            self.from = finished.left_from.clone();
            self.finished = Some(finished);
        }
    }
}

/// The rows of a table in the order of the keys, as text, that they began with.
pub struct Rows<'t>(Entries<'t>);

impl Rows<'_> {
    /// The next row; `None` after the last one.
    ///
    /// # Errors
    /// Fails if a store cannot be read, or if which versions belong to one row is not known.
    pub async fn next(&mut self) -> Result<Option<Row>, RowsError> {
        while let Some(Entry { key, now, .. }) = self.0.next().await? {
            if let Some(now) = now {
                return Ok(Some(Row { key, standing: whole(&self.0.table.facts, now) }));
            }
        }
        Ok(None)
    }
}

/// What became of the rows of a table, in the same order.
pub struct Changes<'t>(Entries<'t>);

impl Changes<'_> {
    /// What became of the next row that is not the same.
    ///
    /// # Errors
    /// The same as those of [`Rows::next`].
    pub async fn next(&mut self) -> Result<Option<Change>, RowsError> {
        while let Some(entry) = self.0.next().await? {
            if let Some(change) = self.0.table.change(entry) {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }
}
