//! Takes a sink over: initialises its transactional id, writes the new owner, reads what is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use audit_core::sink::{Action, SinkError};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;

use crate::checkpoint::{Contents, OWNER, Owner, Until};
use crate::error::{failed, is_fence};
use crate::produce::{commit, no_checkpoint, off, restart, send_record};
use crate::settings::{PATIENCE, Producer, Settings};
use crate::topics::{self, SETTLED, code_of};

/// The producer that owns the sink from now on, and the contents of the checkpoint's topic.
pub(crate) async fn take_over(
    settings: &Settings,
    source: &str,
    owner: &Owner,
) -> Result<(Arc<Producer>, Contents), SinkError> {
    let turn = settings.turn.clone().lock_owned().await;
    let given_up = GivenUp::default();
    let seen = given_up.0.clone();
    let (settings, source, owner) = (settings.clone(), source.to_owned(), owner.clone());
    let work = move || {
        let _turn = turn;
        take(&settings, &source, &owner, &seen)
    };
    off(work).await
}

/// When dropped, tells a thread that nobody waits for it any more.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long one attempt to initialise the transactional id waits.
const STEP: Duration = Duration::from_secs(2);

/// Initialises the transactional id, which fences every process that did so before. ⚠ It is not repeated after the
/// caller gave up: a later takeover may have succeeded in the meantime, and would be fenced.
fn init(producer: &Producer, given_up: &AtomicBool) -> Result<(), KafkaError> {
    let begun = Instant::now();
    loop {
        match producer.init_transactions(STEP) {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && begun.elapsed() < PATIENCE && !given_up.load(Ordering::Relaxed) => {}
            done => return done,
        }
    }
}

fn take(
    settings: &Settings,
    source: &str,
    owner: &Owner,
    given_up: &AtomicBool,
) -> Result<(Arc<Producer>, Contents), SinkError> {
    let topic = settings.checkpoint_topic(source)?;
    let producer = settings.producer(source)?;
    let context = producer.client().context();
    let doing = "taking the sink over";
    let told = |error: KafkaError| match is_fence(code_of(&error)) {
        true => SinkError::retry("another daemon took the sink at this moment"),
        false => failed(doing, &error, context, Action::Retry),
    };
    let again = |error: SinkError| match error.action {
        Action::Restart => SinkError { action: Action::Retry, ..error },
        _ => error,
    };
    match topics::partitions(producer.client(), &topic, SETTLED).map_err(again)? {
        Some(1) => {}
        Some(partitions) => {
            return Err(SinkError::stop(format!("topic {topic} has {partitions} partitions, not one"))
                .hint("name another checkpoint_topic, and run `cdc-audit setup`"));
        }
        None => return Err(no_checkpoint(&topic)),
    }
    init(&producer, given_up).map_err(told)?;
    fail::fail_point!("kafka::after_init");
    if given_up.load(Ordering::Relaxed) {
        return Err(restart("nobody waits for the sink any more"));
    }
    producer.begin_transaction().map_err(told)?;
    send_record(&producer, &topic, OWNER, owner)?;
    commit(&producer, PATIENCE).map_err(told)?;
    let contents = settings.read(source, Until::Owner(owner))?;
    Ok((Arc::new(producer), contents))
}
