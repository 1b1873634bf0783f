//! A checkpoint for a sink that has no transactions of its own: [`CheckpointStore`].
//!
//! The row in `checkpoints` is moved after the versions were delivered, by the same compare-and-set as the row of a hot
//! sink. Versions that were delivered before the checkpoint moved are delivered again after a failure: at least once.

use std::sync::Arc;

use audit_connect::PgEndpoint;
use audit_core::batch::{Batch, Progress};
use audit_core::sink::{Baselines, Checkpoint, Identity, SinkError, Stored, went_back};
use tokio_postgres::{Client, Statement};

use crate::checkpoint::{self, Owned};
use crate::connection::BEGIN;
use crate::error::failed;
use crate::owner::Owner;
use crate::session::{check_pooler, open_for_checkpoint};
use audit_core::plan::{self, Digests, Have, Limits, Unit, shape_id};

/// The checkpoint of one sink, in a database where `setup` made the tables for it.
#[derive(Debug)]
pub struct CheckpointStore {
    owner: Owner,
    taken: Option<Taken>,
}

/// What is known since the checkpoint was taken over.
#[derive(Debug)]
struct Taken {
    identity: Identity,
    owner_epoch: i64,
    checkpoint: Option<Checkpoint>,
    start: Option<Progress>,
    baselines: Baselines,
    shapes: Digests,
    /// Taken out while it is in use, so that an action that ends early leaves no session behind.
    session: Option<(Client, Statement)>,
}

impl CheckpointStore {
    /// Makes the store without opening a session. `sink` is the sink's name in the configuration.
    pub fn new(sink: impl Into<Arc<str>>, endpoint: PgEndpoint) -> CheckpointStore {
        CheckpointStore { owner: Owner::new(sink.into(), endpoint), taken: None }
    }

    /// Does the same as [`audit_core::sink::Sink::take`].
    ///
    /// # Errors
    /// Fails if the database cannot be used, or if another daemon takes the checkpoint at the same moment.
    pub async fn take(&mut self, identity: &Identity) -> Result<Stored, SinkError> {
        self.taken = None;
        let (client, advance) = open_for_checkpoint(&self.owner.endpoint, &self.owner.sink).await?;
        check_pooler(&client, &self.owner.endpoint, &self.owner.sink).await?;
        let source = identity.source.as_str();
        let Owned { owner_epoch, checkpoint } = self.owner.claim(&client, source).await?;
        let baselines = checkpoint::baselines(&client, source, &self.owner.sink).await?;
        let shapes = checkpoint::shapes(&client, source).await?;
        self.taken = Some(Taken {
            identity: identity.clone(),
            owner_epoch,
            checkpoint: checkpoint.clone(),
            start: None,
            baselines: baselines.clone(),
            shapes: shapes.iter().map(|shape| (shape_id(shape), shape.digest.clone())).collect(),
            session: Some((client, advance)),
        });
        Ok(Stored { checkpoint, baselines, shapes })
    }

    /// Does the same as [`audit_core::sink::Sink::begin`].
    ///
    /// # Errors
    /// Fails like [`CheckpointStore::store`].
    pub async fn begin(&mut self, start: Progress) -> Result<(), SinkError> {
        let taken = self.connected().await?;
        taken.start = Some(start);
        if taken.checkpoint.is_some() {
            return Ok(());
        }
        self.store(&Unit { progress: start, ..Unit::default() }).await
    }

    /// The next unit of these batches, starting in the batch `first`; `None` if everything is stored.
    ///
    /// # Errors
    /// Fails if a lost session cannot be replaced, or if another daemon owns the checkpoint.
    pub async fn next<'b>(
        &mut self,
        batches: &[&'b Batch],
        first: usize,
        limits: Limits,
    ) -> Result<Option<Unit<'b>>, SinkError> {
        let sink = self.owner.sink.clone();
        let taken = self.connected().await?;
        let progress = taken.checkpoint.as_ref().map(Checkpoint::progress).or(taken.start).unwrap_or_default();
        let skip = progress.position.max(taken.start.unwrap_or_default().position);
        let have = Have { sink: &sink, progress, skip, baselines: &taken.baselines };
        Ok(plan::next(batches, first, &have, limits))
    }

    /// Moves the checkpoint past a unit, and stores the shapes and baselines that belong to it.
    ///
    /// # Errors
    /// Fails if the database does not commit, or if another daemon owns the checkpoint.
    pub async fn store(&mut self, unit: &Unit<'_>) -> Result<(), SinkError> {
        self.connected().await?;
        let not_taken = || SinkError::not_taken(&self.owner.sink);
        let taken = self.taken.as_mut().ok_or_else(not_taken)?;
        let (client, advance) = taken.session.take().ok_or_else(not_taken)?;
        let to = unit.checkpoint(&taken.identity);
        let (baselines, shapes) = (unit.baselines(), unit.new_shapes(&taken.shapes));
        let storing = |error| failed("moving the checkpoint", error);
        client.batch_execute(BEGIN).await.map_err(storing)?;
        checkpoint::add(&client, &to.source, &self.owner.sink, &shapes, &baselines).await?;
        let from = taken.checkpoint.as_ref().map(|checkpoint| checkpoint.position);
        let owned = (self.owner.sink.as_ref(), taken.owner_epoch);
        if !checkpoint::advance(&client, &advance, owned, from, &to).await.map_err(storing)? {
            return Err(self.owner.fenced(&client, &to.source, taken.owner_epoch).await);
        }
        client.batch_execute("COMMIT").await.map_err(storing)?;
        taken.shapes.extend(shapes.iter().map(|table| (shape_id(&table.shape), table.shape.digest.clone())));
        taken.baselines.extend(baselines);
        taken.checkpoint = Some(to);
        taken.session = Some((client, advance));
        Ok(())
    }

    /// The progress that is stored.
    pub fn durable(&self) -> Progress {
        let checkpoint = self.taken.as_ref().and_then(|taken| taken.checkpoint.as_ref());
        checkpoint.map(Checkpoint::progress).unwrap_or_default()
    }

    /// Checks that tables, rights and the sink's row are as they must be. Changes nothing.
    ///
    /// # Errors
    /// Fails if a table, a right or the row is missing.
    pub async fn probe(&self, source: &str) -> Result<(), SinkError> {
        let (client, _) = open_for_checkpoint(&self.owner.endpoint, &self.owner.sink).await?;
        check_pooler(&client, &self.owner.endpoint, &self.owner.sink).await?;
        let owner = checkpoint::owner(&client, source, &self.owner.sink).await;
        match owner.map_err(|error| failed("reading the checkpoint", error))? {
            Some(_) => Ok(()),
            None => Err(checkpoint::missing(source, &self.owner.sink)),
        }
    }

    /// The checkpoint as it is now, whoever owns it.
    ///
    /// # Errors
    /// Fails if the row cannot be read.
    pub async fn read(&self, source: &str) -> Result<Option<Checkpoint>, SinkError> {
        let (client, _) = open_for_checkpoint(&self.owner.endpoint, &self.owner.sink).await?;
        checkpoint::read(&client, source, &self.owner.sink).await
    }

    /// Makes sure that there is a session, and that what we know is what is stored.
    async fn connected(&mut self) -> Result<&mut Taken, SinkError> {
        let taken = self.taken.as_mut().ok_or_else(|| SinkError::not_taken(&self.owner.sink))?;
        if taken.session.is_none() {
            let (client, advance) = open_for_checkpoint(&self.owner.endpoint, &self.owner.sink).await?;
            let source = taken.identity.source.as_str();
            let owned = self.owner.claim_again(&client, source, taken.owner_epoch).await?;
            let baselines = checkpoint::baselines(&client, source, &self.owner.sink).await?;
            if went_back((taken.checkpoint.as_ref(), &taken.baselines), (owned.checkpoint.as_ref(), &baselines)) {
                return Err(SinkError::went_back("the database of the checkpoint"));
            }
            (taken.owner_epoch, taken.checkpoint, taken.baselines) = (owned.owner_epoch, owned.checkpoint, baselines);
            taken.session = Some((client, advance));
        }
        Ok(taken)
    }
}
