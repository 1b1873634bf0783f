//! Transactions and positions: every change gets its place in the total order of its source.
//!
//! `seq` counts what the server sends, before any of our rules apply. So a configuration that changes in the middle of
//! a half-written transaction renumbers nothing.

use std::sync::Arc;

use crate::batch::{Progress, Transaction};
use crate::context::Context;
use crate::position::{Lsn, Position};
use crate::version::Place;

/// The stream violated its own protocol: a bug in this program or in the server, never something to skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    #[error("{0} outside a transaction")]
    Outside(&'static str),
    #[error("a transaction began inside another")]
    Nested,
    #[error("the transaction has more changes than a position can count")]
    TooMany,
}

/// Follows the stream from message to message.
#[derive(Debug)]
pub struct Assembler {
    current: Option<Current>,
    progress: Progress,
}

#[derive(Debug)]
struct Current {
    epoch: u16,
    transaction: Transaction,
    next_seq: u32,
    context: Option<Arc<Context>>,
}

impl Assembler {
    pub fn new(start: Progress) -> Assembler {
        Assembler { current: None, progress: start }
    }

    /// Begins a transaction of an epoch.
    ///
    /// # Errors
    /// Fails if a transaction is already open.
    pub fn begin(&mut self, epoch: u16, transaction: Transaction) -> Result<(), AssembleError> {
        if self.current.is_some() {
            return Err(AssembleError::Nested);
        }
        self.progress.flushed_lsn = self.progress.flushed_lsn.max(transaction.commit_lsn);
        self.current = Some(Current { epoch, transaction, next_seq: 0, context: None });
        Ok(())
    }

    /// Gives the next change of the current transaction its place. `lsn` is the start of its WAL record.
    ///
    /// # Errors
    /// Fails outside a transaction, or if the transaction has more changes than a position can count.
    pub fn change(&mut self, lsn: Lsn) -> Result<Place, AssembleError> {
        let current = self.current.as_mut().ok_or(AssembleError::Outside("a change"))?;
        let position = Position::new(current.epoch, current.transaction.commit_lsn, current.next_seq);
        current.next_seq = current.next_seq.checked_add(1).ok_or(AssembleError::TooMany)?;
        self.progress.position = position;
        self.progress.change_lsn = lsn;
        Ok(Place { position, lsn })
    }

    /// The position of the next change of the current transaction; between transactions, that of the last change.
    pub fn next_position(&self) -> Position {
        match &self.current {
            Some(current) => Position::new(current.epoch, current.transaction.commit_lsn, current.next_seq),
            None => self.progress.position,
        }
    }

    /// Sets the context of the changes that follow in this transaction, or clears it with `None`.
    ///
    /// # Errors
    /// Fails outside a transaction.
    pub fn context(&mut self, context: Option<Context>) -> Result<(), AssembleError> {
        let current = self.current.as_mut().ok_or(AssembleError::Outside("a transactional message"))?;
        current.context = context.map(Arc::new);
        Ok(())
    }

    /// Ends the current transaction. `end_lsn` is the end of its commit record.
    ///
    /// # Errors
    /// Fails outside a transaction.
    pub fn commit(&mut self, end_lsn: Lsn) -> Result<Transaction, AssembleError> {
        let current = self.current.take().ok_or(AssembleError::Outside("a commit"))?;
        self.progress.flushed_lsn = self.progress.flushed_lsn.max(end_lsn);
        Ok(current.transaction)
    }

    /// The server has nothing to send up to here. This counts only between transactions.
    pub fn idle(&mut self, wal_end: Lsn) {
        if self.current.is_none() {
            self.progress.flushed_lsn = self.progress.flushed_lsn.max(wal_end);
        }
    }

    /// Notes that a record which comes from no change has taken `position`.
    pub fn stand_at(&mut self, position: Position) {
        self.progress.position = position;
        self.progress.change_lsn = Lsn::ZERO;
    }

    pub fn transaction(&self) -> Option<&Transaction> {
        self.current.as_ref().map(|current| &current.transaction)
    }

    pub fn current_context(&self) -> Option<&Arc<Context>> {
        self.current.as_ref().and_then(|current| current.context.as_ref())
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }
}
