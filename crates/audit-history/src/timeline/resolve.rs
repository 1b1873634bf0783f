//! From a point to a position.

use audit_core::position::{Micros, Position, Window};

use super::Timeline;
use crate::question::point::Point;
use crate::store::StoreError;
use crate::transaction::{Which, find};

/// How far commit times may go back without a word: clocks are corrected all the time.
const SECOND: i64 = 1_000_000;

impl Timeline {
    /// The position before which everything lies that had happened at a point; `None` if the point needs a row to be
    /// understood (`v3`), or if nothing is recorded.
    ///
    /// ⚠ A time stands for the versions before the first one, in the order of positions, that was committed later, whole
    /// transactions only. Commit times are not in the order of commits, so all versions that were committed until then
    /// can be a state that never existed.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn resolve(&self, source: &str, point: &Point) -> Result<Option<Position>, StoreError> {
        let end = self.end();
        let before = match point {
            Point::Now => end,
            Point::Time(time) => self.first_after(source, *time).await?.map(transaction).or(end),
            Point::At(position) => Some(position.next()),
            Point::Before(position) => Some(*position),
            Point::BeforeXid(xid) => {
                let found = find(self, source, self.tables(source).await?, Which::Xid(*xid)).await?;
                found.first().map(|transaction| transaction.commit.bounds().0)
            }
            Point::Version(_) | Point::Back(_) => None,
        };
        Ok(before.into_iter().chain(end).min().filter(|_| before.is_some()))
    }

    /// The first version after the position that a time stands for, although its commit time is more than a second before
    /// that time: where the clock of the source went back.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn went_back(
        &self,
        source: &str,
        time: Micros,
        before: Position,
    ) -> Result<Option<Position>, StoreError> {
        let until = Micros(time.0.saturating_sub(SECOND));
        self.within(Window { from: Some(before), to: None }).first(source, (None, Some(until))).await
    }

    /// The first position with a version that was committed after a time.
    async fn first_after(&self, source: &str, time: Micros) -> Result<Option<Position>, StoreError> {
        self.first(source, (Some(Micros(time.0.saturating_add(1))), None)).await
    }

    /// The first position with a version that was committed in a span of time.
    async fn first(
        &self,
        source: &str,
        span: (Option<Micros>, Option<Micros>),
    ) -> Result<Option<Position>, StoreError> {
        let mut firsts = Vec::new();
        for tier in &self.tiers {
            firsts.extend(tier.store.first(source, span).await?);
        }
        Ok(firsts.into_iter().min())
    }
}

/// The position at which the transaction begins.
fn transaction(position: Position) -> Position {
    Position { seq: 0, ..position }
}
