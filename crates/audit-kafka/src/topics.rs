//! The tables' topics: their names, and how they are found and made ([`Topics`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_core::sink::{Action, SinkError};
use audit_core::table::Table;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use crate::client;
use crate::config::KafkaConfig;
use crate::context::Context;
use crate::error::{failed, no_secret, not_created, of_code};
use crate::names;

/// How long brokers may take to answer a request that changes nothing.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// How long one such request may take before its error is examined.
const TRY: Duration = Duration::from_secs(2);

/// How long a missing topic is looked for, because a broker that has just started does not know all topics yet.
pub(crate) const SETTLED: Duration = Duration::from_secs(5);

/// The topics, by the tables whose versions they hold.
#[derive(Debug)]
pub(crate) struct Topics {
    source: String,
    template: String,
    /// Whether the template makes tables share topics.
    shared: bool,
    by_table: BTreeMap<Arc<str>, Arc<str>>,
    /// Topics that were written to in a committed transaction or in the open one, and the first table in each.
    pub written: BTreeMap<String, String>,
    /// Topics that were written to in the open transaction only.
    pub open: Vec<String>,
}

impl Topics {
    pub fn new(config: &KafkaConfig, source: &str, written: BTreeMap<String, String>) -> Topics {
        Topics {
            source: source.to_owned(),
            template: config.topic.clone(),
            shared: config.is_shared(),
            by_table: BTreeMap::new(),
            written,
            open: Vec::new(),
        }
    }

    /// The table's topic, if it was found in this session.
    pub fn known(&self, table: &Table) -> Option<&Arc<str>> {
        self.by_table.get(&table.name)
    }

    /// The table's topic. Two tables have the same topic only if the template says so.
    pub fn name(&self, table: &Table) -> Result<Arc<str>, SinkError> {
        let name = table.shape.name();
        let Some(topic) = names::topic(&self.template, &self.source, &name) else {
            return Err(SinkError::stop(format!("no topic can be called after table {name}: the name is too long"))
                .hint("change `topic` in the sink's section; nothing is lost meanwhile"));
        };
        let here = self.by_table.iter().find(|(_, known)| ***known == *topic).map(|(other, _)| other.as_ref());
        let other = here.or_else(|| self.written.get(&topic).map(String::as_str));
        match other.filter(|other| !self.shared && **other != *table.name) {
            Some(other) => Err(SinkError::stop(format!("tables {other} and {name} would share topic {topic}"))
                .hint("let `topic` tell them apart, or leave {table} out of it to have them share one; nothing is lost meanwhile")),
            None => Ok(topic.into()),
        }
    }

    /// Forgets what the open transaction wrote to, because it was aborted.
    pub fn abort(&mut self) {
        for topic in self.open.drain(..) {
            self.written.remove(&topic);
        }
    }

    pub fn found(&mut self, table: &Table, topic: Arc<str>) {
        self.by_table.insert(table.name.clone(), topic);
    }
}

/// The number of partitions of a topic; `None` if the topic does not exist and does not appear within `patience`.
/// Blocks.
pub(crate) fn partitions(
    client: &Client<Context>,
    topic: &str,
    patience: Duration,
) -> Result<Option<usize>, SinkError> {
    let begun = Instant::now();
    loop {
        let doing = format!("looking for topic {topic}");
        let metadata = match client.fetch_metadata(Some(topic), TRY) {
            Ok(metadata) => metadata,
            Err(error) => {
                let error = failed(&doing, &error, client.context(), Action::Restart);
                // Credentials that were refused once are refused again.
                if error.action == Action::Stop || begun.elapsed() > ANSWER {
                    return Err(error);
                }
                continue;
            }
        };
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let error = found.and_then(|found| found.error());
        match (found, error) {
            (Some(found), None) if !found.partitions().is_empty() => return Ok(Some(found.partitions().len())),
            (_, None | Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)) => {}
            (_, Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE)) => {}
            (_, Some(error)) => return Err(of_code(&doing, Code::from(error), None, Action::Restart)),
        }
        if begun.elapsed() >= patience {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What a topic is for, which decides its settings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Table,
    Checkpoint,
}

/// The checkpoint's log is read at every start: small segments that are cleaned early keep it short.
const CHECKPOINT_SETTINGS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "4194304"),
    ("segment.ms", "3600000"),
    ("min.cleanable.dirty.ratio", "0.1"),
];

/// Makes topics, unless they exist.
pub(crate) async fn create(config: &KafkaConfig, sink: &str, topics: &[&str], kind: Kind) -> Result<(), SinkError> {
    let client = client::client(config).map_err(no_secret)?;
    let admin: AdminClient<Context> =
        client.create_with_context(Context::new(sink, None)).map_err(|error| not_created(&error))?;
    let partitions = match kind {
        Kind::Table => config.partitions.map_or(-1, i32::from),
        Kind::Checkpoint => 1,
    };
    let replicas = config.replication_factor.map_or(-1, i32::from);
    let settings: Vec<(&str, &str)> = match kind {
        Kind::Table => config.topic_settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        Kind::Checkpoint => CHECKPOINT_SETTINGS.to_vec(),
    };
    let new = |topic| {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas));
        settings.iter().fold(new, |new, (key, value)| new.set(key, value))
    };
    let new: Vec<NewTopic<'_>> = topics.iter().copied().map(new).collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
    let made = admin.create_topics(&new, &options).await;
    let made = made.map_err(|error| failed("making topics", &error, admin.inner().context(), Action::Retry))?;
    for topic in made {
        match topic {
            Ok(topic) => tracing::info!(sink, topic, "made a topic"),
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(of_code(&format!("making topic {topic}"), code, None, Action::Retry)),
        }
    }
    Ok(())
}

/// The hint for an operator who has to make a topic by hand.
pub(crate) fn make_by_hand(topic: &str, brokers: &str) -> String {
    format!(
        "make it (`kafka-topics.sh --bootstrap-server {brokers} --create --topic {topic} --partitions N`), and start again; \
         nothing is lost meanwhile"
    )
}

/// The error for a topic that was deleted, or that never existed.
pub(crate) fn missing(topic: &str, written: bool, brokers: &str) -> SinkError {
    let message = match written {
        true => format!("topic {topic} is gone, with the versions that it held"),
        false => format!("topic {topic} does not exist, and create_topics is false"),
    };
    SinkError::stop(message).hint(make_by_hand(topic, brokers))
}

/// Whether an error means that a topic does not exist.
pub(crate) fn is_unknown(code: Code) -> bool {
    matches!(code, Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopicId)
}

/// The code of a client's error.
pub(crate) fn code_of(error: &KafkaError) -> Code {
    error.rdkafka_error_code().unwrap_or(Code::Unknown)
}
