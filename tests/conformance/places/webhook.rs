//! A receiver, and its checkpoint in a separate hot database.

use audit_connect::PgEndpoint;
use audit_webhook::{WebhookConfig, WebhookSink};
use cdc_audit_tests::receiver::Receiver;

use super::hot::Hot;
use crate::suite::{Found, Place, SINK, UNWANTED};

pub struct Hook {
    receiver: Receiver,
    checkpoint: Hot,
}

impl Place for Hook {
    type Sink = WebhookSink;
    /// Only the checkpoint, because what a receiver has accepted cannot be taken back.
    type Backup = String;

    const EXACTLY_ONCE: bool = false;

    async fn new() -> Hook {
        Hook { receiver: Receiver::start().await, checkpoint: Hot::new().await }
    }

    fn sink(&self) -> WebhookSink {
        let checkpoint = PgEndpoint::new(&self.checkpoint.database.url);
        WebhookSink::new(SINK, &WebhookConfig::new(self.receiver.url()), checkpoint).unwrap()
    }

    async fn found(&self) -> Vec<Found> {
        let text = |message: &serde_json::Value, name: &str| message[name].as_str().unwrap().to_owned();
        let taken = self.receiver.taken();
        taken.iter().map(|m| Found { position: text(m, "position"), event: text(m, "event") }).collect()
    }

    async fn backup(&self) -> String {
        self.checkpoint.backup().await
    }

    async fn restore(&self, backup: String) {
        self.checkpoint.restore(backup).await;
    }

    async fn refuse(&self) -> Option<String> {
        self.receiver.refuse(Some(UNWANTED), None);
        Some(UNWANTED.into())
    }
}
