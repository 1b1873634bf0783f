//! Topics of Kafka.

use audit_config::Problems;
use audit_core::sink::Checkpoint;
use audit_history::Store;
use audit_kafka::{KafkaConfig, KafkaSink};
use audit_pipeline::NamedSink;

use super::{Answers, Needs, Probed, format, unreadable, unusable};
use crate::config::Config;
use crate::error::CliError;

pub fn check(kafka: &KafkaConfig, problems: &mut Problems) {
    kafka.check(problems);
}

pub const HOLDS_MEMORY: bool = true;

pub fn build(kafka: &KafkaConfig, name: &str, config: &Config, memory: usize) -> Result<NamedSink, CliError> {
    let kafka = KafkaConfig { format: format(&kafka.format, config)?, ..kafka.clone() };
    Ok(NamedSink::new(name, KafkaSink::new(name, &kafka, memory)))
}

pub async fn probe(kafka: &KafkaConfig, name: &str, config: &Config) -> Probed {
    match audit_kafka::probe(kafka, &config.source.name, name).await {
        Ok(probed) => {
            let said = format!("written to {} in a transaction that is aborted", kafka.place());
            Probed { warnings: probed.warnings, ..Probed::new(Ok(said)) }
        }
        Err(error) => Probed::new(Err(unusable(&error, error.hint.clone()))),
    }
}

pub fn unverified(kafka: &KafkaConfig) -> Option<(String, String)> {
    kafka.unverified()
}

pub async fn stored(kafka: &KafkaConfig, name: &str, config: &Config) -> Option<Checkpoint> {
    audit_kafka::stored(kafka, &config.source.name, name).await.ok()?
}

pub fn answers() -> Option<Answers> {
    None
}

pub fn reader() -> Result<Store, CliError> {
    Err(unreadable())
}

pub fn needs(kafka: &KafkaConfig, name: &str, config: &Config) -> Needs<'static> {
    Needs::Topic { place: kafka.place(), topic: kafka.checkpoint_topic(&config.source.name, name) }
}

/// Makes the topic of the checkpoint, unless it is there.
pub async fn set_up(kafka: &KafkaConfig, name: &str, config: &Config) -> Result<(), CliError> {
    let source = &config.source.name;
    audit_kafka::set_up(kafka, source, name).await.map_err(|error| {
        let topic = kafka.checkpoint_topic(source, name);
        let by_hand = format!(
            "kafka-topics.sh --bootstrap-server {} --create --topic {topic} --partitions 1 --config cleanup.policy=compact",
            kafka.place()
        );
        let hint = error.hint.clone().unwrap_or_default();
        CliError::from(error).hint(format!("{hint}; or make it by hand: {by_hand}"))
    })
}

pub fn remains(kafka: &KafkaConfig) -> Option<String> {
    Some(format!("the topics on {} stay; remove them yourself if nobody needs them", kafka.place()))
}
