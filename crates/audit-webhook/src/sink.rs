//! The sink: [`WebhookSink`].

use std::sync::Arc;
use std::time::Instant;

use audit_connect::PgEndpoint;
use audit_core::batch::{Batch, Progress, Version};
use audit_core::plan::{Limits, Places};
use audit_core::quarantine::Quarantine;
use audit_core::sink::{Identity, Sink, SinkError, Stored};
use audit_format::Encoder;
use audit_hot::CheckpointStore;

use crate::config::WebhookConfig;
use crate::deliver::{Cut, Delivery};
use crate::post::Receiver;

/// The sink of one receiver, for one source.
#[derive(Debug)]
pub struct WebhookSink {
    name: Arc<str>,
    config: WebhookConfig,
    store: CheckpointStore,
    receiver: Receiver,
    quarantine: Arc<Quarantine>,
    taken: Option<Taken>,
    /// The current delivery, kept from one try to the next.
    delivery: Option<Delivery>,
}

#[derive(Debug)]
struct Taken {
    source: String,
    encoder: Encoder,
}

impl WebhookSink {
    /// Reads secrets and certificates; connects to nothing yet. `name` is the sink's name in the configuration;
    /// `checkpoint` is the database that stores its checkpoint.
    ///
    /// # Errors
    /// Names the secret or the certificate that cannot be read.
    pub fn new(
        name: impl Into<Arc<str>>,
        config: &WebhookConfig,
        checkpoint: PgEndpoint,
    ) -> Result<WebhookSink, SinkError> {
        let name = name.into();
        Ok(WebhookSink {
            store: CheckpointStore::new(name.clone(), checkpoint),
            receiver: Receiver::new(config)?,
            name,
            config: config.clone(),
            quarantine: Arc::default(),
            taken: None,
            delivery: None,
        })
    }

    async fn deliver(&mut self, versions: &[Version<'_>]) -> Result<(), SinkError> {
        let cut = Cut {
            body: self.config.body,
            rows: self.config.batch_rows.max(1) as usize,
            bytes: usize::try_from(self.config.batch_bytes.get()).unwrap_or(usize::MAX),
        };
        if !self.delivery.as_ref().is_some_and(|delivery| delivery.is_of(versions)) {
            self.delivery = Delivery::new(versions, cut);
        }
        let Some(delivery) = &mut self.delivery else { return Ok(()) };
        let taken = self.taken.as_mut().ok_or_else(|| SinkError::not_taken(&self.name))?;
        let place = (taken.source.as_str(), self.name.as_ref());
        delivery.run(versions, place, &mut taken.encoder, &self.receiver, cut).await
    }
}

impl Sink for WebhookSink {
    async fn take(&mut self, identity: &Identity) -> Result<Stored, SinkError> {
        self.delivery = None;
        let stored = self.store.take(identity).await?;
        let encoder = Encoder::new(&self.config.format, &identity.source);
        self.taken = Some(Taken { source: identity.source.clone(), encoder });
        Ok(stored)
    }

    async fn begin(&mut self, start: Progress) -> Result<(), SinkError> {
        self.store.begin(start).await
    }

    async fn write(&mut self, batches: &[&Batch]) -> Result<(), SinkError> {
        let limits = Limits {
            rows: self.config.batch_rows.max(1) as usize,
            bytes: usize::try_from(self.config.batch_bytes.get()).unwrap_or(usize::MAX).max(1),
            places: Places::One,
        };
        let mut first = 0;
        let quarantine = self.quarantine.clone();
        while let Some(mut unit) = self.store.next(batches, first, limits).await? {
            unit.quarantine(&quarantine);
            self.deliver(&unit.versions).await?;
            self.store.store(&unit).await?;
            fail::fail_point!("webhook::after_checkpoint");
            first = unit.next_batch;
        }
        self.delivery = None;
        Ok(())
    }

    /// Does nothing, because [`Sink::write`] returns only after the receiver has accepted everything.
    async fn flush(&mut self, _all: bool) -> Result<(), SinkError> {
        Ok(())
    }

    fn due(&self) -> Option<Instant> {
        None
    }

    fn durable(&self) -> Progress {
        self.store.durable()
    }

    fn quarantine(&mut self, quarantine: Arc<Quarantine>) {
        self.quarantine = quarantine;
    }

    fn held_bytes(&self) -> usize {
        self.taken.as_ref().map_or(0, |taken| taken.encoder.held_bytes())
    }
}
