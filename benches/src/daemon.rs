//! The program as it is shipped, configured by file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::cluster::{Cluster, HOT_TEMPLATE};
use crate::process;
use crate::workload::DATABASE;

/// A built `cdc-audit` of our own, so that a build meanwhile changes nothing, and a folder for its configuration files.
pub struct Program {
    path: PathBuf,
    folder: tempfile::TempDir,
}

/// Where versions go.
#[derive(Clone, Debug, Default)]
pub struct Sinks {
    /// A database.
    pub hot: Option<String>,
    pub lake: Option<Lake>,
    pub stream: Option<Stream>,
}

#[derive(Clone, Debug)]
pub struct Lake {
    /// Where its files lie on this machine, whoever serves them.
    pub folder: PathBuf,
    /// What the configuration says of the place, as lines of TOML.
    pub place: String,
}

/// Topics on a broker; the source is called after the slot, so that each run has its own.
#[derive(Clone, Debug)]
pub struct Stream {
    pub brokers: String,
    pub source: String,
    /// Further keys of the sink, as lines of TOML.
    pub more: &'static str,
}

impl Program {
    pub fn new() -> Result<Program> {
        let folder = tempfile::Builder::new().prefix("cdc-audit-bench-").tempdir()?;
        let path = folder.path().join("cdc-audit");
        std::fs::copy(audit_testkit::program(), &path).context("cannot copy cdc-audit")?;
        Ok(Program { path, folder })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn version(&self) -> Result<String> {
        let output = Command::new(&self.path).arg("--version").output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// What it needs in the source and, as a template, in a hot database.
    pub fn set_up(&self, cluster: &Cluster) -> Result<()> {
        cluster.server.create_database(HOT_TEMPLATE);
        let sinks = Sinks { hot: Some(HOT_TEMPLATE.to_owned()), ..Sinks::default() };
        let config = self.config(cluster, "setup", "cdc_audit", &sinks)?;
        self.set_up_sinks(&config)?;
        // Nobody will read it, and it would hold back WAL.
        cluster.sql(DATABASE, "SELECT pg_drop_replication_slot('setup');")?;
        Ok(())
    }

    /// What sinks besides hot ones need.
    pub fn set_up_sinks(&self, config: &Path) -> Result<()> {
        let output = Command::new(&self.path).arg("--config").arg(config).arg("setup").output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cdc-audit setup failed ({}): {said}", output.status);
        Ok(())
    }

    /// `run`, to `until` if that is given.
    pub fn run(&self, config: &Path, until: Option<&str>) -> Command {
        let mut command = process::command(&self.path);
        command.arg("--config").arg(config).arg("run");
        command.args(until.iter().flat_map(|until| ["--until", until]));
        command
    }

    /// Defaults, but for the memory limit and the baseline: what is measured is the stream.
    pub fn config(&self, cluster: &Cluster, slot: &str, publication: &str, sinks: &Sinks) -> Result<PathBuf> {
        let mut text = format!(
            "[source]\nname = \"{}\"\nurl = \"{}\"\nslot = \"{slot}\"\npublication = \"{publication}\"\n\n\
             [pipeline]\nmemory_limit = \"{} MiB\"\n\n[baseline]\nenabled = false\n\n\
             [http]\nlisten = \"127.0.0.1:{}\"\n\n",
            sinks.stream.as_ref().map_or("bench", |stream| stream.source.as_str()),
            cluster.server.url(DATABASE),
            crate::workload::MEMORY_LIMIT_MIB,
            audit_testkit::free_port()
        );
        if let Some(database) = &sinks.hot {
            text += &format!("[sinks.hot]\ntype = \"hot\"\nurl = \"{}\"\n\n", cluster.server.url(database));
        }
        if let Some(lake) = &sinks.lake {
            text += &format!("[sinks.lake]\ntype = \"lake\"\n{}\n", lake.place);
        }
        if let Some(stream) = &sinks.stream {
            text += &format!(
                "[sinks.stream]\ntype = \"kafka\"\nbrokers = [\"{}\"]\nplain_text = true\npartitions = 1\n\n",
                stream.brokers
            );
            text += stream.more;
        }
        let path = self.folder.path().join(format!("{slot}.toml"));
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

/// Rows that the Delta logs of a lake name.
pub fn lake_rows(folder: &Path) -> Result<u64> {
    let mut rows = 0;
    for table in std::fs::read_dir(folder)? {
        let Ok(log) = std::fs::read_dir(table?.path().join("_delta_log")) else { continue };
        for commit in log {
            let path = commit?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = std::fs::read_to_string(&path)?;
                rows += text.lines().map(added_rows).sum::<u64>();
            }
        }
    }
    Ok(rows)
}

fn added_rows(action: &str) -> u64 {
    let action: serde_json::Value = serde_json::from_str(action).unwrap_or_default();
    let stats = action["add"]["stats"].as_str().unwrap_or_default();
    let stats: serde_json::Value = serde_json::from_str(stats).unwrap_or_default();
    stats["numRecords"].as_u64().unwrap_or_default()
}

impl Stream {
    /// A new topic of one partition.
    pub fn topic(&self) -> Result<String> {
        self.topic_called(format!("{}.topic", self.source))
    }

    /// The same, by name.
    pub fn topic_called(&self, name: String) -> Result<String> {
        let mut client = ClientConfig::new();
        let admin: AdminClient<DefaultClientContext> = client.set("bootstrap.servers", &self.brokers).create()?;
        let new = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(ANSWER));
        let made = tokio::runtime::Runtime::new()?.block_on(admin.create_topics([&new], &options))?;
        ensure!(made.iter().all(|made| made.is_ok()), "topic {name} was not made");
        Ok(name)
    }

    /// Messages that a `read_committed` consumer is given, and the bytes of their keys and values.
    pub fn rows(&self) -> Result<(u64, u64)> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("group.id", "bench").set("enable.auto.commit", "false");
        client.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = client.create()?;
        let metadata = consumer.fetch_metadata(None, ANSWER)?;
        let prefix = format!("{}.", self.source);
        let topics = metadata.topics().iter().filter(|topic| topic.name().starts_with(&prefix));
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            assignment.add_partition_offset(topic.name(), 0, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let (mut rows, mut bytes, mut open) = (0, 0, assignment.count());
        while open > 0 {
            match consumer.poll(ANSWER).context("the broker does not answer")? {
                Ok(message) => {
                    rows += 1;
                    bytes += (message.key_len() + message.payload_len()) as u64;
                }
                Err(KafkaError::PartitionEOF(_)) => open -= 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok((rows, bytes))
    }
}

const ANSWER: Duration = Duration::from_secs(60);
