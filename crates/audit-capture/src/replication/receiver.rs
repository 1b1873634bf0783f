//! The consumer's end of a stream: [`Receiver`].

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::error::ReplicationError;
use super::frame::Chunk;
use super::traffic::Traffic;

/// Number of chunks that may wait for the consumer. Together with the one being filled they bound the receiver's
/// memory.
pub(crate) const QUEUE: usize = 4;

/// A running stream. Dropping it ends the stream.
#[derive(Debug)]
pub struct Receiver {
    chunks: mpsc::Receiver<Chunk>,
    outcome: oneshot::Receiver<Result<(), ReplicationError>>,
    has_ended: bool,
    traffic: Arc<Traffic>,
}

impl Receiver {
    pub(crate) fn new(
        chunks: mpsc::Receiver<Chunk>,
        outcome: oneshot::Receiver<Result<(), ReplicationError>>,
        traffic: Arc<Traffic>,
    ) -> Receiver {
        Receiver { chunks, outcome, has_ended: false, traffic }
    }

    /// The next chunk; `None` after the stream was stopped. Cancellation safe.
    ///
    /// # Errors
    /// If the stream ended otherwise, returns the reason once, after all chunks that came before.
    pub async fn recv(&mut self) -> Result<Option<Chunk>, ReplicationError> {
        if let Some(chunk) = self.chunks.recv().await {
            return Ok(Some(chunk));
        }
        if self.has_ended {
            return Ok(None);
        }
        let outcome = (&mut self.outcome).await;
        self.has_ended = true;
        outcome.unwrap_or(Err(ReplicationError::Thread)).map(|()| None)
    }

    /// Whether no chunk is waiting: the consumer has taken everything that the stream had so far.
    pub fn is_idle(&self) -> bool {
        self.chunks.is_empty()
    }

    pub fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }
}
