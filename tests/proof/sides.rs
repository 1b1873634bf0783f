//! A source whose changes go to a hot table, to a lake and to memory at once, through a daemon in this process.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use audit_capture::baseline::BaselineConfig;
use audit_capture::setup::Wanted;
use audit_capture::{SourceConfig, Step};
use audit_connect::PgEndpoint;
use audit_core::batch::{Batch, Progress};
use audit_core::position::Micros;
use audit_core::protect::Policy;
use audit_core::quarantine::Quarantine;
use audit_core::rules::Rules;
use audit_core::sink::{Identity, Sink, SinkError, Stored};
use audit_core::stored::Record;
use audit_history::{Selection, Store};
use audit_hot::{HotConfig, HotReader, HotSink, SetupOptions, setup_statements};
use audit_lake::{LakeConfig, LakeReader, LakeSink};
use audit_pipeline::NamedSink;
use audit_pipeline::config::PipelineConfig;
use audit_pipeline::daemon::Daemon;
use audit_pipeline::run::run;
use audit_pipeline::status::Shared;
use audit_proof::{Canonical, Kinds, Unit};
use audit_testkit::{Postgres, drop_slots, eventually_async, unique};
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::sync::watch;

pub const SOURCE: &str = "shop";

/// A version with its canonical record.
#[derive(Clone, Debug)]
pub struct Told {
    pub record: Record,
    pub canonical: Canonical,
}

/// Keeps the canonical records of what the daemon hands to its sinks.
struct Collect {
    told: Arc<Mutex<Vec<Told>>>,
    durable: Progress,
}

impl Sink for Collect {
    async fn take(&mut self, _: &Identity) -> Result<Stored, SinkError> {
        Ok(Stored::default())
    }

    async fn begin(&mut self, start: Progress) -> Result<(), SinkError> {
        self.durable = start;
        Ok(())
    }

    async fn write(&mut self, batches: &[&Batch]) -> Result<(), SinkError> {
        let mut told = self.told.lock().unwrap();
        for version in batches.iter().flat_map(|batch| batch.versions()) {
            let record = Record::of(&version, SOURCE, Micros::now());
            let canonical = Canonical::of(&record, &Kinds::of(&version.table().shape));
            told.push(Told { record, canonical });
        }
        self.durable = batches.last().map_or(self.durable, |batch| batch.progress);
        Ok(())
    }

    async fn flush(&mut self, _: bool) -> Result<(), SinkError> {
        Ok(())
    }

    fn due(&self) -> Option<Instant> {
        None
    }

    fn durable(&self) -> Progress {
        self.durable
    }

    fn quarantine(&mut self, _: Arc<Quarantine>) {}

    fn held_bytes(&self) -> usize {
        0
    }
}

/// A source with its two stores.
pub struct Sides {
    pub server: &'static Postgres,
    database: String,
    url: String,
    /// The name of the hot database.
    pub hot: String,
    hot_url: String,
    pub lake: TempDir,
    name: String,
    rules: Rules,
    policy: Policy,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Sides {
    /// Makes the source with these statements, and captures from then on.
    pub async fn new(server: &'static Postgres, sql: &str, rules: Rules, policy: Policy) -> Sides {
        let ((database, url), (hot, hot_url)) = (server.new_database(), server.new_database());
        let sides = Sides {
            server,
            database,
            url,
            hot,
            hot_url,
            lake: tempfile::tempdir().unwrap(),
            name: unique("proof"),
            rules,
            policy,
            told: Arc::default(),
        };
        server.execute(&sides.database, &format!("{sql}; CREATE TABLE the_end (id int PRIMARY KEY)"));
        let options = SetupOptions { source: SOURCE.into(), sinks: vec!["hot".into()], ..SetupOptions::default() };
        let all: String = setup_statements(&options).iter().map(|statement| format!("{};\n", statement.sql)).collect();
        server.execute(&sides.hot, &all);
        sides.set_up().await;
        sides
    }

    fn source(&self) -> SourceConfig {
        let mut source = SourceConfig::new(SOURCE, PgEndpoint::new(&self.url));
        (source.slot, source.publication) = (self.name.clone(), self.name.clone());
        source
    }

    /// Makes slot and publication, with REPLICA IDENTITY as the tables have it.
    async fn set_up(&self) {
        let source = self.source();
        let client = audit_connect::connect(&source.endpoint, "setup").await.unwrap();
        let wanted = Wanted {
            source: &source,
            rules: &self.rules,
            daemon_role: "postgres",
            owner: None,
            replica_identity_full: None,
        };
        let plan = audit_capture::setup::plan(&client, &wanted).await.unwrap();
        audit_capture::apply(&plan, &client, Some(&client), |_: &Step| {}).await.unwrap();
    }

    /// Brings the rows that exist, so many of them, into the two stores and into memory, then what these statements
    /// change.
    pub async fn run(&self, existing: usize, sql: &str) {
        let config = PipelineConfig::default();
        let lake = LakeSink::new("archive", &self.lake_config(), 64 << 20).unwrap();
        let daemon = Daemon {
            source: self.source(),
            rules: self.rules.clone(),
            policy: self.policy.clone(),
            keyring: None,
            sinks: vec![
                NamedSink::new("hot", HotSink::new("hot", &HotConfig::new(&self.hot_url))),
                NamedSink::new("archive", lake),
                NamedSink::new("memory", Collect { told: self.told.clone(), durable: Progress::default() }),
            ],
            memory: config.memory().unwrap(),
            config,
            baseline: BaselineConfig::default(),
            baseline_progress: Arc::default(),
            shared: Arc::new(Shared::default()),
            accept_gap: AtomicBool::new(false),
            new_baseline: false,
            until: None,
        };
        let (stop, stopped) = watch::channel(false);
        let work = async {
            self.arrives("the rows that exist", |all| {
                all.iter().filter(|told| told.record.event == "snapshot").count() >= existing
            })
            .await;
            self.server.execute(&self.database, sql);
            self.server.execute(&self.database, "INSERT INTO the_end VALUES (1)");
            self.arrives("the last change", |all| all.iter().any(|told| told.record.table_name == "public.the_end"))
                .await;
            stop.send(true).expect("the daemon runs");
        };
        let (done, ()) = tokio::join!(run(&daemon, stopped), work);
        done.expect("the daemon stops");
    }

    /// Waits for what the memory holds.
    async fn arrives(&self, what: &str, there: impl Fn(&[Told]) -> bool) {
        eventually_async(what, async || there(&self.told.lock().unwrap())).await;
    }

    fn lake_config(&self) -> LakeConfig {
        LakeConfig::at(self.lake.path().to_str().unwrap())
    }

    pub async fn stores(&self) -> [Store; 2] {
        let hot = HotReader::connect(&PgEndpoint::new(&self.hot_url)).await.unwrap();
        [Store::Hot(hot), Store::Lake(LakeReader::open(&self.lake_config()).unwrap())]
    }

    /// Reads all versions of a store, in the order of their tables and positions.
    pub async fn read(&self, store: &Store) -> Vec<Told> {
        let mut told = Vec::new();
        for table in store.tables(SOURCE).await.unwrap() {
            let shapes = store.shapes(SOURCE, &table).await.unwrap();
            let kinds: HashMap<u32, Kinds> =
                shapes.iter().map(|shape| (shape.schema_version, Kinds::of(shape))).collect();
            let all =
                Selection { source: SOURCE.into(), table, since: None, until: None, unattributed: false, after: None };
            let records: Vec<Record> = store.versions(&all).await.unwrap().try_collect().await.unwrap();
            for record in records {
                let none = Kinds::default();
                let canonical = Canonical::of(&record, kinds.get(&record.schema_version).unwrap_or(&none));
                told.push(Told { record, canonical });
            }
        }
        in_order(told)
    }

    pub fn told(&self) -> Vec<Told> {
        in_order(self.told.lock().unwrap().clone())
    }

    /// Checks that all three sides tell the same, and returns it.
    pub async fn agree(&self) -> Vec<Told> {
        let [hot, lake] = self.stores().await;
        let (told, hot, lake) = (self.told(), self.read(&hot).await, self.read(&lake).await);
        for (name, stored) in [("hot", &hot), ("lake", &lake)] {
            for (ours, theirs) in told.iter().zip(stored) {
                if ours.canonical.shared() != theirs.canonical.shared() {
                    panic!(
                        "{:?} differs from {name}:\n{}",
                        ours.record,
                        difference(&ours.canonical, &theirs.canonical)
                    );
                }
            }
            assert_eq!(stored.len(), told.len(), "{name}");
        }
        told
    }
}

impl Drop for Sides {
    fn drop(&mut self) {
        drop_slots(&self.url);
    }
}

fn in_order(mut told: Vec<Told>) -> Vec<Told> {
    told.sort_by(|a, b| (&a.record.table_name, a.record.position).cmp(&(&b.record.table_name, b.record.position)));
    told
}

fn difference(ours: &Canonical, theirs: &Canonical) -> String {
    let shown = |unit: &Unit<'_>| {
        format!("{:?} {:?} {:?} {}", unit.tag, unit.name, unit.kind, String::from_utf8_lossy(unit.value))
    };
    let lines = |canonical: &Canonical| -> Vec<String> {
        canonical.units().filter(|unit| unit.tag.is_shared()).map(|unit| shown(&unit)).collect()
    };
    let (ours, theirs) = (lines(ours), lines(theirs));
    let only = |sign: &str, these: &[String], those: &[String]| -> String {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    only("-", &ours, &theirs) + &only("+", &theirs, &ours)
}
