//! The daemon with a sink that keeps nothing: capture to protected version, alone.
//!
//! It is `audit_pipeline::run::run`, the daemon's own loop, in a process of its own (`cdc-audit-benches null …`), on a
//! runtime built as the daemon builds its own.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use audit_capture::baseline::BaselineConfig;
use audit_capture::config::SourceConfig;
use audit_cipher::{KeyId, Kind, Limits, Sealer, SecretKey};
use audit_config::ByteSize;
use audit_config::Chain;
use audit_connect::PgEndpoint;
use audit_core::batch::{Batch, Progress};
use audit_core::method::Protect;
use audit_core::position::Lsn;
use audit_core::protect::{DEFAULT_CLASS, MacKey, Policy};
use audit_core::quarantine::Quarantine;
use audit_core::rules::{Rules, TableRule};
use audit_core::sink::{Identity, Sink, SinkError, Stored};
use audit_pipeline::NamedSink;
use audit_pipeline::config::PipelineConfig;
use audit_pipeline::daemon::Daemon;
use audit_pipeline::run::run;
use audit_pipeline::status::Shared;
use tokio::sync::watch;

#[derive(clap::Args)]
pub struct Args {
    url: String,
    slot: String,
    publication: String,
    until: Lsn,
    /// A method, for the columns of [`PROTECTED`](crate::workload::PROTECTED).
    #[arg(long)]
    protect: Option<String>,
}

/// What the daemon would be told of protection, beside its defaults.
fn rules(protect: Option<&str>) -> Result<Rules> {
    let rule = |method: &str| {
        let protect: Protect = serde_json::from_value(method.into())?;
        let protect = crate::workload::PROTECTED.map(|column| (column.to_owned(), protect.clone()));
        anyhow::Ok(TableRule { name: "*".to_owned(), protect: protect.into(), ..TableRule::default() })
    };
    let tables = protect.map(rule).transpose()?.into_iter().collect();
    Ok(Rules { tables, default_protection: true, ..Rules::default() })
}

/// The keys of encryption, there from the start.
fn sealer() -> Result<Sealer> {
    let hour = Duration::from_secs(3_600);
    let limits =
        Limits { rotate_after: hour, rotate_count: u64::MAX, subjects_max: NonZeroUsize::MIN, subject_for: hour };
    let sealer = Sealer::new("bench", [(DEFAULT_CLASS.to_owned(), limits)]);
    let class = sealer.class(DEFAULT_CLASS).context("a class")?;
    sealer.install_data(class, KeyId::generate(Kind::Data), &SecretKey::generate());
    sealer.install_tokens(class, KeyId::generate(Kind::Tokens), &SecretKey::generate());
    Ok(sealer)
}

/// Everything is durable at once, and forgotten.
struct NullSink {
    durable: Progress,
    versions: Arc<AtomicU64>,
}

impl Sink for NullSink {
    async fn take(&mut self, _: &Identity) -> Result<Stored, SinkError> {
        Ok(Stored::default())
    }

    async fn begin(&mut self, start: Progress) -> Result<(), SinkError> {
        self.durable = start;
        Ok(())
    }

    fn write(&mut self, batches: &[&Batch]) -> impl Future<Output = Result<(), SinkError>> + Send {
        for batch in batches {
            self.versions.fetch_add(batch.len() as u64, Ordering::Relaxed);
            self.durable = batch.progress;
        }
        std::future::ready(Ok(()))
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

/// Drains the slot to `until` and prints how many versions came.
pub fn main(args: Args) -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(4, |n| n.get().max(4)))
        .enable_all()
        .build()?;
    let versions = Arc::new(AtomicU64::new(0));
    let sink = NullSink { durable: Progress::default(), versions: versions.clone() };
    let config =
        PipelineConfig { memory_limit: ByteSize::mib(crate::workload::MEMORY_LIMIT_MIB), ..PipelineConfig::default() };
    let mut source = SourceConfig::new("bench", PgEndpoint::new(args.url));
    source.slot = args.slot;
    source.publication = args.publication;
    let encrypts = matches!(args.protect.as_deref(), Some("encrypt" | "token"));
    let daemon = Daemon {
        source,
        rules: rules(args.protect.as_deref())?,
        policy: Policy {
            hash_key: Some(MacKey::new("bench", b"0123456789abcdef")),
            sealer: encrypts.then(sealer).transpose()?.map(Arc::new),
            ..Policy::default()
        },
        keyring: None,
        sinks: vec![NamedSink::new("null", sink)],
        memory: config.memory().context("the memory limit is too small")?,
        config,
        baseline: BaselineConfig { enabled: false, ..BaselineConfig::default() },
        baseline_progress: Arc::default(),
        shared: Arc::new(Shared::default()),
        accept_gap: AtomicBool::new(false),
        new_baseline: false,
        until: Some(args.until),
    };
    let (_stop, stopped) = watch::channel(false);
    runtime.block_on(run(&daemon, stopped)).map_err(|error| anyhow!("{}", Chain(&error)))?;
    println!("{}", versions.load(Ordering::Relaxed));
    Ok(())
}
