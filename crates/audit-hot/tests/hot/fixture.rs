//! A database with the tables in it, and sinks that write to it.

use audit_core::batch::Batch;
use audit_core::position::Lsn;
use audit_core::sink::{Identity, Sink, SinkError, Stored};
use audit_hot::{HotConfig, HotReader, HotSink, Partitioning, SetupOptions, setup_statements};
use audit_testkit::{Database, shared_db};

pub struct Hot {
    pub database: Database,
    pub config: HotConfig,
}

pub fn options() -> SetupOptions {
    SetupOptions { source: "shop".into(), sinks: vec!["hot".into()], ..SetupOptions::default() }
}

pub fn identity() -> Identity {
    Identity { source: "shop".into(), system_id: u64::MAX - 1, timeline: 1, timeline_start: Lsn::ZERO }
}

/// Runs the statements one by one, as `setup` does.
pub fn setup(database: &Database, options: &SetupOptions) {
    let all: String = setup_statements(options).iter().map(|statement| format!("{};\n", statement.sql)).collect();
    database.execute(&format!("BEGIN; {all} COMMIT;"));
}

impl Hot {
    pub async fn new() -> Hot {
        Hot::with(Partitioning::Month, 15).await
    }

    pub async fn with(partitioning: Partitioning, major: u16) -> Hot {
        Hot::on(shared_db(major).await, partitioning)
    }

    pub fn on(database: Database, partitioning: Partitioning) -> Hot {
        setup(&database, &SetupOptions { partitioning, ..options() });
        let config = HotConfig { partitioning, ..HotConfig::new(&database.url) };
        Hot { database, config }
    }

    pub fn sink(&self) -> HotSink {
        HotSink::new("hot", &self.config)
    }

    /// A sink that is ready to write.
    pub async fn taken(&self) -> HotSink {
        let mut sink = self.sink();
        take(&mut sink).await.unwrap();
        sink
    }

    pub async fn reader(&self) -> HotReader {
        HotReader::connect(&self.config.endpoint).await.unwrap()
    }

    /// Makes a copy of the database as it is now. All sessions end.
    pub fn copy(&self) -> String {
        let (name, copy) = (&self.database.name, audit_testkit::unique("copy"));
        self.end_sessions();
        self.database.server.execute("postgres", &format!("CREATE DATABASE {copy} TEMPLATE {name}"));
        copy
    }

    /// Replaces the database with the copy.
    pub fn put_back(&self, copy: &str) {
        let name = &self.database.name;
        self.database.server.execute("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
        self.database.server.execute("postgres", &format!("ALTER DATABASE {copy} RENAME TO {name}"));
    }

    fn end_sessions(&self) {
        let name = &self.database.name;
        let sessions = format!("FROM pg_stat_activity WHERE datname = '{name}'");
        self.database.server.execute("postgres", &format!("SELECT pg_terminate_backend(pid) {sessions}"));
        let count = format!("SELECT count(*) {sessions}");
        audit_testkit::eventually("sessions end", || self.database.server.execute("postgres", &count) == "0");
    }

    /// Runs statements, and returns what psql prints.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        self.database.execute(statements)
    }

    /// All versions as `seq event key`, in order of position.
    #[track_caller]
    pub fn trail(&self) -> String {
        self.sql("SELECT seq, event, key FROM cdc_audit.versions ORDER BY position")
    }
}

pub async fn take(sink: &mut HotSink) -> Result<Stored, SinkError> {
    let stored = sink.take(&identity()).await?;
    let start = stored.checkpoint.as_ref().map(|checkpoint| checkpoint.progress()).unwrap_or_default();
    sink.begin(start).await?;
    Ok(stored)
}

pub async fn write(sink: &mut HotSink, batches: &[Batch]) -> Result<(), SinkError> {
    let batches: Vec<&Batch> = batches.iter().collect();
    sink.write(&batches).await
}
