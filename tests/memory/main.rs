//! Tests that memory stays within its limit, whatever the daemon processes: its resident peak (`VmHWM`) is below 1.2
//! times `pipeline.memory_limit`, while both sinks store everything.
//!
//! A thorough run uses the sizes for which the limit is meant; other runs use smaller sizes and limits.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// Tables of many columns, most of them NULL.
mod columns;
// One transaction of millions of rows.
mod rows;
// Values of hundreds of megabytes.
mod values;

use std::time::{Duration, Instant};

use audit_testkit::Daemon;
use cdc_audit_tests::trail::lsn;
use cdc_audit_tests::world::{SOURCE, World};
use cdc_audit_tests::{hot, lake};

/// Maximum time that a daemon may take for everything. It is long, because a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Runs a daemon until both sinks have everything that has committed, and returns its peak memory in bytes.
async fn peak(world: &World, limit: u64) -> u64 {
    let hot = world.hot().await;
    peak_with(world, limit, async || hot::flushed(&hot, SOURCE).await).await
}

/// Does the same for the lake and another sink. `also` returns the LSN before which the other sink has everything.
async fn peak_with(world: &World, limit: u64, also: impl AsyncFn() -> u64) -> u64 {
    let until = lsn(&world.wal_end().await);
    let begun = Instant::now();
    let mut daemon = world.launch().start();
    while also().await < until || lake::flushed(&world.lake) < until {
        assert!(daemon.ended().is_none(), "the daemon ended:\n{}", daemon.output());
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain:\n{}", daemon.output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let peak = daemon.memory_peak().expect("the daemon runs");
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    eprintln!("peak {:.0} MiB under a limit of {:.0} MiB, {:.1?}", mib(peak), mib(limit), begun.elapsed());
    stop(&mut daemon);
    peak
}

fn stop(daemon: &mut Daemon) {
    assert!(daemon.stop().success(), "{}", daemon.output());
}

/// Checks the bound that the documentation promises.
#[track_caller]
fn assert_within(peak: u64, limit: u64) {
    assert!(peak < limit + limit / 5, "{peak} bytes resident under a limit of {limit}");
}
