//! `[sinks.NAME]` with `type = "kafka"`: where the brokers are, how we authenticate, what the topics hold.

use std::collections::BTreeMap;
use std::net::IpAddr;

use audit_config::{ByteSize, Problems, Span};
use audit_format::{Format, FormatConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::{SaslConfig, TlsConfig};
use crate::names;

/// Topics of a Kafka cluster: one for each table, and one for the sink's checkpoint, which is written in the same Kafka transaction. Consumers
/// with `isolation.level=read_committed` see each version once, in order for each key.
// audit-config finds unknown keys, because serde cannot refuse them in a struct with a flattened field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KafkaConfig {
    /// Brokers to begin with, `host:port`; the others are learnt from them.
    #[schemars(example = &["kafka1.internal:9092", "kafka2.internal:9092"])]
    pub brokers: Vec<String>,

    /// A table's topic: `{source}`, `{schema}` and `{table}` stand for names. Characters that Kafka does not allow become `_`, and a hash
    /// then follows the table's name, so that no two have the same topic. Without `{table}` tables share a topic, which must not be compacted.
    #[serde(default = "topic")]
    pub topic: String,

    /// The topic of the sink's checkpoint, compacted and of one partition; `cdc-audit setup` makes it. `{source}` and `{sink}` stand for names.
    #[serde(default = "checkpoint_topic")]
    pub checkpoint_topic: String,

    #[serde(flatten)]
    pub format: FormatConfig,

    /// Make the topic of a table with its first version. If not, a missing topic stops the sink. A topic that was written to and is gone
    /// is never made again: somebody deleted what it held.
    #[serde(default = "yes")]
    pub create_topics: bool,

    /// Partitions of topics that are made. Default: the brokers' own. Never change them later by hand: the key of a row then goes to another
    /// partition, and its order is lost.
    #[serde(default)]
    #[schemars(range(min = 1), example = &6)]
    pub partitions: Option<u16>,

    /// Replicas of topics that are made, the checkpoint's among them. Default: the brokers' own.
    #[serde(default)]
    #[schemars(range(min = 1), example = &3)]
    pub replication_factor: Option<u16>,

    /// Further settings of topics that are made for tables, as in `{ "retention.ms" = "-1", "min.insync.replicas" = "2" }`.
    #[serde(default)]
    #[schemars(example = &BTreeMap::from([("retention.ms", "-1")]))]
    pub topic_settings: BTreeMap<String, String>,

    /// A transaction is committed when it is this old: how late a `read_committed` consumer may be. Each costs the brokers a record in every
    /// partition that it wrote to. While there is much to write it stays open for ten times as long as the last commit took.
    #[serde(default = "commit_after")]
    pub commit_after: Span,

    /// A transaction is committed when its versions take about this much memory in the pipeline.
    #[serde(default = "batch_bytes")]
    pub batch_bytes: ByteSize,

    /// How long brokers keep a transaction open that nobody ends: after a kill `read_committed` consumers wait this long, or until the daemon
    /// is back. Also how long versions may be on their way before the stream begins again from the last commit. Keep it longer than a broker
    /// takes to start after a crash.
    #[serde(default = "transaction_timeout")]
    pub transaction_timeout: Span,

    #[serde(default)]
    pub compression: Compression,

    /// TLS to the brokers, verified unless told otherwise. It is used without this section too: the system's authorities then vouch for brokers.
    #[serde(default)]
    pub tls: Option<TlsConfig>,

    /// Speak to the brokers without TLS: then anyone on the way can read the trail and alter it.
    #[serde(default)]
    pub plain_text: bool,

    /// Who the brokers take us for.
    #[serde(default)]
    pub sasl: Option<SaslConfig>,

    /// Further settings of librdkafka, as its CONFIGURATION.md names them. Those that exactly once rests on are refused.
    #[serde(default)]
    #[schemars(example = &BTreeMap::from([("socket.keepalive.enable", "true")]))]
    pub client: BTreeMap<String, String>,
}

/// How batches of messages are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    Lz4,
    Zstd,
    Snappy,
    Gzip,
    None,
}

impl Compression {
    /// The name that librdkafka uses.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::Snappy => "snappy",
            Compression::Gzip => "gzip",
            Compression::None => "none",
        }
    }
}

fn topic() -> String {
    "{source}.{schema}.{table}".to_owned()
}

fn checkpoint_topic() -> String {
    "cdc-audit.{source}.{sink}".to_owned()
}

fn yes() -> bool {
    true
}

fn commit_after() -> Span {
    Span::millis(20)
}

fn batch_bytes() -> ByteSize {
    ByteSize::mib(32)
}

fn transaction_timeout() -> Span {
    Span::secs(60)
}

/// Prefixes of librdkafka's settings that the configuration may not set: exactly-once, memory and secrets depend on
/// them, or a key of our own sets them.
const OURS: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "batch.size",
    "bootstrap.servers",
    "compression",
    "delivery.",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "enable.ssl",
    "group.",
    "isolation.level",
    "log",
    "max.in.flight",
    "message.",
    "metadata.broker.list",
    "partitioner",
    "plugin.",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "request.required.acks",
    "retries",
    "sasl.",
    "security.protocol",
    "ssl.",
    "sticky.",
    "transaction",
];

impl KafkaConfig {
    /// The defaults, with these brokers.
    pub fn at(brokers: impl Into<String>) -> KafkaConfig {
        KafkaConfig {
            brokers: vec![brokers.into()],
            topic: topic(),
            checkpoint_topic: checkpoint_topic(),
            format: FormatConfig::default(),
            create_topics: true,
            partitions: None,
            replication_factor: None,
            topic_settings: BTreeMap::new(),
            commit_after: commit_after(),
            batch_bytes: batch_bytes(),
            transaction_timeout: transaction_timeout(),
            compression: Compression::default(),
            tls: None,
            plain_text: false,
            sasl: None,
            client: BTreeMap::new(),
        }
    }

    /// The TLS settings in use; `None` without TLS.
    pub(crate) fn tls(&self) -> Option<TlsConfig> {
        (!self.plain_text).then(|| self.tls.clone().unwrap_or_default())
    }

    /// Why others on the network could read the trail or pose as a broker, and what to do about it. `None` if they
    /// could not.
    pub fn unverified(&self) -> Option<(String, String)> {
        let here = |broker: &String| {
            let host = broker.rsplit_once(':').map_or(broker.as_str(), |(host, _)| host).trim_matches(['[', ']']);
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        };
        if self.brokers.iter().all(here) {
            return None;
        }
        match self.tls() {
            Some(tls) if tls.verify => None,
            Some(_) => Some(("anyone on the way can pose as a broker".to_owned(), "set tls.verify = true".to_owned())),
            None => {
                let message = "anyone on the way to the brokers can read the trail and alter it";
                Some((message.to_owned(), "take plain_text = true out, and let the brokers speak TLS".to_owned()))
            }
        }
    }

    /// The addresses of the brokers, as text for people.
    pub fn place(&self) -> String {
        self.brokers.join(",")
    }

    /// The name of the checkpoint's topic.
    pub fn checkpoint_topic(&self, source: &str, sink: &str) -> String {
        names::fill(&self.checkpoint_topic, &[("source", source), ("sink", sink)])
    }

    /// Whether the template makes tables share topics.
    pub fn is_shared(&self) -> bool {
        !self.topic.contains("{table}")
    }

    /// Whether rows of different tables may have the same key in one topic: a tombstone or compaction would then remove
    /// the row of another table.
    pub(crate) fn keys_may_collide(&self) -> bool {
        // With its schema, a key names its table.
        let named = self.format.format == Format::Debezium && self.format.inline_schema;
        self.is_shared() && !named
    }

    fn check_shared(&self, problems: &mut Problems) {
        if !self.keys_may_collide() {
            return;
        }
        let hint = "put {table} into `topic`, so that each table has its own";
        if self.format.tombstones() {
            let hint = format!("{hint}; or set tombstones = false");
            problems.push(
                "tombstones",
                "tables that share a topic may have equal keys: one's deletion would erase another's row",
                hint.as_str(),
            );
        }
        if self.topic_settings.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
            let message =
                "tables that share a topic may have equal keys: compaction would keep one table's row for another's";
            problems.push("topic_settings", message, hint);
        }
    }

    /// Checks the rules that the types of the fields cannot express.
    pub fn check(&self, problems: &mut Problems) {
        let is_broker = |broker: &String| {
            let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            port.is_some_and(|port| port.parse::<u16>().is_ok()) && !broker.contains([',', '@', '/', ' '])
        };
        if self.brokers.is_empty() || !self.brokers.iter().all(is_broker) {
            problems.push("brokers", "not a list of addresses with ports", "write them as [\"kafka1.internal:9092\"]");
        }
        for (key, template, known) in [
            ("topic", &self.topic, &["source", "schema", "table"][..]),
            ("checkpoint_topic", &self.checkpoint_topic, &["source", "sink"][..]),
        ] {
            if let Err(what) = names::check(template, known) {
                problems.push(
                    key,
                    what,
                    "letters, digits, `.`, `_`, `-`, and the names in braces that the key documents",
                );
            }
        }
        for (key, number) in [("partitions", self.partitions), ("replication_factor", self.replication_factor)] {
            if number == Some(0) {
                problems.push(key, "too small", "give at least 1");
            }
        }
        self.format.check(problems);
        self.check_shared(problems);
        if self.batch_bytes < ByteSize::kib(64) {
            problems.push("batch_bytes", "too small", "give at least \"64 KiB\"");
        }
        if self.transaction_timeout < Span::secs(2) || self.transaction_timeout > Span::mins(15) {
            problems.push(
                "transaction_timeout",
                "out of range",
                "give \"2 s\" to \"15 min\", which is the brokers' own limit",
            );
        } else if self.commit_after > Span::secs(60) || self.commit_after.get() * 2 > self.transaction_timeout.get() {
            problems.push("commit_after", "too long", "give at most half of transaction_timeout, and at most \"60 s\"");
        }
        for key in self.client.keys().filter(|key| OURS.iter().any(|ours| key.starts_with(ours))) {
            problems.push(
                "client",
                format!("`{key}` is not for you to set"),
                "leave it out; the sink's own keys say what can be said",
            );
        }
        if let Some(tls) = &self.tls {
            problems.scope("tls", |problems| tls.check(problems));
            if self.plain_text {
                problems.push("plain_text", "given together with a section `tls`", "keep one of the two");
            }
        }
        if let Some(sasl) = &self.sasl {
            problems.scope("sasl", |problems| sasl.check(problems));
            if self.plain_text && sasl.shows_secrets() {
                let hint = "take plain_text out, or set allow_clear_text";
                problems.push("sasl.mechanism", "without TLS anyone on the way can read the password or token", hint);
            }
            if sasl.is_token() && self.create_topics {
                let hint = "set it to false, and make the topics yourself: librdkafka's administration knows no tokens of ours";
                problems.push("create_topics", "not possible with OAUTHBEARER", hint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn problems(text: &str) -> String {
        let parsed =
            audit_config::parse(Path::new("c.toml"), text, |config: &KafkaConfig, problems| config.check(problems));
        parsed.map_or_else(|problems| problems.to_string(), |config| format!("{config:?}"))
    }

    #[test]
    fn brokers_are_all_it_takes() {
        let shown = problems("brokers = ['kafka:9092']");
        assert!(shown.contains("{source}.{schema}.{table}") && shown.contains("Lz4"), "{shown}");
    }

    /// TLS is the default.
    #[test]
    fn the_trail_goes_over_tls_unless_told_otherwise() {
        let config = |text: &str| {
            let check = |config: &KafkaConfig, problems: &mut Problems| config.check(problems);
            audit_config::parse(Path::new("c.toml"), text, check).map_err(|problems| problems.to_string())
        };
        let told = |text: &str, key: &str| {
            let client = crate::client::client(&config(text).expect("a configuration")).expect("no secrets");
            client.get(key).map(str::to_owned)
        };
        let verified = Some("true".to_owned());
        for text in ["brokers = ['k:1']", "brokers = ['k:1']\n[tls]\nca_file = '/ca.pem'", "brokers = ['localhost:1']"]
        {
            assert_eq!(told(text, "security.protocol"), Some("ssl".to_owned()), "{text}");
            assert_eq!(told(text, "enable.ssl.certificate.verification"), verified, "{text}");
        }
        assert_eq!(told("brokers = ['k:1']\nplain_text = true", "security.protocol"), Some("plaintext".to_owned()));
        assert!(problems("brokers = ['k:1']\nplain_text = true\n[tls]").contains("plain_text"));
        let sasl = "plain_text = true\n[sasl]\nmechanism = 'PLAIN'\nusername = 'a'\npassword = { env = 'X' }";
        assert!(problems(&format!("brokers = ['k:1']\n{sasl}")).contains("allow_clear_text"));
        let said = |text: &str| config(text).expect("a configuration").unverified().is_some();
        for (text, expected) in [
            ("brokers = ['k:1']", false),
            ("brokers = ['k:1']\nplain_text = true", true),
            ("brokers = ['127.0.0.1:1', '[::1]:2', 'localhost:3']\nplain_text = true", false),
            ("brokers = ['127.0.0.1:1', 'k:2']\nplain_text = true", true),
            ("brokers = ['k:1']\n[tls]\nverify = false", true),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_all_at_once() {
        let shown = problems(
            "brokers = ['kafka']\ntopic = '{tabel}'\ncheckpoint_topic = 'a b'\nbatch_bytes = '1 B'\n\
             commit_after = '40 s'\nclient = { acks = '1' }\nplain_text = true\nsasl = { mechanism = 'PLAIN' }",
        );
        for key in ["brokers", "topic", "checkpoint_topic", "batch_bytes", "commit_after", "acks", "sasl"] {
            assert!(shown.contains(key), "{key}: {shown}");
        }
        assert!(problems("brokers = ['k:1']\npartitions = 0").contains("partitions"));
        assert!(problems("brokers = ['k:1']\ncommit_afer = '1 s'").contains("commit_after"));
        assert!(problems("brokers = ['user:pass@k:1']").contains("brokers"));
    }

    #[test]
    fn tables_that_share_a_topic_do_not_erase_each_others_rows() {
        let shared = |rest: &str| problems(&format!("brokers = ['k:1']\ntopic = 'all'\n{rest}"));
        assert!(!shared("").contains("erase"));
        assert!(shared("tombstones = true").contains("erase another's row"));
        assert!(shared("format = 'debezium'\ninline_schema = false").contains("erase another's row"));
        assert!(!shared("format = 'debezium'").contains("erase"), "its keys name their table");
        assert!(shared("topic_settings = { 'cleanup.policy' = 'compact,delete' }").contains("compaction would keep"));
    }

    #[test]
    fn secrets_come_by_reference_only() {
        let sasl = |rest: &str| {
            problems(&format!("brokers = ['k:1']\n[sasl]\nmechanism = 'SCRAM-SHA-512'\nusername = 'a'\n{rest}"))
        };
        assert!(sasl("password = { env = 'X' }").contains("Env"), "{}", sasl("password = { env = 'X' }"));
        assert!(!sasl("password = 'hush'").contains("hush"));
    }
}
