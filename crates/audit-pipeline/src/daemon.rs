//! What a running daemon consists of: [`Daemon`].

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use audit_capture::baseline::{BaselineConfig, Progress};
use audit_capture::config::SourceConfig;
use audit_core::position::Lsn;
use audit_core::protect::Policy;
use audit_core::rules::Rules;
use audit_keys::Keyring;
use tokio::sync::watch;

use crate::config::{Memory, PipelineConfig};
use crate::sink_task::NamedSink;
use crate::status::Shared;

/// Everything that a running daemon consists of.
pub struct Daemon {
    pub source: SourceConfig,
    pub rules: Rules,
    pub policy: Policy,
    /// The source of the keys for the policy's sealer.
    pub keyring: Option<Arc<Keyring>>,
    pub sinks: Vec<NamedSink>,
    pub config: PipelineConfig,
    pub baseline: BaselineConfig,
    pub baseline_progress: Arc<Progress>,
    pub memory: Memory,
    pub shared: Arc<Shared>,
    /// Continue once over lost WAL. The permission ends when the stream has shown that it continues what every sink
    /// has.
    pub accept_gap: AtomicBool,
    /// Read every table again after a gap that was accepted.
    pub new_baseline: bool,
    /// Stop once everything before this position is durable in every sink.
    pub until: Option<Lsn>,
}

/// Resolves when a stop is requested.
pub(crate) async fn stopped(stop: &watch::Receiver<bool>) {
    let mut stop = stop.clone();
    if stop.wait_for(|stop| *stop).await.is_err() {
        // The sender no longer exists, so no stop can be requested.
        std::future::pending::<()>().await;
    }
}
