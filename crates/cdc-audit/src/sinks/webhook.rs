//! Webhooks.

use audit_config::Problems;
use audit_connect::PgEndpoint;
use audit_core::sink::Checkpoint;
use audit_history::Store;
use audit_hot::CheckpointStore;
use audit_pipeline::NamedSink;
use audit_webhook::{WebhookConfig, WebhookSink};

use super::{Answers, Needs, Probed, format, unreadable, unusable};
use crate::config::Config;
use crate::error::CliError;

pub fn check(webhook: &WebhookConfig, config: &Config, problems: &mut Problems) {
    webhook.check(problems);
    if webhook.checkpoint.as_ref().is_some_and(|hot| config.hot(hot).is_none()) {
        problems.push("checkpoint", "there is no hot sink of this name", "name one, or take the key out");
    }
}

pub const HOLDS_MEMORY: bool = false;

pub fn build(webhook: &WebhookConfig, name: &str, config: &Config) -> Result<NamedSink, CliError> {
    let checkpoint = checkpoint(webhook, config).clone();
    let webhook = WebhookConfig { format: format(&webhook.format, config)?, ..webhook.clone() };
    Ok(NamedSink::new(name, WebhookSink::new(name, &webhook, checkpoint)?))
}

pub async fn probe(webhook: &WebhookConfig, name: &str, config: &Config) -> Probed {
    let checkpoint = checkpoint(webhook, config);
    let probed = audit_webhook::probe(webhook, checkpoint.clone(), &config.source.name, name).await;
    let said = format!("{} answers; the checkpoint lies in {}", webhook.place(), checkpoint.describe());
    Probed::new(probed.map(|()| said).map_err(|error| unusable(&error, error.hint.clone())))
}

pub fn unverified(webhook: &WebhookConfig) -> Option<(String, String)> {
    webhook.unverified()
}

pub async fn stored(webhook: &WebhookConfig, name: &str, config: &Config) -> Option<Checkpoint> {
    let store = CheckpointStore::new(name, checkpoint(webhook, config).clone());
    store.read(&config.source.name).await.ok()?
}

pub fn answers() -> Option<Answers> {
    None
}

pub fn reader() -> Result<Store, CliError> {
    Err(unreadable())
}

pub fn needs<'c>(webhook: &'c WebhookConfig, config: &'c Config) -> Needs<'c> {
    Needs::Tables { endpoint: checkpoint(webhook, config), versions: None }
}

/// What was sent is the receiver's.
pub fn remains() -> Option<String> {
    None
}

/// The database where the checkpoint is stored: a hot sink's, else the source's.
fn checkpoint<'c>(webhook: &WebhookConfig, config: &'c Config) -> &'c PgEndpoint {
    config.hot_or_source(webhook.checkpoint.as_deref())
}
