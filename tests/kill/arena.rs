use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use audit_testkit::{
    Daemon, FaultProxy, Kafka, Launch, ObjectKind, ObjectServer, PATIENCE, Postgres, Proxy, eventually_async, unique,
};
use cdc_audit_tests::decoded::Name;
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::recorded::History;
use cdc_audit_tests::traces::Traces;
use cdc_audit_tests::trail::{REDACTED, Version, lsn};
use cdc_audit_tests::world::{SOURCE, World};
use cdc_audit_tests::{hot, kafka, lake};
use tokio::task::JoinHandle;

/// Servers, proxies and writers around a world.
pub struct Arena {
    pub source: Postgres,
    pub hot: Postgres,
    pub to_source: Proxy,
    pub to_hot: Proxy,
    /// The proxy in front of the lake's bucket, if the lake is in one.
    pub to_lake: Option<FaultProxy>,
    mirror: Option<Mirror>,
    /// A third sink's broker, if there is one; its proxy is in front of it.
    pub kafka: Option<Kafka>,
    pub world: World,
    pub dice: Dice,
    pub schema: Schema,
    /// The history before each time that the source was put back.
    pub histories: Vec<History>,
    /// Number of names that were given to late tables and by renaming. No name is used twice.
    names: u32,
    writers: Writers,
}

/// The changes of the source's schema. They are put back with the source.
#[derive(Clone)]
pub struct Schema {
    /// Tables that already had rows when they were published, with the LSN of their publication.
    late: BTreeMap<String, u64>,
    /// Number of partitions.
    partitions: u32,
    /// Each change of the key of `recoded`: the position of the hot sink before it, the end of the WAL after it, and
    /// whether `code` is the key from then on.
    keys: Vec<(u64, u64, bool)>,
}

impl Schema {
    fn key_is_code(&self) -> bool {
        self.keys.last().is_some_and(|key| key.2)
    }

    /// Returns the schema after the source was put back to this LSN. Changes that come again from before may have
    /// either key.
    pub fn put_back(mut self, at: u64) -> Schema {
        self.keys = vec![(0, at, self.key_is_code())];
        self
    }
}

struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

const TABLES: &str = "
CREATE TABLE accounts (id int PRIMARY KEY, n int, note text);
CREATE TABLE docs (id int PRIMARY KEY, v int, body text); ALTER TABLE docs REPLICA IDENTITY FULL;
CREATE TABLE heap (a int, b text); ALTER TABLE heap REPLICA IDENTITY FULL;
CREATE TABLE small (id int PRIMARY KEY); ALTER TABLE small REPLICA IDENTITY FULL;
CREATE TABLE parts (id int, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
ALTER TABLE parts REPLICA IDENTITY FULL; ALTER TABLE parts_0 REPLICA IDENTITY FULL; ALTER TABLE parts_1 REPLICA IDENTITY FULL;
CREATE TABLE recoded (id int NOT NULL, code int NOT NULL, v text, CONSTRAINT recoded_key PRIMARY KEY (id)); ALTER TABLE recoded REPLICA IDENTITY FULL;
INSERT INTO accounts SELECT i, i, 'earlier' FROM generate_series(0, 2999) AS i;
INSERT INTO docs SELECT i, 0, repeat('body ' || i, 20) FROM generate_series(0, 9999) AS i;
INSERT INTO heap SELECT i % 50, 'earlier ' || i % 70 FROM generate_series(1, 700) AS i;
INSERT INTO parts SELECT i, i % 2, 'earlier' FROM generate_series(0, 999) AS i;
CREATE TABLE people (id int PRIMARY KEY, secret text, n int); ALTER TABLE people REPLICA IDENTITY FULL;
INSERT INTO people SELECT i, 'raw-value-of-' || i, 0 FROM generate_series(0, 99) AS i;
CREATE FUNCTION people() RETURNS regclass LANGUAGE sql AS $$ SELECT oid FROM pg_class WHERE relname LIKE 'people%' AND relkind = 'r' $$;
CREATE FUNCTION secret() RETURNS name LANGUAGE sql AS $$ SELECT attname FROM pg_attribute WHERE attrelid = people() AND attnum = 2 $$;
CREATE FUNCTION write_person(id int, n int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    EXECUTE format('INSERT INTO %s AS p VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET %I = $2, n = p.n + 1', people(), secret())
        USING id, 'raw-value-of-' || id || '-' || n, n;
END $$;
";

/// The beginning of the values that `write_person` writes into the second column of `people`, whatever the present
/// names of both are.
const RAW: &str = "raw-value-of-";

/// Rules that name the protected column by its first name.
const RULES: &str = "[[tables]]\nname = \"*\"\nignore_alone = []\nbaseline = true\n
[[tables]]\nname = \"public.people\"\nprotect = { secret = \"full\" }\n";

/// A change in each of the tables that are written to all the time.
pub const LAST_WORDS: &str = "
INSERT INTO accounts VALUES (5000, 0, 'last') ON CONFLICT (id) DO UPDATE SET n = accounts.n + 1;
INSERT INTO docs VALUES (20000, 0, 'last') ON CONFLICT (id) DO UPDATE SET v = docs.v + 1;
INSERT INTO heap VALUES (5000, 'last'); DELETE FROM small WHERE id = 5000; INSERT INTO small VALUES (5000);
INSERT INTO parts VALUES (5000, 0, 'last') ON CONFLICT (id, part) DO UPDATE SET v = parts.v || '.';
DELETE FROM recoded WHERE id = 5000; INSERT INTO recoded VALUES (5000, -5001, 'last');
SELECT write_person(5000, 0);
";

/// A folder with a copy of the objects that an object store holds in memory.
struct Mirror {
    server: &'static ObjectServer,
    prefix: String,
    folder: tempfile::TempDir,
}

/// The baseline reads rows in very small chunks, so that kills hit every part of it.
const SECTIONS: &str = "[baseline]\nchunk_rows = 400\nparallel = 2\n";

/// Keys of the third sink. The time-out is longer than the broker takes to start. With 5 s, a killed broker (4.3.0,
/// alone in its cluster) ended a transaction by its time-out while it started again: its coordinator called it aborted
/// without a marker in any partition, and the next transaction's marker then committed both.
const STREAM: &str = "transaction_timeout = \"1 min\"\nbatch_bytes = \"256 KiB\"\npartitions = 3";
const CHECKPOINT_TOPIC: &str = "cdc-audit.shop.stream";

impl Arena {
    /// Starts servers, the source with these further settings. No daemon runs yet.
    pub async fn new(dice: Dice, settings: &[(&str, &str)]) -> Arena {
        Arena::with(dice, settings, None, None).await
    }

    /// Starts servers with the lake in a bucket.
    pub async fn in_bucket(dice: Dice, kind: ObjectKind) -> Arena {
        let server = ObjectServer::shared(kind).await;
        Arena::with(dice, &[], Some(server), None).await
    }

    /// Starts servers with the lake on disk, and a Kafka broker as a third sink.
    pub async fn with_kafka(dice: Dice) -> Arena {
        let broker = tokio::task::spawn_blocking(Kafka::start).await.expect("the broker starts");
        Arena::with(dice, &[], None, Some(broker)).await
    }

    async fn with(
        dice: Dice,
        settings: &[(&str, &str)],
        bucket: Option<&'static ObjectServer>,
        kafka: Option<Kafka>,
    ) -> Arena {
        let builder =
            settings.iter().fold(Postgres::builder(15), |builder, (name, value)| builder.setting(name, value));
        let (source, hot) = (builder.start(), Postgres::start(15));
        let (to_source, to_hot) = (Proxy::to(source.port()), Proxy::to(hot.port()));
        let (name, url) = source.new_database();
        let (_, hot_url) = hot.new_database();
        let to_lake = bucket.map(|server| FaultProxy::to(server.port()));
        let mut world = World::on(&source);
        let mut mirror = None;
        if let (Some(server), Some(proxy)) = (bucket, &to_lake) {
            let prefix = unique("lake");
            let folder = match server.kind() {
                ObjectKind::Azure => {
                    let made =
                        Mirror { server, prefix: prefix.clone(), folder: tempfile::tempdir().expect("a folder") };
                    mirror.insert(made).folder.path().join("lake")
                }
                _ => server.folder(&prefix),
            };
            world = world.lake_in(&server.lake(&prefix, proxy.port()), Some(folder));
        }
        if let Some(kafka) = &kafka {
            let keys = format!("brokers = [\"{}\"]\nplain_text = true\n{STREAM}", kafka.through_proxy());
            world = world.kafka(&kafka.brokers(), &keys);
        }
        let world = world
            .source(&name, &url)
            .source_through(&to_source.through(&url))
            .hot_url(&hot_url)
            .hot_through(&to_hot.through(&hot_url))
            .hot("batch_rows = 300")
            .lake("file_age = \"1 s\"\nfile_rows = 2000\ndata_rows = 500\nroll_age = \"2 s\"\ngrace = \"1 s\"")
            .pipeline("idle_after = \"1 s\"\nstop_timeout = \"10 s\"")
            .sections(SECTIONS)
            .keep_rows()
            .baseline()
            .tables(RULES)
            .sql(TABLES)
            .build()
            .await;
        let writers = Writers { stop: Arc::default(), tasks: Vec::new() };
        Arena {
            source,
            hot,
            to_source,
            to_hot,
            to_lake,
            mirror,
            kafka,
            world,
            dice,
            schema: Schema { late: BTreeMap::new(), partitions: 2, keys: Vec::new() },
            histories: Vec::new(),
            names: 0,
            writers,
        }
    }

    /// Starts sessions that write until they are stopped, and connect again after the server was killed.
    pub fn write(&mut self) {
        self.writers.stop = Arc::default();
        for _ in 0..3 {
            let (url, dice, stop) = (self.world.url.clone(), self.dice.fork(), Arc::clone(&self.writers.stop));
            self.writers.tasks.push(tokio::spawn(write(url, dice, stop)));
        }
    }

    pub async fn stop_writing(&mut self) {
        self.writers.stop.store(true, Ordering::SeqCst);
        for task in self.writers.tasks.drain(..) {
            task.await.expect("a writer ends well");
        }
    }

    /// Makes a table that has rows before it is published. It gets its own baseline while everything else continues.
    pub fn late_table(&mut self) {
        let name = self.new_name("late");
        let (database, slot) = (&self.world.database, &self.world.slot);
        let rows = self.dice.between(1, 3000);
        let key = if self.dice.one_in(3) { "" } else { " PRIMARY KEY" };
        let sql = format!(
            "CREATE TABLE {name} (id int{key}, v text); ALTER TABLE {name} REPLICA IDENTITY FULL; \
             INSERT INTO {name} SELECT i, 'earlier' FROM generate_series(1, {rows}) AS i"
        );
        self.source.execute(database, &sql);
        let from = self.source.execute(database, "SELECT pg_current_wal_insert_lsn()");
        self.source.execute(database, &format!("ALTER PUBLICATION {slot} ADD TABLE {name}"));
        self.source.execute(
            database,
            &format!("UPDATE {name} SET v = 'changed' WHERE id % 10 = 0; DELETE FROM {name} WHERE id % 10 = 1"),
        );
        self.schema.late.insert(name, lsn(&from));
    }

    /// Makes a partition that sends only the keys of old rows, although its root sends whole rows: `CREATE TABLE …
    /// PARTITION OF` does not inherit the replica identity.
    pub fn new_partition(&mut self) {
        let number = self.schema.partitions;
        self.schema.partitions += 1;
        let sql = format!("CREATE TABLE parts_{number} PARTITION OF parts FOR VALUES IN ({number})");
        self.source.execute(&self.world.database, &sql);
    }

    /// Changes the primary key of a table with replica identity FULL to its other column, and back the next time.
    pub async fn change_key(&mut self) {
        let by_code = !self.schema.key_is_code();
        let column = if by_code { "code" } else { "id" };
        let sql = format!(
            "ALTER TABLE recoded DROP CONSTRAINT recoded_key, ADD CONSTRAINT recoded_key PRIMARY KEY ({column})"
        );
        let stored = hot::flushed(&self.world.hot().await, SOURCE).await;
        self.source.execute(&self.world.database, &sql);
        let after = lsn(&self.source.execute(&self.world.database, "SELECT pg_current_wal_insert_lsn()"));
        self.schema.keys.push((stored, after, by_code));
    }

    /// Renames the protected column, or its table.
    pub async fn rename_protected(&mut self) {
        // A rule for a name that does not exist is refused, unless a sink knows it as a former name.
        let shapes = hot::shapes(&self.world.hot().await, SOURCE).await;
        if !shapes.keys().any(|(table, _)| table.starts_with("public.people")) {
            return;
        }
        let sql = if self.dice.one_in(3) {
            format!("EXECUTE format('ALTER TABLE %s RENAME TO {}', people())", self.new_name("people"))
        } else {
            let name = self.new_name("word");
            format!("EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO {name}', people(), secret())")
        };
        self.source.execute(&self.world.database, &format!("DO $$ BEGIN {sql}; END $$"));
    }

    fn new_name(&mut self, beginning: &str) -> String {
        self.names += 1;
        format!("{beginning}_{}", self.names)
    }

    /// Checks that every version has the key that its table had at that time: codes are negative, ids are not.
    ///
    /// With replica identity FULL only the present catalog says which column is the key: a daemon that reads it before
    /// its stream has reached the change may use either.
    fn check_keys(&self, versions: &[Version]) {
        let (epoch, keys) = (self.histories.len() + 1, &self.schema.keys);
        for version in versions.iter().filter(|version| version.table == "public.recoded" && version.epoch() == epoch) {
            if keys.iter().any(|(stored, after, _)| (*stored..*after).contains(&version.commit_lsn)) {
                continue;
            }
            let by_code = keys.iter().rev().find(|key| key.1 <= version.commit_lsn).is_some_and(|key| key.2);
            let key = version.key.as_deref().unwrap_or_default();
            assert_eq!(key.starts_with('-'), by_code, "{} in a key that was changed: {keys:?}", version.place());
        }
    }

    /// Removes all faults of proxies and servers.
    pub fn heal(&self) {
        for proxy in [&self.to_source, &self.to_hot] {
            proxy.set(audit_testkit::Traffic::Pass);
            proxy.delay(Duration::ZERO);
        }
        if let Some(proxy) = &self.to_lake {
            proxy.heal();
        }
        if let Some(kafka) = &self.kafka {
            kafka.proxy().set(audit_testkit::Traffic::Pass);
            kafka.proxy().delay(Duration::ZERO);
        }
    }

    /// Waits until both sinks have everything that has committed by now.
    pub async fn progress(&self, daemon: &mut Daemon) {
        let now = lsn(&self.world.wal_end().await);
        let begun = std::time::Instant::now();
        while !self.stored(now).await {
            let ended = daemon.ended();
            assert!(ended.is_none(), "the daemon ended ({ended:?}) before {now:X}:\n{}", daemon.output());
            assert!(begun.elapsed() < PATIENCE, "no progress to {now:X}:\n{}", daemon.output());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Tells whether every sink has everything before this LSN.
    pub async fn stored(&self, now: u64) -> bool {
        self.mirror().await;
        let hot = hot::flushed(&self.world.hot().await, SOURCE).await;
        hot >= now && lake::flushed(&self.world.lake) >= now && self.streamed(now)
    }

    /// Tells whether the third sink, if there is one, has everything before this LSN.
    fn streamed(&self, now: u64) -> bool {
        self.world.kafka.as_ref().is_none_or(|brokers| kafka::flushed(brokers, CHECKPOINT_TOPIC) >= now)
    }

    /// Stops writing, lets a new daemon catch up, and compares everything with everything.
    pub async fn settle(&mut self) {
        self.stop_writing().await;
        self.heal();
        // Files of a daemon that was fenced are removed when their table is written to again.
        self.source.execute(&self.world.database, LAST_WORDS);
        for late in self.schema.late.keys() {
            let last = format!("DELETE FROM {late} WHERE id = 90000; INSERT INTO {late} VALUES (90000, 'last')");
            self.source.execute(&self.world.database, &last);
        }
        let until = self.world.wal_end().await;
        let mut daemon = self.launch().start();
        self.baselines_done(&mut daemon).await;
        self.progress(&mut daemon).await;
        let status = daemon.stop();
        assert!(status.success(), "the daemon ended with {status}, after {until}:\n{}", daemon.output());
        drop(daemon);
        self.mirror().await;
        self.check_secrets().await;
        let recorded = self.world.recorded().await.without_protected();
        let now = self.history().await;
        let histories: Vec<&History> = self.histories.iter().chain([&now]).collect();
        self.world.check_changes(&recorded, &histories);
        // A trail does not show that a table now has another name.
        self.world.check_replay(&recorded, &|name| !name.table.starts_with("people")).await;
        self.check_keys(&recorded.hot);
        let snapshots = recorded.hot.iter().filter(|version| version.event == "snapshot").count();
        eprintln!("{} versions, {snapshots} of them snapshots: nothing lost, nothing twice", recorded.hot.len());
    }

    /// Returns the history since the source was last put back.
    pub async fn history(&self) -> History {
        let late = self.schema.late.clone();
        let published = move |name: &Name, at: u64| late.get(&name.table).is_none_or(|from| at > *from);
        self.world.history(Box::new(published)).await.without_values(RAW)
    }

    /// Checks that no raw value of the protected column is in any sink, or in the output of daemons.
    async fn check_secrets(&self) {
        let mut traces = Traces::default();
        traces.text("what daemons said", std::fs::read_to_string(self.said()).expect("what daemons said"));
        traces.lake(&self.world.lake);
        traces.database(&self.world.hot().await).await;
        traces.hold(&["table cdc_audit", "values of"], &[REDACTED]);
        if let Some(brokers) = &self.world.kafka {
            traces.kafka(brokers);
            traces.hold(&["topic"], &[REDACTED]);
        }
        let found = traces.search(&[("a raw value".to_owned(), RAW.into())]);
        assert!(found.is_empty(), "{} places, among them:\n{:#?}", found.len(), &found[..found.len().min(12)]);
    }

    /// Launches a daemon whose output is kept, to be searched.
    pub fn launch(&self) -> Launch {
        self.world.launch().keep_output(self.said())
    }

    fn said(&self) -> PathBuf {
        self.world.path("said")
    }

    /// Copies the lake into the folder where it is compared, if it is not in the file system.
    async fn mirror(&self) {
        if let Some(Mirror { server, prefix, folder }) = &self.mirror {
            let lake = folder.path().join("lake");
            if lake.exists() {
                std::fs::remove_dir_all(&lake).expect("the mirror of before goes");
            }
            server.mirror(prefix, &lake).await;
        }
    }

    /// Waits until the baselines of all tables are complete in both sinks.
    async fn baselines_done(&self, daemon: &mut Daemon) {
        let tables = 6 + self.schema.late.len() as i64;
        let client = self.world.hot().await;
        eventually_async("the baselines are done", async || {
            assert!(daemon.ended().is_none(), "the daemon ended:\n{}", daemon.output());
            let sql = "SELECT count(*) FILTER (WHERE done) FROM cdc_audit.baselines WHERE source = $1";
            let done: i64 = client.query_one(sql, &[&SOURCE]).await.expect("the baselines are read").get(0);
            self.mirror().await;
            let chunked = lake::tables(&self.world.lake).values().filter(|table| baseline_done(table)).count() as i64;
            let streamed = |brokers: &String| kafka::baselines_done(brokers, CHECKPOINT_TOPIC) as i64 >= tables;
            done >= tables && chunked >= tables && self.world.kafka.as_ref().is_none_or(streamed)
        })
        .await;
    }
}

/// Tells whether a Delta table says that its baseline is complete.
fn baseline_done(table: &std::path::Path) -> bool {
    let transactions = lake::Snapshot::read(table).transactions;
    transactions.get(&format!("{SOURCE}/chunks_done")) == Some(&1)
}

async fn write(url: String, mut dice: Dice, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let Ok((client, connection)) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let connection = tokio::spawn(connection);
        while !stop.load(Ordering::SeqCst) && !client.is_closed() {
            if client.batch_execute(&transaction(&mut dice)).await.is_err() {
                // There was a deadlock, or the server was killed.
                drop(client.batch_execute("ROLLBACK").await);
            }
            // The pause limits the rows, which are compared in memory at the end: different moments matter, not many
            // rows.
            tokio::time::sleep(Duration::from_millis(dice.below(90))).await;
        }
        connection.abort();
    }
}

fn transaction(dice: &mut Dice) -> String {
    let mut sql = "BEGIN;".to_owned();
    if dice.one_in(4) {
        sql.push_str(&format!(
            "SELECT pg_logical_emit_message(true, 'cdc-audit', '{{\"actor_id\": \"u{}\"}}');",
            dice.below(9)
        ));
    }
    for _ in 0..dice.between(1, 4) {
        let (id, other) = (dice.below(3500), dice.below(3500));
        sql.push_str(&match dice.below(40) {
            0..8 => format!("INSERT INTO accounts VALUES ({id}, {other}, 'n') ON CONFLICT (id) DO UPDATE SET n = excluded.n;"),
            8..14 => format!("UPDATE docs SET v = v + 1 WHERE id = {};", dice.below(11_000)),
            14..17 => format!("DELETE FROM docs WHERE id = {};", dice.below(11_000)),
            17..20 => format!("INSERT INTO docs SELECT i, 0, 'new' FROM generate_series({0}, {0} + 5) AS i ON CONFLICT DO NOTHING;", dice.below(11_000)),
            20..23 => format!("UPDATE accounts SET id = {id} WHERE id = {other} AND NOT EXISTS (SELECT FROM accounts WHERE id = {id});"),
            23..26 => format!("DELETE FROM accounts WHERE id = {id};"),
            26..28 => format!("INSERT INTO heap VALUES ({}, 'x');", dice.below(5)),
            28..30 => "DELETE FROM heap WHERE ctid = (SELECT min(ctid) FROM heap);".to_owned(),
            30..31 => format!("UPDATE heap SET b = 'y' WHERE ctid = (SELECT ctid FROM heap OFFSET {} LIMIT 1);", dice.below(100)),
            31..34 => format!("UPDATE parts SET part = 1 - part, v = 'moved' WHERE id = {} AND NOT EXISTS (SELECT FROM parts o WHERE o.id = parts.id AND o.part <> parts.part);", dice.below(1000)),
            34..36 => format!("SAVEPOINT s; INSERT INTO small VALUES ({id}) ON CONFLICT DO NOTHING; ROLLBACK TO s;"),
            36 => format!("INSERT INTO recoded VALUES ({id}, -{id} - 1, 'new') ON CONFLICT DO NOTHING;"),
            37 if dice.one_in(2) => format!("UPDATE recoded SET v = 'n{other}' WHERE id = {id} OR id = {other}; DELETE FROM recoded WHERE id = {0};", dice.below(3500)),
            // The partition may not exist yet: then the whole transaction fails.
            37 if dice.one_in(2) => format!("INSERT INTO parts VALUES ({}, {}, 'late') ON CONFLICT (id, part) DO UPDATE SET v = 'again';", dice.below(1000), dice.between(2, 4)),
            37 if dice.one_in(2) => format!("SELECT write_person({}, {other});", dice.below(200)),
            37 => format!("INSERT INTO small SELECT {id} + i FROM generate_series(1, 20) AS i ON CONFLICT DO NOTHING;"),
            38 => "TRUNCATE small;".to_owned(),
            // This transaction is larger than a batch of either sink.
            _ if dice.one_in(60) => format!("UPDATE docs SET v = v + 1 WHERE id BETWEEN {0} AND {0} + 2500;", dice.below(8000)),
            _ => format!("UPDATE accounts SET note = 'n{other}' WHERE id = {id};"),
        });
    }
    sql.push_str(if dice.one_in(12) { "ROLLBACK" } else { "COMMIT" });
    sql
}
