//! One session with the source: from the lock on the slot to the last acknowledgement.
//!
//! ```text
//! receiver ──chunks──▶ driver ──batches──▶ one task for each sink ──durable──▶ smallest ──▶ receiver: flush LSN
//! ```
//!
//! The order at the start is the fence. START_REPLICATION comes first, because it succeeds for only one daemon at a
//! time. Only then are the sinks taken over, which keeps previous owners from writing; only then is it read what the
//! sinks have, and compared with the slot. A daemon that waits for the slot has changed nothing.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use audit_capture::SourceConfig;
use audit_capture::baseline::{Baseline, Runner, SinkProgress};
use audit_capture::replication::Receiver;
use audit_capture::{context_keys, former_names};
use audit_config::Chain;
use audit_core::baseline::Command;
use audit_core::batch::Progress;
use audit_core::context::{Context, Contexts};
use audit_core::position::{Lsn, Micros, Position};
use audit_core::quarantine::Quarantine;
use audit_core::rules::FormerNames;
use audit_core::sink::{ALL_SINKS, Action, Checkpoint, Identity, Stored};
use futures::future::select_all;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};

use crate::continuity::{self, Server, Verdict, judge};
use crate::daemon::{Daemon, stopped};
use crate::driver::{Driver, DriverError};
use crate::error::{RunError, SinkFailure, Stretches, sql};
use crate::fanout::{Budget, Fanout, Held, QUEUE};
use crate::sink_task::{self, NamedSink, SinkEnd};
use crate::slot::{self, Locked, Quarantines};
use crate::stage::{ResumeCheck, Stage, StageConfig};
use crate::status::{Phase, SinkGauge};

/// How a session ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Stopped on request; everything before this position is durable in every sink and acknowledged.
    Stopped(Lsn),
    /// A sink lost what it held in memory, so the stream has to begin again from what is durable.
    Restart,
}

/// Runs one session. When an error may pass by itself, the caller starts another session. `diverged` says that the last
/// session met another history than the one that the sinks have, and that this is accepted.
pub async fn session(daemon: &Daemon, stop: &watch::Receiver<bool>, diverged: bool) -> Result<Ended, RunError> {
    let (safe, safe_lsn) = watch::channel(Lsn::ZERO);
    let (end_stream, stream_ends) = watch::channel(false);
    let Some(locked) = slot::lock(daemon, safe_lsn, stream_ends, stop).await? else {
        return Ok(Ended::Stopped(Lsn::ZERO));
    };
    let Locked { receiver, client, system, forks, slot } = locked;
    fail::fail_point!("pipeline::after_lock");
    // Look-ups during the stream wait for a lock no longer than this.
    client.batch_execute("SET lock_timeout TO '5s'").await.map_err(|e| sql("limit the waits for locks", e))?;

    let server = Server::new(&system, forks, &slot);
    let identity = Identity {
        source: daemon.source.name.clone(),
        system_id: server.system_id,
        timeline: server.timeline,
        timeline_start: server.start_of(server.timeline),
    };
    let stored = tokio::select! {
        stored = take_all(&daemon.sinks, &identity) => stored?,
        () = stopped(stop) => return Ok(Ended::Stopped(Lsn::ZERO)),
    };
    fail::fail_point!("pipeline::after_take");
    let verdict = continuity(daemon, &server, &stored, diverged)?;
    daemon.shared.epoch(verdict.epoch);
    daemon.shared.heard(slot.current);

    if let Some(keyring) = &daemon.keyring {
        // The key store may be locked, or may not answer.
        tokio::select! {
            () = keyring.put_back_lost() => {}
            () = stopped(stop) => return Ok(Ended::Stopped(Lsn::ZERO)),
        }
    }
    let quarantines = slot::quarantines(&client, &daemon.source.name).await?;
    let mut sinks = Sinks::start(daemon, &verdict, &quarantines);
    let budget = Budget::new(daemon.memory.queue);
    let fanout = Fanout::new(budget.clone(), sinks.take_queues(), daemon.shared.clone());
    let (ask, commands) = mpsc::channel(COMMANDS);
    let accepted = !verdict.gaps.is_empty();
    let lost_wal = accepted || !verdict.owed.is_empty();
    let driver = driver(daemon, client, verdict, &stored, &quarantines, fanout, commands).await?;
    sinks.continues = driver.continues.subscribe();
    // It looks at the source before the stream is read, so that what has to be followed is followed from the beginning.
    let baseline = Baseline {
        hint: driver.hint.clone(),
        anew: accepted && daemon.new_baseline,
        lost_wal,
        ..baseline(daemon, &stored, driver.stage.names().clone(), ask)
    };
    let baseline = tokio::select! {
        prepared = Runner::prepare(baseline) => prepared.map_err(RunError::Baseline)?,
        () = stopped(stop) => return Ok(Ended::Stopped(Lsn::ZERO)),
    };
    if accepted {
        daemon.shared.gaps.fetch_add(1, Ordering::Relaxed);
    }
    daemon.shared.phase(Phase::Streaming);
    info!(source = %daemon.source.name, slot = %daemon.source.slot, from = %sinks.start.flushed_lsn, "streaming");

    // Tasks that run beside the stream, and end with it.
    let mut beside = JoinSet::new();
    beside.spawn(slot::heartbeat(daemon.source.clone()));
    beside.spawn(slot::watch_standby(daemon.source.clone(), daemon.shared.clone()));
    beside.spawn(watch_quarantine(daemon.source.clone(), sinks.take_waiting(daemon)));
    beside.spawn(baseline.run());
    let work = tokio::spawn(driver.run(receiver, stop.clone()));
    let ended = follow(daemon, work, &mut sinks, &budget, &safe, stop).await;
    beside.abort_all();
    let (receiver, ended) = ended?;
    let acknowledged = sinks.acknowledge(daemon, &safe);
    let _ = end_stream.send(true);
    last_word(receiver).await;
    Ok(match ended {
        Ended::Stopped(_) => Ended::Stopped(acknowledged),
        Ended::Restart => Ended::Restart,
    })
}

/// Lets the server receive what became durable at the very end, and closes the stream in an orderly way.
async fn last_word(mut receiver: Receiver) {
    let drained = async { while let Ok(Some(_)) = receiver.recv().await {} };
    if tokio::time::timeout(LAST_WORD, drained).await.is_err() {
        debug!("the server did not end the stream in time");
    }
}

/// What the server has not received by then, it receives at the next start.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Capacity for commands of the baseline that wait: a few for each of its workers.
const COMMANDS: usize = 64;

async fn take_all(sinks: &[NamedSink], identity: &Identity) -> Result<Vec<(Arc<str>, Stored)>, RunError> {
    let takes = sinks.iter().map(|sink| async move { Ok((sink.name.clone(), sink_task::take(sink, identity).await?)) });
    futures::future::try_join_all(takes).await.map_err(|end| RunError::Sink(SinkFailure(end)))
}

/// Whether the daemon may continue from here, and how.
fn continuity(
    daemon: &Daemon,
    server: &Server,
    stored: &[(Arc<str>, Stored)],
    diverged: bool,
) -> Result<Verdict, RunError> {
    let checkpoints: Vec<(Arc<str>, Option<Checkpoint>)> =
        stored.iter().map(|(name, stored)| (name.clone(), stored.checkpoint.clone())).collect();
    let verdict = if diverged { continuity::diverged(server, &checkpoints) } else { judge(server, &checkpoints) };
    if verdict.gaps.is_empty() {
        return Ok(verdict);
    }
    if !daemon.accept_gap.load(Ordering::Relaxed) {
        return Err(RunError::Gap { slot: daemon.source.slot.clone(), stretches: Stretches(verdict.gaps) });
    }
    for gap in &verdict.gaps {
        warn!(sink = %gap.sink, from = %gap.from, to = %gap.to, reason = gap.reason.name(), "gap accepted");
    }
    Ok(verdict)
}

/// The content of a `gap` record.
fn gap_note(verdict: &Verdict) -> Option<Context> {
    let lost: Vec<serde_json::Value> = verdict
        .gaps
        .iter()
        .chain(&verdict.owed)
        .map(|gap| {
            serde_json::json!({ "sink": gap.sink.as_ref(), "from": gap.from, "to": gap.to, "reason": gap.reason.name() })
        })
        .collect();
    (!lost.is_empty()).then(|| Context::note(&serde_json::json!({ "lost": lost })))
}

fn baseline(
    daemon: &Daemon,
    stored: &[(Arc<str>, Stored)],
    names: FormerNames,
    commands: mpsc::Sender<Command>,
) -> Baseline {
    let sinks = stored.iter().map(|(name, stored)| SinkProgress {
        name: name.clone(),
        is_new: stored.checkpoint.is_none(),
        baselines: stored.baselines.clone(),
    });
    Baseline {
        endpoint: daemon.source.endpoint.clone(),
        source: daemon.source.name.clone(),
        publication: daemon.source.publication.clone(),
        rules: daemon.rules.clone(),
        names,
        config: daemon.baseline.clone(),
        row_max: daemon.memory.message_max,
        sinks: sinks.collect(),
        commands,
        progress: daemon.baseline_progress.clone(),
        hint: Arc::default(),
        anew: false,
        lost_wal: false,
    }
}

async fn driver(
    daemon: &Daemon,
    client: tokio_postgres::Client,
    verdict: Verdict,
    stored: &[(Arc<str>, Stored)],
    quarantines: &Quarantines,
    fanout: Fanout,
    commands: mpsc::Receiver<Command>,
) -> Result<Driver, RunError> {
    let checks = stored.iter().filter_map(|(name, stored)| {
        let checkpoint = stored.checkpoint.as_ref().filter(|c| c.change_lsn != Lsn::ZERO)?;
        Some(ResumeCheck { sink: name.clone(), position: checkpoint.position, change_lsn: checkpoint.change_lsn })
    });
    let note = gap_note(&verdict);
    let told = verdict.start();
    let mut stage = Stage::new(StageConfig {
        rules: daemon.rules.clone(),
        names: names(daemon, &client).await?,
        policy: daemon.policy.clone(),
        verdict,
        contexts: contexts(daemon, &client).await?,
        shapes: stored.iter().flat_map(|(_, stored)| stored.shapes.clone()).collect(),
        stored: stored
            .iter()
            .filter_map(|(_, stored)| Some(stored.checkpoint.as_ref()?.position))
            .max()
            .unwrap_or_default(),
        checks: checks.collect(),
        quarantine: quarantines.get(ALL_SINKS).cloned().unwrap_or_default(),
    });
    if let Some(note) = note {
        stage.record_gap(note);
    }
    Ok(Driver {
        stage,
        fanout,
        client,
        publication: daemon.source.publication.clone(),
        commands,
        hint: Arc::default(),
        continues: watch::Sender::new(false),
        shared: daemon.shared.clone(),
        config: daemon.config.clone(),
        until: daemon.until,
        told,
        told_at: Instant::now(),
        clock: Micros(i64::MIN),
        keyring: daemon.keyring.clone(),
        large: None,
        keys_read_at: Instant::now(),
    })
}

/// ⚠ Before the stream is read, and not at the runner's leisure: a partition that was detached keeps its protection by them.
async fn names(daemon: &Daemon, client: &tokio_postgres::Client) -> Result<FormerNames, RunError> {
    let names = FormerNames::default();
    match former_names::read(client, &daemon.source.name).await? {
        Some(stored) => names.stored(stored),
        None => warn!(
            hint = "run `cdc-audit setup`",
            "table cdc_audit.captured_names is not there, or cannot be read: former partitions do not keep the rules of their table"
        ),
    }
    Ok(names)
}

async fn contexts(daemon: &Daemon, client: &tokio_postgres::Client) -> Result<Contexts, RunError> {
    let keys = context_keys::read(client).await?;
    if keys.keys.is_empty() {
        warn!(
            hint = "run `cdc-audit setup`",
            "the keys of cdc_audit.set_context cannot be read: no context is verified"
        );
    }
    Ok(Contexts::new(daemon.source.conventions.clone(), keys))
}

/// The sinks' tasks, and what each sink has stored durably.
struct Sinks {
    tasks: JoinSet<Result<(), SinkEnd>>,
    durable: Vec<watch::Receiver<Progress>>,
    queues: Vec<mpsc::Sender<Arc<Held>>>,
    quarantine: Vec<watch::Sender<Quarantine>>,
    epoch: u16,
    start: Progress,
    /// Where the record of an accepted gap stands.
    gap: Option<Position>,
    /// Whether the stream has shown that it continues what every sink has.
    continues: watch::Receiver<bool>,
}

impl Sinks {
    fn start(daemon: &Daemon, verdict: &Verdict, quarantines: &Quarantines) -> Sinks {
        let start = verdict.start();
        let mut sinks = Sinks {
            tasks: JoinSet::new(),
            durable: Vec::new(),
            queues: Vec::new(),
            quarantine: Vec::new(),
            epoch: verdict.epoch,
            start,
            gap: (!verdict.gaps.is_empty()).then(|| verdict.gap_position()),
            continues: watch::channel(false).1,
        };
        for sink in &daemon.sinks {
            let (queue, batches) = mpsc::channel(QUEUE);
            let (durable, stands) = watch::channel(Progress::default());
            let quarantine = quarantines.get(sink.name.as_ref()).cloned().unwrap_or_default();
            let (quarantine, decided) = watch::channel(quarantine);
            sinks.tasks.spawn(sink_task::run(sink.clone(), start, batches, durable, decided));
            sinks.durable.push(stands);
            sinks.queues.push(queue);
            sinks.quarantine.push(quarantine);
        }
        sinks
    }

    /// Takes the queues out: a queue ends when its only owner drops it.
    fn take_queues(&mut self) -> Vec<mpsc::Sender<Arc<Held>>> {
        std::mem::take(&mut self.queues)
    }

    /// Tells the server the smallest position that every sink has stored. Nothing is acknowledged while a sink is in an
    /// older epoch: it still lacks the record of its gap, whose position depends on where the slot begins. Nothing is
    /// acknowledged either before the stream has shown that it continues what every sink has: if it does not, what one
    /// sink skips as old is new, and has to be sent again.
    fn acknowledge(&self, daemon: &Daemon, safe: &watch::Sender<Lsn>) -> Lsn {
        let stands: Vec<Progress> = self.durable.iter().map(|durable| *durable.borrow()).collect();
        let continues = *self.continues.borrow();
        if !continues || stands.iter().any(|progress| progress.position.epoch < self.epoch) {
            return *safe.borrow();
        }
        let smallest = stands.iter().map(|progress| progress.flushed_lsn).min().unwrap_or(Lsn::ZERO);
        safe.send_if_modified(|last| {
            let more = smallest > *last;
            *last = smallest.max(*last);
            more
        });
        let acknowledged = *safe.borrow();
        daemon.shared.acknowledged(acknowledged);
        acknowledged
    }

    /// Tells whether every sink has stored the record of the gap that was accepted, if there was one.
    fn have_gap(&self) -> bool {
        self.gap.is_none_or(|gap| self.durable.iter().all(|durable| durable.borrow().position >= gap))
    }

    /// The sinks that wait to learn what operators have quarantined meanwhile.
    fn take_waiting(&mut self, daemon: &Daemon) -> Vec<Waiting> {
        let senders = std::mem::take(&mut self.quarantine);
        let waiting =
            |(sink, decided): (&NamedSink, _)| Waiting { name: sink.name.clone(), gauge: sink.gauge.clone(), decided };
        daemon.sinks.iter().zip(senders).map(waiting).collect()
    }
}

/// A sink that may wait for a version to be quarantined.
struct Waiting {
    name: Arc<str>,
    gauge: Arc<SinkGauge>,
    decided: watch::Sender<Quarantine>,
}

impl Waiting {
    fn tell(&self, quarantines: &Quarantines) {
        let decided = quarantines.get(self.name.as_ref()).cloned().unwrap_or_default();
        self.decided.send_if_modified(|known| {
            let more = *known != decided;
            *known = decided;
            more
        });
    }
}

/// Tells failing sinks what operators have quarantined meanwhile. It is a task of its own, so that neither
/// acknowledgements nor a stop wait for a source that does not answer.
async fn watch_quarantine(source: SourceConfig, sinks: Vec<Waiting>) {
    loop {
        tokio::time::sleep(QUARANTINE_POLL).await;
        if !sinks.iter().any(|sink| sink.gauge.is_failing()) {
            continue;
        }
        // This is only a hint for sinks that wait: if it cannot be read now, it is read the next time.
        if let Some(quarantines) = slot::quarantines_now(&source).await {
            sinks.iter().for_each(|sink| sink.tell(&quarantines));
        }
    }
}

/// Waits until any sink has stored more durably.
async fn any_durable(durable: &mut [watch::Receiver<Progress>]) {
    // A sink that ended reports nothing new here; its end is handled elsewhere.
    let changes = durable.iter_mut().map(|durable| {
        Box::pin(async {
            if durable.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    });
    select_all(changes).await;
}

fn sink_ended(end: Result<Result<(), SinkEnd>, tokio::task::JoinError>) -> Result<Option<Ended>, RunError> {
    match end {
        Ok(Ok(())) => Ok(None),
        Ok(Err(end)) if end.error.action == Action::Restart => {
            let (error, hint) = (Chain(&end.error), end.error.hint.as_deref());
            warn!(sink = %end.sink, %error, hint, "the sink has to begin again from what is durable");
            Ok(Some(Ended::Restart))
        }
        Ok(Err(end)) => Err(RunError::Sink(SinkFailure(end))),
        Err(panic) => Err(RunError::Panic(panic.to_string())),
    }
}

/// How often the list of quarantined versions is read. A person waits for the effect.
const QUARANTINE_POLL: Duration = Duration::from_secs(2);

const TOO_LONG: &str = "stopping took too long; what was not durable comes again at the next start";

/// The driver's task, which returns the receiver.
type Work = JoinHandle<(Receiver, Result<(), DriverError>)>;

async fn follow(
    daemon: &Daemon,
    mut work: Work,
    sinks: &mut Sinks,
    budget: &Budget,
    safe: &watch::Sender<Lsn>,
    stop: &watch::Receiver<bool>,
) -> Result<(Receiver, Ended), RunError> {
    let mut late = pin!(async {
        stopped(stop).await;
        tokio::time::sleep(daemon.config.stop_timeout.get()).await;
    });
    let (receiver, driven) = loop {
        if *sinks.continues.borrow_and_update() && sinks.have_gap() {
            // The permission applies once, to the gap that the operator knew about, and until every sink has its record.
            daemon.accept_gap.store(false, Ordering::Relaxed);
        }
        sinks.acknowledge(daemon, safe);
        daemon.shared.memory_used.store(budget.used(), Ordering::Relaxed);
        tokio::select! {
            biased;
            Some(end) = sinks.tasks.join_next() => match sink_ended(end) {
                // Its queue has ended, so the driver has ended too.
                Ok(None) => {}
                // A sink ends before its queue only if it has to. The driver is then stopped, because everything else
                // waits for it.
                ended => {
                    work.abort();
                    return match (ended?, work.await) {
                        (Some(ended), Ok((receiver, _))) => Ok((receiver, ended)),
                        _ => Err(RunError::Restart),
                    };
                }
            },
            driven = &mut work => break driven.map_err(|panic| RunError::Panic(panic.to_string()))?,
            // The driver waits for room, because a sink stores nothing.
            () = &mut late => {
                work.abort();
                warn!("{TOO_LONG}");
                return Err(RunError::Restart);
            }
            () = any_durable(&mut sinks.durable) => {}
            Ok(()) = sinks.continues.changed() => {}
        }
    };
    let stopping = *stop.borrow();
    if stopping {
        daemon.shared.phase(Phase::Stopping);
    }
    // The driver has ended, and with it the queues: each sink makes durable what it has, and ends.
    let finish = async {
        while let Some(end) = sinks.tasks.join_next().await {
            sink_ended(end)?;
        }
        Ok::<(), RunError>(())
    };
    let finished = tokio::time::timeout(daemon.config.stop_timeout.get(), finish).await;
    driven.map_err(RunError::Driver)?;
    match finished {
        Ok(finished) => finished?,
        Err(_) => warn!("{TOO_LONG}"),
    }
    let ended = stopping || daemon.until.is_some();
    Ok((receiver, if ended { Ended::Stopped(Lsn::ZERO) } else { Ended::Restart }))
}
