//! The loop that gives tables their turn: [`Runner`].

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use audit_connect::Outcome;
use audit_core::baseline::Command;
use audit_core::baseline::plan::{Begin, Plan};
use audit_core::rules::Rules;
use audit_core::shape::TableName;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::error::BaselineError;
use super::report::{Failure, Phase};
use super::session::Reader;
use super::settle::{Standing, snapshot};
use super::store::{Baselines, Description, Kind, Store};
use super::work::{Ended, Shared, Work};
use super::{Baseline, SinkProgress, describe::describe};
use crate::query::rows;

/// How often the publication is looked at for new tables, unless a hint comes first; and how often what somebody must fix is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Hints may follow one another: at least so long from one look to the next.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How often transactions that have to end are looked for.
const WAIT_MIN: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A wait longer than this is worth a line in the log; for so many tables.
const SAY_AFTER: Duration = Duration::from_secs(10);
const SAID_MAX: usize = 3;

/// How long a failure that may pass is left alone, doubled from one to the other.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Tables whose schema is the tool's own have no history.
const OWN_SCHEMA: &str = "cdc_audit";

/// Brings every table's baseline to every sink, for as long as the stream lasts.
pub struct Runner {
    shared: Arc<Shared>,
    rules: Rules,
    sinks: Vec<SinkProgress>,
    hint: Arc<Notify>,
    /// Everything is to be read anew; done at the first look.
    anew: bool,
    lost_wal: bool,
    tables: BTreeMap<Arc<str>, State>,
    tasks: JoinSet<Worked>,
    idle: Vec<Reader>,
    looked_at: Instant,
    look_at: Instant,
    first_look: bool,
    check_at: Instant,
    check_every: Duration,
    /// Since when a table waits, and whether that was said.
    waits_since: Option<Instant>,
    wait_is_known: bool,
    /// Tables whose turn it is.
    queue: VecDeque<Arc<str>>,
    failures: u32,
}

/// A task's end: the session it used, its table, and what became of it.
type Worked = (Reader, Work, Result<Ended, BaselineError>);

/// Where a table is.
enum State {
    /// These held locks for writing when the table was first seen.
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

#[derive(Deserialize)]
struct Listed {
    oid: u32,
    schema: String,
    table: String,
    estimate: u64,
    keyed: bool,
}

impl Runner {
    /// Looks at the source for the first time, so that by the time the stream is read everything has begun that should begin early. What
    /// fails here is tried again by [`Runner::run`].
    ///
    /// # Errors
    /// Only where everything is to be read anew: who begins the stream without having stored that may forget it in a kill.
    pub async fn prepare(baseline: Baseline) -> Result<Runner, BaselineError> {
        let Baseline { endpoint, source, publication, rules, config, sinks, commands, progress, hint, anew, lost_wal } =
            baseline;
        progress.reset();
        let idle = (0..config.parallel.max(1)).map(|_| Reader::new(endpoint.clone())).collect();
        let control = super::session::Control::new(endpoint);
        let shared = Arc::new(Shared { source, publication, config, control, commands, progress });
        let now = Instant::now();
        let mut runner = Runner {
            shared,
            rules,
            sinks,
            hint,
            anew,
            lost_wal,
            tables: BTreeMap::new(),
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
        let looked = runner.look().await;
        if runner.anew {
            looked?;
        } else {
            runner.after(looked);
        }
        Ok(runner)
    }

    /// Ends when nobody takes chunks any more.
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

    /// Somebody has done something: perhaps what was missing.
    fn hinted(&mut self) {
        self.look_at = self.look_at.min(self.looked_at + LOOK_PAUSE);
        for state in self.tables.values_mut() {
            if let State::Failed(_, at) = state {
                *at = self.look_at.min(*at);
            }
        }
    }

    /// Finds tables that want a baseline and are not known yet, and forgets those that are gone.
    async fn look(&mut self) -> Result<(), BaselineError> {
        self.looked_at = Instant::now();
        self.look_at = self.looked_at + LOOK_EVERY;
        let client = self.shared.control.get().await?;
        self.shared.send(Command::Settled(snapshot(&client).await?)).await?;
        let shared = self.shared.clone();
        let store = Store { client: &client, source: &shared.source };
        let new: Vec<&str> = self.sinks.iter().filter(|sink| sink.is_new).map(|sink| sink.name.as_ref()).collect();
        if self.first_look && !new.is_empty() {
            let disowned = store.disown(&new).await;
            // Also where no baseline is wanted today; but then nothing needs to be there.
            if shared.config.enabled {
                disowned?;
            }
        }
        if !shared.config.enabled {
            self.first_look = false;
            return Ok(());
        }
        let sql = include_str!("../sql/listing.sql");
        let listed: Vec<Listed> = rows(&client, "list the published tables", sql, &[&self.shared.publication]).await?;
        self.forget_unlisted(&listed);
        let unknown: Vec<(Arc<str>, TableName, Listed)> = listed
            .into_iter()
            .map(|listed| {
                let name = TableName::new(&listed.schema, &listed.table);
                (Arc::from(name.to_string()), name, listed)
            })
            .filter(|(table, name, _)| {
                !self.tables.contains_key(table)
                    && name.schema != OWN_SCHEMA
                    && self.rules.for_table(name).wants_baseline()
            })
            .collect();
        if !unknown.is_empty() {
            let stored = store.baselines().await?;
            self.take_in(&client, unknown, stored).await?;
        }
        self.first_look = false;
        self.anew = false;
        Ok(())
    }

    fn forget_unlisted(&mut self, listed: &[Listed]) {
        let names: HashSet<String> =
            listed.iter().map(|listed| TableName::new(&listed.schema, &listed.table).to_string()).collect();
        let progress = &self.shared.progress;
        self.tables.retain(|table, state| {
            // One that is being read finds out by itself.
            let keep = matches!(state, State::Working) || names.contains(table.as_ref());
            if !keep {
                progress.forget(table);
            }
            keep
        });
    }

    async fn take_in(
        &mut self,
        client: &tokio_postgres::Client,
        unknown: Vec<(Arc<str>, TableName, Listed)>,
        mut stored: BTreeMap<String, Baselines>,
    ) -> Result<(), BaselineError> {
        let standing = Standing::read(client).await?;
        let mut whole = Vec::new();
        let mut works = Vec::new();
        for (table, name, listed) in unknown {
            let baselines = stored.remove(table.as_ref()).unwrap_or_default();
            let rows: u64 = baselines.last_key_value().map_or(0, |(_, (_, description))| description.rows);
            let (known, mut descriptions): (BTreeMap<_, _>, BTreeMap<_, _>) = baselines
                .into_iter()
                .map(|(number, (known, description))| ((number, known), (number, description)))
                .unzip();
            if self.lost_wal && self.first_look {
                // Rows younger than the baseline may be among what the stream has lost.
                descriptions.values_mut().for_each(|description: &mut Description| description.snapshot = None);
            }
            let has = |sink: &SinkProgress| (sink.name.clone(), sink.baselines.get(table.as_ref()).copied());
            let rules = self.rules.for_table(&name);
            let sinks = self.sinks.iter().filter(|sink| rules.goes_to(&sink.name));
            let plan = Plan::new(sinks.map(has).collect(), known);
            self.shared.progress.expect(&table, listed.estimate, rows);
            if plan.is_done() && !self.anew {
                whole.extend(descriptions.keys().map(|baseline| (table.clone(), *baseline)));
                self.shared.progress.phase(&table, Phase::Done);
                self.tables.insert(table, State::Done);
                continue;
            }
            let work = Work::new(table, name, listed.oid, plan, descriptions, self.shared.config.chunk_rows);
            works.push((Box::new(work), listed.keyed));
        }
        let store = Store { client, source: &self.shared.source };
        if self.first_look {
            store.tidy(&whole).await?;
        }
        if self.anew {
            ask_for_all(&store, &mut works).await?;
        }
        let mut followed = Vec::new();
        for (work, _) in works.iter_mut().filter(|(_, keyed)| !keyed) {
            followed.extend(self.begin_early(client, work).await?);
        }
        if !followed.is_empty() {
            self.shared.send(Command::Follow { tables: followed }).await?;
        }
        for (work, _) in works {
            let writers = standing.writers(work.oid);
            self.tables.insert(work.table.clone(), State::Settling(work, writers));
        }
        self.check_at = Instant::now();
        self.check_every = WAIT_MIN;
        Ok(())
    }

    /// A table without a key is begun before its turn comes: the earlier it is, the fewer of its rows have come by the stream before.
    async fn begin_early(
        &self,
        client: &tokio_postgres::Client,
        work: &mut Work,
    ) -> Result<Option<(Arc<str>, u32)>, BaselineError> {
        let found = describe(client, &self.shared.publication, work.oid).await?;
        let Some(table) = found.filter(|table| table.kind() == Kind::Ctid) else { return Ok(None) };
        work.begin_what_is_due(&self.shared, &table).await?;
        Ok(work.followed())
    }

    fn waits(&self) -> bool {
        self.tables.values().any(|state| matches!(state, State::Settling(..) | State::Waiting(..)))
    }

    /// Lets tables go on whose transactions have ended.
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

    /// Somebody may have forgotten a transaction, or a prepared one.
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
                // Its table stays as it is until the next start, and the other tables go on.
                warn!(%error, "a baseline's task ended unexpectedly");
                return Ok(());
            }
        };
        self.idle.push(reader);
        let (table, mut work) = (work.table.clone(), Box::new(work));
        let progress = &self.shared.progress;
        let state = match ended {
            Ok(Ended::Done) => {
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

    /// What concerns all tables alike.
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

/// Stores that every table is wanted anew before any is read, so that a kill in between forgets none.
async fn ask_for_all(store: &Store<'_>, works: &mut [(Box<Work>, bool)]) -> Result<(), BaselineError> {
    let wanted: Vec<(Arc<str>, Begin)> = works.iter().map(|(work, _)| (work.table.clone(), work.plan.anew())).collect();
    store.ask_for(&wanted).await?;
    for ((work, _), (_, begin)) in works.iter_mut().zip(wanted) {
        work.plan.begun(&begin, false);
        work.descriptions.insert(begin.baseline, Description::default());
    }
    Ok(())
}
