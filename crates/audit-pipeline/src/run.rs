//! The daemon: it runs one session after another, until someone stops it or must act.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use audit_config::Chain;
use audit_connect::Outcome;
use audit_core::position::Lsn;
use audit_keys::{Keyring, Waiting};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::daemon::{Daemon, stopped};
use crate::error::RunError;
use crate::retry::Backoff;
use crate::session::{Ended, session};
use crate::status::Failure;

/// A session that lasted this long did not fail to start, so the pauses between sessions begin at their shortest again.
const SETTLED: Duration = Duration::from_secs(60);

/// Runs until `stop` becomes true, or until someone must act. Returns the position before which everything is durable.
///
/// # Errors
/// Returns a [`RunError`] if someone must act before the daemon can continue.
pub async fn run(daemon: &Daemon, stop: watch::Receiver<bool>) -> Result<Lsn, RunError> {
    let Some(keyring) = &daemon.keyring else { return sessions(daemon, stop).await };
    tokio::select! {
        ended = sessions(daemon, stop) => ended,
        // Neither of these two ever ends before the sessions do.
        () = keyring.renew() => Err(RunError::Panic("keys".to_owned())),
        () = report_keys(daemon, keyring) => Err(RunError::Panic("keys".to_owned())),
    }
}

/// Shows in the status which key everything waits for.
async fn report_keys(daemon: &Daemon, keyring: &Keyring) {
    let mut waiting = keyring.waiting();
    loop {
        let phase = match waiting.borrow_and_update().clone() {
            None => None,
            Some(Waiting { class, why, hint, .. }) => {
                daemon.shared.failed(Failure::new(format!("waiting for a key of class {class}: {why}"), Some(hint)));
                Some(class)
            }
        };
        daemon.shared.wait_for_key(phase);
        if waiting.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn sessions(daemon: &Daemon, stop: watch::Receiver<bool>) -> Result<Lsn, RunError> {
    daemon.shared.configure(&daemon.source.name, &daemon.source.slot, daemon.memory.limit);
    let mut backoff = Backoff::default();
    let mut diverged = false;
    loop {
        let since = Instant::now();
        diverged &= daemon.accept_gap.load(Ordering::Relaxed);
        let ended = session(daemon, &stop, diverged).await;
        if since.elapsed() > SETTLED {
            backoff = Backoff::default();
        }
        // A sink that cannot store what it was given may fail in the same way each time, so such a session counts as a
        // failed one.
        let pause = backoff.next();
        match ended {
            Ok(Ended::Stopped(lsn)) => {
                info!(at = %lsn, "stopped");
                return Ok(lsn);
            }
            Ok(Ended::Restart) => {}
            Err(error) => {
                daemon.shared.failed(Failure::new(Chain(&error).to_string(), error.hint()));
                let accepted = error.is_discontinuity() && daemon.accept_gap.load(Ordering::Relaxed);
                diverged |= accepted;
                if error.outcome() != Outcome::Retry && !accepted {
                    return Err(error);
                }
                if *stop.borrow() {
                    return Ok(Lsn::ZERO);
                }
                warn!(
                    error = %Chain(&error), hint = error.hint(), retry_in_ms = pause.as_millis() as u64,
                    "the session ended; another begins"
                );
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopped(&stop) => return Ok(Lsn::ZERO),
        }
    }
}
