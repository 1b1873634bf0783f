//! One database transaction of the sink: rows, shapes, baselines and checkpoint together, or nothing ([`Transaction`]).

use std::collections::BTreeMap;

use audit_core::batch::Progress;
use audit_core::plan::{Digests, Unit, shape_id};
use audit_core::sink::{Checkpoint, ChunkProgress, Identity, SinkError};
use audit_core::table::Table;
use tokio_postgres::Error;

use crate::checkpoint;
use crate::copy::{self, Copy};
use crate::encode::Encoder;
use crate::failure::failed;
use crate::session::Session;

/// What is known since the checkpoint was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub identity: Identity,
    pub owner_epoch: i64,
    pub checkpoint: Option<Checkpoint>,
    /// Where the stream began.
    pub start: Option<Progress>,
    pub baselines: BTreeMap<String, ChunkProgress>,
    pub shapes: Digests,
    /// Taken out while it is in use, so that whatever ends early leaves none behind.
    pub session: Option<Session>,
}

/// One database transaction about to happen.
pub(crate) struct Transaction<'t> {
    pub sink: &'t str,
    pub session: &'t Session,
    pub taken: &'t Taken,
    pub unit: &'t Unit<'t>,
}

/// What is so once it was committed.
pub(crate) struct Done {
    pub bytes: u64,
    pub checkpoint: Checkpoint,
    pub shapes: Digests,
    pub baselines: Vec<(String, ChunkProgress)>,
}

pub(crate) enum Failure {
    /// The checkpoint was not where it should be: somebody else has it.
    Lost,
    /// The server refused the rows.
    Copy(Error),
    Sink(SinkError),
}

impl Transaction<'_> {
    pub async fn run(&self, encoder: &mut Encoder<'_>) -> Result<Done, Failure> {
        let to = self.unit.checkpoint(&self.taken.identity);
        let baselines = self.unit.baselines();
        let new_shapes = self.unit.new_shapes(&self.taken.shapes);
        let bytes = if self.unit.versions.is_empty() && baselines.is_empty() {
            self.advance(&to).await?;
            0
        } else {
            fail::fail_point!("hot::before_copy");
            let mut copy = if new_shapes.is_empty() && baselines.is_empty() {
                copy::begin(self.session).await.map_err(Failure::Copy)?
            } else {
                self.begin_with(&new_shapes, &baselines).await?
            };
            let bytes = copy::send(&mut copy, encoder, &self.unit.versions).await.map_err(Failure::Copy)?;
            fail::fail_point!("hot::after_copy");
            self.commit(copy, &to).await?;
            bytes
        };
        fail::fail_point!("hot::after_commit");
        let digest = |table: &&Table| (shape_id(&table.shape), table.shape.digest.clone());
        Ok(Done { bytes, checkpoint: to, shapes: new_shapes.iter().map(digest).collect(), baselines })
    }

    /// Ends the COPY, moves the checkpoint, and commits if both went as they must.
    async fn commit(&self, mut copy: Copy, to: &Checkpoint) -> Result<(), Failure> {
        let (copied, moved) = tokio::join!(copy.as_mut().finish(), self.advance(to));
        let rows = copied.map_err(Failure::Copy)?;
        moved?;
        if rows != self.unit.versions.len() as u64 {
            let message = format!("the hot database took {rows} rows of {}", self.unit.versions.len());
            let hint = "a trigger on cdc_audit.versions drops rows: remove it; nothing was committed";
            return Err(Failure::Sink(SinkError::stop(message).hint(hint)));
        }
        fail::fail_point!("hot::before_commit");
        let committed = self.session.client.batch_execute("COMMIT").await;
        committed.map_err(|error| Failure::Sink(failed("committing versions", error)))
    }

    /// The rare beginning: with a table's new shape, or with a chunk.
    async fn begin_with(&self, shapes: &[&Table], baselines: &[(String, ChunkProgress)]) -> Result<Copy, Failure> {
        let client = &self.session.client;
        let source = &self.taken.identity.source;
        let storing = |error| Failure::Sink(failed("storing shapes and baselines", error));
        client.batch_execute("BEGIN").await.map_err(storing)?;
        checkpoint::add(client, source, self.sink, shapes, baselines).await.map_err(Failure::Sink)?;
        copy::start(self.session).await.map_err(Failure::Copy)
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
