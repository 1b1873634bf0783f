//! One task for each sink: it takes batches from its queue, repeats what may be repeated, and reports what is durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use audit_config::Chain;
use audit_core::batch::{Batch, Progress};
use audit_core::position::Position;
use audit_core::quarantine::{Quarantine, Quarantined};
use audit_core::sink::{Action, Identity, Sink, SinkError, Stored, quarantine_command};
use tokio::sync::{Mutex, mpsc, watch};
use tracing::{info, warn};

use crate::fanout::Held;
use crate::retry::Backoff;
use crate::status::SinkGauge;

/// A sink of any type. The futures are boxed once for each batch, never for each version.
pub type AnySink = Box<dyn ErasedSink>;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, SinkError>> + Send + 'a>>;

/// [`Sink`] for a list of sinks of several types.
pub trait ErasedSink: Send {
    fn take<'a>(&'a mut self, identity: &'a Identity) -> Boxed<'a, Stored>;
    fn begin(&mut self, start: Progress) -> Boxed<'_, ()>;
    fn write<'a>(&'a mut self, batches: &'a [&'a Batch]) -> Boxed<'a, ()>;
    fn flush(&mut self, all: bool) -> Boxed<'_, ()>;
    fn due(&self) -> Option<Instant>;
    fn durable(&self) -> Progress;
    fn quarantine(&mut self, quarantine: Arc<Quarantine>);
    fn held_bytes(&self) -> usize;
    fn troubles(&self) -> Vec<String>;
}

impl<S: Sink> ErasedSink for S {
    fn take<'a>(&'a mut self, identity: &'a Identity) -> Boxed<'a, Stored> {
        Box::pin(Sink::take(self, identity))
    }
    fn begin(&mut self, start: Progress) -> Boxed<'_, ()> {
        Box::pin(Sink::begin(self, start))
    }
    fn write<'a>(&'a mut self, batches: &'a [&'a Batch]) -> Boxed<'a, ()> {
        Box::pin(Sink::write(self, batches))
    }
    fn flush(&mut self, all: bool) -> Boxed<'_, ()> {
        Box::pin(Sink::flush(self, all))
    }
    fn due(&self) -> Option<Instant> {
        Sink::due(self)
    }
    fn durable(&self) -> Progress {
        Sink::durable(self)
    }
    fn quarantine(&mut self, quarantine: Arc<Quarantine>) {
        Sink::quarantine(self, quarantine);
    }
    fn held_bytes(&self) -> usize {
        Sink::held_bytes(self)
    }
    fn troubles(&self) -> Vec<String> {
        Sink::troubles(self)
    }
}

/// A sink with its configured name. The task that works for the sink holds the lock; there is one such task at a time.
#[derive(Clone)]
pub struct NamedSink {
    pub name: Arc<str>,
    pub sink: Arc<Mutex<AnySink>>,
    pub gauge: Arc<SinkGauge>,
    /// The versions that it has refused and an operator quarantined. A sink that holds nothing after a refusal has to
    /// be taken over again: without this list it would refuse the same version in each session.
    left_out: Arc<Mutex<Quarantine>>,
}

impl NamedSink {
    pub fn new(name: impl Into<Arc<str>>, sink: impl Sink + 'static) -> NamedSink {
        let sink: AnySink = Box::new(sink);
        let (gauge, left_out) = (Arc::default(), Arc::default());
        NamedSink { name: name.into(), sink: Arc::new(Mutex::new(sink)), gauge, left_out }
    }
}

/// Why a sink's task ended before the stream did.
#[derive(Debug)]
pub struct SinkEnd {
    pub sink: Arc<str>,
    pub error: SinkError,
}

/// Bytes that one call of `write` gets: enough to make a sink's fixed costs negligible, and little enough to release
/// memory steadily.
const WRITE_BYTES: usize = 8 << 20;

/// Takes the sink over, and repeats attempts whose errors may pass.
pub async fn take(sink: &NamedSink, identity: &Identity) -> Result<Stored, SinkEnd> {
    let mut guard = sink.sink.lock().await;
    let mut backoff = Backoff::default();
    loop {
        match guard.take(identity).await {
            Ok(stored) if stored.checkpoint.is_none() && sink.gauge.has_stored() => {
                return Err(SinkEnd { sink: sink.name.clone(), error: emptied() });
            }
            Ok(stored) => {
                sink.gauge.recovered();
                return Ok(stored);
            }
            Err(error) => pause(sink, error, &mut backoff).await?,
        }
    }
}

/// The error for a sink whose place has become empty: without a checkpoint it would count as new, and nothing would
/// count as missing.
fn emptied() -> SinkError {
    SinkError::stop("the sink's place is empty, although this process has stored there").hint(
        "restore what was there; or start the daemon again, which then begins there as with a new sink: with a baseline, and without \
         what was recorded before",
    )
}

/// Works until the queue closes, then makes everything durable. Reports through `durable` what is durable.
pub async fn run(
    sink: NamedSink,
    start: Progress,
    mut queue: mpsc::Receiver<Arc<Held>>,
    durable: watch::Sender<Progress>,
    mut decided: watch::Receiver<Quarantine>,
) -> Result<(), SinkEnd> {
    let mut guard = sink.sink.lock().await;
    // A decision applies only to a version that the sink has refused, so nothing else can be blanked by one.
    let mut quarantine = sink.left_out.lock().await;
    quarantine.retain(|position, _| *position > start.position);
    guard.quarantine(Arc::new(Quarantine::clone(&quarantine)));
    let mut backoff = Backoff::default();
    while let Err(error) = guard.begin(start).await {
        pause(&sink, error, &mut backoff).await?;
    }
    publish(&sink, guard.as_ref(), &durable);
    loop {
        let due = guard.due().map(tokio::time::Instant::from_std);
        // If both are ready, either may be chosen: a full queue must not keep a sink from what is due, and a sink that
        // is always due must not keep out the stream.
        let step = tokio::select! {
            () = async { tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)).await }, if due.is_some() => Step::Flush,
            first = queue.recv() => match first {
                Some(first) => Step::Write(gather(first, &mut queue)),
                None => break,
            },
        };
        match step {
            Step::Flush => {
                while let Err(error) = guard.flush(false).await {
                    pause(&sink, error, &mut backoff).await?;
                }
            }
            Step::Write(held) => {
                let batches: Vec<&Batch> = held.iter().map(|held| &held.batch).collect();
                while let Err(error) = guard.write(&batches).await {
                    if let Some(position) = error.refused {
                        let instead = refused(&sink, (position, error), &mut decided, quarantine.remove(&position));
                        quarantine.insert(position, instead.await?);
                        guard.quarantine(Arc::new(Quarantine::clone(&quarantine)));
                    } else {
                        pause(&sink, error, &mut backoff).await?;
                    }
                }
                sink.gauge.wrote(batches.iter().map(|batch| batch.len()).sum());
            }
        }
        backoff = Backoff::default();
        publish(&sink, guard.as_ref(), &durable);
        sink.gauge.recovered();
    }
    while let Err(error) = guard.flush(true).await {
        pause(&sink, error, &mut backoff).await?;
    }
    publish(&sink, guard.as_ref(), &durable);
    Ok(())
}

enum Step {
    Flush,
    Write(Vec<Arc<Held>>),
}

fn gather(first: Arc<Held>, queue: &mut mpsc::Receiver<Arc<Held>>) -> Vec<Arc<Held>> {
    let mut bytes = first.batch.bytes();
    let mut held = vec![first];
    while bytes < WRITE_BYTES {
        let Ok(next) = queue.try_recv() else { break };
        bytes += next.batch.bytes();
        held.push(next);
    }
    held
}

fn publish(sink: &NamedSink, erased: &dyn ErasedSink, durable: &watch::Sender<Progress>) {
    let progress = erased.durable();
    sink.gauge.stands(progress, erased.held_bytes(), erased.troubles());
    durable.send_if_modified(|last| std::mem::replace(last, progress) != progress);
}

/// Waits before the next attempt, or ends if another attempt cannot help.
async fn pause(sink: &NamedSink, error: SinkError, backoff: &mut Backoff) -> Result<(), SinkEnd> {
    sink.gauge.failed(&error);
    if error.action != Action::Retry {
        return Err(SinkEnd { sink: sink.name.clone(), error });
    }
    let pause = backoff.next();
    warn!(
        sink = %sink.name, error = %Chain(&error), hint = error.hint, retry_in_ms = pause.as_millis() as u64,
        "the sink failed; it is tried again"
    );
    tokio::time::sleep(pause).await;
    Ok(())
}

/// Waits until an operator quarantines the refused version; the other sinks continue within the memory limit. `before`
/// is what took its place when it was refused before. If the sink refuses that record too, the next record has neither
/// key nor actor.
async fn refused(
    sink: &NamedSink,
    (position, error): (Position, SinkError),
    decided: &mut watch::Receiver<Quarantine>,
    before: Option<Quarantined>,
) -> Result<Quarantined, SinkEnd> {
    sink.gauge.failed(&error);
    match before {
        Some(before) if before.is_bare() => {
            let hint = "not even the record in its place is taken: see what was added to the sink by hand (constraints, triggers)";
            return Err(SinkEnd { sink: sink.name.clone(), error: error.hint(hint) });
        }
        Some(before) => {
            info!(sink = %sink.name, %position, "the sink refuses the version's key or actor too: the error record names neither");
            return Ok(before.bare());
        }
        None => {}
    }
    let mut told = false;
    loop {
        if let Some(instead) = decided.borrow_and_update().get(&position) {
            info!(sink = %sink.name, %position, "the version is quarantined; an error record takes its place");
            return Ok(instead.clone());
        }
        if !std::mem::replace(&mut told, true) {
            let command = quarantine_command(&sink.name, position);
            warn!(sink = %sink.name, error = %Chain(&error), %position, "the sink refuses a version and waits: {command}");
        }
        if decided.changed().await.is_err() {
            return Err(SinkEnd { sink: sink.name.clone(), error });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use std::time::Duration;

    use super::*;

    /// A sink that is due whenever it is asked.
    struct AlwaysDue(Arc<AtomicUsize>);

    impl Sink for AlwaysDue {
        async fn take(&mut self, _: &Identity) -> Result<Stored, SinkError> {
            Ok(Stored::default())
        }
        async fn begin(&mut self, _: Progress) -> Result<(), SinkError> {
            Ok(())
        }
        async fn write(&mut self, batches: &[&Batch]) -> Result<(), SinkError> {
            self.0.fetch_add(batches.len(), Ordering::Relaxed);
            Ok(())
        }
        async fn flush(&mut self, _: bool) -> Result<(), SinkError> {
            tokio::task::yield_now().await;
            Ok(())
        }
        fn due(&self) -> Option<Instant> {
            Some(Instant::now())
        }
        fn durable(&self) -> Progress {
            Progress::default()
        }
        fn quarantine(&mut self, _: Arc<Quarantine>) {}
        fn held_bytes(&self) -> usize {
            0
        }
    }

    /// ⚠ A sink that is always due still receives what waits, and notices the end.
    #[tokio::test]
    async fn a_sink_that_is_always_due_does_not_starve_the_stream() {
        let written = Arc::new(AtomicUsize::new(0));
        let sink = NamedSink::new("due", AlwaysDue(written.clone()));
        let (batches, queue) = mpsc::channel(8);
        let (durable, _kept) = watch::channel(Progress::default());
        let (_positions, quarantined) = watch::channel(Quarantine::new());
        let shared = Arc::new(crate::status::Shared::default());
        let fanout = crate::fanout::Fanout::new(crate::fanout::Budget::new(1 << 20), vec![batches], shared);
        for _ in 0..3 {
            fanout.send(Batch::default(), None).await;
        }
        drop(fanout);
        let ended = run(sink, Progress::default(), queue, durable, quarantined);
        tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap().unwrap();
        assert_eq!(written.load(Ordering::Relaxed), 3);
    }

    /// A sink that holds nothing after a refusal, like a lake.
    struct Forgetful {
        refuses: Position,
        taken: bool,
        left_out: Arc<Quarantine>,
        written: Arc<AtomicUsize>,
    }

    impl Sink for Forgetful {
        async fn take(&mut self, _: &Identity) -> Result<Stored, SinkError> {
            self.taken = true;
            Ok(Stored::default())
        }
        async fn begin(&mut self, _: Progress) -> Result<(), SinkError> {
            Ok(())
        }
        async fn write(&mut self, _: &[&Batch]) -> Result<(), SinkError> {
            if !self.taken {
                return Err(SinkError::new(Action::Restart, "not taken over"));
            }
            if !self.left_out.contains_key(&self.refuses) {
                self.taken = false;
                return Err(SinkError::refusing("lake", self.refuses, "too large", None));
            }
            self.written.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        async fn flush(&mut self, _: bool) -> Result<(), SinkError> {
            Ok(())
        }
        fn due(&self) -> Option<Instant> {
            None
        }
        fn durable(&self) -> Progress {
            Progress::default()
        }
        fn quarantine(&mut self, quarantine: Arc<Quarantine>) {
            self.left_out = quarantine;
        }
        fn held_bytes(&self) -> usize {
            0
        }
    }

    /// ⚠ A sink that has to be taken over after a refusal continues without the version: otherwise it would refuse it
    /// in each session, for ever.
    #[tokio::test]
    async fn a_quarantined_version_is_left_out_in_the_next_session_too() {
        let (refuses, written) = (Position::new(1, audit_core::position::Lsn(7), 0), Arc::new(AtomicUsize::new(0)));
        let forgetful = Forgetful { refuses, taken: true, left_out: Arc::default(), written: written.clone() };
        let sink = NamedSink::new("lake", forgetful);
        let session = async || {
            let (batches, queue) = mpsc::channel(8);
            let (durable, _kept) = watch::channel(Progress::default());
            let (_positions, decided) = watch::channel(Quarantine::from([(refuses, Quarantined::default())]));
            let shared = Arc::new(crate::status::Shared::default());
            let fanout = crate::fanout::Fanout::new(crate::fanout::Budget::new(1 << 20), vec![batches], shared);
            fanout.send(Batch::default(), None).await;
            drop(fanout);
            let ended = run(sink.clone(), Progress::default(), queue, durable, decided);
            tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap()
        };
        assert_eq!(session().await.unwrap_err().error.action, Action::Restart);
        let identity = Identity {
            source: "shop".to_owned(),
            system_id: 1,
            timeline: 1,
            timeline_start: audit_core::position::Lsn::ZERO,
        };
        sink.sink.lock().await.take(&identity).await.unwrap();
        session().await.unwrap();
        assert_eq!(written.load(Ordering::Relaxed), 1);
    }
}
