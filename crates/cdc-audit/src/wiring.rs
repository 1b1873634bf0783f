//! Puts the daemon together: the only place that knows every crate.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use audit_core::protect::Policy;
use audit_format::FormatConfig;
use audit_hot::HotSink;
use audit_kafka::{KafkaConfig, KafkaSink};
use audit_lake::LakeSink;
use audit_pipeline::NamedSink;
use audit_pipeline::run::Daemon;
use audit_pipeline::status::Shared;
use audit_webhook::{WebhookConfig, WebhookSink};
use tracing::warn;

use crate::cli::run::Args as RunArgs;
use crate::config::{Config, KeyError, SinkConfig};
use crate::error::{CliError, code};

/// Builds everything that can be built without a connection.
pub fn daemon(config: &Config, args: &RunArgs) -> Result<Daemon, CliError> {
    let unusable = |error: KeyError| CliError::of(&error).hint(error.hint().to_owned()).code(code::USAGE);
    let policy = config.policy().map_err(unusable)?;
    if let Some(weakness) = config.row_key_weakness().map_err(unusable)? {
        warn!(hint = weakness.hint(), "{weakness}");
    }
    let keyring = config.keyring().map_err(|error| CliError::of(&error).hint(error.hint()).code(code::USAGE))?;
    let keyring = keyring.map(Arc::new);
    let policy = Policy { sealer: keyring.as_ref().map(|keyring| Arc::clone(keyring.sealer())), ..policy };
    let memory = config
        .pipeline
        .memory()
        .ok_or_else(|| CliError::new("pipeline.memory_limit is too small").code(code::USAGE))?;
    let buffers = |sink: &&SinkConfig| matches!(sink, SinkConfig::Lake(_) | SinkConfig::Kafka(_));
    let buffering = config.sinks.values().filter(buffers).count().max(1) as u64;
    let each = (memory.sinks / buffering) as usize;
    let sinks = config.sinks.iter().map(|(name, sink)| {
        Ok(match sink {
            SinkConfig::Hot(hot) => NamedSink::new(name.as_str(), HotSink::new(name.as_str(), hot.clone())),
            SinkConfig::Lake(lake) => {
                let sink = LakeSink::new(name.as_str(), lake, each)
                    .map_err(|error| CliError::of(&error).hint(error.hint()))?;
                NamedSink::new(name.as_str(), sink)
            }
            SinkConfig::Kafka(kafka) => {
                let kafka = KafkaConfig { format: format(&kafka.format, config)?, ..kafka.as_ref().clone() };
                NamedSink::new(name.as_str(), KafkaSink::new(name.as_str(), &kafka, each))
            }
            SinkConfig::Webhook(webhook) => {
                let checkpoint = config.checkpoint_endpoint(webhook).clone();
                let webhook = WebhookConfig { format: format(&webhook.format, config)?, ..webhook.as_ref().clone() };
                let sink = WebhookSink::new(name.as_str(), &webhook, checkpoint)
                    .map_err(|error| CliError::of(&error).hint(error.hint.clone()))?;
                NamedSink::new(name.as_str(), sink)
            }
        })
    });
    Ok(Daemon {
        source: config.source.clone(),
        rules: config.rules(),
        policy,
        keyring,
        sinks: sinks.collect::<Result<_, CliError>>()?,
        config: config.pipeline.clone(),
        baseline: config.baseline.clone(),
        baseline_progress: Arc::default(),
        memory,
        shared: Arc::new(Shared::default()),
        accept_gap: AtomicBool::new(args.accept_gap),
        new_baseline: args.new_baseline,
        until: args.until,
    })
}

/// A sink's format, with what only the source's section says.
fn format(format: &FormatConfig, config: &Config) -> Result<FormatConfig, CliError> {
    let mut format = format.clone();
    if format.database.is_none() {
        format.database = Some(config.source.endpoint.parse()?.dbname().to_owned());
    }
    Ok(format)
}
