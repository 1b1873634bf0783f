//! Puts the daemon together.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use audit_core::protect::Policy;
use audit_pipeline::daemon::Daemon;
use audit_pipeline::status::Shared;
use tracing::warn;

use crate::config::{Config, KeyError};
use crate::error::{CliError, code};

/// Builds everything that can be built without a connection. No gap is accepted, and nothing ends it but a signal: `run` says otherwise.
pub fn daemon(config: &Config) -> Result<Daemon, CliError> {
    let unusable = |error: KeyError| CliError::from(error).code(code::USAGE);
    let policy = config.policy().map_err(unusable)?;
    if let Some(weakness) = config.row_key_weakness().map_err(unusable)? {
        warn!(hint = weakness.hint(), "{weakness}");
    }
    let keyring = config.keyring().map_err(|error| CliError::from(error).code(code::USAGE))?;
    let keyring = keyring.map(Arc::new);
    let policy = Policy { sealer: keyring.as_ref().map(|keyring| Arc::clone(keyring.sealer())), ..policy };
    let memory = config
        .pipeline
        .memory()
        .ok_or_else(|| CliError::new("pipeline.memory_limit is too small").code(code::USAGE))?;
    let holding = config.sinks.values().filter(|sink| sink.holds_memory()).count().max(1) as u64;
    let each = (memory.sinks / holding) as usize;
    let sinks = config.sinks.iter().map(|(name, sink)| sink.build(name, config, each));
    Ok(Daemon {
        source: config.source.clone(),
        rules: config.rules(),
        policy,
        keyring,
        sinks: sinks.collect::<Result<_, _>>()?,
        config: config.pipeline.clone(),
        baseline: config.baseline.clone(),
        baseline_progress: Arc::default(),
        memory,
        shared: Arc::new(Shared::default()),
        accept_gap: AtomicBool::new(false),
        new_baseline: false,
        until: None,
    })
}
