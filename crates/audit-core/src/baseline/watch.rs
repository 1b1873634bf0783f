//! The stage's side of a baseline: what changed while a chunk was read, and which of its rows are emitted
//! ([`Watches`]).
//!
//! **With a key** a row is left out if a change of its key passed between the two watermarks.
//!
//! **Without a key** the stream identifies rows by all of their values, and equal rows cannot be told apart. So a
//! change does not leave a row out; instead the chunk is read again if a change that its snapshot does not see may have
//! touched one of its rows. That ends soon: a changed row carries the number of a recent transaction, and the runner
//! skips such rows, because the stream has them ([`crate::baseline`]). Rows that the stream created under an older
//! number, while the baseline was about to begin, are counted ([`Command::Follow`]) and each is left out of the chunks
//! once.
//!
//! A TRUNCATE that the snapshot does not see empties the chunk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::seen::Delivered;
use super::snapshot::precedes;
use super::{Command, Nonce, Outcome, RawChunk, Reread, Watch};
use crate::batch::ChunkMark;
use crate::change::{Change, Old, Row, Value};
use crate::table::Table;

/// Number of changes that are remembered of one table until its chunk is there, 33 bytes each in a hash table. After
/// that only the chunk's own rows matter.
const CHANGES_MAX: usize = 100_000;

/// Number of rows that are counted of one table without a key, about 50 bytes each. Beyond that, a row that was created
/// while the baseline was about to begin gets both a `created` and a `snapshot`.
const FOLLOWED_MAX: usize = 100_000;

/// Everything that is watched in one stream. A new one is made with each stream, together with the runner that talks to
/// it.
#[derive(Default)]
pub struct Watches {
    delivered: Delivered,
    windows: HashMap<Arc<str>, Window>,
    ledgers: HashMap<Arc<str>, Ledger>,
    hash: RowHash,
}

impl Watches {
    /// Executes a command of the runner. Call it between any two messages of the stream.
    pub fn command(&mut self, command: Command) {
        match command {
            Command::Settled(snapshot) => self.delivered.settle(&snapshot),
            Command::Follow { tables } => {
                for (table, xmax) in tables {
                    self.ledgers.entry(table).or_default().xmax = xmax;
                }
            }
            Command::Forget { table } => {
                self.ledgers.remove(&table);
                self.windows.remove(&table);
            }
            Command::Watch { watch, reply } => {
                let table = watch.table.clone();
                // If nobody waits for the reply, there is nothing to watch.
                if reply.send(self.delivered.seen()).is_ok() {
                    self.windows.insert(table, Window::new(watch));
                }
            }
            Command::Unwatch { table, reply } => {
                self.windows.remove(&table);
                // The sender of the command may no longer exist.
                let _ = reply.send(());
            }
            Command::Ready { nonce, chunk, taken, outcome } => {
                self.delivered.settle(&chunk.snapshot);
                match self.windows.get_mut(&chunk.mark.table) {
                    Some(window) => window.ready(Pending::new(nonce, chunk, &window.watch, &self.hash, outcome), taken),
                    None => answer(outcome, Outcome::Reread(Reread::NotWatched)),
                }
            }
        }
    }

    /// Notes that a transaction begins in the stream.
    pub fn begin(&mut self, xid: u32) {
        self.delivered.begin(xid);
    }

    /// Notes a change, whether or not it makes a version. `xid` is its transaction's, `relation` the digest of its
    /// table's Relation message.
    pub fn change(&mut self, xid: u32, table: &Table, relation: &str, change: Change<'_>) {
        if let Some(window) = self.windows.get_mut(&table.name) {
            window.change(xid, relation, change, &self.hash);
        }
        if let Some(ledger) = self.ledgers.get_mut(&table.name) {
            ledger.change(xid, change, &self.hash);
        }
    }

    /// Whether [`Watches::change`] has anything to do.
    pub fn is_idle(&self) -> bool {
        self.windows.is_empty() && self.ledgers.is_empty()
    }

    /// Notes a watermark. Returns the chunk that it releases, if the watermark is one of ours and the chunk is still
    /// good.
    pub fn watermark(&mut self, content: &[u8]) -> Option<Passed> {
        let releases = |window: &Window| {
            window.pending.as_ref().is_some_and(|pending| pending.nonce.as_str().as_bytes() == content)
        };
        let table = self.windows.iter().find(|(_, window)| releases(window)).map(|(table, _)| table.clone())?;
        let window = self.windows.remove(&table)?;
        let mut pending = window.pending?;
        if window.watch.key.is_none()
            && let Some(ledger) = self.ledgers.get_mut(&table)
        {
            ledger.leave_out(&mut pending);
        }
        Some(Passed { chunk: pending.chunk, left_out: pending.left_out, outcome: pending.outcome })
    }
}

fn answer<T>(to: oneshot::Sender<T>, what: T) {
    // A runner that no longer waits has abandoned the chunk.
    let _ = to.send(what);
}

/// A chunk whose watermark has passed, with the rows that are to be emitted at this point, in a batch of their own.
pub struct Passed {
    chunk: Box<RawChunk>,
    left_out: Vec<bool>,
    outcome: oneshot::Sender<Outcome>,
}

impl Passed {
    pub fn chunk(&self) -> &RawChunk {
        &self.chunk
    }

    pub fn mark(&self) -> &ChunkMark {
        &self.chunk.mark
    }

    /// Hands the permit of a large row to the next holder of the rows.
    pub fn take_large(&mut self) -> Option<OwnedSemaphorePermit> {
        self.chunk.large.take()
    }

    /// The rows to emit. Each becomes a [`Change::Snapshot`], in this order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.chunk.rows.iter().zip(&self.left_out).filter(|(_, left_out)| !**left_out).map(|(row, _)| row)
    }

    /// Reports that the batch is queued for the sinks.
    pub fn delivered(self) {
        let rows = self.left_out.iter().filter(|left_out| !**left_out).count() as u64;
        answer(self.outcome, Outcome::Delivered { rows });
    }

    /// Reports that nothing was emitted, because a row cannot be recorded.
    pub fn refused(self, why: String) {
        answer(self.outcome, Outcome::Refused { why });
    }

    /// Reports that nothing was emitted, so that the chunk has to be read again.
    pub fn reread(self, why: Reread) {
        answer(self.outcome, Outcome::Reread(why));
    }
}

/// The hash that stands for a row that the stream did not identify.
const ANY_ROW: u128 = 0;

/// What happens to one table from the low watermark on.
struct Window {
    watch: Watch,
    /// The rows that changed before the chunk is there: the hash of the row (for tables with a key, of the key alone),
    /// with the transaction where it matters.
    touched: HashSet<(u128, u32)>,
    truncated_by: HashSet<u32>,
    pending: Option<Pending>,
    spoiled: Option<Reread>,
}

impl Window {
    fn new(watch: Watch) -> Window {
        Window { watch, touched: HashSet::new(), truncated_by: HashSet::new(), pending: None, spoiled: None }
    }

    fn change(&mut self, xid: u32, relation: &str, change: Change<'_>, hash: &RowHash) {
        if self.spoiled.is_some() {
            return;
        }
        if relation != self.watch.digest {
            return self.spoil(Reread::ShapeChanged);
        }
        match (&self.watch.key, change) {
            (_, Change::Truncate) => self.truncate(xid),
            (Some(key), change) => {
                let (old, new) = hash.keys_of(key, change);
                [old, new].into_iter().flatten().for_each(|row| self.touch(row, if row == ANY_ROW { xid } else { 0 }));
            }
            (None, Change::Update { old, .. } | Change::Delete { old }) => {
                let row = match old {
                    Old::Full(row) => hash.row(row),
                    _ => ANY_ROW,
                };
                self.touch(row, xid);
            }
            (None, Change::Insert { .. } | Change::Snapshot { .. }) => {}
        }
    }

    fn touch(&mut self, row: u128, xid: u32) {
        let touched = match &mut self.pending {
            Some(pending) => pending.touch(row, xid),
            None => {
                self.touched.insert((row, xid));
                if self.touched.len() > CHANGES_MAX { Err(Reread::TooManyChanges) } else { Ok(()) }
            }
        };
        if let Err(why) = touched {
            self.spoil(why);
        }
    }

    fn truncate(&mut self, xid: u32) {
        match &mut self.pending {
            Some(pending) => pending.truncate(xid),
            None => {
                self.truncated_by.insert(xid);
                if self.truncated_by.len() > CHANGES_MAX {
                    self.spoil(Reread::TooManyChanges);
                }
            }
        }
    }

    fn ready(&mut self, pending: Pending, taken: oneshot::Sender<()>) {
        let pending = self.pending.insert(pending);
        std::mem::take(&mut self.truncated_by).into_iter().for_each(|xid| pending.truncate(xid));
        let mut touched = std::mem::take(&mut self.touched).into_iter();
        let caught_up = match self.spoiled {
            Some(why) => Err(why),
            None => touched.try_for_each(|(row, xid)| pending.touch(row, xid)),
        };
        match caught_up {
            Ok(()) => answer(taken, ()),
            Err(why) => self.spoil(why),
        }
    }

    fn spoil(&mut self, why: Reread) {
        self.spoiled = Some(why);
        self.touched = HashSet::new();
        self.truncated_by = HashSet::new();
        if let Some(pending) = self.pending.take() {
            answer(pending.outcome, Outcome::Reread(why));
        }
    }
}

/// A chunk that waits for its watermark.
struct Pending {
    nonce: Nonce,
    chunk: Box<RawChunk>,
    keyed: bool,
    /// Hash and number of each row, sorted.
    index: Vec<(u128, u32)>,
    left_out: Vec<bool>,
    outcome: oneshot::Sender<Outcome>,
}

impl Pending {
    fn new(
        nonce: Nonce,
        chunk: Box<RawChunk>,
        watch: &Watch,
        hash: &RowHash,
        outcome: oneshot::Sender<Outcome>,
    ) -> Pending {
        let hash_of = |row: Row<'_>| match &watch.key {
            Some(key) => hash.key(key, row, None),
            None => hash.row(row),
        };
        let mut index: Vec<(u128, u32)> = chunk.rows.iter().map(hash_of).zip(0..).collect();
        index.sort_unstable();
        Pending { nonce, keyed: watch.key.is_some(), index, left_out: vec![false; chunk.rows.len()], chunk, outcome }
    }

    /// The numbers of the rows with this hash.
    fn find(&self, hash: u128) -> impl Iterator<Item = usize> {
        let from = self.index.partition_point(|(other, _)| *other < hash);
        self.index[from..].iter().take_while(move |(other, _)| *other == hash).map(|(_, row)| *row as usize)
    }

    fn sees(&self, xid: u32) -> bool {
        self.chunk.snapshot.finished(xid)
    }

    fn touch(&mut self, row: u128, xid: u32) -> Result<(), Reread> {
        if row == ANY_ROW {
            return if self.sees(xid) { Ok(()) } else { Err(Reread::RowUnknown) };
        }
        if self.keyed {
            let rows: Vec<usize> = self.find(row).collect();
            rows.into_iter().for_each(|row| self.left_out[row] = true);
            return Ok(());
        }
        if self.sees(xid) || self.find(row).next().is_none() { Ok(()) } else { Err(Reread::RowChanged) }
    }

    fn truncate(&mut self, xid: u32) {
        if !self.sees(xid) {
            self.left_out.fill(true);
        }
    }
}

/// The rows that the stream has created and not removed since, with the transaction that created them, and how often.
#[derive(Default)]
struct Ledger {
    /// Readers skip rows that were written by transactions from this number on. It rises when a baseline begins again.
    xmax: u32,
    rows: BTreeMap<(u128, u32), u32>,
}

impl Ledger {
    fn change(&mut self, xid: u32, change: Change<'_>, hash: &RowHash) {
        let (old, new) = match change {
            Change::Insert { new } => (None, Some(new)),
            Change::Update { old: Old::Full(old), new } => (Some(old), Some(new)),
            Change::Update { new, .. } => (None, Some(new)),
            Change::Delete { old: Old::Full(old) } => (Some(old), None),
            Change::Truncate => return self.rows.clear(),
            Change::Delete { .. } | Change::Snapshot { .. } => (None, None),
        };
        if let Some(old) = old {
            self.take(hash.row(old), |_| true);
        }
        if let Some(new) = new.filter(|_| self.rows.len() < FOLLOWED_MAX) {
            *self.rows.entry((hash.row(new), xid)).or_default() += 1;
        }
    }

    /// Removes one of the rows that are equal to this one. Returns false if there is none.
    fn take(&mut self, row: u128, wanted: impl Fn(u32) -> bool) -> bool {
        let mut equal = self.rows.range_mut((row, 0)..=(row, u32::MAX));
        let Some((key, count)) = equal.find(|((_, xid), _)| wanted(*xid)) else { return false };
        *count -= 1;
        if *count == 0 {
            let key = *key;
            self.rows.remove(&key);
        }
        true
    }

    fn leave_out(&mut self, pending: &mut Pending) {
        let xmax = self.xmax;
        for (hash, row) in &pending.index {
            let left_out = &mut pending.left_out[*row as usize];
            *left_out = *left_out || self.take(*hash, |xid| precedes(xid, xmax));
        }
    }
}

/// 128-bit hashes of raw rows, under random keys of this process.
#[derive(Default)]
struct RowHash {
    halves: [RandomState; 2],
}

impl RowHash {
    /// Hash of the whole row; [`ANY_ROW`] if a value is unknown.
    fn row(&self, row: Row<'_>) -> u128 {
        self.values((0..row.len()).map(|column| match row.get(column) {
            Value::Text(text) => Some(Some(text)),
            Value::Null => Some(None),
            Value::Unknown => None,
        }))
    }

    /// Hash of the row's key; [`ANY_ROW`] if a part of it is not known. An unchanged large value is only in the old
    /// row.
    fn key(&self, key: &[usize], row: Row<'_>, old: Option<Row<'_>>) -> u128 {
        self.values(key.iter().map(|column| match (row.get(*column), old.map(|old| old.get(*column))) {
            (Value::Text(text), _) | (Value::Unknown, Some(Value::Text(text))) => Some(Some(text)),
            // A key holds no NULL, so NULL stands for a value that was not sent.
            _ => None,
        }))
    }

    /// Hashes of the keys before and after, for the sides that the change has.
    fn keys_of(&self, key: &[usize], change: Change<'_>) -> (Option<u128>, Option<u128>) {
        let before = |old| match old {
            Old::None => None,
            Old::Key(row) | Old::Full(row) => Some(row),
        };
        let hash = |row| self.key(key, row, None);
        match change {
            Change::Insert { new } => (None, Some(hash(new))),
            Change::Update { old, new } => (before(old).map(hash), Some(self.key(key, new, before(old)))),
            Change::Delete { old } => (Some(before(old).map_or(ANY_ROW, hash)), None),
            Change::Truncate | Change::Snapshot { .. } => (None, None),
        }
    }

    fn values<'a>(&self, values: impl Iterator<Item = Option<Option<&'a [u8]>>>) -> u128 {
        let [mut high, mut low] = self.halves.each_ref().map(BuildHasher::build_hasher);
        for value in values {
            let Some(value) = value else { return ANY_ROW };
            for half in [&mut high, &mut low] {
                half.write_u64(value.map_or(u64::MAX, |text| text.len() as u64));
                half.write(value.unwrap_or_default());
            }
        }
        // The value 0 is reserved for [`ANY_ROW`].
        (u128::from(high.finish()) << 64 | u128::from(low.finish())).max(1)
    }
}

/// Shows only the mark and the sizes of the rows, because nothing here may print values.
impl std::fmt::Debug for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passed").field("mark", &self.chunk.mark).field("rows", &self.chunk.rows).finish()
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
