//! The checkpoint's topic: compacted, one partition, written in the transactions of the versions.
//!
//! | key | value |
//! |---|---|
//! | `checkpoint` | [`audit_core::sink::Checkpoint`] |
//! | `baseline/TABLE` | [`ChunkProgress`] |
//! | `shape/TABLE/NUMBER` | [`Shape`] |
//! | `topic/TOPIC` | the table whose versions the topic has; shows whether a missing topic was deleted or never existed |
//! | `owner` | [`Owner`]: who took the sink over last. The fence is the transactional id; this tells who fenced us |
//!
//! It is not known for certain where a partition ends: after a change of leaders a reader may be shown an earlier end
//! for a moment. So a process that takes the sink over writes its own `owner` and reads until it finds that record.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use audit_core::position::Micros;
use audit_core::shape::Shape;
use audit_core::sink::{Action, ChunkProgress, SinkError, Stored};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::{failed, not_created};
use crate::topics::is_unknown;

pub(crate) const CHECKPOINT: &str = "checkpoint";
pub(crate) const OWNER: &str = "owner";
const BASELINE: &str = "baseline/";
const SHAPE: &str = "shape/";
const TOPIC: &str = "topic/";

pub(crate) fn baseline_key(table: &str) -> String {
    format!("{BASELINE}{table}")
}

pub(crate) fn shape_key(shape: &Shape) -> String {
    format!("{SHAPE}{}/{}", shape.name(), shape.schema_version)
}

pub(crate) fn topic_key(topic: &str) -> String {
    format!("{TOPIC}{topic}")
}

/// The process that took the sink over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Distinguishes this takeover from every other one.
    pub token: String,
    /// Process and machine, as text for people.
    pub process: String,
    pub since: String,
}

impl Owner {
    pub fn new(process: &str) -> Owner {
        use std::hash::{BuildHasher, RandomState};
        let token = format!("{:016x}", RandomState::new().hash_one(process));
        Owner { token, process: process.to_owned(), since: Micros::now().to_string() }
    }
}

/// The contents of the topic.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub stored: Stored,
    /// The tables by topic.
    pub topics: BTreeMap<String, String>,
    pub owner: Option<Owner>,
    /// The offset after the last record.
    pub end: i64,
    shapes: BTreeMap<String, Shape>,
}

/// Where reading stops.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until<'u> {
    Owner(&'u Owner),
    /// What a reader is shown as the end of the topic.
    End,
}

/// Reads the topic with `read_committed`. Blocks; gives up after `patience`.
pub(crate) fn read(
    mut client: ClientConfig,
    context: Context,
    group: &str,
    topic: &str,
    until: Until<'_>,
    patience: Duration,
) -> Result<Contents, SinkError> {
    for (key, value) in [
        // librdkafka demands a group; no offset is ever committed under it.
        ("group.id", group),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("isolation.level", "read_committed"),
    ] {
        client.set(key, value);
    }
    let consumer: BaseConsumer<Context> = client.create_with_context(context).map_err(|error| not_created(&error))?;
    let doing = "reading the checkpoint";
    let told = |error: &KafkaError| failed(doing, error, consumer.client().context(), Action::Retry);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).map_err(|error| told(&error))?;
    consumer.assign(&assignment).map_err(|error| told(&error))?;

    let mut contents = Contents::default();
    let begun = Instant::now();
    let mut last = KafkaError::NoMessageReceived;
    while begun.elapsed() < patience {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                contents.take_in(topic, message.key().unwrap_or_default(), message.payload())?;
                contents.end = message.offset() + 1;
                if let (Until::Owner(wanted), Some(found)) = (until, &contents.owner)
                    && found == wanted
                {
                    return Ok(contents.whole());
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {
                if let Until::End = until {
                    return Ok(contents.whole());
                }
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                // The group is only a name; the reader needs no right to it.
                Some(Code::GroupAuthorizationFailed) => {}
                Some(Code::TopicAuthorizationFailed) => return Err(told(&error)),
                // After a takeover the topic exists, because the new owner has written to it, so the error is
                // temporary. Other readers need not wait for a topic that nobody made.
                Some(code) if is_unknown(code) && matches!(until, Until::End) => return Err(told(&error)),
                _ => last = error,
            },
        }
    }
    Err(told(&last))
}

impl Contents {
    fn take_in(&mut self, topic: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), SinkError> {
        let key = std::str::from_utf8(key).unwrap_or_default();
        let name = |prefix: &str| key.strip_prefix(prefix).map(str::to_owned);
        if key == CHECKPOINT {
            self.stored.checkpoint = parse(topic, key, value)?;
        } else if key == OWNER {
            self.owner = parse(topic, key, value)?;
        } else if let Some(table) = name(BASELINE) {
            set(&mut self.stored.baselines, table, parse::<ChunkProgress>(topic, key, value)?);
        } else if let Some(id) = name(SHAPE) {
            set(&mut self.shapes, id, parse(topic, key, value)?);
        } else if let Some(name) = name(TOPIC) {
            set(&mut self.topics, name, parse(topic, key, value)?);
        }
        Ok(())
    }

    fn whole(mut self) -> Contents {
        self.stored.shapes = std::mem::take(&mut self.shapes).into_values().collect();
        self.stored.shapes.sort_by_key(|shape| (shape.name(), shape.schema_version));
        self
    }
}

fn set<T>(map: &mut BTreeMap<String, T>, key: String, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

fn parse<T: DeserializeOwned>(topic: &str, key: &str, value: Option<&[u8]>) -> Result<Option<T>, SinkError> {
    let unreadable = |error: serde_json::Error| {
        SinkError::stop(format!("the record {key} of topic {topic} is not readable"))
            .hint("it was written by hand, or by a later version of cdc-audit")
            .source(error)
    };
    value.map(serde_json::from_slice).transpose().map_err(unreadable)
}
