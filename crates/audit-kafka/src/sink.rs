//! Kafka as a sink: [`KafkaSink`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use audit_core::batch::{Batch, Progress};
use audit_core::plan::{self, Have, Limits, Places};
use audit_core::position::Position;
use audit_core::quarantine::Quarantine;
use audit_core::sink::{Identity, Sink, SinkError, Stored};
use tracing::{info, warn};

use crate::config::KafkaConfig;
use crate::context::TooLarge;
use crate::produce::restart;
use crate::session::{Failure, Session};
use crate::settings::{BATCH_SIZE, Settings};

/// Writes to topics of one cluster, for one source. Versions are durable after their Kafka transaction is committed,
/// which happens when it is old enough or large enough.
#[derive(Debug)]
pub struct KafkaSink {
    settings: Settings,
    /// Positions of versions that made a transaction fail. The batch of each goes into its own transaction, so that the
    /// version can be named.
    suspects: HashSet<Position>,
    quarantine: Arc<Quarantine>,
    session: Option<Session>,
    durable: Progress,
}

/// The batch size is divided by this after a broker refused a batch as too large.
const SMALLER: usize = 8;

impl KafkaSink {
    /// Makes the sink without connecting. `name` is the sink's name in the configuration, and part of its transactional
    /// id. `memory` is the number of bytes that versions may take in the sink before they are delivered.
    pub fn new(name: impl Into<Arc<str>>, config: &KafkaConfig, memory: usize) -> KafkaSink {
        let settings = Settings {
            name: name.into(),
            config: Arc::new(config.clone()),
            memory,
            batch_size: BATCH_SIZE,
            process: process(),
            turn: Arc::default(),
        };
        KafkaSink {
            settings,
            suspects: HashSet::new(),
            quarantine: Arc::default(),
            session: None,
            durable: Progress::default(),
        }
    }

    fn session(&mut self) -> Result<&mut Session, SinkError> {
        self.session.as_mut().ok_or_else(|| SinkError::not_taken(&self.settings.name))
    }

    /// Writes the batches `from..to`. With `alone` they get their own transaction, which is committed at the end.
    async fn write_some(&mut self, batches: &[&Batch], from: usize, alone: bool) -> Result<(), Failure> {
        let (quarantine, name) = (self.quarantine.clone(), self.settings.name.clone());
        let session = self.session()?;
        if alone {
            session.commit_open().await?;
        }
        let bytes = usize::try_from(session.settings.config.batch_bytes.get()).unwrap_or(usize::MAX).max(1);
        let mut first = from;
        loop {
            let progress = session.sent.progress.unwrap_or(session.start);
            let skip = progress.position.max(session.start.position);
            let have = Have { sink: &name, progress, skip, baselines: &session.sent.baselines };
            let open = session.open.map_or(0, |open| open.bytes);
            let room = if alone { usize::MAX } else { bytes.saturating_sub(open).max(1) };
            let limits = Limits { rows: usize::MAX, bytes: room, places: Places::One };
            let Some(mut unit) = plan::next(batches, first, &have, limits) else { break };
            unit.quarantine(&quarantine);
            session.send(&unit).await?;
            first = unit.next_batch;
            if let Some(open) = &mut session.open {
                open.bytes = open.bytes.saturating_add(unit.bytes);
                let full = open.bytes >= bytes;
                if (full || session.is_due()) && !alone {
                    session.commit().await?;
                }
            }
        }
        if alone {
            session.commit_open().await?;
        }
        Ok(())
    }

    /// Decides what to do about a message that is too large. `alone` means that its batch was the only one in the
    /// transaction, and that the caller still has it.
    async fn too_large(&mut self, large: TooLarge, alone: bool) -> SinkError {
        let TooLarge { position, bytes } = large;
        if self.settings.batch_size > bytes {
            // The broker may have refused the whole batch of messages, not this message.
            let smaller = (self.settings.batch_size / SMALLER).max(bytes).max(1);
            info!(sink = %self.settings.name, bytes = smaller, "batches of messages are made smaller: a broker takes none so large");
            self.settings.batch_size = smaller;
            return restart("a broker refuses a batch of messages as too large");
        }
        if !alone {
            self.suspects.insert(position);
            return restart("a message is too large");
        }
        let Some(session) = &mut self.session else { return SinkError::not_taken(&self.settings.name) };
        if let Err(error) = session.abort().await {
            return error;
        }
        let name = &self.settings.name;
        let message = format!("the version at {position} is too large for its topic: {bytes} bytes");
        let advice = "raise the topic's max.message.bytes, or the daemon's memory_limit";
        SinkError::refusing(name, position, message, Some(advice))
    }

    /// Handles the error of a step: the session continues after an error that names a version, and is over after any
    /// other.
    async fn settle<T>(&mut self, done: Result<T, Failure>, alone: bool) -> Result<T, SinkError> {
        let error = match done {
            Ok(done) => {
                self.note_durable();
                return Ok(done);
            }
            Err(Failure::TooLarge(large)) => self.too_large(large, alone).await,
            Err(Failure::Queue(code)) => match &self.session {
                // A message that failed shows why the queue takes no more.
                Some(session) => match session.undelivered() {
                    Err(Failure::Sink(error)) => error,
                    Err(Failure::TooLarge(large)) => self.too_large(large, alone).await,
                    _ => session.refused_by_queue(code),
                },
                None => SinkError::not_taken(&self.settings.name),
            },
            Err(Failure::Sink(error)) => error,
        };
        self.note_durable();
        let error = match &self.session {
            Some(session) => session.explain(error).await,
            None => error,
        };
        if error.refused.is_none() {
            self.session = None;
        }
        Err(error)
    }

    fn note_durable(&mut self) {
        if let Some(progress) = self.session.as_ref().and_then(|session| session.committed.progress) {
            self.durable = progress;
            self.suspects.retain(|position| *position > progress.position);
        }
    }

    /// The first batch, starting at `from`, with a version that made a transaction fail.
    fn suspicious(&self, batches: &[&Batch], from: usize) -> Option<usize> {
        if self.suspects.is_empty() {
            return None;
        }
        let has = |batch: &&Batch| batch.versions().any(|version| self.suspects.contains(&version.position()));
        batches.iter().skip(from).position(has).map(|index| from + index)
    }
}

impl Sink for KafkaSink {
    async fn take(&mut self, identity: &Identity) -> Result<Stored, SinkError> {
        self.session = None;
        let (session, stored) = Session::take(self.settings.clone(), identity).await?;
        self.session = Some(session);
        self.durable = stored.checkpoint.as_ref().map(|checkpoint| checkpoint.progress()).unwrap_or_default();
        Ok(stored)
    }

    async fn begin(&mut self, start: Progress) -> Result<(), SinkError> {
        let session = self.session()?;
        session.start = start;
        if session.committed.progress.is_some() {
            return Ok(());
        }
        session.sent.progress = Some(start);
        let done = session.commit().await;
        self.settle(done, false).await
    }

    async fn write(&mut self, batches: &[&Batch]) -> Result<(), SinkError> {
        let mut first = 0;
        while first < batches.len() {
            let suspicious = self.suspicious(batches, first);
            let alone = suspicious == Some(first);
            let end = if alone { first + 1 } else { suspicious.unwrap_or(batches.len()) };
            if alone {
                warn!(sink = %self.settings.name, "a batch is written by itself: a transaction failed of a version in it");
            }
            let done = self.write_some(&batches[..end], first, alone).await;
            self.settle(done, alone).await?;
            first = end;
        }
        Ok(())
    }

    async fn flush(&mut self, all: bool) -> Result<(), SinkError> {
        if all || self.session.as_ref().is_some_and(Session::is_due) {
            let done = self.session()?.commit_open().await;
            self.settle(done, false).await?;
        }
        Ok(())
    }

    fn due(&self) -> Option<Instant> {
        self.session.as_ref()?.due()
    }

    fn durable(&self) -> Progress {
        self.durable
    }

    fn quarantine(&mut self, quarantine: Arc<Quarantine>) {
        self.quarantine = quarantine;
    }

    fn held_bytes(&self) -> usize {
        let Some(session) = &self.session else { return 0 };
        let open = session.open.map_or(0, |open| open.bytes);
        open.min(self.settings.memory) + session.encoder.held_bytes()
    }
}

/// A description of this process by which people can find it.
fn process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("process {} on {}", std::process::id(), host.trim())
}
