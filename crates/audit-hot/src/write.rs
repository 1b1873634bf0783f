//! The sink: [`HotSink`].
//!
//! ```text
//! write ──plan──▶ unit ──partitions──▶ BEGIN; shapes; baselines; COPY …; move the checkpoint; COMMIT ──▶ next unit
//! ```
//!
//! Exactly once rests on one thing: rows and checkpoint are committed together, and the checkpoint moves only from where this
//! writer knows it to be, under the owner epoch that this writer raised ([`crate::checkpoint`]). Whatever goes wrong, the
//! session is thrown away; the next call opens another, raises the owner epoch again, reads what is stored, and plans anew from
//! there. So a COMMIT whose answer was lost needs no treatment of its own, and a call that is cancelled half-way neither.
//!
//! Three round trips make a transaction: BEGIN goes out with COPY, the end of COPY with the checkpoint, and COMMIT when both
//! are known to be as they must: all rows taken, the checkpoint moved.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use audit_core::batch::{Batch, Progress};
use audit_core::position::{Micros, Position};
use audit_core::sink::{Checkpoint, ChunkProgress, Identity, Sink, SinkError, Stored};
use tokio_postgres::{Client, Error};

use crate::checkpoint::{self, Digests, Owned};
use crate::config::HotConfig;
use crate::copy::{self, Copy};
use crate::encode::{Encoder, FIELD_MAX};
use crate::failure::{failed, may_be_a_row};
use crate::plan::{self, Have, Limits, Unit};
use crate::refused;
use crate::session::Session;

/// What a sink did since it was made, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Versions that were committed.
    pub rows: AtomicU64,
    /// Bytes of COPY streams that were committed.
    pub bytes: AtomicU64,
    pub transactions: AtomicU64,
    /// Values that were stored as `{"$too_large": bytes}`.
    pub too_large: AtomicU64,
}

/// The audit table in one database, for one source.
#[derive(Debug)]
pub struct HotSink {
    name: Arc<str>,
    config: HotConfig,
    /// Tells this owner from any other.
    process: String,
    field_max: usize,
    quarantined: HashSet<Position>,
    counters: Arc<Counters>,
    taken: Option<Taken>,
}

/// What is known since the checkpoint was taken.
#[derive(Debug)]
struct Taken {
    identity: Identity,
    owner_epoch: i64,
    checkpoint: Option<Checkpoint>,
    /// Where the stream began.
    start: Option<Progress>,
    baselines: BTreeMap<String, ChunkProgress>,
    shapes: Digests,
    /// Taken out while it is in use, so that whatever ends early leaves none behind.
    session: Option<Session>,
}

impl HotSink {
    /// Opens nothing yet. `name` is the sink's in the configuration, and part of its checkpoint's identity.
    pub fn new(name: impl Into<Arc<str>>, config: HotConfig) -> HotSink {
        let (quarantined, counters) = (HashSet::new(), Arc::new(Counters::default()));
        let process = format!("{} ({:08x})", std::process::id(), RandomState::new().build_hasher().finish() as u32);
        HotSink { name: name.into(), config, process, field_max: FIELD_MAX, quarantined, counters, taken: None }
    }

    /// Lowers [`FIELD_MAX`], so that a test needs no value of 128 MiB.
    pub fn with_field_max(self, bytes: usize) -> HotSink {
        HotSink { field_max: bytes.min(FIELD_MAX), ..self }
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    fn not_taken(&self) -> SinkError {
        SinkError::stop(format!("sink {} was not taken before it was used", self.name))
    }

    /// Why the checkpoint is not ours, or not where we left it.
    async fn fenced(&self, client: &Client, source: &str, known: i64) -> SinkError {
        let name = &self.name;
        match checkpoint::owner(client, source, name).await {
            Err(error) => failed("reading the checkpoint", error),
            Ok(None) => SinkError::stop(format!("the checkpoint of sink {name} is gone from the hot database"))
                .hint("it was deleted by hand: restore it, or run `cdc-audit setup`, which begins a new one"),
            Ok(Some((epoch, _))) if epoch == known => {
                SinkError::stop(format!("the checkpoint of sink {name} was moved by hand"))
                    .hint("restore the row in cdc_audit.checkpoints; nothing was written since")
            }
            Ok(Some((_, owner))) => SinkError::stop(format!("another daemon owns sink {name}: {owner}"))
                .hint("let one daemon run for a source; if that is this one, start it again"),
        }
    }

    /// Makes sure that there is a session, and that what we know is what is stored.
    async fn connected(&mut self) -> Result<&mut Taken, SinkError> {
        let error = self.not_taken();
        let taken = self.taken.as_mut().ok_or(error)?;
        if taken.session.is_none() {
            let (identity, known) = (taken.identity.clone(), taken.owner_epoch);
            let session = Session::open(&self.config, &self.name).await?;
            let (client, source, sink) = (&session.client, identity.source.as_str(), self.name.as_ref());
            let Some(owned) = self.claim_again(client, source, known).await? else {
                return Err(self.fenced(client, source, known).await);
            };
            let baselines = checkpoint::baselines(client, source, sink).await?;
            let taken = self.taken.as_mut().ok_or_else(|| SinkError::stop("the sink is not taken"))?;
            taken.owner_epoch = owned.owner_epoch;
            taken.checkpoint = owned.checkpoint;
            taken.baselines = baselines;
            taken.session = Some(session);
        }
        self.taken.as_mut().ok_or_else(|| SinkError::stop("the sink is not taken"))
    }

    /// Takes the checkpoint anew. The answer to an earlier try may have been lost: then the row names us already.
    async fn claim_again(&self, client: &Client, source: &str, known: i64) -> Result<Option<Owned>, SinkError> {
        let claim = |known| checkpoint::claim(&self.config, client, (source, &self.name), known, &self.process);
        if let Some(owned) = claim(known).await? {
            return Ok(Some(owned));
        }
        let owner = checkpoint::owner(client, source, &self.name).await;
        match owner.map_err(|error| failed("reading the checkpoint", error))? {
            Some((epoch, owner)) if owner.starts_with(&checkpoint::owner_text(&self.process)) => claim(epoch).await,
            _ => Ok(None),
        }
    }

    /// Stores one unit, rows, shapes, baselines and checkpoint together.
    async fn store(&mut self, unit: &Unit<'_>) -> Result<(), SinkError> {
        let (name, counters) = (self.name.clone(), self.counters.clone());
        let not_taken = self.not_taken();
        let taken = self.taken.as_mut().ok_or(not_taken)?;
        let mut session = taken.session.take().ok_or_else(|| SinkError::retry("the session was lost"))?;
        let source = taken.identity.source.clone();
        let mut encoder = Encoder {
            source: &source,
            recorded_at: Micros::now(),
            keep: &self.config.keep,
            field_max: self.field_max,
            quarantined: &self.quarantined,
            too_large: 0,
        };
        let ensured = session.partitions.ensure(&session.client, &unit.versions).await;
        ensured.map_err(|error| failed("making a partition", error))?;

        let transaction = Transaction { sink: &name, session: &session, taken, unit };
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
                Err(self.fenced(&session.client, &source, known).await)
            }
            Err(Failure::Copy(error)) if may_be_a_row(&error) => {
                let looking = |error| failed("looking for the version that is refused", error);
                session.client.batch_execute("ROLLBACK").await.map_err(looking)?;
                // A partition that was dropped or detached by hand looks the same.
                session.partitions.forget();
                let again = session.partitions.ensure(&session.client, &unit.versions).await;
                again.map_err(looking)?;
                let found = refused::find(&session, &mut encoder, &unit.versions).await.map_err(looking)?;
                match found.and_then(|index| unit.versions.get(index)) {
                    Some(version) => Err(refusal(&name, version, error)),
                    None => Err(SinkError::retry("the hot database refused versions that it takes now")),
                }
            }
            Err(Failure::Copy(error)) => Err(failed("writing versions", error)),
        }
    }
}

fn refusal(sink: &str, version: &audit_core::batch::Version<'_>, error: Error) -> SinkError {
    let (position, table) = (version.position(), &version.table().name);
    let error = failed("writing a version", error);
    let mut refusal = SinkError::stop(format!("the hot database refuses the version of {table} at {position}"))
        .hint(format!("`cdc-audit resume --sink {sink} --quarantine {position}` goes on with an `error` record in its place"))
        .refused(position);
    refusal.source = error.source;
    refusal
}

/// One database transaction about to happen.
struct Transaction<'t> {
    sink: &'t str,
    session: &'t Session,
    taken: &'t Taken,
    unit: &'t Unit<'t>,
}

/// What is so once it was committed.
struct Done {
    bytes: u64,
    checkpoint: Checkpoint,
    shapes: Digests,
    baselines: Vec<(String, ChunkProgress)>,
}

enum Failure {
    /// The checkpoint was not where it should be: somebody else has it.
    Lost,
    /// The server refused the rows.
    Copy(Error),
    Sink(SinkError),
}

impl Transaction<'_> {
    async fn run(&self, encoder: &mut Encoder<'_>) -> Result<Done, Failure> {
        let to = self.checkpoint();
        let baselines = self.baselines();
        let new_shapes = self.new_shapes();
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
        let digest = |table: &&audit_core::table::Table| (shape_id(table), table.shape.digest.clone());
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
    async fn begin_with(
        &self,
        shapes: &[&audit_core::table::Table],
        baselines: &[(String, ChunkProgress)],
    ) -> Result<Copy, Failure> {
        let client = &self.session.client;
        let source = &self.taken.identity.source;
        let storing = |error| Failure::Sink(failed("storing shapes and baselines", error));
        client.batch_execute("BEGIN").await.map_err(storing)?;
        for table in shapes {
            if !checkpoint::add_shape(client, source, &table.shape).await.map_err(storing)? {
                let message =
                    format!("cdc_audit.shapes holds another shape of {} under version {}", table.name, table.shape.schema_version);
                return Err(Failure::Sink(SinkError::stop(message).hint("the row was altered by hand, or by another source of the same name")));
            }
        }
        for (table, progress) in baselines {
            checkpoint::set_baseline(client, source, self.sink, table, *progress).await.map_err(storing)?;
        }
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

    fn checkpoint(&self) -> Checkpoint {
        let Identity { source, system_id, timeline } = self.taken.identity.clone();
        let Progress { position, change_lsn, flushed_lsn } = self.unit.progress;
        Checkpoint { source, system_id, timeline, position, change_lsn, flushed_lsn }
    }

    fn baselines(&self) -> Vec<(String, ChunkProgress)> {
        let mut by_table = BTreeMap::new();
        for mark in &self.unit.chunks {
            let progress = ChunkProgress { baseline: mark.baseline, chunk: mark.chunk, done: mark.last };
            by_table.insert(mark.table.to_string(), progress);
        }
        by_table.into_iter().collect()
    }

    /// The tables whose shape is not stored. Pseudo-tables have none.
    fn new_shapes(&self) -> Vec<&audit_core::table::Table> {
        let mut seen = HashSet::new();
        let tables = self.unit.tables.iter().map(|table| table.as_ref());
        tables
            .filter(|table| !table.shape.digest.is_empty())
            .filter(|table| !self.taken.shapes.contains_key(&shape_id(table)) && seen.insert(shape_id(table)))
            .collect()
    }
}

fn shape_id(table: &audit_core::table::Table) -> (String, u32) {
    (table.shape.name().to_string(), table.shape.schema_version)
}

impl Sink for HotSink {
    async fn take(&mut self, identity: &Identity) -> Result<Stored, SinkError> {
        self.taken = None;
        let session = Session::open(&self.config, &self.name).await?;
        let (client, source, sink) = (&session.client, identity.source.as_str(), self.name.as_ref());
        let known = checkpoint::owner(client, source, sink).await.map_err(|error| failed("reading the checkpoint", error))?;
        let Some((known, _)) = known else {
            return Err(checkpoint::missing(source, sink));
        };
        let claimed = checkpoint::claim(&self.config, client, (source, sink), known, &self.process).await?;
        let Owned { owner_epoch, checkpoint } =
            claimed.ok_or_else(|| SinkError::retry(format!("another daemon took sink {sink} at this moment")))?;
        fail::fail_point!("hot::after_take");
        let baselines = checkpoint::baselines(client, source, sink).await?;
        let shapes = checkpoint::shapes(client, source).await?;
        let digest = |shape: &audit_core::shape::Shape| ((shape.name().to_string(), shape.schema_version), shape.digest.clone());
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
        let limits = Limits {
            rows: self.config.batch_rows.max(1) as usize,
            bytes: usize::try_from(self.config.batch_bytes.get()).unwrap_or(usize::MAX).max(1),
        };
        let mut first = 0;
        loop {
            let sink = self.name.clone();
            let taken = self.connected().await?;
            let progress = taken.checkpoint.as_ref().map(Checkpoint::progress).or(taken.start).unwrap_or_default();
            let skip = progress.position.max(taken.start.unwrap_or_default().position);
            let have = Have { sink: &sink, progress, skip, baselines: &taken.baselines };
            let Some(unit) = plan::next(batches, first, &have, limits) else { return Ok(()) };
            self.store(&unit).await?;
            first = unit.next_batch;
        }
    }

    /// Nothing is held back: [`Sink::write`] returns when all is durable.
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

    fn quarantine(&mut self, positions: HashSet<Position>) {
        self.quarantined = positions;
    }

    fn held_bytes(&self) -> usize {
        0
    }
}
