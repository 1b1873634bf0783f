//! A hot table in its own database.

use audit_hot::{HotConfig, HotSink, SetupOptions, setup_statements};
use audit_testkit::{Database, eventually, shared_db, unique};

use crate::suite::{Found, Place, SINK, UNWANTED};

pub struct Hot {
    pub database: Database,
}

impl Hot {
    /// Makes the tables as `setup` does, for the sinks of the suite's source.
    fn set_up(database: &Database) {
        let options = SetupOptions { source: "shop".into(), sinks: vec![SINK.into()], ..SetupOptions::default() };
        let all: String = setup_statements(&options).iter().map(|statement| format!("{};\n", statement.sql)).collect();
        database.execute(&format!("BEGIN; {all} COMMIT;"));
    }

    fn end_sessions(&self) {
        let name = &self.database.name;
        let sessions = format!("FROM pg_stat_activity WHERE datname = '{name}'");
        self.database.server.execute("postgres", &format!("SELECT pg_terminate_backend(pid) {sessions}"));
        let count = format!("SELECT count(*) {sessions}");
        eventually("sessions end", || self.database.server.execute("postgres", &count) == "0");
    }
}

impl Place for Hot {
    type Sink = HotSink;
    /// The name of a copy of the database.
    type Backup = String;

    async fn new() -> Hot {
        let database = shared_db(15).await;
        Hot::set_up(&database);
        Hot { database }
    }

    fn sink(&self) -> HotSink {
        HotSink::new(SINK, &HotConfig::new(&self.database.url))
    }

    async fn found(&self) -> Vec<Found> {
        let rows = self.database.execute("SELECT position, event FROM cdc_audit.versions");
        let parts = rows.lines().filter_map(|row| row.split_once('|'));
        parts.map(|(position, event)| Found { position: position.into(), event: event.into() }).collect()
    }

    async fn backup(&self) -> String {
        let copy = unique("copy");
        self.end_sessions();
        let sql = format!("CREATE DATABASE {copy} TEMPLATE {}", self.database.name);
        self.database.server.execute("postgres", &sql);
        copy
    }

    async fn restore(&self, copy: String) {
        let name = &self.database.name;
        self.database.server.execute("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
        self.database.server.execute("postgres", &format!("ALTER DATABASE {copy} RENAME TO {name}"));
    }

    async fn refuse(&self) -> Option<String> {
        let check = format!("CHECK (coalesce(after ->> 'name', '') <> '{UNWANTED}')");
        self.database.execute(&format!("ALTER TABLE cdc_audit.versions ADD {check}"));
        Some(UNWANTED.into())
    }
}
