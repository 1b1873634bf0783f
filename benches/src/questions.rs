//! What questions take, in hot and in the lake: medians, with files, bytes and rows beside the times.
//!
//! Both stores get the same versions from their sinks: updates of default identity, ten for each key, over thirty days,
//! by a hundred actors and a rare one. Gates are at twice the goals, whatever the size: the time of an answer is not to
//! grow with the history.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use audit_core::batch::Progress;
use audit_core::cost::Cost;
use audit_core::position::{Lsn, Position};
use audit_core::rules::{Rules, TableRule};
use audit_core::search::Wanted;
use audit_core::sink::{Identity, Sink};
use audit_core::stored::Record;
use audit_core::totals::Bounds;
use audit_hot::{HotConfig, HotReader, HotSink, SetupOptions, setup_statements};
use audit_lake::{LakeConfig, LakeReader, LakeSink};
use audit_pipeline::stage::Stage;

use crate::cluster::Cluster;
use crate::report::{Gate, Report};
use crate::stages::{COMMITTED_AT, begin, commit, relation, stage, tuple};
use crate::stats::Median;

const SOURCE: &str = "bench";
const TABLE: &str = "public.t";
/// Rows of a transaction.
const TRANSACTION: u64 = 10;
/// Versions of a key, in the mean.
const PER_KEY: u64 = 10;
const DAYS: i64 = 30;
const DAY: i64 = 86_400_000_000;
/// Versions that are made and written at a time.
const STEP: u64 = 20_000;
const LAKE_BYTES: usize = 64 << 20;
/// Rows that are asked for by their keys; other questions are asked a tenth as often.
const KEYS: usize = 100;
const NEWEST: usize = 50;
const RARE: &str = "rare";

pub fn measure(cluster: &Cluster, folder: &Path, versions: u64, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (database, folder) = (audit_testkit::unique("questions"), folder.join("questions"));
    std::fs::create_dir(&folder)?;
    let done = runtime.block_on(async {
        let hot = HotConfig::new(set_up(cluster, &database)?);
        let lake = LakeConfig::at(folder.display().to_string());
        fill(&mut HotSink::new("hot", &hot), versions).await?;
        cluster.sql(&database, "VACUUM ANALYZE cdc_audit.versions;")?;
        fill(&mut LakeSink::new("lake", &lake, LAKE_BYTES)?, versions).await?;
        let hot = HotReader::connect(&hot.endpoint).await?;
        let lake = LakeReader::open(&lake)?.pinned();
        ask(&Store::Hot(hot), versions, report).await?;
        ask(&Store::Lake(lake), versions, report).await
    });
    cluster.drop_database(&database)?;
    std::fs::remove_dir_all(&folder)?;
    done
}

/// Makes a database with the tables, and returns its URL.
fn set_up(cluster: &Cluster, database: &str) -> Result<String> {
    cluster.sql("postgres", &format!("CREATE DATABASE {database};"))?;
    let options = SetupOptions { source: SOURCE.into(), sinks: vec!["hot".into()], ..SetupOptions::default() };
    let statements: Vec<String> = setup_statements(&options).into_iter().map(|statement| statement.sql).collect();
    cluster.sql(database, &format!("BEGIN; {}; COMMIT;", statements.join(";\n")))?;
    Ok(cluster.server.url(database))
}

async fn fill(sink: &mut impl Sink, versions: u64) -> Result<()> {
    let identity = Identity { source: SOURCE.to_owned(), system_id: 1, timeline: 1, timeline_start: Lsn::ZERO };
    sink.take(&identity).await?;
    sink.begin(Progress { position: Position::new(1, Lsn::ZERO, 0), ..Progress::default() }).await?;
    let rule = TableRule { name: TABLE.into(), actor_column: Some("c2".into()), ..TableRule::default() };
    let mut stage = stage(Rules { tables: vec![rule], default_protection: false, ..Rules::default() });
    for first in (0..versions).step_by(STEP as usize) {
        for transaction in (first..versions.min(first + STEP)).step_by(TRANSACTION as usize) {
            take(&mut stage, transaction, versions)?;
        }
        sink.write(&[&stage.take_batch()]).await?;
    }
    sink.flush(true).await?;
    Ok(())
}

/// Gives the stage a transaction, which begins with version number `first`.
fn take(stage: &mut Stage, first: u64, versions: u64) -> Result<()> {
    let lsn = (first / TRANSACTION + 1) * 8192;
    let at = COMMITTED_AT + (first as f64 / versions as f64 * (DAYS * DAY) as f64) as i64;
    let mut messages = vec![begin(lsn, at, (first / TRANSACTION) as u32)];
    if first == 0 {
        messages.push(relation(&[20, 25, 25], false));
    }
    for number in first..first + TRANSACTION {
        let mut message = b"U\0\0\0\x05N".to_vec();
        let (key, state) = (key(number, versions), ["open", "paid", "shipped"][(number / 7 % 3) as usize]);
        tuple(&mut message, &[key, state.to_owned(), actor(number, versions)]);
        messages.push(message);
    }
    messages.push(commit(lsn, at));
    for message in messages {
        while let Some(relation) = stage.message(&message, Lsn(lsn))? {
            stage.describe(&relation, None)?;
        }
    }
    Ok(())
}

/// The keys in no order, each about as often.
fn key(number: u64, versions: u64) -> String {
    let keys = (versions / PER_KEY).max(1);
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys).to_string()
}

/// The rare one did a single transaction, in the middle.
fn actor(number: u64, versions: u64) -> String {
    let middle = versions / 2 / TRANSACTION;
    if number / TRANSACTION == middle { RARE.to_owned() } else { format!("user_{}", number / TRANSACTION % 100) }
}

enum Store {
    Hot(HotReader),
    Lake(LakeReader),
}

impl Store {
    fn name(&self) -> &'static str {
        match self {
            Store::Hot(_) => "hot",
            Store::Lake(_) => "lake",
        }
    }

    fn cost(&self) -> Cost {
        match self {
            Store::Hot(hot) => hot.cost(),
            Store::Lake(lake) => lake.cost(),
        }
    }

    async fn history(&self, key: &str) -> Result<u64> {
        Ok(match self {
            Store::Hot(hot) => hot.history(SOURCE, TABLE, key, 100).await?,
            Store::Lake(lake) => lake.history(SOURCE, TABLE, key, 100).await?,
        }
        .len() as u64)
    }

    async fn search(&self, wanted: &Wanted, matches: &(dyn Fn(&Record) -> bool + Send + Sync)) -> Result<u64> {
        Ok(match self {
            Store::Hot(hot) => hot.search(wanted, matches, NEWEST).await?,
            Store::Lake(lake) => lake.search(wanted, matches, NEWEST).await?,
        }
        .len() as u64)
    }

    async fn totals(&self) -> Result<u64> {
        let (tables, bounds) = ([TABLE.to_owned()], Bounds::default());
        Ok(match self {
            Store::Hot(hot) => hot.totals(SOURCE, &tables, &bounds).await?,
            Store::Lake(lake) => lake.totals(SOURCE, &tables, &bounds).await?,
        }
        .versions)
    }
}

/// Asks each question several times.
async fn ask(store: &Store, versions: u64, report: &mut Report) -> Result<()> {
    let keys: Vec<String> = (0..KEYS as u64).map(|nth| key(nth * 7919, versions)).collect();
    let mut asked = Question::new(store, "history of a key");
    for key in &keys {
        asked.time(store.history(key)).await?;
    }
    let (p50, p99) = if matches!(store, Store::Hot(_)) { (4.0, Some(20.0)) } else { (200.0, None) };
    asked.conclude(p50, p99, report)?;

    let all = Wanted { source: SOURCE.into(), tables: vec![TABLE.into()], ..Wanted::default() };
    let by = |actor: &str| Wanted { actors: vec![actor.to_owned()], ..all.clone() };
    let paid = |record: &Record| record.changes.as_ref().is_some_and(|changes| changes.get().contains("\"paid\""));
    let searches = [
        ("newest 50 of an actor", by("user_7")),
        ("newest 50 of a rare actor", by(RARE)),
        ("newest 50 that became paid", Wanted { changed: vec!["c1".into()], ..all.clone() }),
    ];
    for (name, wanted) in searches {
        let mut asked = Question::new(store, name);
        for _ in 0..KEYS / 10 {
            let found = match wanted.changed.is_empty() {
                true => asked.time(store.search(&wanted, &|_| true)).await?,
                false => asked.time(store.search(&wanted, &paid)).await?,
            };
            ensure!(found > 0, "{name}: nothing was found");
        }
        asked.conclude(2_000.0, None, report)?;
    }

    let mut asked = Question::new(store, "report over 30 days");
    for _ in 0..KEYS / 10 {
        let counted = asked.time(store.totals()).await?;
        ensure!(counted == versions.next_multiple_of(TRANSACTION), "{counted} of {versions} versions were counted");
    }
    asked.conclude(4_000.0, None, report)
}

/// A question that is asked several times.
struct Question<'s> {
    store: &'s Store,
    name: String,
    before: Cost,
    /// In milliseconds.
    times: Vec<f64>,
    found: u64,
}

impl<'s> Question<'s> {
    fn new(store: &'s Store, name: &str) -> Question<'s> {
        let name = format!("{name}, {}", store.name());
        Question { store, name, before: store.cost(), times: Vec::new(), found: 0 }
    }

    async fn time(&mut self, answer: impl Future<Output = Result<u64>>) -> Result<u64> {
        let begun = Instant::now();
        let found = answer.await.with_context(|| self.name.clone())?;
        self.times.push(begun.elapsed().as_secs_f64() * 1e3);
        self.found += found;
        Ok(found)
    }

    fn conclude(mut self, p50: f64, p99: Option<f64>, report: &mut Report) -> Result<()> {
        let name = self.name;
        let median = Median::of(&self.times).context("nothing was asked")?;
        report.median(name.clone(), median, "ms", Some(Gate::AtMost(p50)));
        let asked = self.times.len() as f64;
        if let Some(p99) = p99 {
            self.times.sort_by(f64::total_cmp);
            let at = (self.times.len() * 99 / 100).min(self.times.len() - 1);
            report.value(format!("{name}, p99"), self.times[at], "ms", Some(Gate::AtMost(p99)));
        }
        let after = self.store.cost();
        let each = |after: u64, before: u64| (after - before) as f64 / asked;
        report.value(format!("{name}: answers"), self.found as f64 / asked, "versions", None);
        match self.store {
            Store::Hot(_) => {
                let rows = |cost: &Cost| cost.statements.iter().map(|statement| statement.rows).sum();
                let statements = |cost: &Cost| cost.statements.iter().map(|statement| statement.times).sum();
                report.value(format!("{name}: rows"), each(rows(&after), rows(&self.before)), "rows", None);
                let statements = each(statements(&after), statements(&self.before));
                report.value(format!("{name}: statements"), statements, "statements", None);
            }
            Store::Lake(_) => {
                report.value(format!("{name}: files"), each(after.files, self.before.files), "opened", None);
                let groups = each(after.row_groups, self.before.row_groups);
                report.value(format!("{name}: row groups"), groups, "read", None);
                report.value(format!("{name}: bytes"), each(after.bytes, self.before.bytes), "bytes", None);
            }
        }
        Ok(())
    }
}
