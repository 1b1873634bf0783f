//! A producer that has the sink's transactional id, and what it has sent and stored ([`Session`]).
//!
//! ```text
//! take: init transactions (ends the former owner's) ─▶ write `owner` ─▶ read the checkpoint's topic until `owner`
//! send: begin ─▶ versions, shapes, baselines ─▶ …            commit: the checkpoint ─▶ commit transaction
//! ```
//!
//! The transactional id is the fence: brokers commit only transactions of the process that initialised it last. A
//! session never initialises it a second time, because that would fence a process that took the sink over in the
//! meantime. After an error that is not the transaction's own, the session is dropped and the stream begins again with
//! a new `take`, which needs the lock of the replication slot. So a commit whose answer was lost needs no special
//! treatment: `take` waits until the brokers have either committed or aborted it, and the checkpoint's topic shows
//! which.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_core::batch::Progress;
use audit_core::plan::{Digests, Unit, shape_id};
use audit_core::sink::{Action, Checkpoint, ChunkProgress, Identity, SinkError, Stored};
use audit_core::table::Table;
use audit_format::Encoder;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::Producer as _;
use serde::Serialize;

use crate::checkpoint::{self, CHECKPOINT, Contents, Owner, Until};
use crate::context::TooLarge;
use crate::error::{failed, is_fence, of_code};
use crate::produce::{end_beyond, off, off_thread, restart, send_record};
use crate::settings::{PATIENCE, Producer, Settings};
use crate::take;
use crate::topics::{self, Kind, SETTLED, Topics, code_of};

/// What was sent, or what is committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub progress: Option<Progress>,
    pub baselines: BTreeMap<String, ChunkProgress>,
    shapes: Digests,
}

/// Why an action failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Sink(SinkError),
    /// A message is too large for the topic or for our memory limit. The transaction cannot be committed.
    TooLarge(TooLarge),
    /// The producer takes no more messages.
    Queue(Code),
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Failure {
        Failure::Sink(error)
    }
}

/// An open transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub since: Instant,
    /// Bytes: the share of its versions in their batches.
    pub bytes: usize,
    /// Brokers were asked to commit it, and may have done so.
    asked: bool,
}

pub(crate) struct Session {
    pub settings: Settings,
    identity: Identity,
    owner: Owner,
    checkpoint_topic: Arc<str>,
    /// Where the checkpoint's topic ended, as far as this process has read and written.
    end: i64,
    /// Records that the open transaction has in the checkpoint's topic.
    records: i64,
    producer: Option<Arc<Producer>>,
    pub(crate) topics: Topics,
    pub(crate) encoder: Encoder,
    /// Where the stream began.
    pub start: Progress,
    pub sent: State,
    pub committed: State,
    /// The sent state differs from the committed one in more than the position.
    news: bool,
    pub open: Option<Open>,
    /// How long the last commit took.
    commit_took: Duration,
}

/// While there is much to write, commits may take one part in this many of the time.
const COMMITS_SHARE: u32 = 10;

/// A transaction has much in it if it holds more than `batch_bytes` divided by this.
const MUCH: usize = 32;

impl Session {
    /// Takes the sink over, and reads what is stored.
    pub async fn take(settings: Settings, identity: &Identity) -> Result<(Session, Stored), SinkError> {
        let owner = Owner::new(&settings.process);
        let (producer, contents) = take::take_over(&settings, &identity.source, &owner).await?;
        fail::fail_point!("kafka::after_take");
        let at = contents.stored.checkpoint.as_ref().map(|checkpoint| checkpoint.position.to_string());
        tracing::info!(sink = %settings.name, at, "took the sink over");
        let Contents { stored, topics, end, .. } = contents;
        let state = State {
            progress: stored.checkpoint.as_ref().map(Checkpoint::progress),
            baselines: stored.baselines.clone(),
            shapes: stored.shapes.iter().map(|shape| (shape_id(shape), shape.digest.clone())).collect(),
        };
        let session = Session {
            identity: identity.clone(),
            owner,
            checkpoint_topic: settings.checkpoint_topic(&identity.source)?.into(),
            end,
            records: 0,
            producer: Some(producer),
            topics: Topics::new(&settings.config, &identity.source, topics),
            encoder: Encoder::new(&settings.config.format, &identity.source),
            start: Progress::default(),
            sent: state.clone(),
            committed: state,
            news: false,
            open: None,
            commit_took: Duration::ZERO,
            settings,
        };
        Ok((session, stored))
    }

    pub(crate) fn producer(&self) -> Result<&Arc<Producer>, SinkError> {
        self.producer.as_ref().ok_or_else(|| restart("the producer is in use"))
    }

    /// Opens a transaction, unless one is open.
    pub fn begin(&mut self) -> Result<&mut Open, SinkError> {
        if self.open.is_none() {
            let producer = self.producer()?;
            producer.client().context().forget();
            producer.begin_transaction().map_err(|error| self.broken("beginning a transaction", &error))?;
        }
        let open = self.open.get_or_insert_with(|| Open { since: Instant::now(), bytes: 0, asked: false });
        match open.asked {
            true => Err(restart("a commit was left half-way")),
            false => Ok(open),
        }
    }

    /// Sends the shapes and baselines of a unit, and counts them and its versions as sent.
    pub fn sent(&mut self, unit: &Unit<'_>) -> Result<(), SinkError> {
        for table in unit.new_shapes(&self.sent.shapes) {
            self.record(&checkpoint::shape_key(&table.shape), table.shape.as_ref())?;
            self.sent.shapes.insert(shape_id(&table.shape), table.shape.digest.clone());
            self.news = true;
        }
        for (table, progress) in unit.baselines() {
            self.record(&checkpoint::baseline_key(&table), &progress)?;
            self.sent.baselines.insert(table, progress);
            self.news = true;
        }
        self.sent.progress = Some(unit.progress);
        Ok(())
    }

    /// Sends a record to the checkpoint's topic.
    pub fn record(&mut self, key: &str, value: &impl Serialize) -> Result<(), SinkError> {
        send_record(self.producer()?, &self.checkpoint_topic, key, value)?;
        self.records += 1;
        Ok(())
    }

    /// Commits the open transaction, with the checkpoint in it.
    pub async fn commit(&mut self) -> Result<(), Failure> {
        let Some(progress) = self.sent.progress else { return Ok(()) };
        self.begin()?;
        self.record(CHECKPOINT, &Checkpoint::new(&self.identity, progress))?;
        fail::fail_point!("kafka::before_commit");
        let (producer, patience) = (self.producer()?.clone(), self.settings.config.transaction_timeout.get());
        let (topic, known, records) = (self.checkpoint_topic.clone(), self.end, self.records);
        let begun = Instant::now();
        let end = off_thread(move || end_beyond(&producer, &topic, known + records, patience)).await?;
        match end {
            Ok(Some(end)) => self.end = end,
            Ok(None) => return Err(SinkError::went_back(&format!("topic {}", self.checkpoint_topic)).into()),
            Err(error) => return Err(self.not_committed(&error)),
        }
        if let Some(open) = &mut self.open {
            open.asked = true;
        }
        let producer = self.producer()?.clone();
        let done = off_thread(move || producer.commit_transaction(patience)).await?;
        self.commit_took = begun.elapsed();
        fail::fail_point!("kafka::after_commit");
        if let Err(error) = done {
            return Err(self.not_committed(&error));
        }
        self.open = None;
        self.records = 0;
        self.topics.open.clear();
        self.committed.progress = self.sent.progress;
        if std::mem::take(&mut self.news) {
            self.committed = self.sent.clone();
        }
        Ok(())
    }

    /// When the open transaction is committed, however little it holds. Brokers take no messages while they commit, so
    /// a sink that has much to write would otherwise spend most of its time waiting for commits.
    pub fn due(&self) -> Option<Instant> {
        let (open, config) = (self.open?, &self.settings.config);
        let much = usize::try_from(config.batch_bytes.get()).unwrap_or(usize::MAX) / MUCH;
        let longest = config.transaction_timeout.get() / 4;
        let after = match open.bytes < much {
            true => config.commit_after.get(),
            false => config.commit_after.get().max((self.commit_took * COMMITS_SHARE).min(longest)),
        };
        Some(open.since + after)
    }

    pub fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }

    /// Does a [`Session::commit`] if a transaction is open.
    pub async fn commit_open(&mut self) -> Result<(), Failure> {
        match self.open {
            Some(_) => self.commit().await,
            None => Ok(()),
        }
    }

    fn not_committed(&mut self, error: &KafkaError) -> Failure {
        match self.undelivered() {
            Err(failure @ Failure::TooLarge(_)) => {
                // The producer knows that the transaction cannot be committed, and did not ask the brokers to.
                if let Some(open) = &mut self.open {
                    open.asked = false;
                }
                failure
            }
            Err(failure) => failure,
            Ok(()) => Failure::Sink(self.broken("committing versions", error)),
        }
    }

    /// Returns an error if librdkafka could not deliver a message.
    pub fn undelivered(&self) -> Result<(), Failure> {
        let producer = self.producer()?;
        let context = producer.client().context();
        if !context.failing() {
            return Ok(());
        }
        let failures = context.failures();
        match (failures.first, failures.too_large) {
            (Some((Code::MessageSizeTooLarge, _)), Some(large)) => Err(Failure::TooLarge(large)),
            (Some((Code::MessageSizeTooLarge, topic)), None) => {
                let message = format!("a record is larger than topic {topic} allows");
                Err(SinkError::stop(message).hint("raise its max.message.bytes; nothing is lost meanwhile").into())
            }
            // When the stream begins again, it is checked whether the topic is gone.
            (Some((code, topic)), _) if topics::is_unknown(code) => {
                Err(restart(&format!("topic {topic} was not found")).into())
            }
            (Some((code, topic)), _) if is_fence(code) => {
                Err(SinkError::fenced(format!("topic {topic} takes nothing from us any more")).into())
            }
            (Some((code, topic)), _) => {
                Err(of_code(&format!("writing to topic {topic}"), code, None, Action::Restart).into())
            }
            (None, _) => Ok(()),
        }
    }

    /// The error for a queue that refuses a message when no failed message shows the cause.
    pub fn refused_by_queue(&self, code: Code) -> SinkError {
        self.broken("sending versions", &KafkaError::MessageProduction(code))
    }

    /// The error for a failure of the producer: this session is over, and a new `take` may succeed.
    pub fn broken(&self, doing: &str, error: &KafkaError) -> SinkError {
        match (&self.producer, code_of(error)) {
            (_, code) if is_fence(code) => SinkError::fenced(format!("{doing} failed in Kafka")).source(error.clone()),
            (Some(producer), _) => failed(doing, error, producer.client().context(), Action::Restart),
            (None, code) => of_code(doing, code, None, Action::Restart),
        }
    }

    /// Finds out who fenced us: another daemon, or brokers that aborted a transaction because it was open for too long.
    pub async fn explain(&self, error: SinkError) -> SinkError {
        if error.action != Action::Fenced {
            return error;
        }
        let (settings, source) = (self.settings.clone(), self.identity.source.clone());
        let read = off(move || settings.read(&source, Until::End)).await;
        match read.map(|contents| contents.owner) {
            Ok(Some(owner)) if owner.token != self.owner.token => {
                let message = format!(
                    "another daemon owns sink {}: {}, since {}",
                    self.settings.name, owner.process, owner.since
                );
                SinkError::fenced(message).hint("let one daemon run for a source; if that is this one, start it again")
            }
            // The replication slot decides which daemon continues.
            _ => restart(
                "brokers gave up the transaction: it was open for longer than transaction_timeout, or is another's",
            ),
        }
    }

    /// Counts a topic as written to after the open transaction is committed.
    pub fn note_topic(&mut self, table: &Table, topic: &str) -> Result<(), SinkError> {
        if !self.topics.written.contains_key(topic) {
            self.record(&checkpoint::topic_key(topic), &table.name.as_ref())?;
            self.topics.written.insert(topic.to_owned(), table.name.to_string());
            self.topics.open.push(topic.to_owned());
        }
        Ok(())
    }

    /// Aborts the open transaction. Afterwards the producer can be used as before.
    pub async fn abort(&mut self) -> Result<(), SinkError> {
        if self.open.is_some() {
            let producer = self.producer()?.clone();
            let aborted = off_thread(move || producer.abort_transaction(PATIENCE)).await?;
            aborted.map_err(|error| self.broken("giving up a transaction", &error))?;
            self.producer()?.client().context().forget();
            self.open = None;
        }
        self.records = 0;
        self.topics.abort();
        self.sent = self.committed.clone();
        self.news = false;
        Ok(())
    }

    /// Looks for the topics of tables that are new to this session, and makes missing ones if that is allowed.
    pub async fn find_topics(&mut self, unit: &Unit<'_>) -> Result<(), SinkError> {
        let mut missing = Vec::new();
        for table in &unit.tables {
            if self.topics.known(table).is_some() {
                continue;
            }
            let topic = self.topics.name(table)?;
            let written = self.topics.written.contains_key(topic.as_ref());
            let may_be_made = !written && self.settings.config.create_topics;
            let (producer, wanted) = (self.producer()?.clone(), topic.clone());
            let patience = if may_be_made { Duration::ZERO } else { SETTLED };
            if off(move || topics::partitions(producer.client(), &wanted, patience)).await?.is_none() {
                if !may_be_made {
                    return Err(topics::missing(&topic, written, &self.settings.config.place()));
                }
                if !missing.contains(&topic) {
                    missing.push(topic.clone());
                }
            }
            self.topics.found(table, topic);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Vec<&str> = missing.iter().map(AsRef::as_ref).collect();
        let made = topics::create(&self.settings.config, &self.settings.name, &missing, Kind::Table).await;
        // The topics already count as found in this session; only a restart looks for them again.
        made.map_err(|error| match error.action {
            Action::Retry => SinkError { action: Action::Restart, ..error },
            _ => error,
        })
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("owner", &self.owner).field("open", &self.open).finish_non_exhaustive()
    }
}

impl Drop for Session {
    /// Ends the producer on another thread, because that takes time. An open transaction that nobody asked to commit is
    /// aborted, so that consumers need not wait until it times out.
    fn drop(&mut self) {
        let abort = self.open.is_some_and(|open| !open.asked);
        let Some(producer) = self.producer.take() else { return };
        std::thread::spawn(move || {
            if abort {
                // An error of this producer was already reported.
                let _ = producer.abort_transaction(Duration::from_secs(5));
            }
        });
    }
}
