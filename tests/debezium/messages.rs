//! A daemon in this process whose only sink keeps the messages that an encoder makes from the versions.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use audit_capture::baseline::BaselineConfig;
use audit_capture::setup::Wanted;
use audit_capture::{SourceConfig, Step};
use audit_connect::PgEndpoint;
use audit_core::batch::{Batch, Progress};
use audit_core::position::{Lsn, Micros};
use audit_core::protect::Policy;
use audit_core::quarantine::Quarantine;
use audit_core::rules::{Rules, TableRule};
use audit_core::sink::{Identity, Sink, SinkError, Stored};
use audit_format::{Encoder, FormatConfig};
use audit_pipeline::NamedSink;
use audit_pipeline::config::PipelineConfig;
use audit_pipeline::daemon::Daemon;
use audit_pipeline::run::run;
use audit_pipeline::status::Shared;
use serde_json::Value;
use tokio::sync::watch;

/// A parsed message. A tombstone's value is null.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub table: String,
    pub key: Value,
    pub value: Value,
}

struct Collect {
    encoder: Encoder,
    sent: Arc<Mutex<Vec<Sent>>>,
    durable: Progress,
}

impl Sink for Collect {
    async fn take(&mut self, _: &Identity) -> Result<Stored, SinkError> {
        Ok(Stored::default())
    }

    async fn begin(&mut self, start: Progress) -> Result<(), SinkError> {
        self.durable = start;
        Ok(())
    }

    async fn write(&mut self, batches: &[&Batch]) -> Result<(), SinkError> {
        let mut sent = self.sent.lock().unwrap();
        for version in batches.iter().flat_map(|batch| batch.versions()) {
            let json = |bytes: Option<&[u8]>| bytes.map_or(Value::Null, |bytes| serde_json::from_slice(bytes).unwrap());
            let table = version.table().name.to_string();
            self.encoder.messages(&version, Micros::now(), |message| {
                sent.push(Sent { table: table.clone(), key: json(message.key), value: json(message.value) });
                Ok::<(), SinkError>(())
            })?;
        }
        self.durable = batches.last().map_or(self.durable, |batch| batch.progress);
        Ok(())
    }

    async fn flush(&mut self, _: bool) -> Result<(), SinkError> {
        Ok(())
    }

    fn due(&self) -> Option<Instant> {
        None
    }

    fn durable(&self) -> Progress {
        self.durable
    }

    fn quarantine(&mut self, _: Arc<Quarantine>) {}

    fn held_bytes(&self) -> usize {
        0
    }
}

/// Makes the source `shop`, with a slot and a publication of this name.
pub fn source(url: &str, name: &str) -> SourceConfig {
    let mut source = SourceConfig::new("shop", PgEndpoint::new(url));
    (source.slot, source.publication) = (name.to_owned(), name.to_owned());
    source
}

fn rules() -> Rules {
    let everything =
        TableRule { name: "*".into(), baseline: Some(false), ignore_alone: Some(Vec::new()), ..TableRule::default() };
    Rules { tables: vec![everything], ..Rules::default() }
}

/// Makes slot and publication, so that changes from now on become messages.
pub async fn set_up(source: &SourceConfig) {
    let client = audit_connect::connect(&source.endpoint, "setup").await.unwrap();
    let rules = rules();
    let wanted = Wanted { source, rules: &rules, daemon_role: "postgres", owner: None, replica_identity_full: None };
    let plan = audit_capture::setup::plan(&client, &wanted).await.unwrap();
    audit_capture::apply(&plan, &client, Some(&client), |_: &Step| {}).await.unwrap();
}

/// Returns the messages of the slot's changes up to `until`.
pub async fn messages(source: SourceConfig, until: Lsn, format: &FormatConfig) -> Vec<Sent> {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let sink = Collect { encoder: Encoder::new(format, "shop"), sent: sent.clone(), durable: Progress::default() };
    let config = PipelineConfig::default();
    let daemon = Daemon {
        source,
        rules: rules(),
        policy: Policy::default(),
        keyring: None,
        sinks: vec![NamedSink::new("collect", sink)],
        memory: config.memory().unwrap(),
        config,
        baseline: BaselineConfig::default(),
        baseline_progress: Arc::default(),
        shared: Arc::new(Shared::default()),
        accept_gap: AtomicBool::new(false),
        new_baseline: false,
        until: Some(until),
    };
    let (_stop, stopped) = watch::channel(false);
    run(&daemon, stopped).await.expect("the daemon reaches the end");
    drop(daemon);
    Arc::try_unwrap(sent).expect("nobody sends any more").into_inner().unwrap()
}
