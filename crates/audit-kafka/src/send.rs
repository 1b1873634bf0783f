//! Puts a unit's versions into the producer's queue, as messages ([`Session::send`]).

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use audit_core::batch::Version;
use audit_core::plan::Unit;
use audit_core::position::Micros;
use audit_core::sink::SinkError;
use audit_core::table::Table;
use audit_format::{Encoder, Message};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::context::{POSITION, TooLarge};
use crate::session::{Failure, Session};
use crate::settings::Producer;
use crate::topics::code_of;

/// Interval between attempts to put a message into a full queue.
const BETWEEN_TRIES: Duration = Duration::from_millis(1);

impl Session {
    /// Sends a unit in the open transaction. Opens one if there is none.
    pub async fn send(&mut self, unit: &Unit<'_>) -> Result<(), Failure> {
        self.find_topics(unit).await?;
        self.begin()?;
        fail::fail_point!("kafka::before_send");
        on_cpu(|| self.send_versions(&unit.versions))?;
        fail::fail_point!("kafka::after_send");
        self.sent(unit)?;
        self.undelivered()
    }

    fn send_versions(&mut self, versions: &[Version<'_>]) -> Result<(), Failure> {
        let producer = self.producer()?.clone();
        let mut run = Run::default();
        let recorded_at = Micros::now();
        for version in versions {
            if !run.is_of(version.table()) {
                let table = version.table();
                let topic =
                    self.topics.known(table).cloned().ok_or_else(|| SinkError::stop("a topic was not looked for"))?;
                self.note_topic(table, &topic)?;
                run.begin(table, topic);
            }
            run.version(&producer, &mut self.encoder, version, recorded_at)?;
        }
        Ok(())
    }
}

/// Consecutive versions of one table.
#[derive(Default)]
struct Run {
    table: Option<Arc<Table>>,
    topic: Option<Arc<str>>,
    schema_version: String,
    position: String,
}

impl Run {
    fn is_of(&self, table: &Arc<Table>) -> bool {
        self.table.as_ref().is_some_and(|known| Arc::ptr_eq(known, table))
    }

    fn begin(&mut self, table: &Arc<Table>, topic: Arc<str>) {
        self.schema_version = table.shape.schema_version.to_string();
        (self.table, self.topic) = (Some(table.clone()), Some(topic));
    }

    fn version(
        &mut self,
        producer: &Producer,
        encoder: &mut Encoder,
        version: &Version<'_>,
        recorded_at: Micros,
    ) -> Result<(), Failure> {
        let topic = self.topic.as_deref().unwrap_or_default();
        let (position, schema_version) = (&mut self.position, self.schema_version.as_str());
        let content_type = encoder.content_type();
        encoder.messages(version, recorded_at, |message: Message<'_>| {
            position.clear();
            // Writing into a `String` cannot fail.
            let _ = match message.op {
                Some(op) => write!(position, "{}/{op}", version.position()),
                None => write!(position, "{}", version.position()),
            };
            let headers = || {
                let headers = [
                    (POSITION, position.as_str()),
                    ("event", version.event().name()),
                    ("schema_version", schema_version),
                ];
                let content_type =
                    content_type.filter(|_| message.value.is_some()).map(|value| ("content-type", value));
                headers
                    .into_iter()
                    .chain(content_type)
                    .fold(OwnedHeaders::new_with_capacity(4), |headers, (key, value)| {
                        headers.insert(Header { key, value: Some(value) })
                    })
            };
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).headers(headers());
            (record.key, record.payload) = (message.key, message.value);
            if !message.of_row {
                // Order is kept only within a partition, so messages that concern no row go to one partition.
                record.partition = Some(0);
            }
            let bytes = message.key.map_or(0, <[u8]>::len) + message.value.map_or(0, <[u8]>::len);
            enqueue(producer, record, TooLarge { position: version.position(), bytes })
        })
    }
}

/// Puts a message into the queue. Waits while it is full: brokers take the messages in it, or these fail after a while.
fn enqueue(producer: &Producer, record: BaseRecord<'_, [u8], [u8]>, size: TooLarge) -> Result<(), Failure> {
    let mut record = record;
    loop {
        let Err((error, back)) = producer.send(record) else { return Ok(()) };
        let context = producer.client().context();
        match code_of(&error) {
            Code::QueueFull if !context.failing() => {
                record = back;
                std::thread::sleep(BETWEEN_TRIES);
            }
            Code::MessageSizeTooLarge => return Err(Failure::TooLarge(size)),
            code => return Err(Failure::Queue(code)),
        }
    }
}

/// Runs work that takes processor time and may wait, so that other tasks of this thread continue elsewhere.
fn on_cpu<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
