//! The owner of a sink's checkpoint: [`Owner`] takes the checkpoint over, and explains why another process has it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use audit_connect::PgEndpoint;
use audit_core::sink::SinkError;
use tokio_postgres::Client;

use crate::checkpoint::{self, Owned};
use crate::error::failed;

/// This process as the owner of one sink's checkpoint.
#[derive(Debug)]
pub(crate) struct Owner {
    pub sink: Arc<str>,
    pub endpoint: PgEndpoint,
    /// Distinguishes this owner from every other one.
    process: String,
}

impl Owner {
    pub fn new(sink: Arc<str>, endpoint: PgEndpoint) -> Owner {
        let process = format!("{} ({:08x})", std::process::id(), RandomState::new().build_hasher().finish() as u32);
        Owner { sink, endpoint, process }
    }

    /// Takes the checkpoint over from its current owner.
    pub async fn claim(&self, client: &Client, source: &str) -> Result<Owned, SinkError> {
        let known = checkpoint::owner(client, source, &self.sink).await;
        let Some((known, _)) = known.map_err(|error| failed("reading the checkpoint", error))? else {
            return Err(checkpoint::missing(source, &self.sink));
        };
        let claimed = self.claim_from(client, source, known).await?;
        claimed.ok_or_else(|| SinkError::retry(format!("another daemon took sink {} at this moment", self.sink)))
    }

    /// Takes the checkpoint again. If the answer to an earlier attempt was lost, the row already names this process.
    pub async fn claim_again(&self, client: &Client, source: &str, known: i64) -> Result<Owned, SinkError> {
        if let Some(owned) = self.claim_from(client, source, known).await? {
            return Ok(owned);
        }
        let owner = checkpoint::owner(client, source, &self.sink).await;
        let again = match owner.map_err(|error| failed("reading the checkpoint", error))? {
            Some((epoch, owner)) if owner.starts_with(&checkpoint::owner_text(&self.process)) => {
                self.claim_from(client, source, epoch).await?
            }
            _ => None,
        };
        match again {
            Some(owned) => Ok(owned),
            None => Err(self.fenced(client, source, known).await),
        }
    }

    async fn claim_from(&self, client: &Client, source: &str, known: i64) -> Result<Option<Owned>, SinkError> {
        checkpoint::claim(&self.endpoint, client, (source, &self.sink), known, &self.process).await
    }

    /// The error for a checkpoint that is no longer ours, or not where we left it.
    pub async fn fenced(&self, client: &Client, source: &str, known: i64) -> SinkError {
        let name = &self.sink;
        match checkpoint::owner(client, source, name).await {
            Err(error) => failed("reading the checkpoint", error),
            Ok(None) => SinkError::stop(format!("the checkpoint of sink {name} is gone from the hot database"))
                .hint("it was deleted by hand: restore it, or run `cdc-audit setup`, which begins a new one"),
            // Owner epochs only rise, so a lower one means that the database was restored to an older state.
            Ok(Some((epoch, _))) if epoch < known => SinkError::went_back("the hot database"),
            Ok(Some((epoch, _))) if epoch == known => {
                SinkError::stop(format!("the checkpoint of sink {name} was moved by hand"))
                    .hint("restore the row in cdc_audit.checkpoints; nothing was written since")
            }
            Ok(Some((_, owner))) => SinkError::fenced(format!("another daemon owns sink {name}: {owner}"))
                .hint("let one daemon run for a source; if that is this one, start it again"),
        }
    }
}
