//! Everything around one daemon: source, hot database, lake, configuration, and the second slot that saw the same.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Output;

use audit_testkit::{Daemon, Launch, Postgres, connect, drop_slots, free_port, unique};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::decoded::{self, Name};
use crate::hot;
use crate::kafka;
use crate::lake;
use crate::oracle::Oracle;
use crate::recorded::{History, Published, Recorded};
use crate::replay::State;
use crate::tables::{self, Table};
use crate::trail::Version;

/// The name of the source in every test's config.
pub const SOURCE: &str = "shop";

/// The options of a world.
pub struct Builder<'p> {
    server: &'p Postgres,
    source: Option<(String, String)>,
    before: Vec<String>,
    tables: String,
    pipeline: String,
    protection: String,
    rest: String,
    hot: String,
    lake: String,
    bucket: Option<(String, Option<PathBuf>)>,
    sinks: [bool; 2],
    kafka: Option<(String, String)>,
    hot_url: Option<String>,
    hot_through: Option<String>,
    source_url: Option<String>,
    keep_rows: bool,
    full: Option<bool>,
    baseline: bool,
    publication: Option<String>,
    set_up: bool,
    witnessed: bool,
    listening: bool,
}

/// A source database with its second slot, a hot database, a lake, and a configuration that names them. No daemon runs
/// yet.
pub struct World {
    /// The source database.
    pub database: String,
    pub url: String,
    pub hot_url: String,
    pub lake: PathBuf,
    /// The brokers for consumers of the sink `stream`, if there is one.
    pub kafka: Option<String>,
    pub config: PathBuf,
    /// The port of health, metrics and status; 0, which means any, unless [`Builder::listening`] was used.
    pub http: u16,
    /// The daemon's slot.
    pub slot: String,
    witness: String,
    full: Option<bool>,
    baseline: bool,
    /// The temporary folder, kept until the world is dropped.
    pub folder: TempDir,
}

impl<'p> Builder<'p> {
    /// Adds SQL that runs in the source before `setup`: tables, and rows that exist before capture.
    pub fn sql(mut self, statements: &str) -> Builder<'p> {
        self.before.push(statements.to_owned());
        self
    }

    /// Sets `[[tables]]` sections instead of the one that captures everything.
    pub fn tables(mut self, toml: &str) -> Builder<'p> {
        self.tables = toml.to_owned();
        self
    }

    /// Sets lines of `[pipeline]`.
    pub fn pipeline(mut self, toml: &str) -> Builder<'p> {
        self.pipeline = toml.to_owned();
        self
    }

    /// Sets the section `[protection]`, with its header, instead of one that protects nothing by default.
    pub fn protection(mut self, toml: &str) -> Builder<'p> {
        self.protection = toml.to_owned();
        self
    }

    /// Sets further sections.
    pub fn sections(mut self, toml: &str) -> Builder<'p> {
        self.rest = toml.to_owned();
        self
    }

    /// Sets lines of the lake's section.
    pub fn lake(mut self, toml: &str) -> Builder<'p> {
        self.lake = toml.to_owned();
        self
    }

    /// Puts the lake into a bucket: the keys for that, and the folder of its objects, if they are files. Only then it
    /// can be compared.
    pub fn lake_in(mut self, keys: &str, folder: Option<PathBuf>) -> Builder<'p> {
        self.bucket = Some((keys.to_owned(), folder));
        self
    }

    /// Sets the hot database, which must exist, if it is not on the source's server.
    pub fn hot_url(mut self, url: &str) -> Builder<'p> {
        self.hot_url = Some(url.to_owned());
        self
    }

    /// Sets the name and address of the source database if it already exists.
    pub fn source(mut self, name: &str, url: &str) -> Builder<'p> {
        self.source = Some((name.to_owned(), url.to_owned()));
        self
    }

    /// Sets the address by which the daemon reaches the source, if not directly.
    pub fn source_through(mut self, url: &str) -> Builder<'p> {
        self.source_url = Some(url.to_owned());
        self
    }

    /// Sets the address by which the daemon reaches the hot database, if not directly.
    pub fn hot_through(mut self, url: &str) -> Builder<'p> {
        self.hot_through = Some(url.to_owned());
        self
    }

    /// Sets lines of the hot sink's section.
    pub fn hot(mut self, toml: &str) -> Builder<'p> {
        self.hot = toml.to_owned();
        self
    }

    pub fn without_hot(mut self) -> Builder<'p> {
        self.sinks[0] = false;
        self
    }

    pub fn without_lake(mut self) -> Builder<'p> {
        self.sinks[1] = false;
        self
    }

    /// Adds a third sink, `stream`: the brokers for consumers, and lines of the sink's section, including its brokers.
    pub fn kafka(mut self, brokers: &str, toml: &str) -> Builder<'p> {
        self.kafka = Some((brokers.to_owned(), toml.to_owned()));
        self
    }

    /// Lets both sinks keep both sides of every version, which a replay of tables without a key needs.
    pub fn keep_rows(mut self) -> Builder<'p> {
        self.keep_rows = true;
        self
    }

    /// Says whether all tables will have REPLICA IDENTITY FULL. Without this call some have it and some do not.
    pub fn full(mut self, full: bool) -> Builder<'p> {
        self.full = Some(full);
        self
    }

    /// Records the rows that exist before capture.
    pub fn baseline(mut self) -> Builder<'p> {
        self.baseline = true;
        self
    }

    /// Makes the publication FOR ALL TABLES, so that it also has the tables that are made later.
    pub fn publish_all(self) -> Builder<'p> {
        self.publication("FOR ALL TABLES")
    }

    /// Makes the publication before `setup`. `tables` is the SQL after its name, without options.
    pub fn publication(mut self, tables: &str) -> Builder<'p> {
        self.publication = Some(tables.to_owned());
        self
    }

    /// Leaves out the second slot: the server may not be able to decode, or the test is about what was lost.
    pub fn unwitnessed(mut self) -> Builder<'p> {
        self.witnessed = false;
        self
    }

    /// Listens on a port that `cdc-audit status` finds. Two daemons of one world need two ports.
    pub fn listening(mut self) -> Builder<'p> {
        self.listening = true;
        self
    }

    /// Leaves `cdc-audit setup` to the test.
    pub fn not_set_up(mut self) -> Builder<'p> {
        self.set_up = false;
        self
    }

    pub async fn build(self) -> World {
        let folder = tempfile::Builder::new().prefix("cdc-audit-world-").tempdir().expect("a temporary folder");
        let (database, url) = self.source.clone().unwrap_or_else(|| self.server.new_database());
        let hot_url = self.hot_url.clone().unwrap_or_else(|| self.server.new_database().1);
        let world = World {
            lake: self.bucket.clone().and_then(|(_, lies)| lies).unwrap_or_else(|| folder.path().join("lake")),
            config: folder.path().join("config.toml"),
            kafka: self.kafka.as_ref().map(|(brokers, _)| brokers.clone()),
            http: if self.listening { free_port() } else { 0 },
            slot: unique("cdc"),
            witness: unique("witness"),
            full: self.full,
            baseline: self.baseline,
            database,
            url,
            hot_url,
            folder,
        };
        std::fs::write(&world.config, self.config(&world)).expect("a config file");
        for statements in &self.before {
            self.server.execute(&world.database, statements);
        }
        if let Some(tables) = &self.publication {
            let sql = format!("CREATE PUBLICATION {} {tables} WITH (publish_via_partition_root = true)", world.slot);
            self.server.execute(&world.database, &sql);
        }
        if self.set_up {
            world.set_up();
        }
        if self.witnessed {
            decoded::create(&world.client().await, &world.witness).await;
        }
        world
    }

    fn config(&self, world: &World) -> String {
        let World { hot_url, slot, lake, http, .. } = world;
        let url = self.source_url.as_ref().unwrap_or(&world.url);
        let keep = |toml: &str| if self.keep_rows { toml.to_owned() } else { String::new() };
        let hot_url = self.hot_through.as_ref().unwrap_or(hot_url);
        let hot = format!(
            "[sinks.hot]\ntype = \"hot\"\nurl = \"{hot_url}\"\n{}\n{}\n",
            keep("keep = [\"before\", \"after\"]"),
            self.hot
        );
        let place = match &self.bucket {
            Some((keys, _)) => keys.clone(),
            None => format!("url = \"{}\"", lake.display()),
        };
        let archive =
            format!("[sinks.archive]\ntype = \"lake\"\n{place}\n{}\n{}\n", keep("keep_before = true"), self.lake);
        let sinks = [hot, archive];
        let mut sinks: String =
            sinks.iter().zip(self.sinks).filter(|(_, wanted)| *wanted).map(|(toml, _)| toml.as_str()).collect();
        if let Some((_, toml)) = &self.kafka {
            sinks.push_str(&format!("[sinks.stream]\ntype = \"kafka\"\n{toml}\n"));
        }
        format!(
            "[source]\nname = \"{SOURCE}\"\nurl = \"{url}\"\nslot = \"{slot}\"\npublication = \"{slot}\"\n\n{}\n\n\
             {}\n\n{sinks}\n[pipeline]\n{}\n\n[http]\nlisten = \"127.0.0.1:{http}\"\n\n{}\n",
            if self.tables.is_empty() { self.every_table() } else { self.tables.clone() },
            self.protection,
            self.pipeline,
            self.rest,
        )
    }

    fn every_table(&self) -> String {
        // Applications ignore some columns, but the oracle needs every column.
        format!("[[tables]]\nname = \"*\"\nignore_alone = []\nbaseline = {}\n", self.baseline)
    }
}

impl World {
    pub fn on(server: &Postgres) -> Builder<'_> {
        Builder {
            server,
            source: None,
            before: Vec::new(),
            tables: String::new(),
            pipeline: String::new(),
            protection: "[protection]\ndefaults = false".to_owned(),
            rest: String::new(),
            hot: String::new(),
            lake: "file_age = \"1 s\"\ndata_bytes = \"0 B\"".to_owned(),
            bucket: None,
            sinks: [true; 2],
            kafka: None,
            hot_url: None,
            hot_through: None,
            source_url: None,
            keep_rows: false,
            full: None,
            baseline: false,
            publication: None,
            set_up: true,
            witnessed: true,
            listening: false,
        }
    }

    /// Opens a session in the source.
    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }

    /// Opens a session in the hot database.
    pub async fn hot(&self) -> Client {
        connect(&self.hot_url).await
    }

    /// Runs a command of the program with this world's configuration.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let config = self.config.to_str().expect("temporary folders have plain names");
        audit_testkit::command(arguments.iter().copied().chain(["--config", config]))
    }

    /// Runs a command that must succeed, and returns what it printed.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?} ended with {}:\n{stdout}{stderr}", output.status);
        stdout.into_owned()
    }

    pub fn set_up(&self) {
        self.succeed(&["setup"]);
    }

    /// Returns status line and body of `GET path`, from the port of a world that listens.
    pub fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).expect("the daemon listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    pub fn launch(&self) -> Launch {
        Daemon::launch(&self.config)
    }

    /// Reads the present end of the source's WAL.
    pub async fn wal_end(&self) -> String {
        let client = self.client().await;
        let row = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.expect("the end of the WAL");
        row.get(0)
    }

    /// Runs a daemon until everything that has committed is in every sink.
    pub async fn catch_up(&self) {
        let until = self.wal_end().await;
        let mut daemon = self.launch().argument("--until").argument(&until).start();
        let status = daemon.wait();
        assert!(status.success(), "the daemon ended with {status}:\n{}", daemon.output());
    }

    /// Reads everything that the sinks hold.
    pub async fn recorded(&self) -> Recorded {
        let hot = self.hot().await;
        let shapes = hot::shapes(&hot, SOURCE).await;
        let (kafka, disorder) = match self.kafka.as_ref().map(|brokers| kafka::trail(brokers, SOURCE, &shapes)) {
            Some((trail, disorder)) => (Some(trail), disorder),
            None => (None, Vec::new()),
        };
        Recorded {
            hot: hot::trail(&hot, SOURCE).await,
            by_log: lake::by_log(&self.lake),
            by_listing: lake::by_listing(&self.lake),
            kafka,
            disorder,
            shapes,
        }
    }

    /// Reads the transactions that the second slot saw.
    pub async fn history(&self, published: Published) -> History {
        let client = self.client().await;
        let transactions = decoded::read(&client, &self.witness).await;
        History { transactions, roots: decoded::roots(&client).await, published }
    }

    /// Reads the source's tables as they are now.
    pub async fn tables(&self) -> BTreeMap<String, Table> {
        tables::read(&self.client().await).await
    }

    /// Compares everything with everything if the publication has every table.
    pub async fn check(&self) -> Recorded {
        self.check_published(|_, _| true).await
    }

    /// Compares everything with everything if the publication has only some tables, or has them only from some point of
    /// the WAL on.
    pub async fn check_published(&self, published: impl Fn(&Name, u64) -> bool + 'static) -> Recorded {
        let recorded = self.recorded().await;
        let history = self.history(Box::new(published)).await;
        self.check_changes(&recorded, &[&history]);
        self.check_replay(&recorded, &|name| (history.published)(name, u64::MAX)).await;
        recorded
    }

    /// Plays the trails back and compares them with the tables as they are. After a gap, a baseline leads to that
    /// state.
    pub async fn check_replay(&self, recorded: &Recorded, has: &dyn Fn(&Name) -> bool) {
        let mut tables = self.tables().await;
        // Another baseline shows each row of a table without a key again, so its trail cannot be played back.
        let anew = recorded.hot.iter().any(|version| version.event == "gap");
        tables.retain(|name, table| has(&split(name)) && !(anew && table.key.is_empty()));
        let mut wrong = Vec::new();
        for (name, trail) in recorded.trails() {
            let mut state = if self.baseline { State::with_earlier_rows() } else { State::default() };
            let gaps: Vec<&Version> = trail.iter().filter(|version| version.is_gap_of(name)).collect();
            // Versions of a history that another one has replaced did not happen.
            let replaced = |version: &Version| {
                let left = |gap: &&Version| version.position < gap.position && version.commit_lsn > gap.commit_lsn;
                gaps.iter().any(left)
            };
            for version in trail.iter().filter(|version| !replaced(version)) {
                if version.is_gap_of(name) {
                    state.gap();
                }
                state.apply(version);
            }
            let differences = state.differences(&tables, &recorded.shapes);
            wrong.extend(differences.into_iter().map(|what| format!("{name} replayed: {what}")));
        }
        explain(wrong);
    }

    /// Compares the sinks with each other, and with the changes that the second slot saw in each epoch, from the first
    /// one on.
    pub fn check_changes(&self, recorded: &Recorded, histories: &[&History]) {
        let mut wrong = recorded.disagreements();
        if let Some(brokers) = self.kafka.as_ref().filter(|_| !wrong.is_empty()) {
            wrong.extend(kafka::whereabouts(brokers, SOURCE, &recorded.missing_in_kafka()));
        }
        wrong.extend(recorded.snapshots_twice());
        for (name, trail) in recorded.trails() {
            let unknown = trail.iter().filter(|version| version.epoch() > histories.len());
            wrong.extend(unknown.take(3).map(|version| format!("{name}: an epoch too many: {}", version.place())));
            for (before, History { transactions, roots, published }) in histories.iter().enumerate() {
                let (shapes, full) = (&recorded.shapes, self.full);
                let oracle = Oracle { epoch: before + 1, transactions, roots, shapes, full, published: &**published };
                wrong.extend(oracle.differences(name, trail).into_iter().map(|what| format!("{name}: {what}")));
            }
        }
        explain(wrong);
    }

    /// Returns a path in the world's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Changes the configuration by replacing a text that must be there.
    pub fn edit_config(&self, from: &str, to: &str) {
        edit(&self.config, from, to);
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).expect("a config file");
    assert!(text.contains(from), "the config does not hold {from}:\n{text}");
    std::fs::write(path, text.replace(from, to)).expect("a config file");
}

#[track_caller]
fn explain(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{} to explain:\n{}", wrong.len(), wrong.join("\n"));
}

/// Splits a name, well enough for the names that tests use.
pub(crate) fn split(name: &str) -> Name {
    let (schema, table) = name.split_once('.').expect("schema.table");
    Name { schema: schema.to_owned(), table: table.trim_matches('"').to_owned() }
}

impl Drop for World {
    fn drop(&mut self) {
        drop_slots(&self.url);
    }
}
