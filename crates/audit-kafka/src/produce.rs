//! Blocking work with a producer: records of the checkpoint's topic, delivery, commits.

use std::time::{Duration, Instant};

use audit_core::sink::{Action, SinkError};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, Producer as _};
use serde::Serialize;

use crate::error::failed;
use crate::settings::Producer;
use crate::topics::{SETTLED, code_of};

pub(crate) fn restart(message: &str) -> SinkError {
    SinkError::new(Action::Restart, message)
}

/// Runs blocking work on another thread than the tasks.
pub(crate) async fn off<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    off_thread(work).await?
}

pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SinkError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| restart("a task ended by itself").source(error))
}

/// The error for a missing topic of the checkpoint.
pub(crate) fn no_checkpoint(topic: &str) -> SinkError {
    SinkError::stop(format!("topic {topic}, which holds the sink's checkpoint, does not exist")).hint(
        "run `cdc-audit setup`, which makes it; if there was one, restore it instead: with an empty one the sink begins anew",
    )
}

pub(crate) fn send_record(
    producer: &Producer,
    topic: &str,
    key: &str,
    value: &impl Serialize,
) -> Result<(), SinkError> {
    let text = serde_json::to_vec(value).map_err(|error| SinkError::stop("a record has no JSON form").source(error))?;
    let mut record = BaseRecord::to(topic).partition(0).key(key).payload(&text);
    loop {
        let Err((error, back)) = producer.send(record) else { return Ok(()) };
        if code_of(&error) != Code::QueueFull || producer.client().context().failing() {
            return Err(failed("writing the checkpoint", &error, producer.client().context(), Action::Restart));
        }
        record = back;
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until everything is delivered, and commits. Blocks.
pub(crate) fn commit(producer: &Producer, patience: Duration) -> Result<(), KafkaError> {
    deliver(producer, patience)?;
    producer.commit_transaction(patience)
}

/// The end of the checkpoint's topic after everything is delivered, whether committed or not. `None` if that is before
/// `least`, the known end and the records that came since: then the topic was put back to an earlier state. ⚠ To be past
/// the known end is not enough, because many new records hide that as many are gone. After a change of leaders an
/// earlier end may be shown for a moment. Blocks.
pub(crate) fn end_beyond(
    producer: &Producer,
    topic: &str,
    least: i64,
    patience: Duration,
) -> Result<Option<i64>, KafkaError> {
    deliver(producer, patience)?;
    let begun = Instant::now();
    loop {
        match producer.client().fetch_watermarks(topic, 0, patience) {
            Ok((_, end)) if end >= least => return Ok(Some(end)),
            Ok(_) if begun.elapsed() > SETTLED => return Ok(None),
            Err(error) if begun.elapsed() > patience => return Err(error),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Waits until everything is delivered. Messages that are still on their way after `patience` are an error, because
/// nothing after them may count as stored.
fn deliver(producer: &Producer, patience: Duration) -> Result<(), KafkaError> {
    // The library's own flush checks its queue only every 100 ms.
    let begun = Instant::now();
    while producer.in_flight_count() > 0 && !producer.client().context().failing() && begun.elapsed() < patience {
        std::thread::sleep(Duration::from_micros(500));
    }
    match producer.in_flight_count() {
        _ if producer.client().context().failing() => Err(KafkaError::Flush(Code::PurgeQueue)),
        0 => Ok(()),
        _ => Err(KafkaError::Flush(Code::OperationTimedOut)),
    }
}
