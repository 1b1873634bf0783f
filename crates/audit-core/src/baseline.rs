//! Baselines: the rows that existed before capture began, read in chunks while changes stream (the method of DBLog,
//! Andreakis and Papapanagiotou, 2020).
//!
//! Two sides talk through [`Command`]s. The *runner* (in `audit-capture`) reads chunks over ordinary sessions; the
//! *stage* follows the stream and owns [`Watches`]. For each chunk:
//!
//! ```text
//! runner                                     stage
//!   Watch ───────────────────────────────────▶ notes what changes in the table from now on: the low watermark
//!   ◀──────────── transactions seen before ───
//!   snapshot, in which all of them are finished
//!   rows of the chunk
//!   Ready(nonce, rows) ──────────────────────▶ keeps the rows
//!   logical message with the nonce ~~~ WAL ~~▶ the high watermark passes: emits the rows that no change touched
//!   ◀────────────── Delivered, or Reread ─────
//! ```
//!
//! Why an emitted row is the row as it is at the high watermark: what committed before the low watermark is in the
//! snapshot, because the runner waits for that (a commit can be in the stream *before* it is visible to a reader, and
//! while synchronous replication waits, long before). What committed between the two either touched the row, and then
//! the row is left out, or did not touch it.
//!
//! Why nothing is missing: every row is in exactly one chunk, and a row that is left out has its change in the stream.
//!
//! Tables without a key are read by `ctid`; [`Watches`] describes what differs.

pub mod plan;
pub mod rows;
pub mod seen;
pub mod snapshot;
pub mod watch;

use std::fmt;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::batch::ChunkMark;
use crate::shape::{CatalogTable, Relation};
use rows::RawRows;
use seen::Seen;
use snapshot::Snapshot;

pub use watch::{Passed, Watches};

/// The prefix of the logical message that marks a chunk's place in the stream.
pub const WATERMARK_PREFIX: &str = "cdc-audit-watermark";

/// A request of the runner to the stage. The stage passes each to [`Watches::command`], in order.
#[derive(Debug)]
pub enum Command {
    /// The server's present snapshot: transactions that are finished in it no longer have to be remembered.
    Settled(Snapshot),
    /// None of these tables has a key. Rows that transactions below the given number wrote will be read as existing
    /// rows; of those rows, the ones that the stream delivers from now on already have their version.
    Follow { tables: Vec<(Arc<str>, u32)> },
    /// The table's baseline is complete, or the table is gone.
    Forget { table: Arc<str> },
    /// A chunk will be read, so note what changes. Replaces an earlier watch of the table.
    Watch { watch: Watch, reply: oneshot::Sender<Seen> },
    /// The chunk was abandoned. After the reply the chunk's outcome, if any, has been sent.
    Unwatch { table: Arc<str>, reply: oneshot::Sender<()> },
    /// A chunk was read. Its watermark must not be written before `taken` is answered, or it could pass before the rows
    /// are there. If `taken` is dropped, `outcome` says why.
    Ready { nonce: Nonce, chunk: Box<RawChunk>, taken: oneshot::Sender<()>, outcome: oneshot::Sender<Outcome> },
}

/// What the stage needs to know about a table before its chunk is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub table: Arc<str>,
    /// Digest of the shape in which the chunk will be read.
    pub digest: String,
    /// The key as columns of the relation, in key order; `None` for a table without a key.
    pub key: Option<Vec<usize>>,
}

/// The secret content of a chunk's watermark, so that nobody else's message can release the chunk.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// `random` must be 16 bytes that nobody can guess.
    pub fn new(random: [u8; 16]) -> Nonce {
        Nonce(hex::encode(random))
    }

    /// The message's content.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce")
    }
}

/// A chunk as it was read.
#[derive(Debug)]
pub struct RawChunk {
    pub mark: ChunkMark,
    /// The description that pgoutput would have sent of the table when the chunk was read.
    pub relation: Relation,
    pub catalog: CatalogTable,
    /// The snapshot of the reading transaction.
    pub snapshot: Snapshot,
    pub rows: RawRows,
    /// Held while the chunk contains a large row. The next large row may be read when nobody holds this permit any
    /// more.
    pub large: Option<OwnedSemaphorePermit>,
}

impl RawChunk {
    /// Memory that the chunk holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
    }
}

/// What became of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its batch is queued for the sinks.
    Delivered { rows: u64 },
    /// Nothing of it was used, and it has to be read again.
    Reread(Reread),
    /// Nothing of it was used, because one of its rows cannot be recorded. Someone must act first: the row is still in
    /// its table.
    Refused { why: String },
}

/// Why a chunk has to be read again. Each reason passes by itself: the stream moves on, and the next snapshot is a
/// later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reread {
    /// A change in another shape of the table passed.
    ShapeChanged,
    /// More rows changed while the chunk was read than can be remembered.
    TooManyChanges,
    /// In a table without a key, a row was changed that may be one of the chunk's rows.
    RowChanged,
    /// The stream did not say which row was changed.
    RowUnknown,
    /// The stage has no such watch.
    NotWatched,
}

impl Reread {
    /// The reason in words, for logs.
    pub fn name(self) -> &'static str {
        match self {
            Reread::ShapeChanged => "the table's shape changed",
            Reread::TooManyChanges => "too many changes",
            Reread::RowChanged => "a row of a table without a key changed",
            Reread::RowUnknown => "a changed row is not known",
            Reread::NotWatched => "not watched",
        }
    }
}

#[cfg(test)]
mod model_tests;
