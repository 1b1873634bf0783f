//! What is measured: W1 (narrow) and W2 (wide), each as A (one row a transaction), B (100 rows), C (updates under REPLICA
//! IDENTITY FULL, 100 rows) and D (one huge transaction).

use std::fmt;

use anyhow::{Result, bail};
use audit_testkit::Postgres;

/// The memory limit of every daemon that is measured.
pub const MEMORY_LIMIT_MIB: u32 = 128;

/// The columns that are protected where protection is measured, all of them text.
pub const PROTECTED: [&str; 5] = ["email", "full_name", "status", "address", "note"];

/// The captured database.
pub const DATABASE: &str = "bench";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Narrow,
    Wide,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    A,
    B,
    C,
    D,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    pub table: Table,
    pub kind: Kind,
    pub rows: u64,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.table.name().to_uppercase(), self.kind)
    }
}

impl Table {
    pub fn name(self) -> &'static str {
        match self {
            Table::Narrow => "w1",
            Table::Wide => "w2",
        }
    }
}

/// WAL that waits behind a slot.
pub struct Prepared {
    pub workload: Workload,
    /// Never read, only copied.
    pub slot: String,
    /// Everything of the workload lies before here.
    pub end: String,
}

impl Workload {
    pub fn publication(&self) -> String {
        format!("pub_{}", self.table.name())
    }

    /// Writes the workload's WAL behind a new slot.
    pub fn prepare(self, server: &Postgres) -> Result<Prepared> {
        let sql = |statements: &str| server.try_execute(DATABASE, statements);
        let (table, rows) = (self.table.name(), self.rows);
        let stage = table.replace('w', "s");
        sql(&format!("TRUNCATE {table}; ALTER TABLE {table} REPLICA IDENTITY DEFAULT;"))?;
        if self.kind == Kind::C {
            sql(&format!(
                "INSERT INTO {table} SELECT * FROM {stage} WHERE id <= {rows}; ALTER TABLE {table} REPLICA IDENTITY FULL;"
            ))?;
        }
        let slot = format!("base_{table}_{:?}", self.kind).to_lowercase();
        sql("CHECKPOINT;")?;
        sql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');"))?;
        let sets = match self.table {
            Table::Narrow => "abalance = abalance + 1, mtime = now()",
            Table::Wide => "amount = amount + 1, updated_at = now(), version = version + 1",
        };
        sql(&match self.kind {
            Kind::A => format!("SET synchronous_commit = off; CALL gen_insert('{table}', '{stage}', 1, {rows}, 1);"),
            Kind::B => format!("SET synchronous_commit = off; CALL gen_insert('{table}', '{stage}', 1, {rows}, 100);"),
            Kind::C => format!("SET synchronous_commit = off; CALL gen_update('{table}', '{sets}', 1, {rows}, 100);"),
            Kind::D => format!("INSERT INTO {table} SELECT * FROM {stage} WHERE id <= {rows};"),
        })?;
        sql("SELECT pg_switch_wal();")?;
        let end = sql("SELECT pg_current_wal_insert_lsn();")?;
        // Some WAL past the end, so that the walsender says that it has passed it.
        sql("SELECT count(pg_logical_emit_message(false, 'bench', repeat('y', 1000))) FROM generate_series(1, 20);
             SELECT pg_switch_wal();")?;
        sql("CHECKPOINT;")?;
        Ok(Prepared { workload: self, slot, end })
    }
}

impl Prepared {
    /// A copy of the slot, for one consumer.
    pub fn copy_slot(&self, server: &Postgres) -> Result<String> {
        let name = audit_testkit::unique("copy");
        server.try_execute(
            DATABASE,
            &format!("SELECT pg_copy_logical_replication_slot('{}', '{name}', false, 'pgoutput');", self.slot),
        )?;
        Ok(name)
    }

    pub fn drop(self, server: &Postgres) -> Result<()> {
        drop_slot(server, &self.slot)
    }
}

/// Waits until nobody uses the slot any more, and drops it.
pub fn drop_slot(server: &Postgres, slot: &str) -> Result<()> {
    for _ in 0..200 {
        let active = server
            .try_execute(DATABASE, &format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}';"))?;
        if active == "f" {
            server.try_execute(DATABASE, &format!("SELECT pg_drop_replication_slot('{slot}');"))?;
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    bail!("slot {slot} stays in use")
}
