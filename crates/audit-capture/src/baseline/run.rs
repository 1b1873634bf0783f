//! The loop that works on one table after the other: [`Runner`].

mod decide;
mod look;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use audit_connect::Outcome;
use audit_core::rules::{FormerNames, Rules, TableRules};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use self::look::Known;
use super::error::BaselineError;
use super::listed::Listed;
use super::report::{Failure, Phase};
use super::session::Reader;
use super::settle::Standing;
use super::work::{Ended, Shared, Work};
use super::{Baseline, SinkProgress};

/// How often the publication is checked for new tables, unless a hint comes first; and how often failures that a person
/// must fix are tried again.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Hints may come in quick succession, so this is the shortest time between two looks.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How often to check whether the transactions that have to end have ended.
const WAIT_MIN: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A wait longer than this is logged, for at most this number of tables.
const SAY_AFTER: Duration = Duration::from_secs(10);
const SAID_MAX: usize = 3;

/// How long to wait after a failure that may pass; each pause is twice as long as the one before.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Tables in the daemon's own schema have no history.
const OWN_SCHEMA: &str = "cdc_audit";

/// Brings every table's baseline to every sink, for as long as the stream lasts.
pub struct Runner {
    shared: Arc<Shared>,
    rules: Rules,
    names: FormerNames,
    sinks: Vec<SinkProgress>,
    hint: Arc<Notify>,
    /// Whether everything has to be read again; this is started at the first look.
    anew: bool,
    lost_wal: bool,
    tables: BTreeMap<Arc<str>, State>,
    /// What the source has stored about the tables; `None` until it was read.
    known: Option<Known>,
    /// Partitions that were already requested: the table, and the partition as in [`Listed::joined`].
    joined: HashSet<(Arc<str>, String)>,
    tasks: JoinSet<Worked>,
    idle: Vec<Reader>,
    looked_at: Instant,
    look_at: Instant,
    first_look: bool,
    check_at: Instant,
    check_every: Duration,
    /// Since when a table waits, and whether that was logged.
    waits_since: Option<Instant>,
    wait_is_known: bool,
    /// Tables that are ready to be read.
    queue: VecDeque<Arc<str>>,
    failures: u32,
}

/// The end of a task: the session it used, its table, and the result.
type Worked = (Reader, Work, Result<Ended, BaselineError>);

/// The state of a table.
enum State {
    /// These transactions held locks for writing when the table was first seen.
    Settling(Box<Work>, HashSet<String>),
    /// Every transaction below this number has to end.
    Waiting(Box<Work>, u64),
    Queued(Box<Work>),
    Working,
    Failed(Box<Work>, Instant),
    Done,
}

impl State {
    fn oid(&self) -> u32 {
        match self {
            State::Settling(work, _) | State::Waiting(work, _) | State::Queued(work) | State::Failed(work, _) => {
                work.oid
            }
            State::Working | State::Done => 0,
        }
    }
}

impl Runner {
    /// Looks at the source for the first time, so that everything that should begin early has begun by the time the
    /// stream is read. What fails here is tried again by [`Runner::run`].
    ///
    /// # Errors
    /// Fails only if WAL was lost and that cannot be stored: if the stream began before it is stored, a kill could make
    /// the program forget it.
    pub async fn prepare(baseline: Baseline) -> Result<Runner, BaselineError> {
        let Baseline {
            endpoint,
            source,
            publication,
            rules,
            names,
            config,
            row_max,
            sinks,
            commands,
            progress,
            hint,
            anew,
            lost_wal,
        } = baseline;
        progress.reset();
        let idle = (0..config.parallel.max(1)).map(|_| Reader::new(endpoint.clone())).collect();
        let control = super::session::Control::new(endpoint);
        let large = Arc::new(Semaphore::new(1));
        let shared = Arc::new(Shared { source, publication, config, control, row_max, large, commands, progress });
        let now = Instant::now();
        let mut runner = Runner {
            shared,
            rules,
            names,
            sinks,
            hint,
            anew,
            lost_wal,
            tables: BTreeMap::new(),
            known: None,
            joined: HashSet::new(),
            tasks: JoinSet::new(),
            idle,
            looked_at: now,
            look_at: now,
            first_look: true,
            check_at: now,
            check_every: WAIT_MIN,
            waits_since: None,
            wait_is_known: false,
            queue: VecDeque::new(),
            failures: 0,
        };
        if runner.lost_wal {
            // This must happen before the stream continues: after a kill nobody would know that it did not continue
            // what the sinks have.
            runner.forget_since().await?;
        }
        let looked = runner.look().await;
        if runner.anew {
            looked?;
        } else {
            runner.after(looked);
        }
        Ok(runner)
    }

    /// Runs until the stage no longer accepts chunks.
    pub async fn run(mut self) {
        loop {
            let now = Instant::now();
            if self.look_at <= now {
                let looked = self.look().await;
                self.after(looked);
            }
            if self.check_at <= now && self.waits() {
                let checked = self.check().await;
                self.after(checked);
            }
            self.retry(now);
            self.start_tasks();
            let wake = self.wake_at();
            tokio::select! {
                () = self.shared.commands.closed() => return,
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Err(BaselineError::StreamEnded) = self.ended(ended) {
                        return;
                    }
                }
                () = self.hint.notified() => self.hinted(),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Handles a hint: something was done, and it may be what was missing.
    fn hinted(&mut self) {
        self.look_at = self.look_at.min(self.looked_at + LOOK_PAUSE);
        for state in self.tables.values_mut() {
            if let State::Failed(_, at) = state {
                *at = self.look_at.min(*at);
            }
        }
    }

    /// The rules that the stage finds for the table.
    fn rules_of(&self, listed: &Listed) -> TableRules {
        self.names.rules_now(&self.rules, &listed.name(), listed.oid)
    }

    fn waits(&self) -> bool {
        self.tables.values().any(|state| matches!(state, State::Settling(..) | State::Waiting(..)))
    }

    /// Lets tables continue whose transactions have ended.
    async fn check(&mut self) -> Result<(), BaselineError> {
        self.check_at = Instant::now() + self.check_every;
        self.check_every = (self.check_every * 2).min(WAIT_MAX);
        let client = self.shared.control.get().await?;
        let standing = Standing::read(&client).await?;
        let mut waiting = Vec::new();
        for (table, state) in &mut self.tables {
            let ready = match state {
                State::Settling(work, before) => standing.has_settled(work.oid, before),
                State::Waiting(_, xmax) => standing.snapshot.xmin() >= *xmax,
                _ => continue,
            };
            if !ready {
                self.shared.progress.phase(table, Phase::Waiting);
                waiting.push((table.clone(), standing.writers(state.oid())));
                continue;
            }
            if let State::Settling(work, _) | State::Waiting(work, _) = std::mem::replace(state, State::Working) {
                self.shared.progress.phase(table, Phase::Queued);
                *state = State::Queued(work);
                self.queue.push_back(table.clone());
            }
        }
        self.say_who_is_waited_for(&waiting, &standing);
        Ok(())
    }

    /// Logs which transactions are waited for: someone may have forgotten one, or a prepared one.
    fn say_who_is_waited_for(&mut self, waiting: &[(Arc<str>, HashSet<String>)], standing: &Standing) {
        if waiting.is_empty() {
            (self.waits_since, self.wait_is_known) = (None, false);
            return;
        }
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        if self.wait_is_known || since.elapsed() < SAY_AFTER {
            return;
        }
        self.wait_is_known = true;
        for (table, writers) in waiting.iter().take(SAID_MAX) {
            info!(%table, ?writers, oldest_xid = standing.snapshot.xmin(), "baseline waits for transactions to end (see pg_locks)");
        }
    }

    fn retry(&mut self, now: Instant) {
        for (table, state) in &mut self.tables {
            if !matches!(state, State::Failed(_, at) if *at <= now) {
                continue;
            }
            if let State::Failed(work, _) = std::mem::replace(state, State::Working) {
                *state = State::Queued(work);
                self.queue.push_back(table.clone());
            }
        }
    }

    fn start_tasks(&mut self) {
        while !self.idle.is_empty() {
            let Some(table) = self.queue.pop_front() else { return };
            let Some(state) = self.tables.get_mut(&table) else { continue };
            let State::Queued(work) = std::mem::replace(state, State::Working) else { continue };
            let Some(mut reader) = self.idle.pop() else { return };
            let (mut work, shared) = (*work, self.shared.clone());
            shared.progress.phase(&table, Phase::Reading);
            self.tasks.spawn(async move {
                let ended = work.run(&shared, &mut reader).await;
                (reader, work, ended)
            });
        }
    }

    fn ended(&mut self, ended: Result<Worked, JoinError>) -> Result<(), BaselineError> {
        let (reader, work, ended) = match ended {
            Ok(worked) => worked,
            Err(error) => {
                // Its table stays as it is until the next start, and the other tables continue.
                warn!(%error, "a baseline's task ended unexpectedly");
                return Ok(());
            }
        };
        self.idle.push(reader);
        let (table, mut work) = (work.table.clone(), Box::new(work));
        if matches!(ended, Ok(Ended::Done)) {
            self.remember(&work);
        }
        let progress = &self.shared.progress;
        let state = match ended {
            Ok(Ended::Done) => {
                // There may be another partition to read.
                self.look_at = self.look_at.min(Instant::now() + LOOK_PAUSE);
                info!(%table, "baseline complete");
                progress.phase(&table, Phase::Done);
                State::Done
            }
            Ok(Ended::Wait(xmax)) => {
                self.check_at = Instant::now();
                self.check_every = WAIT_MIN;
                progress.phase(&table, Phase::Waiting);
                State::Waiting(work, xmax)
            }
            Ok(Ended::Gone) => {
                info!(%table, "table is gone, or has another name: skipped");
                progress.forget(&table);
                self.tables.remove(&table);
                self.look_at = Instant::now();
                return Ok(());
            }
            Err(BaselineError::StreamEnded) => return Err(BaselineError::StreamEnded),
            Err(error) => {
                work.failures = work.failures.saturating_add(1);
                let pause = pause_after(&error, work.failures);
                let failure = Failure::of(&error);
                let (message, hint) = (failure.message.clone(), failure.hint.clone().unwrap_or_default());
                if progress.failed(&table, failure) {
                    warn!(%table, error = message, hint, "baseline cannot go on; tried again later");
                }
                State::Failed(work, Instant::now() + pause)
            }
        };
        self.tables.insert(table, state);
        Ok(())
    }

    /// Handles the result of a step that concerns all tables alike.
    fn after(&mut self, result: Result<(), BaselineError>) {
        let failure = match &result {
            Ok(()) => {
                self.failures = 0;
                None
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let at = Instant::now() + pause_after(error, self.failures);
                (self.look_at, self.check_at) = (at, at);
                Some(Failure::of(error))
            }
        };
        let news = self.shared.progress.failed_as_a_whole(failure.clone());
        if let Some(failure) = failure.filter(|_| news) {
            warn!(
                error = failure.message,
                hint = failure.hint.unwrap_or_default(),
                "baselines cannot go on; tried again later"
            );
        }
    }

    fn wake_at(&self) -> Instant {
        let check = self.waits().then_some(self.check_at);
        let retries = self.tables.values().filter_map(|state| match state {
            State::Failed(_, at) => Some(*at),
            _ => None,
        });
        retries.chain(check).fold(self.look_at, Instant::min)
    }
}

fn pause_after(error: &BaselineError, failures: u32) -> Duration {
    match error.outcome() {
        Outcome::Retry => (RETRY_MIN * 2u32.saturating_pow(failures.saturating_sub(1).min(8))).min(LOOK_EVERY),
        Outcome::Fix | Outcome::Bug => LOOK_EVERY,
    }
}
