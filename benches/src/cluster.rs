//! The PostgreSQL under measurement: the distribution's 15, private, set up as a server that is to be fast and safe.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use audit_testkit::Postgres;

use crate::workload::DATABASE;

const SETTINGS: [(&str, &str); 8] = [
    ("shared_buffers", "1GB"),
    // A checkpoint is taken where a measurement wants one, and never in its middle.
    ("max_wal_size", "40GB"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
    ("logical_decoding_work_mem", "64MB"),
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("max_replication_slots", "40"),
];

pub struct Cluster {
    pub server: Postgres,
    pub postmaster: u32,
}

impl Cluster {
    /// Starts it, with the captured tables and what their workloads are made from: so many narrow and wide rows.
    pub fn start(narrow: u64, wide: u64) -> Result<Cluster> {
        // Whatever else is built for size, not speed.
        pg_recvlogical()?;
        let builder = Postgres::builder(15);
        let server = SETTINGS.iter().fold(builder, |builder, (name, value)| builder.setting(name, value)).start();
        let pid_file = fs::read_to_string(server.data_dir().join("postmaster.pid"))?;
        let postmaster =
            pid_file.lines().next().and_then(|line| line.parse().ok()).context("the postmaster's number")?;
        server.create_database(DATABASE);
        let variables = format!("\\set n1 {narrow}\n\\set n2 {wide}\n");
        server.try_execute(DATABASE, &(variables + include_str!("../sql/staging.sql")))?;
        Ok(Cluster { server, postmaster })
    }

    pub fn sql(&self, database: &str, statements: &str) -> Result<String> {
        self.server.try_execute(database, statements)
    }

    /// A new database with an empty hot table.
    pub fn hot_database(&self) -> Result<String> {
        let name = audit_testkit::unique("hot");
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {HOT_TEMPLATE};"))?;
        Ok(name)
    }

    pub fn drop_database(&self, name: &str) -> Result<()> {
        self.sql("postgres", &format!("DROP DATABASE {name} WITH (FORCE);")).map(drop)
    }

    /// Everything that earlier runs left to be written is written now, not during the next.
    pub fn settle(&self) -> Result<()> {
        self.sql("postgres", "CHECKPOINT;").map(drop)
    }
}

/// The database that `setup` fills, and from which those of single runs are copied.
pub const HOT_TEMPLATE: &str = "hot_template";

/// The reference's program. Only the distribution's: other builds are made for size.
pub fn pg_recvlogical() -> Result<PathBuf> {
    let program = PathBuf::from("/usr/lib/postgresql/15/bin/pg_recvlogical");
    if !program.exists() {
        bail!("{} is missing: install the package postgresql-15", program.display());
    }
    Ok(program)
}
