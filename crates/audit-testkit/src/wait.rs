//! Waits for something that another process does.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Maximum time that a test waits for something that must happen. It is long, because a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(120);

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Checks again and again until `holds` is true, and panics with `what` after [`PATIENCE`].
///
/// It blocks the thread: tasks of a `#[tokio::test]`, including the connections of its clients, do not run meanwhile.
/// If one of them must run, use [`eventually_async`].
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        sleep(BETWEEN_LOOKS);
    }
}

/// Does the same as [`eventually`] with an asynchronous check.
pub async fn eventually_async(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
