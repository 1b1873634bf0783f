//! The settings of a session, and the clients that are made from them: [`Settings`].

use std::sync::Arc;
use std::time::Duration;

use audit_core::sink::SinkError;
use rdkafka::ClientConfig;
use rdkafka::producer::ThreadedProducer;
use tokio::sync::Mutex;

use crate::checkpoint::{self, Contents, Until};
use crate::client;
use crate::config::KafkaConfig;
use crate::context::Context;
use crate::error::{no_secret, not_created};
use crate::names;

pub(crate) type Producer = ThreadedProducer<Context>;

/// Bytes of one batch of messages to a partition, before compression: librdkafka's default, and a size that brokers
/// allow.
pub(crate) const BATCH_SIZE: usize = 1_000_000;

/// The settings that a session is opened with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub name: Arc<str>,
    pub config: Arc<KafkaConfig>,
    /// Bytes that undelivered messages may take in memory; also the limit of the largest message.
    pub memory: usize,
    /// Bytes of one batch of messages to a partition, before compression.
    pub batch_size: usize,
    /// Human-readable name of this process.
    pub process: String,
    /// Held during a takeover, until its thread ends: a takeover whose caller gave up would otherwise fence the next
    /// one.
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
        client::client(&self.config).map_err(no_secret)
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
            // The partitioner of the Java producer, so that others who write or look up by key agree on partitions.
            ("partitioner", "murmur2_random".to_owned()),
            ("queue.buffering.max.kbytes", (queue >> 10).to_string()),
            // The limit is on bytes, not on messages.
            ("queue.buffering.max.messages", "0".to_owned()),
            ("message.max.bytes", queue.min(1_000_000_000).to_string()),
            ("batch.size", self.batch_size.to_string()),
            ("delivery.report.only.error", "true".to_owned()),
            // ⚠ With this setting the end of a topic is where its last record is. The end that readers of committed
            // records are shown lags while a broker that has just started still marks the previous transaction as
            // committed, and the topic would look as if it was put back to an earlier state.
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

/// How long a takeover may wait for brokers: a coordinator that has just started, or that is ending the transaction of
/// a killed daemon, only answers that it is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
