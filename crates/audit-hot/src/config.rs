//! `[sinks.NAME]` with `type = "hot"`: where the audit tables are and how they are filled.

use audit_config::ByteSize;
use audit_connect::PgEndpoint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An audit table in a PostgreSQL database: schema `cdc_audit` there, made by `cdc-audit setup`. A database other than
/// the source is better; several sources may share one.
// Unknown keys are found by audit-config, since serde cannot refuse them beside a flattened struct.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HotConfig {
    #[serde(flatten)]
    pub endpoint: PgEndpoint,

    /// What one partition holds: `month`, or `table_and_month`, which lets single tables be dropped or kept longer but
    /// makes one partition for each table and month. Decided when `setup` makes the tables; no later change.
    #[serde(default)]
    pub partitioning: Partitioning,

    /// A database transaction is closed when its versions take about this much. A larger one gains little.
    #[serde(default = "batch_bytes")]
    pub batch_bytes: ByteSize,

    /// The same, by the number of versions.
    #[serde(default = "batch_rows")]
    #[schemars(range(min = 1))]
    pub batch_rows: u32,

    /// Whole rows to store with every version that has them: `before`, `after`, or both. Without it an update stores
    /// what changed, and a whole row is stored only where there is none before, none after, or none known. Expect a
    /// half to a fifth of the throughput.
    #[serde(default)]
    pub keep: Vec<Side>,
}

/// How `cdc_audit.versions` is partitioned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Partitioning {
    #[default]
    Month,
    TableAndMonth,
}

/// One side of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Before,
    After,
}

impl HotConfig {
    /// A sink in this database, with everything else as by default.
    pub fn new(url: impl Into<String>) -> HotConfig {
        HotConfig {
            endpoint: PgEndpoint::new(url),
            partitioning: Partitioning::default(),
            batch_bytes: batch_bytes(),
            batch_rows: batch_rows(),
            keep: Vec::new(),
        }
    }
}

fn batch_bytes() -> ByteSize {
    ByteSize::mib(4)
}

fn batch_rows() -> u32 {
    20_000
}
