//! A small stage: it follows a slot, keeps everything it sees in the order of the stream, and answers the runner.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use audit_capture::baseline::{Baseline, BaselineConfig, Progress, Runner, SinkProgress};
use audit_connect::PgEndpoint;
use audit_core::baseline::{Command, Passed, WATERMARK_PREFIX, Watches};
use audit_core::batch::ChunkMark;
use audit_core::change::{Change, Old, Row, Value};
use audit_core::position::Position;
use audit_core::rules::{FormerNames, Rules, TableRule};
use audit_core::shape::History;
use audit_core::sink::ChunkProgress;
use audit_core::table::Table;
use audit_pgoutput::{Message, Scratch, decode};
use audit_testkit::{PATIENCE, Postgres, connect, unique};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;

/// A row's values: text or NULL.
pub type Values = Vec<Option<String>>;

/// Something in the stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Created(Values),
    Updated(Option<Values>, Values),
    Deleted(Values),
    Truncated,
    Snapshot(ChunkMark, Values),
}

pub struct World {
    pub url: String,
    pub client: Client,
    pub config: BaselineConfig,
    pub rules: Rules,
    pub names: FormerNames,
    pub row_max: u64,
    pub sinks: Vec<SinkProgress>,
    pub anew: bool,
    pub lost_wal: bool,
    pub progress: Arc<Progress>,
    pub hint: Arc<Notify>,
    /// Everything that was seen, by table.
    pub trail: BTreeMap<String, Vec<Event>>,
    /// Every chunk that was released, in order, with its size in rows and the sum of the rows' lengths.
    pub chunks: Vec<(ChunkMark, usize, usize)>,
    /// Transaction numbers in the order in which they came.
    pub transactions: Vec<u32>,
    /// The number of a chunk, and SQL that is executed once before that chunk is answered.
    pub before_chunk: Option<(u32, String)>,
    /// A session with the same settings as the program's own.
    pinned: Client,
    slot: String,
    publication: String,
    watches: Watches,
    commands: Option<mpsc::Receiver<Command>>,
    runner: Option<JoinHandle<()>>,
    tables: HashMap<u32, Arc<Table>>,
    digests: HashMap<String, String>,
    xid: u32,
}

impl World {
    /// A stage for the database at `url`, with what `setup` makes: schema `cdc_audit` and the given publication.
    pub async fn new(url: &str, schema: &str, publication: &str) -> World {
        let client = connect(url).await;
        let slot = unique("slot");
        client.batch_execute("CREATE SCHEMA cdc_audit").await.unwrap();
        for table in [
            include_str!("../../src/sql/chunks.sql"),
            include_str!("../../src/sql/captured.sql"),
            include_str!("../../src/sql/captured_names.sql"),
            include_str!("../../src/sql/captured_since.sql"),
        ] {
            client.batch_execute(table).await.unwrap();
        }
        client.batch_execute(schema).await.unwrap();
        client.batch_execute(&format!("CREATE PUBLICATION cdc_audit {publication}")).await.unwrap();
        let make = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
        client.execute(make, &[&slot]).await.unwrap();
        World {
            url: url.to_owned(),
            client,
            config: BaselineConfig { chunk_rows: 100, ..BaselineConfig::default() },
            rules: Rules::default(),
            names: FormerNames::default(),
            row_max: 64 << 20,
            sinks: vec![sink("hot", &[])],
            anew: false,
            lost_wal: false,
            progress: Arc::default(),
            hint: Arc::default(),
            trail: BTreeMap::new(),
            chunks: Vec::new(),
            transactions: Vec::new(),
            before_chunk: None,
            pinned: audit_connect::connect(&PgEndpoint::new(url), "stage").await.unwrap(),
            slot,
            publication: "cdc_audit".to_owned(),
            watches: Watches::default(),
            commands: None,
            runner: None,
            tables: HashMap::new(),
            digests: HashMap::new(),
            xid: 0,
        }
    }

    pub async fn execute(&self, statements: &str) {
        self.client.batch_execute(statements).await.unwrap();
    }

    pub async fn number(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Begins a stream with a new runner and a new stage, as after a start of the program.
    pub async fn start(&mut self) {
        self.start_as(&self.url.clone()).await;
    }

    /// Does the same with a runner that connects to another address.
    pub async fn start_as(&mut self, url: &str) {
        self.stop();
        let (commands, received) = mpsc::channel(2);
        self.watches = Watches::default();
        self.commands = Some(received);
        self.names = audit_capture::former_names::known(&self.client, "shop").await.unwrap();
        let runner = Runner::prepare(Baseline {
            endpoint: PgEndpoint::new(url),
            source: "shop".to_owned(),
            publication: self.publication.clone(),
            rules: self.rules.clone(),
            names: self.names.clone(),
            config: self.config.clone(),
            row_max: self.row_max,
            sinks: self.sinks.clone(),
            commands,
            progress: self.progress.clone(),
            hint: self.hint.clone(),
            anew: self.anew,
            lost_wal: self.lost_wal,
        });
        let runner = timeout(PATIENCE, runner).await.expect("the runner prepares without a stage").unwrap();
        self.runner = Some(tokio::spawn(runner.run()));
    }

    /// Stops as a kill does: nothing is remembered.
    pub fn stop(&mut self) {
        if let Some(runner) = self.runner.take() {
            runner.abort();
        }
        self.commands = None;
    }

    /// Answers the runner and reads what the slot has.
    pub async fn step(&mut self) {
        self.answer();
        self.stream().await;
        // The runner is a task of the same thread.
        sleep(Duration::from_millis(1)).await;
    }

    pub fn answer(&mut self) {
        let Some(commands) = &mut self.commands else { return };
        while let Ok(command) = commands.try_recv() {
            self.watches.command(command);
        }
    }

    pub async fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}; {:#?}", self.progress.report());
            self.step().await;
        }
    }

    /// Runs until every table is done and the stream is read to its end.
    pub async fn finish(&mut self) {
        self.until("all baselines are complete", |world| {
            let report = world.progress.report();
            report.tables > 0 && report.tables_done == report.tables
        })
        .await;
        self.stream().await;
    }

    /// Reads what the slot has now.
    pub async fn stream(&mut self) {
        let sql = "SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, \
                   'proto_version', '1', 'publication_names', $2, 'messages', 'true')";
        let found = self.pinned.query(sql, &[&self.slot, &self.publication]).await.unwrap();
        let mut scratch = Scratch::default();
        for row in found {
            let data: Vec<u8> = row.get(0);
            let message = decode(&data, &mut scratch).unwrap();
            if let Some(passed) = self.message(message) {
                if let Some((_, sql)) = self.before_chunk.take_if(|(chunk, _)| *chunk == passed.mark().chunk) {
                    self.execute(&sql).await;
                }
                self.emit(passed);
            }
            self.answer();
        }
    }

    fn message(&mut self, message: Message<'_>) -> Option<Passed> {
        match message {
            Message::Begin { xid, .. } => {
                self.xid = xid;
                self.transactions.push(xid);
                self.watches.begin(xid);
            }
            Message::Relation(relation) => {
                self.digests.insert(relation.name.to_string(), relation.digest());
                let shape = History::default().add(&relation, None, Position::default());
                let table = Table::new(shape, &Rules::default().for_table(&relation.name), false).unwrap();
                self.tables.insert(relation.oid, Arc::new(table));
            }
            Message::Insert { relation, new } => self.change(relation, Change::Insert { new }),
            Message::Update { relation, old, new } => self.change(relation, Change::Update { old, new }),
            Message::Delete { relation, old } => self.change(relation, Change::Delete { old }),
            Message::Truncate { relations } => {
                relations.into_iter().for_each(|relation| self.change(relation, Change::Truncate));
            }
            Message::Logical { transactional: true, prefix: WATERMARK_PREFIX, content } => {
                return self.watches.watermark(content);
            }
            _ => {}
        }
        None
    }

    fn change(&mut self, oid: u32, change: Change<'_>) {
        let table = self.tables[&oid].clone();
        if table.shape.schema == "cdc_audit" {
            return;
        }
        self.watches.change(self.xid, &table, &self.digests[table.name.as_ref()], change);
        let before = |old| match old {
            Old::None => None,
            Old::Key(row) | Old::Full(row) => Some(values(row)),
        };
        let event = match change {
            Change::Insert { new } => Event::Created(values(new)),
            Change::Update { old, new } => Event::Updated(before(old), values(new)),
            Change::Delete { old } => Event::Deleted(before(old).unwrap()),
            Change::Truncate => Event::Truncated,
            Change::Snapshot { .. } => return,
        };
        self.trail.entry(table.name.to_string()).or_default().push(event);
    }

    fn emit(&mut self, passed: Passed) {
        let mark = passed.mark().clone();
        let digest = passed.chunk().relation.digest();
        if let Some(known) = self.digests.get(mark.table.as_ref()) {
            // If the stream has described the table, the baseline's description must be the same, unless the table has
            // changed since.
            let changed = self.rules.tables.iter().any(|rule| rule.name == mark.table.as_ref());
            assert!(changed || *known == digest, "{} has another shape in its baseline", mark.table);
        }
        self.digests.insert(mark.table.to_string(), digest);
        let rows: Vec<Values> = passed.rows().map(values).collect();
        let bytes = rows.iter().flatten().flatten().map(String::len).sum();
        self.chunks.push((mark.clone(), rows.len(), bytes));
        let trail = self.trail.entry(mark.table.to_string()).or_default();
        trail.extend(rows.into_iter().map(|row| Event::Snapshot(mark.clone(), row)));
        passed.delivered();
    }

    pub fn events(&self, table: &str) -> &[Event] {
        self.trail.get(table).map_or(&[], Vec::as_slice)
    }

    /// The snapshot rows of a table, in the order of the stream.
    pub fn snapshots(&self, table: &str) -> Vec<Values> {
        let row = |event: &Event| match event {
            Event::Snapshot(_, row) => Some(row.clone()),
            _ => None,
        };
        self.events(table).iter().filter_map(row).collect()
    }

    /// The table as a replay of a sink's trail has it. Rows are identified by the first `key` columns, or by all
    /// columns if `key` is 0.
    pub fn replay(&self, sink: &str, table: &str, key: usize) -> Vec<Values> {
        let mut rows: Vec<Values> = Vec::new();
        let same = |a: &Values, b: &Values| if key == 0 { a == b } else { a[..key] == b[..key] };
        for event in self.events(table) {
            if matches!(event, Event::Snapshot(mark, _) if !mark.sinks.iter().any(|name| &**name == sink)) {
                continue;
            }
            let (gone, new) = match event {
                Event::Created(new) => (None, Some(new)),
                // Without an old row the key is unchanged.
                Event::Updated(old, new) => (Some(old.as_ref().unwrap_or(new)), Some(new)),
                Event::Deleted(old) => (Some(old), None),
                Event::Snapshot(_, row) if key > 0 => (Some(row), Some(row)),
                Event::Snapshot(_, row) => (None, Some(row)),
                Event::Truncated => {
                    rows.clear();
                    (None, None)
                }
            };
            if let Some(at) = gone.and_then(|gone| rows.iter().position(|row| same(row, gone))) {
                rows.swap_remove(at);
            }
            rows.extend(new.cloned());
        }
        rows.sort();
        rows
    }

    /// The rows of a query, as text and sorted.
    pub async fn rows(&self, sql: &str) -> Vec<Values> {
        let found = self.client.simple_query(&format!("{sql};")).await.unwrap();
        let row = |message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect::<Values>())
            }
            _ => None,
        };
        let mut rows: Vec<Values> = found.into_iter().filter_map(row).collect();
        rows.sort();
        rows
    }

    /// Checks that the trail of a table in every sink, when it is replayed, results in the table.
    #[track_caller]
    pub fn assert_replayed(&self, table: &str, key: usize, rows: &[Values]) {
        for sink in &self.sinks {
            let replayed = self.replay(&sink.name, table, key);
            let missing: Vec<_> = rows.iter().filter(|row| !replayed.contains(row)).take(5).collect();
            let more: Vec<_> = replayed.iter().filter(|row| !rows.contains(row)).take(5).collect();
            let (name, have, want) = (&sink.name, replayed.len(), rows.len());
            assert!(replayed == rows, "{table} in {name}: {have} of {want} rows; missing {missing:?}; more {more:?}");
        }
    }

    /// Stops everything as a kill does: each sink keeps this number of the chunks that it was given.
    pub fn kill(&mut self, keep: &[(&str, usize)]) {
        self.stop();
        self.sinks = keep.iter().map(|(name, keep)| self.cut(name, *keep)).collect();
    }

    /// The program stops and starts again, and the sinks have all that they were given.
    pub async fn restart(&mut self) {
        let names: Vec<String> = self.sinks.iter().map(|sink| sink.name.to_string()).collect();
        self.kill(&names.iter().map(|name| (name.as_str(), usize::MAX)).collect::<Vec<_>>());
        self.start().await;
    }

    fn cut(&mut self, name: &str, keep: usize) -> SinkProgress {
        let mut baselines = BTreeMap::new();
        let mut lost = Vec::new();
        let of_sink = |mark: &ChunkMark| mark.sinks.iter().any(|sink| &**sink == name);
        for (number, (mark, ..)) in self.chunks.iter_mut().filter(|(mark, ..)| of_sink(mark)).enumerate() {
            if number < keep {
                let progress = ChunkProgress { baseline: mark.baseline, chunk: mark.chunk, done: mark.last };
                baselines.insert(mark.table.to_string(), progress);
            } else {
                lost.push(mark.clone());
                mark.sinks.retain(|sink| &**sink != name);
            }
        }
        for event in self.trail.values_mut().flatten() {
            if let Event::Snapshot(mark, _) = event
                && lost.contains(mark)
            {
                mark.sinks.retain(|sink| &**sink != name);
            }
        }
        SinkProgress { name: name.into(), is_new: false, baselines }
    }

    /// The chunks of a table that went to a sink: `baseline.chunk`, with `!` after the last one.
    pub fn taken(&self, table: &str, sink: &str) -> Vec<String> {
        let of = |mark: &ChunkMark| &*mark.table == table && mark.sinks.iter().any(|name| &**name == sink);
        let text = |mark: &ChunkMark| format!("{}.{}{}", mark.baseline, mark.chunk, if mark.last { "!" } else { "" });
        self.chunks.iter().filter(|(mark, ..)| of(mark)).map(|(mark, ..)| text(mark)).collect()
    }

    /// Tells the rules that this table's shape changes in the test.
    pub fn allow_change(&mut self, table: &str) {
        self.rules.tables.push(TableRule { name: table.to_owned(), ..TableRule::default() });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn sink(name: &str, baselines: &[(&str, ChunkProgress)]) -> SinkProgress {
    let baselines = baselines.iter().map(|(table, progress)| (table.to_string(), *progress)).collect();
    SinkProgress { name: name.into(), is_new: false, baselines }
}

fn values(row: Row<'_>) -> Values {
    let value = |column| match row.get(column) {
        Value::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        Value::Null => None,
        Value::Unknown => Some("(unknown)".to_owned()),
    };
    (0..row.len()).map(value).collect()
}

/// Makes text values.
pub fn text(values: &[&str]) -> Values {
    values.iter().map(|value| Some(value.to_string())).collect()
}

/// A server for one test only.
pub async fn server(settings: &[(&str, &str)]) -> Postgres {
    let settings: Vec<(String, String)> =
        settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let start = move || {
        let builder = Postgres::builder(15);
        settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value)).start()
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}
