//! Checks whether the daemon could write now: [`probe`].

use audit_connect::PgEndpoint;
use audit_core::sink::SinkError;
use audit_hot::CheckpointStore;

use crate::config::WebhookConfig;
use crate::post::Receiver;

/// Checks that the receiver answers, and that the checkpoint's tables, privileges and row are as they must be. Sends no
/// version and changes nothing.
///
/// # Errors
/// Says what keeps the sink from working.
pub async fn probe(config: &WebhookConfig, checkpoint: PgEndpoint, source: &str, sink: &str) -> Result<(), SinkError> {
    let receiver = Receiver::new(config)?;
    CheckpointStore::new(sink, checkpoint).probe(source).await?;
    receiver.probe().await
}
