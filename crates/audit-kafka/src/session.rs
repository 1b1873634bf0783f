//! A producer that has the sink's transactional id, and what it has sent and stored ([`Session`]).
//!
//! ```text
//! take: init transactions (ends the former owner's) ─▶ write `owner` ─▶ read the checkpoint's topic until `owner` comes
//! send: begin ─▶ versions, shapes, baselines ─▶ …            commit: the checkpoint ─▶ commit transaction
//! ```
//!
//! The transactional id is the fence: whoever inits it last is the only one whose transactions brokers commit. Nothing here inits it a second
//! time, since that would fence whoever took over meanwhile; after an error that is not the transaction's own the session is thrown away, and
//! the stream begins again with a new `take`, behind the slot's lock. So a commit whose answer was lost needs no treatment of its own: `take`
//! waits until brokers have ended it in one way or the other, and the checkpoint's topic says in which.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_core::batch::Progress;
use audit_core::plan::{Digests, Unit, shape_id};
use audit_core::sink::{Action, Checkpoint, ChunkProgress, Identity, SinkError, Stored};
use audit_core::table::Table;
use audit_format::Encoder;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use serde::Serialize;
use tokio::sync::Mutex;

use crate::access;
use crate::checkpoint::{self, CHECKPOINT, Contents, Owner, Until};
use crate::config::KafkaConfig;
use crate::context::{Context, TooLarge};
use crate::failure::{failed, is_fence, no_secret, not_created, of_code};
use crate::names;
use crate::take;
use crate::topics::{self, Kind, SETTLED, Topics, code_of};

pub(crate) type Producer = ThreadedProducer<Context>;

/// What a session is opened with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub name: Arc<str>,
    pub config: Arc<KafkaConfig>,
    /// What messages may take that are not delivered yet, and at most the largest of them, in bytes.
    pub memory: usize,
    /// Of one batch of messages to a partition, before compression, in bytes.
    pub batch_size: usize,
    /// Of this process, for people.
    pub process: String,
    /// Held by whoever takes the sink over, to the end of its thread: one that was given up would fence the next.
    pub turn: Arc<Mutex<()>>,
}

impl Settings {
    pub fn transactional_id(&self, source: &str) -> String {
        format!("cdc-audit.{source}.{}", self.name)
    }

    pub fn checkpoint_topic(&self, source: &str) -> Result<String, SinkError> {
        match self.config.checkpoint_topic(source, &self.name) {
            topic if names::is_allowed(&topic) => Ok(topic),
            topic => Err(SinkError::stop(format!("no topic can be called {topic}")).hint("change checkpoint_topic")),
        }
    }

    pub fn context(&self) -> Context {
        let token_file = self.config.sasl.as_ref().and_then(|sasl| sasl.token_file.clone());
        Context::new(&self.name, token_file)
    }

    pub fn client(&self) -> Result<ClientConfig, SinkError> {
        access::client(&self.config).map_err(no_secret)
    }

    pub fn producer(&self, source: &str) -> Result<Producer, SinkError> {
        let mut client = self.client()?;
        let queue = (self.memory / 3).max(1 << 20);
        for (key, value) in [
            ("transactional.id", self.transactional_id(source)),
            ("transaction.timeout.ms", self.config.transaction_timeout.get().as_millis().to_string()),
            ("enable.idempotence", "true".to_owned()),
            ("acks", "all".to_owned()),
            ("compression.type", self.config.compression.name().to_owned()),
            // What Java's producer does, so that others who write or look up by key agree.
            ("partitioner", "murmur2_random".to_owned()),
            ("queue.buffering.max.kbytes", (queue >> 10).to_string()),
            // The bytes are the limit.
            ("queue.buffering.max.messages", "0".to_owned()),
            ("message.max.bytes", queue.min(1_000_000_000).to_string()),
            ("batch.size", self.batch_size.to_string()),
            ("delivery.report.only.error", "true".to_owned()),
            // ⚠ The end of a topic is then where its last record is. The end that consumers of committed records are shown lags while a
            // broker that has just started still marks the transaction before as committed: it looks like a topic that was put back.
            ("isolation.level", "read_uncommitted".to_owned()),
        ] {
            client.set(key, value);
        }
        client.create_with_context(self.context()).map_err(|error| not_created(&error))
    }

    /// Reads the checkpoint's topic. Blocks.
    pub fn read(&self, source: &str, until: Until<'_>) -> Result<Contents, SinkError> {
        let (topic, group) = (self.checkpoint_topic(source)?, self.transactional_id(source));
        checkpoint::read(self.client()?, self.context(), &group, &topic, until, PATIENCE)
    }
}

/// How long taking the sink may wait for brokers: a coordinator that has just started, or that ends what a killed daemon left, answers
/// only that it is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What was sent, or what is committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub progress: Option<Progress>,
    pub baselines: BTreeMap<String, ChunkProgress>,
    shapes: Digests,
}

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    Sink(SinkError),
    /// A message is too large for the topic, or for us. The transaction cannot be committed.
    TooLarge(TooLarge),
    /// The producer takes no more messages.
    Queue(Code),
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Failure {
        Failure::Sink(error)
    }
}

/// A transaction that is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub since: Instant,
    /// Share of the batches that its versions came from, in bytes.
    pub bytes: usize,
    /// Brokers were asked to commit it, and may have done so.
    asked: bool,
}

pub(crate) struct Session {
    pub settings: Settings,
    identity: Identity,
    owner: Owner,
    checkpoint_topic: Arc<str>,
    /// Where it ended, as far as this process has read and written.
    end: i64,
    producer: Option<Arc<Producer>>,
    pub(crate) topics: Topics,
    pub(crate) encoder: Encoder,
    /// Where the stream began.
    pub start: Progress,
    pub sent: State,
    pub committed: State,
    /// The sent state has more than another position.
    news: bool,
    pub open: Option<Open>,
    /// How long the last commit took.
    commit_took: Duration,
}

/// Of the time, what commits may take while there is much to write: one part in so many.
const COMMITS_SHARE: u32 = 10;

/// A transaction with this part of `batch_bytes` has much in it.
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

    /// Sends what stands beside a unit's versions, and counts both as sent.
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
    pub fn record(&self, key: &str, value: &impl Serialize) -> Result<(), SinkError> {
        send_record(self.producer()?, &self.checkpoint_topic, key, value)
    }

    /// Commits what is open, with the checkpoint in it.
    pub async fn commit(&mut self) -> Result<(), Failure> {
        let Some(progress) = self.sent.progress else { return Ok(()) };
        self.begin()?;
        self.record(CHECKPOINT, &Checkpoint::new(&self.identity, progress))?;
        fail::fail_point!("kafka::before_commit");
        let (producer, patience) = (self.producer()?.clone(), self.settings.config.transaction_timeout.get());
        let (topic, known) = (self.checkpoint_topic.clone(), self.end);
        let begun = Instant::now();
        let end = off_thread(move || end_beyond(&producer, &topic, known, patience)).await?;
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
        self.topics.open.clear();
        self.committed.progress = self.sent.progress;
        if std::mem::take(&mut self.news) {
            self.committed = self.sent.clone();
        }
        Ok(())
    }

    /// When the open transaction is committed, whatever is in it. Brokers take no messages while they commit: a sink that has much to write
    /// would otherwise wait for them most of the time.
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

    /// [`Session::commit`], if anything is open.
    pub async fn commit_open(&mut self) -> Result<(), Failure> {
        match self.open {
            Some(_) => self.commit().await,
            None => Ok(()),
        }
    }

    fn not_committed(&mut self, error: &KafkaError) -> Failure {
        match self.undelivered() {
            Err(failure @ Failure::TooLarge(_)) => {
                // It was not asked for: the producer knows that the transaction cannot be committed.
                if let Some(open) = &mut self.open {
                    open.asked = false;
                }
                failure
            }
            Err(failure) => failure,
            Ok(()) => Failure::Sink(self.broken("committing versions", error)),
        }
    }

    /// What librdkafka has given up meanwhile.
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
            // Whether it is gone is seen to when the stream begins again.
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

    /// Why no message can be sent, where none failed that says it.
    pub fn refused_by_queue(&self, code: Code) -> SinkError {
        self.broken("sending versions", &KafkaError::MessageProduction(code))
    }

    /// An error of the producer: the session is over, and another `take` may do better.
    pub fn broken(&self, doing: &str, error: &KafkaError) -> SinkError {
        match (&self.producer, code_of(error)) {
            (_, code) if is_fence(code) => SinkError::fenced(format!("{doing} failed in Kafka")).source(error.clone()),
            (Some(producer), _) => failed(doing, error, producer.client().context(), Action::Restart),
            (None, code) => of_code(doing, code, None, Action::Restart),
        }
    }

    /// Who fenced us: another daemon, or brokers that gave up a transaction that was open for too long.
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
            // The slot says who goes on.
            _ => restart(
                "brokers gave up the transaction: it was open for longer than transaction_timeout, or is another's",
            ),
        }
    }

    /// Counts a topic as written to, once that is committed.
    pub fn note_topic(&mut self, table: &Table, topic: &str) -> Result<(), SinkError> {
        if !self.topics.written.contains_key(topic) {
            self.record(&checkpoint::topic_key(topic), &table.name.as_ref())?;
            self.topics.written.insert(topic.to_owned(), table.name.to_string());
            self.topics.open.push(topic.to_owned());
        }
        Ok(())
    }

    /// Undoes what is open. The producer is as good as before.
    pub async fn abort(&mut self) -> Result<(), SinkError> {
        if self.open.is_some() {
            let producer = self.producer()?.clone();
            let aborted = off_thread(move || producer.abort_transaction(PATIENCE)).await?;
            aborted.map_err(|error| self.broken("giving up a transaction", &error))?;
            self.producer()?.client().context().forget();
            self.open = None;
        }
        self.topics.abort();
        self.sent = self.committed.clone();
        self.news = false;
        Ok(())
    }

    /// Looks for the topics of tables that are new to this session, and makes what may be made.
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
                    return Err(topics::missing(&topic, written));
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
        // What is made again is asked for again.
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
    /// Ending a producer takes its time. Consumers need not wait for the time-out of a transaction that nobody asked to commit.
    fn drop(&mut self) {
        let abort = self.open.is_some_and(|open| !open.asked);
        let Some(producer) = self.producer.take() else { return };
        std::thread::spawn(move || {
            if abort {
                // What is wrong with it was said before.
                let _ = producer.abort_transaction(Duration::from_secs(5));
            }
        });
    }
}

pub(crate) fn restart(message: &str) -> SinkError {
    SinkError::new(Action::Restart, message)
}

/// Runs what blocks away from the tasks.
pub(crate) async fn off<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    off_thread(work).await?
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SinkError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| restart("a task ended by itself").source(error))
}

/// There is no checkpoint's topic.
pub(crate) fn no_checkpoint(topic: &str) -> SinkError {
    SinkError::stop(format!("topic {topic}, which holds the sink's checkpoint, does not exist")).hint(
        "run `cdc-audit setup`, which makes it; if there was one, restore it instead: with an empty one the sink begins anew",
    )
}

pub(crate) fn send_record(
    producer: &Producer,
    topic: &str,
    key: &str,
    value: &impl Serialize,
) -> Result<(), SinkError> {
    let text = serde_json::to_vec(value).map_err(|error| SinkError::stop("a record has no JSON form").source(error))?;
    let mut record = BaseRecord::to(topic).partition(0).key(key).payload(&text);
    loop {
        let Err((error, back)) = producer.send(record) else { return Ok(()) };
        if code_of(&error) != Code::QueueFull || producer.client().context().failing() {
            return Err(failed("writing the checkpoint", &error, producer.client().context(), Action::Restart));
        }
        record = back;
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until everything is delivered, and commits. Blocks.
pub(crate) fn commit(producer: &Producer, patience: Duration) -> Result<(), KafkaError> {
    deliver(producer, patience)?;
    producer.commit_transaction(patience)
}

/// Where the checkpoint's topic ends, once everything is delivered, committed or not; `None` where that is not beyond the end that was `known`,
/// although more was written: then the topic was put back to an earlier state. After a change of leaders an earlier end may be shown for a moment. Blocks.
fn end_beyond(producer: &Producer, topic: &str, known: i64, patience: Duration) -> Result<Option<i64>, KafkaError> {
    deliver(producer, patience)?;
    let begun = Instant::now();
    loop {
        match producer.client().fetch_watermarks(topic, 0, patience) {
            Ok((_, end)) if end > known => return Ok(Some(end)),
            Ok(_) if begun.elapsed() > SETTLED => return Ok(None),
            Err(error) if begun.elapsed() > patience => return Err(error),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Waits until everything is delivered. What is still under way after `patience` is an error: nothing that comes after it counts.
fn deliver(producer: &Producer, patience: Duration) -> Result<(), KafkaError> {
    // The library's own flush looks at its queue every 100 ms only.
    let begun = Instant::now();
    while producer.in_flight_count() > 0 && !producer.client().context().failing() && begun.elapsed() < patience {
        std::thread::sleep(Duration::from_micros(500));
    }
    match producer.in_flight_count() {
        _ if producer.client().context().failing() => Err(KafkaError::Flush(Code::PurgeQueue)),
        0 => Ok(()),
        _ => Err(KafkaError::Flush(Code::OperationTimedOut)),
    }
}
