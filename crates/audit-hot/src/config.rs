//! `[sinks.NAME]` with `type = "hot"`: where the audit tables are and how they are filled.

use audit_config::{ByteSize, Problems, Span};
use audit_connect::PgEndpoint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An audit table in a PostgreSQL database: schema `cdc_audit` there, made by `cdc-audit setup`. A database other than
/// the source is better; several sources may share one.
// audit-config finds unknown keys, because serde cannot refuse them in a struct with a flattened field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HotConfig {
    #[serde(flatten)]
    pub endpoint: PgEndpoint,

    /// What one partition holds: `month`, or `table_and_month`, which lets single tables be dropped or kept longer but
    /// makes one partition for each table and month. Decided when `setup` makes the tables; no later change.
    #[serde(default)]
    pub partitioning: Partitioning,

    /// How long a month that `cdc-audit archive` took out of the tables is kept before it is dropped. `cdc-audit setup`
    /// writes it into the database, so that the daemon's role cannot shorten it.
    #[serde(default = "archive_grace")]
    pub archive_grace: Span,

    /// A database transaction is closed when its versions take about this much memory. They are sent while they are
    /// encoded, so that a larger one costs no memory; a smaller one costs throughput.
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
    /// Configures a sink in this database, with the default of every other key.
    pub fn new(url: impl Into<String>) -> HotConfig {
        HotConfig {
            endpoint: PgEndpoint::new(url),
            partitioning: Partitioning::default(),
            archive_grace: archive_grace(),
            batch_bytes: batch_bytes(),
            batch_rows: batch_rows(),
            keep: Vec::new(),
        }
    }

    /// Checks the rules that the types of the fields cannot express.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(error) = self.endpoint.parse() {
            let hint = error.hint().unwrap_or_else(|| "write it as psql takes it".to_owned());
            problems.push("url", error.to_string(), hint.as_str());
        }
        if self.batch_bytes < ByteSize::kib(64) {
            problems.push("batch_bytes", "too small", "give at least \"64 KiB\"");
        }
        if self.batch_rows == 0 {
            problems.push("batch_rows", "too small", "give at least 1");
        }
    }
}

fn archive_grace() -> Span {
    Span::days(7)
}

fn batch_bytes() -> ByteSize {
    ByteSize::mib(16)
}

fn batch_rows() -> u32 {
    20_000
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn problems(text: &str) -> String {
        let parsed =
            audit_config::parse(Path::new("c.toml"), text, |config: &HotConfig, problems| config.check(problems));
        parsed.map_or_else(|problems| problems.to_string(), |config| format!("{config:?}"))
    }

    #[test]
    fn a_url_is_all_it_takes() {
        let shown = problems("url = 'postgres://a:hush@h/d'");
        assert!(shown.contains("a@h:5432/d") && shown.contains("Month") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn what_is_wrong_is_said_all_at_once() {
        let shown = problems("url = 'postgres://h:x/d'\nbatch_bytes = '1 B'");
        for key in ["url", "batch_bytes"] {
            assert!(shown.contains(key), "{shown}");
        }
        assert!(problems("url = 'postgres://h/d'\nbatch_rows = 0").contains("batch_rows"));
        assert!(problems("url = 'postgres://h/d'\nbatch_row = 1").contains("batch_rows"));
    }
}
