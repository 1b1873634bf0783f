//! The sink: [`HotSink`].
//!
//! ```text
//! write ──plan──▶ unit ──divide──▶ partitions ──▶ transaction ──▶ next unit
//!
//! transaction: BEGIN; shapes; baselines; COPY …; move the checkpoint; COMMIT
//! ```
//!
//! Exactly-once rests on one rule: rows and checkpoint are committed together, and the checkpoint moves only from the
//! position that this writer knows, under the owner epoch that this writer raised ([`crate::checkpoint`]). Whatever
//! goes wrong, the session is dropped; the next call opens another one, raises the owner epoch again, reads what is
//! stored, and plans again from there. So a COMMIT whose answer was lost needs no special treatment, and neither does a
//! call that is cancelled half-way.
//!
//! A transaction takes three round trips: BEGIN is sent with COPY, the end of COPY with the checkpoint, and COMMIT
//! after both are known to have succeeded: all rows are stored and the checkpoint is moved. Each further table of
//! versions ([`crate::targets`]) adds two.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use audit_core::batch::{Batch, Progress};
use audit_core::plan::{self, Have, Limits, Places, Unit, shape_id};
use audit_core::position::Micros;
use audit_core::quarantine::Quarantine;
use audit_core::shape::Shape;
use audit_core::sink::{Checkpoint, Identity, Sink, SinkError, Stored, went_back};
use tokio_postgres::Error;

use crate::checkpoint::{self, Owned};
use crate::config::HotConfig;
use crate::encode::{Encoder, FIELD_MAX};
use crate::error::{failed, is_gone, may_be_a_row};
use crate::owner::Owner;
use crate::refused;
use crate::session::{Session, check_pooler};
use crate::transaction::{Failure, Taken, Transaction};

/// What a sink did since it was made, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Number of versions that were committed.
    pub rows: AtomicU64,
    /// Bytes of the COPY streams that were committed.
    pub bytes: AtomicU64,
    pub transactions: AtomicU64,
    /// Number of values that were stored as `{"$too_large": bytes}`.
    pub too_large: AtomicU64,
}

/// The audit table in one database, for one source.
#[derive(Debug)]
pub struct HotSink {
    name: Arc<str>,
    config: HotConfig,
    owner: Owner,
    field_max: usize,
    quarantine: Arc<Quarantine>,
    counters: Arc<Counters>,
    taken: Option<Taken>,
}

impl HotSink {
    /// Makes the sink without opening a session. `name` is the sink's name in the configuration, and part of its
    /// checkpoint's identity.
    pub fn new(name: impl Into<Arc<str>>, config: &HotConfig) -> HotSink {
        let (quarantine, counters) = (Arc::default(), Arc::new(Counters::default()));
        let name = name.into();
        let owner = Owner::new(name.clone(), config.endpoint.clone());
        HotSink { name, config: config.clone(), owner, field_max: FIELD_MAX, quarantine, counters, taken: None }
    }

    /// Lowers [`FIELD_MAX`], so that a test needs no value of 128 MiB.
    pub fn with_field_max(self, bytes: usize) -> HotSink {
        HotSink { field_max: bytes.min(FIELD_MAX), ..self }
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Makes sure that there is a session, and that what we know is what is stored.
    async fn connected(&mut self) -> Result<&mut Taken, SinkError> {
        let not_taken = || SinkError::not_taken(&self.name);
        let taken = self.taken.as_mut().ok_or_else(not_taken)?;
        if taken.session.is_none() {
            let session = Session::open(&self.config, &self.name).await?;
            let (client, source) = (&session.client, taken.identity.source.as_str());
            let owned = self.owner.claim_again(client, source, taken.owner_epoch).await?;
            let baselines = checkpoint::baselines(client, source, &self.name).await?;
            if went_back((taken.checkpoint.as_ref(), &taken.baselines), (owned.checkpoint.as_ref(), &baselines)) {
                return Err(SinkError::went_back("the hot database"));
            }
            (taken.owner_epoch, taken.checkpoint, taken.baselines) = (owned.owner_epoch, owned.checkpoint, baselines);
            taken.session = Some(session);
        }
        Ok(taken)
    }

    /// Stores one unit: rows, shapes, baselines and checkpoint together.
    async fn store(&mut self, unit: &Unit<'_>) -> Result<(), SinkError> {
        let (name, counters) = (self.name.clone(), self.counters.clone());
        let taken = self.taken.as_mut().ok_or_else(|| SinkError::not_taken(&name))?;
        let mut session = taken.session.take().ok_or_else(|| SinkError::retry("the session was lost"))?;
        let source = taken.identity.source.clone();
        let mut encoder = Encoder {
            source: &source,
            recorded_at: Micros::now(),
            keep: &self.config.keep,
            field_max: self.field_max,
            too_large: 0,
        };
        let divided = session.targets.divide(&session.client, &source, unit).await;
        let groups = divided.map_err(|error| failed("making a table of versions", error))?;
        let ensured = session.targets.ensure(&session.client, &groups).await;
        ensured.map_err(|error| match is_gone(&error) && session.targets.has_own() {
            true => dropped(),
            false => failed("making a partition", error),
        })?;

        let transaction = Transaction { sink: &name, session: &session, taken, unit, groups: &groups };
        match transaction.run(&mut encoder).await {
            Ok(done) => {
                counters.rows.fetch_add(unit.versions.len() as u64, Ordering::Relaxed);
                counters.bytes.fetch_add(done.bytes, Ordering::Relaxed);
                counters.transactions.fetch_add(1, Ordering::Relaxed);
                counters.too_large.fetch_add(encoder.too_large, Ordering::Relaxed);
                taken.checkpoint = Some(done.checkpoint);
                taken.shapes.extend(done.shapes);
                taken.baselines.extend(done.baselines);
                taken.session = Some(session);
                Ok(())
            }
            Err(Failure::Sink(error)) => Err(error),
            Err(Failure::Lost) => {
                let known = taken.owner_epoch;
                Err(self.owner.fenced(&session.client, &source, known).await)
            }
            Err(Failure::Copy(error)) if may_be_a_row(&error) => {
                let looking = |error| failed("looking for the version that is refused", error);
                session.client.batch_execute("ROLLBACK").await.map_err(looking)?;
                // A partition that was dropped or detached by hand causes the same error.
                session.targets.forget_partitions();
                let again = session.targets.ensure(&session.client, &groups).await;
                again.map_err(looking)?;
                for group in &groups {
                    let copy = &session.targets.of(group).copy;
                    let found = refused::find(&session.client, copy, &mut encoder, &group.versions).await;
                    if let Some(version) = found.map_err(looking)?.and_then(|index| group.versions.get(index)) {
                        return Err(refusal(&name, version, error));
                    }
                }
                Err(SinkError::retry("the hot database refused versions that it takes now"))
            }
            Err(Failure::Copy(error)) if is_gone(&error) && session.targets.has_own() => Err(dropped()),
            Err(Failure::Copy(error)) => Err(failed("writing versions", error)),
        }
    }
}

/// The error for a table that was dropped while a session wrote to it; the next session makes it again.
fn dropped() -> SinkError {
    SinkError::retry("a table of versions was dropped").hint("it is made anew, without what it held")
}

fn refusal(sink: &str, version: &audit_core::batch::Version<'_>, error: Error) -> SinkError {
    let (position, table) = (version.position(), &version.table().name);
    let error = failed("writing a version", error);
    let message = format!("the hot database refuses the version of {table} at {position}");
    let mut refusal = SinkError::refusing(sink, position, message, None);
    refusal.source = error.source;
    refusal
}

impl Sink for HotSink {
    async fn take(&mut self, identity: &Identity) -> Result<Stored, SinkError> {
        self.taken = None;
        let session = Session::open(&self.config, &self.name).await?;
        let (client, source, sink) = (&session.client, identity.source.as_str(), self.name.as_ref());
        check_pooler(client, &self.config.endpoint, sink).await?;
        let Owned { owner_epoch, checkpoint } = self.owner.claim(client, source).await?;
        fail::fail_point!("hot::after_take");
        let baselines = checkpoint::baselines(client, source, sink).await?;
        let shapes = checkpoint::shapes(client, source).await?;
        let digest = |shape: &Shape| (shape_id(shape), shape.digest.clone());
        self.taken = Some(Taken {
            identity: identity.clone(),
            owner_epoch,
            checkpoint: checkpoint.clone(),
            start: None,
            baselines: baselines.clone(),
            shapes: shapes.iter().map(digest).collect(),
            session: Some(session),
        });
        Ok(Stored { checkpoint, baselines, shapes })
    }

    async fn begin(&mut self, start: Progress) -> Result<(), SinkError> {
        let taken = self.connected().await?;
        taken.start = Some(start);
        if taken.checkpoint.is_some() {
            return Ok(());
        }
        self.store(&Unit { progress: start, ..Unit::default() }).await
    }

    async fn write(&mut self, batches: &[&Batch]) -> Result<(), SinkError> {
        let (rows, bytes) = (self.config.batch_rows.max(1) as usize, self.config.batch_bytes.get());
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).max(1);
        let mut first = 0;
        loop {
            let sink = self.name.clone();
            let taken = self.connected().await?;
            let places = taken.session.as_ref().map_or(Places::Own, |session| session.targets.places());
            let limits = Limits { rows, bytes, places };
            let progress = taken.checkpoint.as_ref().map(Checkpoint::progress).or(taken.start).unwrap_or_default();
            let skip = progress.position.max(taken.start.unwrap_or_default().position);
            let have = Have { sink: &sink, progress, skip, baselines: &taken.baselines };
            let Some(mut unit) = plan::next(batches, first, &have, limits) else { return Ok(()) };
            let quarantine = self.quarantine.clone();
            unit.quarantine(&quarantine);
            self.store(&unit).await?;
            first = unit.next_batch;
        }
    }

    /// Does nothing, because [`Sink::write`] returns after everything is durable.
    async fn flush(&mut self, _all: bool) -> Result<(), SinkError> {
        Ok(())
    }

    fn due(&self) -> Option<Instant> {
        None
    }

    fn durable(&self) -> Progress {
        let checkpoint = self.taken.as_ref().and_then(|taken| taken.checkpoint.as_ref());
        checkpoint.map(Checkpoint::progress).unwrap_or_default()
    }

    fn quarantine(&mut self, quarantine: Arc<Quarantine>) {
        self.quarantine = quarantine;
    }

    fn held_bytes(&self) -> usize {
        0
    }
}
