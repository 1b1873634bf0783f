//! `config.toml`, whole: the sections come from the crates that they configure.

use std::collections::BTreeMap;

use audit_capture::baseline::BaselineConfig;
use audit_capture::config::SourceConfig;
use audit_connect::PgEndpoint;
use audit_core::protect::Policy;
use audit_core::rules::{Rules, TableRule};
use audit_history::activity::ActivityConfig;
use audit_hot::HotConfig;
use audit_kafka::KafkaConfig;
use audit_lake::LakeConfig;
use audit_lake::place::StoreConfig;
use audit_pipeline::config::PipelineConfig;
use audit_webhook::WebhookConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::actors::ActorsConfig;
pub use self::protection::{KeyError, ProtectionConfig};

mod actors;
mod check;
mod keys;
#[cfg(test)]
mod mistakes;
mod protection;

/// What `cdc-audit` does, in one file. The smallest that works names a source and one sink.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub source: SourceConfig,
    #[serde(default)]
    pub tables: Vec<TableRule>,
    #[serde(default)]
    pub protection: ProtectionConfig,
    /// Where versions go. Each sink has a name of your choosing, which is part of its checkpoint: to rename one is to begin anew.
    pub sinks: BTreeMap<String, SinkConfig>,
    #[serde(default)]
    pub baseline: BaselineConfig,
    #[serde(default)]
    pub pipeline: PipelineConfig,
    #[serde(default)]
    pub activity: ActivityConfig,
    #[serde(default)]
    pub export: ExportConfig,
    #[serde(default)]
    pub http: HttpConfig,
    #[serde(default)]
    pub log: LogConfig,
    #[serde(default)]
    pub display: DisplayConfig,
    #[serde(default)]
    pub actors: ActorsConfig,
    #[serde(default)]
    pub undo: UndoConfig,
    /// Questions by name: `cdc-audit search @refunds` asks `[questions.refunds]`.
    #[serde(default)]
    pub questions: BTreeMap<String, SavedQuestion>,
}

/// A sink, by its type.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SinkConfig {
    /// The hot audit table, in any PostgreSQL: the source itself or, better, another.
    Hot(HotConfig),
    /// Date-partitioned Parquet in Delta tables.
    Lake(Box<LakeConfig>),
    /// Topics of a Kafka cluster.
    Kafka(Box<KafkaConfig>),
    /// Batches posted to an HTTP receiver, signed: at least once.
    Webhook(Box<WebhookConfig>),
}

/// Exports into a bucket.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExportConfig {
    /// How `cdc-audit export --to s3://…` reaches its bucket: the keys are those of a lake's `store`. It may be another account's than the lake's.
    pub store: StoreConfig,
}

/// The local port for health, metrics and `cdc-audit status`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address and port; leave it on this machine, for it asks nobody who they are. `/healthz`, `/readyz`, `/metrics`, `/status`.
    pub listen: String,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig { listen: "127.0.0.1:9187".to_string() }
    }
}

/// What the daemon says while it runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,audit_lake=debug`. Default: `info`.
    pub level: Option<String>,
}

/// How answers are shown.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DisplayConfig {
    /// The time zone of times that people give and see: `UTC`, `+02:00`, or a name such as `Europe/Rome`. JSON always has UTC.
    pub time_zone: String,
}

impl Default for DisplayConfig {
    fn default() -> DisplayConfig {
        DisplayConfig { time_zone: "UTC".to_string() }
    }
}

/// Who may put rows back by `undo` and `rollback`. `undo = "never"` of `[[tables]]` takes tables out.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UndoConfig {
    /// Logins of the source, or roles that they are members of. If any is named, nothing is put back before one of them approves exactly what is
    /// to be written (`--approve`), and not the one who does it. Default: nobody has to.
    #[schemars(extend("example" = ["auditors"]))]
    pub approvers: Vec<String>,
}

/// A question that is asked again and again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavedQuestion {
    /// The words that `search` takes: a table, if any, and filters.
    #[schemars(extend("example" = "orders state:->refunded -actor:31"))]
    pub search: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Config {
    /// The hot sink of this name.
    pub fn hot(&self, name: &str) -> Option<&HotConfig> {
        match self.sinks.get(name) {
            Some(SinkConfig::Hot(hot)) => Some(hot),
            _ => None,
        }
    }

    /// All hot sinks.
    pub fn hot_sinks(&self) -> impl Iterator<Item = &HotConfig> {
        self.sinks.keys().filter_map(|name| self.hot(name))
    }

    /// The database of the hot sink of this name, else of the first one, else the source's.
    pub fn hot_or_source(&self, name: Option<&str>) -> &PgEndpoint {
        let hot = match name {
            Some(name) => self.hot(name),
            None => self.hot_sinks().next(),
        };
        hot.map_or(&self.source.endpoint, |hot| &hot.endpoint)
    }

    /// Reads the keys. `Err` names the one that cannot be had.
    pub fn policy(&self) -> Result<Policy, KeyError> {
        self.protection.policy()
    }

    /// What is weak about the key of rows, which must be used all the same.
    pub fn row_key_weakness(&self) -> Result<Option<KeyError>, KeyError> {
        self.protection.row_key_weakness()
    }

    pub fn rules(&self) -> Rules {
        Rules {
            tables: self.tables.clone(),
            protection: self.protection.rules.clone(),
            default_protection: self.protection.defaults,
            context: self.protection.context.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use audit_config::Problems;

    use super::*;

    /// `cargo xtask config` writes the file.
    #[test]
    fn config_toml_is_what_the_keys_document() {
        let written = include_str!("../../../config.toml");
        assert_eq!(written.trim_end(), audit_config::reference::<Config>().trim_end(), "run `cargo xtask config`");
    }

    /// An example that is refused teaches nothing.
    #[test]
    fn the_example_of_compact_every_is_accepted() {
        let reference = audit_config::reference::<Config>();
        let line = reference.lines().find(|line| line.starts_with("# compact_every = ")).unwrap_or_default();
        let text = format!(
            "[source]\nname = 'shop'\nurl = 'postgres://localhost/shop'\n[sinks.archive]\ntype = 'lake'\nurl = '/lake'\n\
             listing_readers = false\n{}\n",
            line.trim_start_matches("# ")
        );
        let check = |config: &Config, problems: &mut Problems| config.check(problems);
        let config = audit_config::parse(Path::new("c.toml"), &text, check);
        assert_eq!(config.map(|config| config.sinks.len()).map_err(|problems| problems.to_string()), Ok(1), "{text}");
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_neighbour_and_no_password_is_shown() {
        let text = r#"
            [source]
            name = "Shop"
            url = "postgres://u:geheim@localhost/shop"
            [[tables]]
            name = "public.*"
            only = ["a"]
            ignore = ["b"]
            protect = { email = "hash" }
            [sinks.hot]
            type = "hot"
            url = "postgres://localhost/audit"
            batch_byte = "4 MiB"
            [pipeline]
            memory_limit = "10 MiB"
        "#;
        let parsed = audit_config::parse(Path::new("c.toml"), text, |config: &Config, problems| config.check(problems));
        let problems = parsed.map(|_| ()).map_err(|problems| problems.to_string());
        let shown = problems.expect_err("a misspelt key");
        assert!(shown.contains("did you mean `batch_bytes`?") && !shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn more_patterns_than_can_be_searched_for_are_refused() {
        let config = |patterns: usize| {
            let protect: String = (0..patterns).map(|i| format!("\"*{}{i}\" = 'full'\n", "?".repeat(500))).collect();
            let text = format!(
                "[source]\nname = 'shop'\nurl = 'postgres://localhost/shop'\n[sinks.hot]\ntype = 'hot'\nurl = 'postgres://localhost/audit'\n\
                 [[tables]]\nname = 'public.t'\n[tables.protect]\n{protect}"
            );
            let check = |config: &Config, problems: &mut Problems| config.check(problems);
            audit_config::parse(Path::new("c.toml"), &text, check).map(|_| ()).map_err(|problems| problems.to_string())
        };
        assert_eq!(config(2), Ok(()));
        let shown = config(200).expect_err("too many");
        assert!(shown.contains("protection: the patterns that hold for public.t are too many"), "{shown}");
    }
}
