//! A baseline's chunk, sealed when its watermark passes.

use std::sync::Arc;

use audit_cipher::Wanted;
use audit_core::baseline::Passed;
use audit_core::batch::Batch;
use audit_core::change::Change;
use audit_core::position::Position;
use audit_core::protect::Place;
use audit_core::table::Table;
use audit_core::version::version;

use super::{Stage, StageError};

/// A chunk with those of its rows that are already sealed.
pub(super) struct UnderWay {
    table: Arc<Table>,
    /// The position of the watermark.
    at: Position,
    /// Number of rows that were processed.
    rows: u32,
    batch: Batch,
}

impl Stage {
    /// The chunk's rows as a batch of their own. Their positions count from the watermark's. The batch does not state
    /// the stream's progress: when the stream passes here again, the chunk is not part of it.
    ///
    /// # Errors
    /// Returns a [`StageError`] if a row cannot be recorded. If it only needs a key, the next call with that key
    /// continues at this row.
    pub fn chunk(&mut self, passed: &Passed) -> Result<Batch, StageError> {
        let mut chunk = match self.chunk.take() {
            Some(chunk) => chunk,
            None => self.begin_chunk(passed)?,
        };
        let filled = self.fill(&mut chunk, passed);
        match filled {
            Ok(()) => {
                self.counts.versions += chunk.batch.len() as u64;
                Ok(chunk.batch)
            }
            Err(error) => {
                self.chunk = error.wanted().is_some().then_some(chunk);
                Err(error)
            }
        }
    }

    /// The keys of data subjects that a chunk will need after the one that it needs now, so that they are fetched
    /// together.
    pub fn wanted_ahead(&self, passed: &Passed, wanted: &Wanted) -> Vec<Wanted> {
        let Some(chunk) = &self.chunk else { return Vec::new() };
        self.policy.wanted_ahead(&chunk.table, wanted, passed.rows().skip(chunk.rows as usize))
    }

    fn begin_chunk(&mut self, passed: &Passed) -> Result<UnderWay, StageError> {
        let at = self.assembler.next_position();
        let mut table = self.table(&passed.chunk().relation, Some(&passed.chunk().catalog), at)?;
        if passed.rows().next().is_some() {
            table = self.counted(&table, at);
        }
        let mut batch = Batch::default();
        batch.chunk = Some(passed.mark().clone());
        batch.progress = self.assembler.progress();
        if let Some(transaction) = self.assembler.transaction() {
            batch.transaction(*transaction);
        }
        Ok(UnderWay { table, at, rows: 0, batch })
    }

    fn fill(&mut self, chunk: &mut UnderWay, passed: &Passed) -> Result<(), StageError> {
        let UnderWay { table, at, rows, batch } = chunk;
        for row in passed.rows().skip(*rows as usize) {
            let place = Place { position: Position { seq: *rows, ..*at }, lsn: at.commit_lsn };
            if let Some(raw) = version(table, Change::Snapshot { row }, &mut self.changed) {
                self.policy
                    .seal(batch, table, &raw, place, None)
                    .map_err(|source| StageError::Seal { position: place.position, source })?;
            }
            *rows += 1;
        }
        Ok(())
    }
}
