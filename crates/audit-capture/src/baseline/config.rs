//! What the configuration says about baselines: [`BaselineConfig`].

use audit_config::{ByteSize, Problems};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the rows that existed before capture began are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaselineConfig {
    /// Record the rows that existed before capture began, for every table, sink by sink. A single table is left out with
    /// `baseline = false` in its rule.
    #[serde(default = "default_enabled")]
    pub enabled: bool,

    /// How many tables are read at the same time. Each takes a connection to the source, and there is one more for all of them.
    #[serde(default = "default_parallel")]
    pub parallel: u16,

    /// The most rows that are read at once.
    #[serde(default = "default_chunk_rows")]
    pub chunk_rows: u32,

    /// Reading stops at the row that brings the rows read at once to this size. Smaller chunks take less memory and shorter
    /// transactions, larger ones fewer round trips.
    #[serde(default = "default_chunk_bytes")]
    pub chunk_bytes: ByteSize,
}

fn default_enabled() -> bool {
    true
}

fn default_parallel() -> u16 {
    2
}

fn default_chunk_rows() -> u32 {
    10_000
}

fn default_chunk_bytes() -> ByteSize {
    ByteSize::mib(2)
}

impl Default for BaselineConfig {
    fn default() -> BaselineConfig {
        BaselineConfig {
            enabled: default_enabled(),
            parallel: default_parallel(),
            chunk_rows: default_chunk_rows(),
            chunk_bytes: default_chunk_bytes(),
        }
    }
}

/// Connections are scarce on a database server.
const PARALLEL_MAX: u16 = 32;

impl BaselineConfig {
    /// Checks what the types cannot express.
    pub fn check(&self, problems: &mut Problems) {
        if !(1..=PARALLEL_MAX).contains(&self.parallel) {
            problems.push(
                "parallel",
                "must be between 1 and 32",
                "2 suits most servers; `enabled = false` turns baselines off",
            );
        }
        if self.chunk_rows == 0 {
            problems.push("chunk_rows", "must be more than nothing", "10000 suits most tables");
        }
        if self.chunk_bytes.get() == 0 {
            problems.push("chunk_bytes", "must be more than nothing", "\"2 MiB\" suits most tables");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        baseline: BaselineConfig,
    }

    fn parse(text: &str) -> Result<BaselineConfig, Problems> {
        let check = |file: &File, problems: &mut Problems| {
            problems.scope("baseline", |problems| file.baseline.check(problems));
        };
        audit_config::parse(std::path::Path::new("config.toml"), text, check).map(|file| file.baseline)
    }

    #[test]
    fn everything_has_a_default() {
        assert_eq!(parse("").unwrap(), BaselineConfig::default());
        assert_eq!(
            parse("[baseline]\nparallel = 3\n").unwrap(),
            BaselineConfig { parallel: 3, ..BaselineConfig::default() }
        );
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let problems = parse("[baseline]\nparallel = 0\nchunk_rows = 0\nchunk_bytes = 0\n").unwrap_err();
        assert_eq!(problems.len(), 3, "{problems}");
    }

    #[test]
    fn every_key_is_in_the_reference() {
        let reference = audit_config::reference::<File>();
        for key in ["enabled = true", "parallel = 2", "chunk_rows = 10000", "chunk_bytes = \"2 MiB\""] {
            assert!(reference.contains(key), "{key} is missing in\n{reference}");
        }
    }
}
