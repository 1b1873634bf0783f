//! The difference between the server's clock and this machine's: [`Skew`].

use audit_core::position::Micros;
use tokio_postgres::Client;

use crate::query::{QueryError, row};

/// What to do about a clock that is wrong.
pub const FIX: &str = "keep the clocks of both machines by NTP";

/// Above this difference, a reader can no longer compare the times that the two clocks write.
const SKEW_MAX_MICROS: i64 = 1_000_000;

/// The server's time minus ours, in microseconds, as a range that contains the difference: the answer took some time to
/// arrive.
#[derive(Clone, Copy, Debug)]
pub struct Skew {
    low: i64,
    high: i64,
}

impl Skew {
    /// Compares the two clocks with one query.
    ///
    /// # Errors
    /// Returns a [`QueryError`] if the server does not tell its time.
    pub async fn measure(client: &Client) -> Result<Skew, QueryError> {
        let sql = "SELECT pg_catalog.to_jsonb((extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint)";
        let before = Micros::now();
        let server: i64 = row(client, "ask for the server's clock", sql, &[]).await?;
        Ok(Skew { low: server - Micros::now().0, high: server - before.0 })
    }

    /// A description of the problem, if there is one.
    pub fn complaint(self) -> Option<String> {
        let (micros, side) = match self {
            Skew { low, .. } if low > SKEW_MAX_MICROS => (low, "ahead of"),
            Skew { high, .. } if high < -SKEW_MAX_MICROS => (-high, "behind"),
            _ => return None,
        };
        let seconds = micros as f64 / 1e6;
        Some(format!(
            "the server's clock is {seconds:.1} s {side} this machine's: committed_at and recorded_at do not fit together"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_only_where_the_time_for_the_answer_does_not_explain_it() {
        let complaint = |low, high| Skew { low, high }.complaint();
        assert_eq!(complaint(-30_000_000, 5_000), None);
        assert_eq!(complaint(-5_000, 30_000_000), None);
        let ahead = complaint(61_000_000, 62_000_000).unwrap_or_default();
        assert!(ahead.starts_with("the server's clock is 61.0 s ahead of this machine's"), "{ahead}");
        let behind = complaint(-9_000_000, -8_000_000).unwrap_or_default();
        assert!(behind.starts_with("the server's clock is 8.0 s behind this machine's"), "{behind}");
    }
}
