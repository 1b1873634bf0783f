//! `config.toml`, whole: the sections come from the crates that they configure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use audit_capture::baseline::BaselineConfig;
use audit_capture::config::SourceConfig;
use audit_config::{Problems, quote};
use audit_connect::PgEndpoint;
use audit_core::protect::Policy;
use audit_core::rules::{Rules, TableRule};
use audit_core::versions_table::COMMON;
use audit_hot::HotConfig;
use audit_kafka::KafkaConfig;
use audit_lake::LakeConfig;
use audit_pipeline::config::PipelineConfig;
use audit_webhook::WebhookConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::protection::{KeyError, ProtectionConfig};

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
    pub http: HttpConfig,
    #[serde(default)]
    pub log: LogConfig,
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

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Config {
    /// Reads and checks the file: all problems in one go, before anything is touched.
    pub fn load(path: &Path) -> Result<Config, Problems> {
        audit_config::load(path, |config: &Config, problems| config.check(problems))
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        problems.scope("source", |problems| self.source.check(problems));
        problems.scope("baseline", |problems| self.baseline.check(problems));
        for (name, sink) in &self.sinks {
            problems.scope(&format!("sinks.{}", quote(name)), |problems| match sink {
                SinkConfig::Hot(hot) => hot.check(problems),
                SinkConfig::Lake(lake) => lake.check(problems),
                SinkConfig::Kafka(kafka) => kafka.check(problems),
                SinkConfig::Webhook(webhook) => {
                    webhook.check(problems);
                    if webhook.checkpoint.as_ref().is_some_and(|hot| self.hot(hot).is_none()) {
                        problems.push(
                            "checkpoint",
                            "there is no hot sink of this name",
                            "name one, or take the key out",
                        );
                    }
                }
            });
        }
        if self.sinks.is_empty() {
            problems.push("sinks", "there is no sink", Some("name at least one: [sinks.hot] or [sinks.archive]"));
        }
        for name in self.sinks.keys().filter(|name| !is_name(name)) {
            let path = format!("sinks.{}", quote(name));
            problems.push(&path, "a sink's name may hold a-z, 0-9, - and _", Some("choose another name"));
        }
        if self.http.listen.parse::<SocketAddr>().is_err() {
            problems.push("http.listen", "not an address with a port", Some("give one like \"127.0.0.1:9187\""));
        }
        if self.pipeline.memory().is_none() {
            problems.push("pipeline.memory_limit", "too small", Some("give at least \"80 MiB\""));
        }
        self.check_keys(problems);
        self.protection.check_names(&self.rules(), problems);
        problems.scope("protection", |problems| self.protection.check(problems));
        for (index, rule) in self.tables.iter().enumerate() {
            let path = format!("tables[{index}]");
            if rule.only.is_some() && rule.ignore.is_some() {
                problems.push(&format!("{path}.only"), "given together with `ignore`", Some("keep one of the two"));
            }
            if rule.only.as_ref().is_some_and(Vec::is_empty) {
                let hint = "name some columns, or say `capture = false` to leave tables out";
                problems.push(&format!("{path}.only"), "names no column", Some(hint));
            }
            if rule.events.as_ref().is_some_and(Vec::is_empty) {
                let hint = "say `capture = false` to leave tables out";
                problems.push(&format!("{path}.events"), "selects no event", Some(hint));
            }
            if rule.key.as_ref().is_some_and(Vec::is_empty) {
                problems.push(&format!("{path}.key"), "names no column", Some("name some, or take the key out"));
            }
            for name in rule.sinks.iter().flatten().filter(|name| !self.sinks.contains_key(*name)) {
                let names: Vec<&str> = self.sinks.keys().map(String::as_str).collect();
                let hint = format!("the sinks are {}", names.join(", "));
                problems.push(&format!("{path}.sinks"), format!("there is no sink {name:?}"), Some(hint.as_str()));
            }
            if rule.sinks.as_ref().is_some_and(Vec::is_empty) {
                problems.push(
                    &format!("{path}.sinks"),
                    "names no sink",
                    Some("say `capture = false` to leave tables out"),
                );
            }
            problems.scope(&path, |problems| {
                self.check_versions_table(rule, problems);
                self.protection.check_table(rule, problems);
            });
        }
    }

    fn check_versions_table(&self, rule: &TableRule, problems: &mut Problems) {
        const KEY: &str = "versions_table";
        let Some(own) = &rule.versions_table else { return };
        if own.literal().is_some_and(|name| name != COMMON && audit_hot::is_ours(name)) {
            let hint = "choose another: this one is of cdc-audit, or may once be a partition's or a view's";
            problems.push(KEY, "the name is not free", hint);
        }
        if own.has_tenant() && rule.tenant.is_none() {
            problems.push(KEY, "nothing says who the tenant is", "name the column in `tenant`, beside it");
        }
        if !self.sinks.keys().any(|name| self.hot(name).is_some()) {
            problems.push(KEY, "there is no hot sink", "add one with type = \"hot\", or take the key out");
        }
    }

    fn hot(&self, name: &str) -> Option<&HotConfig> {
        match self.sinks.get(name) {
            Some(SinkConfig::Hot(hot)) => Some(hot),
            _ => None,
        }
    }

    /// The database where a webhook's checkpoint lies: a hot sink's, else the source.
    pub fn checkpoint_endpoint(&self, webhook: &WebhookConfig) -> &PgEndpoint {
        let first = || self.sinks.keys().find_map(|name| self.hot(name));
        let hot = match &webhook.checkpoint {
            Some(name) => self.hot(name),
            None => first(),
        };
        hot.map_or(&self.source.endpoint, |hot| &hot.endpoint)
    }

    /// Reads the keys. `Err` names the one that cannot be had.
    pub fn policy(&self) -> Result<Policy, KeyError> {
        self.protection.policy()
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

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
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
