//! One database transaction of the sink: rows, shapes, baselines and checkpoint together, or nothing ([`Transaction`]).

use std::collections::BTreeMap;

use audit_core::batch::Progress;
use audit_core::plan::{Digests, Unit, shape_id};
use audit_core::sink::{Checkpoint, ChunkProgress, Identity, SinkError};
use audit_core::table::Table;
use tokio_postgres::{Error, Statement};

use crate::checkpoint;
use crate::connection::BEGIN;
use crate::copy::{self, Copy};
use crate::encode::Encoder;
use crate::error::failed;
use crate::session::Session;
use crate::targets::{Group, Target};

/// What is known since the checkpoint was taken over.
#[derive(Debug)]
pub(crate) struct Taken {
    pub identity: Identity,
    pub owner_epoch: i64,
    pub checkpoint: Option<Checkpoint>,
    /// Where the stream began.
    pub start: Option<Progress>,
    pub baselines: BTreeMap<String, ChunkProgress>,
    pub shapes: Digests,
    /// Taken out while it is in use, so that an action that ends early leaves no session behind.
    pub session: Option<Session>,
}

/// One database transaction that is about to run.
pub(crate) struct Transaction<'t, 'b> {
    pub sink: &'t str,
    pub session: &'t Session,
    pub taken: &'t Taken,
    pub unit: &'t Unit<'t>,
    /// The unit's versions, grouped by the table that takes them; there is at least one group.
    pub groups: &'t [Group<'t, 'b>],
}

/// The new state after the transaction was committed.
pub(crate) struct Done {
    pub bytes: u64,
    pub checkpoint: Checkpoint,
    pub shapes: Digests,
    pub baselines: Vec<(String, ChunkProgress)>,
}

pub(crate) enum Failure {
    /// The checkpoint was not where it should be: another process has it.
    Lost,
    /// The server refused the rows.
    Copy(Error),
    Sink(SinkError),
}

impl Transaction<'_, '_> {
    pub async fn run(&self, encoder: &mut Encoder<'_>) -> Result<Done, Failure> {
        let to = self.unit.checkpoint(&self.taken.identity);
        let baselines = self.unit.baselines();
        let new_shapes = self.unit.new_shapes(&self.taken.shapes);
        let bytes = if self.unit.versions.is_empty() && baselines.is_empty() {
            self.advance_alone(&to).await?;
            0
        } else {
            self.write(encoder, &new_shapes, &baselines, &to).await?
        };
        fail::fail_point!("hot::after_commit");
        let digest = |table: &&Table| (shape_id(&table.shape), table.shape.digest.clone());
        Ok(Done { bytes, checkpoint: to, shapes: new_shapes.iter().map(digest).collect(), baselines })
    }

    /// Writes with one COPY for each table, then moves the checkpoint. Returns the number of bytes of the rows.
    async fn write(
        &self,
        encoder: &mut Encoder<'_>,
        shapes: &[&Table],
        baselines: &[(String, ChunkProgress)],
        to: &Checkpoint,
    ) -> Result<u64, Failure> {
        let Some((first, others)) = self.groups.split_first() else { return Ok(0) };
        fail::fail_point!("hot::before_copy");
        let statement = &self.target(first).copy;
        let mut copy = if shapes.is_empty() && baselines.is_empty() {
            copy::begin(&self.session.client, statement).await.map_err(Failure::Copy)?
        } else {
            self.begin_with(shapes, baselines, statement).await?
        };
        let mut bytes = copy::send(&mut copy, encoder, &first.versions).await.map_err(Failure::Copy)?;
        let mut last = first;
        for group in others {
            // The COPYs run one after the other: with several in flight, one that cannot begin would leave the driver
            // with an answer that it does not expect.
            let rows = copy.as_mut().finish().await.map_err(Failure::Copy)?;
            self.all_taken(last, rows)?;
            copy = copy::start(&self.session.client, &self.target(group).copy).await.map_err(Failure::Copy)?;
            bytes += copy::send(&mut copy, encoder, &group.versions).await.map_err(Failure::Copy)?;
            last = group;
        }
        fail::fail_point!("hot::after_copy");
        self.commit(copy, last, to).await?;
        Ok(bytes)
    }

    fn target(&self, group: &Group<'_, '_>) -> &Target {
        self.session.targets.of(group)
    }

    /// Ends the last COPY, moves the checkpoint, and commits if both succeeded.
    async fn commit(&self, mut copy: Copy, last: &Group<'_, '_>, to: &Checkpoint) -> Result<(), Failure> {
        let (copied, moved) = tokio::join!(copy.as_mut().finish(), self.advance(to));
        let rows = copied.map_err(Failure::Copy)?;
        moved?;
        self.all_taken(last, rows)?;
        fail::fail_point!("hot::before_commit");
        let committed = self.session.client.batch_execute("COMMIT").await;
        committed.map_err(|error| Failure::Sink(failed("committing versions", error)))
    }

    fn all_taken(&self, group: &Group<'_, '_>, rows: u64) -> Result<(), Failure> {
        let sent = group.versions.len();
        if rows == sent as u64 {
            return Ok(());
        }
        let message = format!("the hot database took {rows} rows of {sent}");
        let name = &self.target(group).name;
        let hint = format!("a trigger on cdc_audit.{name} drops rows: remove it; nothing was committed");
        Err(Failure::Sink(SinkError::stop(message).hint(hint)))
    }

    /// Begins a transaction that also stores a table's new shape or a chunk, which is rare.
    async fn begin_with(
        &self,
        shapes: &[&Table],
        baselines: &[(String, ChunkProgress)],
        statement: &Statement,
    ) -> Result<Copy, Failure> {
        let client = &self.session.client;
        let source = &self.taken.identity.source;
        let storing = |error| Failure::Sink(failed("storing shapes and baselines", error));
        client.batch_execute(BEGIN).await.map_err(storing)?;
        checkpoint::add(client, source, self.sink, shapes, baselines).await.map_err(Failure::Sink)?;
        copy::start(client, statement).await.map_err(Failure::Copy)
    }

    /// Moves the checkpoint when there is nothing else to store.
    async fn advance_alone(&self, to: &Checkpoint) -> Result<(), Failure> {
        let moving = |error| Failure::Sink(failed("moving the checkpoint", error));
        let (begun, moved) = tokio::join!(self.session.client.batch_execute(BEGIN), self.advance(to));
        begun.map_err(moving)?;
        moved?;
        self.session.client.batch_execute("COMMIT").await.map_err(moving)
    }

    async fn advance(&self, to: &Checkpoint) -> Result<(), Failure> {
        let from = self.taken.checkpoint.as_ref().map(|checkpoint| checkpoint.position);
        let owner = (self.sink, self.taken.owner_epoch);
        match checkpoint::advance(&self.session.client, &self.session.advance, owner, from, to).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::Lost),
            Err(error) => Err(Failure::Sink(failed("moving the checkpoint", error))),
        }
    }
}
