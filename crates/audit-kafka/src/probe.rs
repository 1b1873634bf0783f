//! What happens before the daemon runs: checking whether it could write ([`probe`]), reading its checkpoint
//! ([`stored`]), and making the topic that it needs ([`set_up`]).

use std::sync::Arc;
use std::time::Duration;

use audit_core::sink::{Action, Checkpoint, SinkError};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::producer::{BaseRecord, Producer as _};

use crate::checkpoint::Until;
use crate::client;
use crate::config::KafkaConfig;
use crate::context::Context;
use crate::error::{failed, no_secret, not_created, of_code};
use crate::produce::{no_checkpoint, off};
use crate::settings::{BATCH_SIZE, Producer, Settings};
use crate::topics::{self, ANSWER, Kind};

/// What `probe` found, apart from the fact that the daemon could write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// The risks, each with what can be done about it.
    pub warnings: Vec<(String, String)>,
}

fn settings(config: &KafkaConfig, sink: &str) -> Settings {
    Settings {
        name: sink.into(),
        config: Arc::new(config.clone()),
        memory: 8 << 20,
        batch_size: BATCH_SIZE,
        process: String::new(),
        turn: Arc::default(),
    }
}

/// Makes the checkpoint's topic, unless it exists.
///
/// # Errors
/// Fails if `checkpoint_topic` gives no valid name, or the brokers do not make the topic.
pub async fn set_up(config: &KafkaConfig, source: &str, sink: &str) -> Result<(), SinkError> {
    let topic = settings(config, sink).checkpoint_topic(source)?;
    topics::create(config, sink, &[&topic], Kind::Checkpoint).await
}

/// The sink's committed checkpoint, as a reader sees it. Takes nothing over.
///
/// # Errors
/// Fails if the checkpoint's topic cannot be read.
pub async fn stored(config: &KafkaConfig, source: &str, sink: &str) -> Result<Option<Checkpoint>, SinkError> {
    let (settings, source) = (settings(config, sink), source.to_owned());
    off(move || settings.read(&source, Until::End)).await.map(|contents| contents.stored.checkpoint)
}

/// Connects with the sink's credentials, looks for its topics, and writes to the checkpoint's topic in a transaction
/// that is aborted. It uses another transactional id, `….check`, so that no daemon is fenced.
///
/// # Errors
/// Fails if the daemon could not write with this configuration.
pub async fn probe(config: &KafkaConfig, source: &str, sink: &str) -> Result<Probed, SinkError> {
    let (given, wanted) = (settings(config, sink), source.to_owned());
    let topic = given.checkpoint_topic(source)?;
    let name = topic.clone();
    off(move || write(&given, &wanted, &name)).await?;
    let mut warnings = limits(config, sink, &topic).await.unwrap_or_default();
    warnings.extend(compacted(config, source, sink).await?);
    Ok(Probed { warnings })
}

/// Warns of what compaction would do in the topics that were written to. Without the right to read their settings there
/// is no warning.
async fn compacted(config: &KafkaConfig, source: &str, sink: &str) -> Result<Vec<(String, String)>, SinkError> {
    let (given, named) = (settings(config, sink), source.to_owned());
    let contents = off(move || given.read(&named, Until::End)).await?;
    let topics: Vec<&str> = contents.topics.keys().map(String::as_str).collect();
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let client = client::client(config).map_err(no_secret)?;
    let admin: AdminClient<Context> =
        client.create_with_context(Context::new(sink, None)).map_err(|error| not_created(&error))?;
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let asked: Vec<ResourceSpecifier<'_>> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let Ok(answers) = admin.describe_configs(&asked, &options).await else { return Ok(Vec::new()) };
    let mut warnings = Vec::new();
    for (topic, answer) in topics.iter().zip(answers) {
        let Ok(resource) = answer else { continue };
        let policy = resource.get("cleanup.policy").and_then(|entry| entry.value.as_deref()).unwrap_or_default();
        if !policy.contains("compact") {
            continue;
        }
        let delete = format!(
            "kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config cleanup.policy=delete"
        );
        if config.keys_may_collide() {
            warnings.push((
                format!("topic {topic} is compacted, and tables share it: rows with equal keys erase each other"),
                delete.clone(),
            ));
        } else if !config.format.tombstones() {
            let message = format!("topic {topic} is compacted, and deleted rows stay in it: no tombstones are sent");
            warnings.push((message, "set tombstones = true in the sink's section".to_owned()));
        }
        let table = contents.topics.get(*topic).map(String::as_str).unwrap_or_default();
        let mut shapes = contents.stored.shapes.iter().filter(|shape| shape.name().to_string() == table);
        if shapes.next_back().is_some_and(|shape| shape.key.is_empty()) {
            let message = format!("topic {topic} is compacted, and table {table} has no key: brokers refuse its rows");
            warnings.push((message, delete));
        }
    }
    Ok(warnings)
}

const PATIENCE: Duration = Duration::from_secs(30);

fn write(settings: &Settings, source: &str, topic: &str) -> Result<(), SinkError> {
    let mut client = settings.client()?;
    client.set("transactional.id", format!("{}.check", settings.transactional_id(source)));
    client.set("transaction.timeout.ms", settings.config.transaction_timeout.get().as_millis().to_string());
    let producer: Producer = client.create_with_context(settings.context()).map_err(|error| not_created(&error))?;
    let context = producer.client().context().clone();
    let told = |doing: &'static str| {
        let context = context.clone();
        move |error| failed(doing, &error, &context, Action::Retry)
    };
    if topics::partitions(producer.client(), topic, Duration::ZERO)?.is_none() {
        return Err(no_checkpoint(topic));
    }
    producer.init_transactions(PATIENCE).map_err(told("using the transactional id"))?;
    producer.begin_transaction().map_err(told("beginning a transaction"))?;
    let record = BaseRecord::to(topic).partition(0).key("probe").payload("{}");
    producer.send(record).map_err(|(error, _)| told("writing a probe")(error))?;
    producer.flush(PATIENCE).map_err(told("writing a probe"))?;
    let undelivered = context.failures().first;
    producer.abort_transaction(PATIENCE).map_err(told("giving up a probe"))?;
    match undelivered {
        Some((code, _)) => Err(of_code("writing a probe", code, None, Action::Stop)),
        None => Ok(()),
    }
}

/// Warns of settings of the checkpoint's topic that could lose the checkpoint. Without the right to read them there is
/// no warning.
async fn limits(config: &KafkaConfig, sink: &str, topic: &str) -> Result<Vec<(String, String)>, SinkError> {
    let client = client::client(config).map_err(no_secret)?;
    let admin: AdminClient<Context> =
        client.create_with_context(Context::new(sink, None)).map_err(|error| not_created(&error))?;
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let asked = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
    let asked = asked.map_err(|error| failed("asking for settings", &error, admin.inner().context(), Action::Retry))?;
    let Some(Ok(resource)) = asked.into_iter().next() else { return Ok(Vec::new()) };
    let setting = |name: &str| resource.get(name).and_then(|entry| entry.value.as_deref());
    let mut warnings = Vec::new();
    let mut warn = |message: String, fix: String| warnings.push((message, fix));
    if setting("cleanup.policy").is_some_and(|policy| policy != "compact") {
        warn(
            format!("topic {topic} is not only compacted: brokers may delete the checkpoint"),
            format!(
                "kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config cleanup.policy=compact"
            ),
        );
    }
    if setting("unclean.leader.election.enable") == Some("true") {
        warn(
            format!("topic {topic} allows unclean leaders: what was committed may be lost"),
            "set unclean.leader.election.enable=false for it, and for the tables' topics".to_owned(),
        );
    }
    if setting("min.insync.replicas") == Some("1") {
        warn(
            "one replica is enough for brokers to acknowledge: what it alone has may be lost with it".to_owned(),
            "on more than one broker, set replication_factor to 3 and min.insync.replicas to 2".to_owned(),
        );
    }
    Ok(warnings)
}
