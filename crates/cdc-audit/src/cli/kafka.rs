//! What `setup` does in Kafka.

use audit_kafka::KafkaConfig;
use serde_json::{Value, json};

use crate::config::{Config, SinkConfig};
use crate::error::CliError;
use crate::output::print;

/// Makes the topics of the sinks' checkpoints, unless they are there; returns the steps for a script to read.
pub async fn set_up(config: &Config, dry_run: bool, quiet: bool) -> Result<Vec<Value>, CliError> {
    let mut steps = Vec::new();
    for (name, sink) in &config.sinks {
        let SinkConfig::Kafka(kafka) = sink else { continue };
        let topic = kafka.checkpoint_topic(&config.source.name, name);
        steps.push(json!({ "on": kafka.place(), "step": "topic", "topic": topic, "why": WHY }));
        if !quiet {
            print(format!("-- {name} {}\n\n-- {WHY}\n-- topic {topic}: compacted, one partition\n", kafka.place()))?;
        }
        if !dry_run {
            make(kafka, &config.source.name, name, &topic).await?;
        }
    }
    Ok(steps)
}

const WHY: &str = "the sink's checkpoint";

async fn make(kafka: &KafkaConfig, source: &str, name: &str, topic: &str) -> Result<(), CliError> {
    audit_kafka::set_up(kafka, source, name).await.map_err(|error| {
        let by_hand =
            format!("kafka-topics.sh --create --topic {topic} --partitions 1 --config cleanup.policy=compact");
        let hint = error.hint.clone().unwrap_or_default();
        CliError::of(&error).hint(format!("{hint}; or make it by hand: {by_hand}"))
    })
}
