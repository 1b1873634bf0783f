//! The progress of baselines, for `status` and a progress bar: [`Progress`], [`Report`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use audit_config::Chain;
use audit_connect::Outcome;
use audit_core::baseline::Reread;

use tracing::warn;

use super::error::BaselineError;
use super::listed::Uncaptured;

/// The period over which the rate is measured.
const RATE_OVER: Duration = Duration::from_secs(15);

/// How often the log repeats what is not captured.
const SAY_EVERY: Duration = Duration::from_secs(3600);

/// Largest number of names in one line of the log.
const NAMES_MAX: usize = 10;

impl Uncaptured {
    fn say(&self) {
        if !self.tables.is_empty() {
            let (count, tables) = (self.tables.len(), first(&self.tables));
            warn!(
                count,
                tables,
                hint = "`cdc-audit setup` publishes them; a publication of whole schemas takes new tables by itself",
                "tables that the rules take are not published: their changes are not captured"
            );
        }
        if !self.left.is_empty() {
            let (count, tables) = (self.left.len(), first(&self.left));
            warn!(
                count,
                tables,
                hint = "once they are published again, they are read anew",
                "tables have left the publication: what changes in them from now on is not captured"
            );
        }
        if !self.operations.is_empty() {
            warn!(
                hint = "run `cdc-audit setup`; then `cdc-audit baseline TABLE` reads a table anew",
                "the publication does not publish {}: such changes are not captured",
                self.operations.join(", ")
            );
        }
        if self.partitions_by_name {
            warn!(
                hint = "run `cdc-audit setup`",
                "the publication publishes partitions under their own names, not under that of their partitioned table"
            );
        }
    }
}

fn first(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    let more = if names.len() > NAMES_MAX { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// What the runner writes and others read; it is shared between them.
#[derive(Debug, Default)]
pub struct Progress {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tables: BTreeMap<Arc<str>, TableState>,
    /// Numbers of rows delivered, with the time.
    recent: VecDeque<(Instant, u64)>,
    rereads: BTreeMap<&'static str, u64>,
    /// The failure of the runner as a whole.
    error: Option<Failure>,
    uncaptured: Uncaptured,
    /// When that was last logged.
    said_at: Option<Instant>,
    looks: u64,
}

#[derive(Clone, Debug, Default)]
struct TableState {
    estimate: u64,
    rows: u64,
    phase: Phase,
    baseline: u32,
    chunk: u32,
    failure: Option<Failure>,
}

/// The current state of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The table waits for its turn.
    #[default]
    Queued,
    /// Transactions that began before have to end first.
    Waiting,
    /// Chunks are read.
    Reading,
    /// Every sink has, or will have, all of its rows.
    Done,
    /// Reading failed and will be tried again later.
    Failed,
}

/// Why a table, or everything, cannot continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The message with its causes.
    pub message: String,
    pub hint: Option<String>,
    /// Whether it may pass by itself.
    pub passing: bool,
}

/// A table in a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableReport {
    pub table: Arc<str>,
    pub phase: Phase,
    pub baseline: u32,
    /// Number of chunks that are delivered.
    pub chunk: u32,
    pub rows: u64,
    /// Number of rows of the table according to the server's statistics; 0 if there are none.
    pub estimate: u64,
    pub failure: Option<Failure>,
}

/// All baselines at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Number of tables that are to have a baseline.
    pub tables: usize,
    pub tables_done: usize,
    /// Rows delivered; in baselines that are not complete, also those delivered by earlier runs.
    pub rows: u64,
    /// Number of rows that this will be at the end, according to the server's statistics.
    pub rows_expected: u64,
    pub rows_per_second: f64,
    /// The remaining time at that rate; `None` if there is no rate.
    pub remaining: Option<Duration>,
    /// Tables that are being read, wait, or failed.
    pub open: Vec<TableReport>,
    /// Chunks that were read again, by reason.
    pub rereads: BTreeMap<&'static str, u64>,
    /// Why nothing continues at all.
    pub failure: Option<Failure>,
    /// What the rules select and the publication does not send.
    pub uncaptured: Uncaptured,
    /// Number of looks at the source since the program began.
    pub looks: u64,
}

impl Failure {
    pub(super) fn of(error: &BaselineError) -> Failure {
        let message = Chain(error).to_string();
        Failure { message, hint: error.hint(), passing: error.outcome() == Outcome::Retry }
    }
}

impl Progress {
    pub fn report(&self) -> Report {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.forget_old(now);
        let done = |state: &TableState| state.phase == Phase::Done;
        let (rows, expected) = inner.tables.values().fold((0, 0), |(rows, expected), state| {
            let all = if done(state) { state.rows } else { state.estimate.max(state.rows) };
            (rows + state.rows, expected + all)
        });
        let rate = inner.rate(now);
        let left = (expected - rows) as f64;
        let open = |state: &&TableState| matches!(state.phase, Phase::Waiting | Phase::Reading | Phase::Failed);
        Report {
            tables: inner.tables.len(),
            tables_done: inner.tables.values().filter(|state| done(state)).count(),
            rows,
            rows_expected: expected,
            rows_per_second: rate,
            remaining: (rate > 0.0).then(|| Duration::try_from_secs_f64(left / rate).unwrap_or(Duration::MAX)),
            open: inner
                .tables
                .iter()
                .filter(|(_, state)| open(state))
                .map(|(table, state)| TableReport {
                    table: table.clone(),
                    phase: state.phase,
                    baseline: state.baseline,
                    chunk: state.chunk,
                    rows: state.rows,
                    estimate: state.estimate,
                    failure: state.failure.clone(),
                })
                .collect(),
            rereads: inner.rereads.clone(),
            failure: inner.error.clone(),
            uncaptured: inner.uncaptured.clone(),
            looks: inner.looks,
        }
    }

    /// A new stream begins: only what the sinks have counts as done before.
    pub(super) fn reset(&self) {
        let mut inner = self.lock();
        let uncaptured = std::mem::take(&mut inner.uncaptured);
        *inner = Inner { uncaptured, said_at: inner.said_at, looks: inner.looks, ..Inner::default() };
    }

    pub(super) fn looked(&self) {
        self.lock().looks += 1;
    }

    /// Logs what is not captured, when that changes and at long intervals.
    pub(super) fn uncaptured(&self, now: Uncaptured) {
        let mut inner = self.lock();
        let is_due = inner.said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY);
        if now != inner.uncaptured || is_due {
            inner.said_at = Some(Instant::now());
            now.say();
        }
        inner.uncaptured = now;
    }

    pub(super) fn expect(&self, table: &Arc<str>, estimate: u64, rows: u64) {
        self.update(table, |state| (state.estimate, state.rows) = (estimate, rows));
    }

    pub(super) fn forget(&self, table: &Arc<str>) {
        self.lock().tables.remove(table);
    }

    pub(super) fn phase(&self, table: &Arc<str>, phase: Phase) {
        self.update(table, |state| {
            state.phase = phase;
            if phase != Phase::Failed {
                state.failure = None;
            }
        });
    }

    /// Returns whether the failure is new.
    pub(super) fn failed(&self, table: &Arc<str>, failure: Failure) -> bool {
        let mut news = false;
        self.update(table, |state| {
            news = state.failure.as_ref() != Some(&failure);
            state.phase = Phase::Failed;
            state.failure = Some(failure);
        });
        news
    }

    /// Returns whether the failure is new.
    pub(super) fn failed_as_a_whole(&self, failure: Option<Failure>) -> bool {
        let mut inner = self.lock();
        let news = inner.error != failure;
        inner.error = failure;
        news
    }

    pub(super) fn begun(&self, table: &Arc<str>, baseline: u32) {
        self.update(table, |state| (state.baseline, state.chunk, state.rows) = (baseline, 0, 0));
    }

    pub(super) fn delivered(&self, table: &Arc<str>, baseline: u32, chunk: u32, rows: u64) {
        self.update(table, |state| {
            (state.baseline, state.chunk) = (baseline, chunk);
            state.rows += rows;
        });
        let now = Instant::now();
        let mut inner = self.lock();
        inner.recent.push_back((now, rows));
        inner.forget_old(now);
    }

    pub(super) fn reread(&self, why: Reread) {
        *self.lock().rereads.entry(why.name()).or_default() += 1;
    }

    /// Counts a reader that could not yet see what the stream has already delivered.
    pub(super) fn waited(&self) {
        *self.lock().rereads.entry("a commit was not visible yet").or_default() += 1;
    }

    fn update(&self, table: &Arc<str>, change: impl FnOnce(&mut TableState)) {
        change(self.lock().tables.entry(table.clone()).or_default());
    }

    /// A poisoned lock is used all the same: counts have no state that a panic elsewhere could break.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget_old(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RATE_OVER) {
            self.recent.pop_front();
        }
    }

    fn rate(&self, now: Instant) -> f64 {
        let Some((first, _)) = self.recent.front() else { return 0.0 };
        let rows: u64 = self.recent.iter().map(|(_, rows)| rows).sum();
        rows as f64 / now.saturating_duration_since(*first).as_secs_f64().max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_against_what_is_expected() {
        let progress = Progress::default();
        let [users, orders, log] = ["users", "orders", "log"].map(Arc::from);
        progress.expect(&users, 1000, 200);
        progress.expect(&orders, 0, 0);
        progress.expect(&log, 50, 0);
        progress.phase(&users, Phase::Reading);
        progress.delivered(&users, 1, 3, 300);
        progress.delivered(&orders, 1, 1, 70);
        progress.phase(&orders, Phase::Done);
        let report = progress.report();
        assert_eq!((report.tables, report.tables_done, report.rows, report.rows_expected), (3, 1, 570, 1120));
        assert_eq!(report.rows_per_second, 370.0);
        assert_eq!(report.remaining.map(|time| time.as_millis()), Some(550 * 1000 / 370));
        let open: Vec<_> = report.open.iter().map(|table| (table.table.as_ref(), table.chunk, table.rows)).collect();
        assert_eq!(open, [("users", 3, 500)]);
    }

    #[test]
    fn a_failure_is_news_once_and_gone_when_the_table_goes_on() {
        let progress = Progress::default();
        let users = Arc::from("users");
        let failure = Failure { message: "no".to_owned(), hint: None, passing: false };
        assert!(progress.failed(&users, failure.clone()));
        assert!(!progress.failed(&users, failure.clone()));
        assert_eq!(progress.report().open[0].failure, Some(failure));
        progress.phase(&users, Phase::Reading);
        assert_eq!(progress.report().open[0].failure, None);
    }
}
