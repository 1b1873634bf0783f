//! How long to wait before something is tried again.

use std::time::Duration;

use rand::RngExt;

/// Doubles from 100 ms to 30 s, with jitter, so that many daemons do not return to one server at the same time.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

impl Backoff {
    pub fn next(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.tries.min(16)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        pause.mul_f64(rand::rng().random_range(0.5..1.0))
    }

    pub fn tries(&self) -> u32 {
        self.tries
    }
}
