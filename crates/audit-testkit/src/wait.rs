//! Waiting for something that another process does.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Long, because a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(120);

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks until `holds`, and panics with `what` after [`PATIENCE`].
///
/// It blocks the thread: tasks of a `#[tokio::test]` stand still meanwhile (among them the connections of its clients),
/// so where one of them has to move use [`eventually_async`].
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        sleep(BETWEEN_LOOKS);
    }
}

/// As [`eventually`], for a look that is itself asynchronous.
pub async fn eventually_async(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
