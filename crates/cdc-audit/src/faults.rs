//! Fault points, in builds for tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Arms the fault points of a test build. `CDC_AUDIT_FAULTS="hot::before_commit=kill@3;lake::after_put=hang"` ends the process at
/// the third passage of the first, as SIGKILL would, and holds the second for ever; `FAILPOINTS` is the `fail` crate's own language.
pub fn arm() {
    std::mem::forget(fail::FailScenario::setup());
    for fault in std::env::var("CDC_AUDIT_FAULTS").unwrap_or_default().split(';').filter(|fault| !fault.is_empty()) {
        let Some((name, action)) = fault.split_once('=') else { continue };
        let (action, passage) = action.split_once('@').unwrap_or((action, "1"));
        let (kill, left) = (action == "kill", AtomicU64::new(passage.parse().unwrap_or(1)));
        let armed = fail::cfg_callback(name, move || {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                if kill {
                    std::process::abort();
                }
                loop {
                    std::thread::park();
                }
            }
        });
        if let Err(error) = armed {
            eprintln!("fault point {name}: {error}");
        }
    }
}
