//! A table's state, as application transactions of its Delta log.

use audit_core::position::{Lsn, Position};
use audit_core::sink::ChunkProgress;
use deltalake_core::kernel::Transaction;

/// A table's state, and the owner that committed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The last version of the stream that the table has.
    pub position: Position,
    /// In a tenant's table: the last chunks of which it has rows. Home says how far the baseline is.
    pub baseline: ChunkProgress,
    /// The owner epoch of the daemon that committed last.
    pub owner: u64,
    /// In home, while tenants' tables may still have to commit their rows of the last chunks: the owner epoch in the
    /// names of those files.
    pub spread_by: u64,
}

/// The names of the application transactions; each is stored as `<source>/<name>`.
pub const NAMES: [&str; 8] = ["epoch", "lsn", "seq", "owner", "baseline", "chunk", "chunks_done", "spread_by"];

pub type Numbers = [Option<i64>; NAMES.len()];

impl Txn {
    fn numbers(&self) -> [i64; NAMES.len()] {
        let Txn { position, baseline, owner, spread_by } = self;
        [
            i64::from(position.epoch),
            // A WAL position has 64 bits; the sign bit holds the highest.
            position.commit_lsn.0 as i64,
            i64::from(position.seq),
            *owner as i64,
            i64::from(baseline.baseline),
            i64::from(baseline.chunk),
            i64::from(baseline.done),
            *spread_by as i64,
        ]
    }

    pub fn from_numbers(numbers: Numbers) -> Option<Txn> {
        let [epoch, lsn, seq, owner, baseline, chunk, done, spread_by] = numbers;
        Some(Txn {
            position: Position::new(u16::try_from(epoch?).ok()?, Lsn(lsn? as u64), u32::try_from(seq?).ok()?),
            owner: owner? as u64,
            baseline: ChunkProgress {
                baseline: u32::try_from(baseline?).ok()?,
                chunk: u32::try_from(chunk?).ok()?,
                done: done? != 0,
            },
            // Lakes that are older than tenants do not have it.
            spread_by: spread_by.unwrap_or_default() as u64,
        })
    }

    pub fn transactions(&self, source: &str) -> Vec<Transaction> {
        let named = NAMES.iter().zip(self.numbers());
        named.map(|(name, number)| Transaction::new(format!("{source}/{name}"), number)).collect()
    }
}
