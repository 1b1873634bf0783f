//! Merges the streams of several stores into one that has each version once.

use audit_core::stored::Record;
use futures::{Stream, TryStreamExt};

use super::Records;
use super::seen::Seen;
use crate::store::StoreError;

struct Merge {
    streams: Vec<Records>,
    /// The next record of each stream; `None` at its end.
    next: Vec<Option<Record>>,
    seen: Seen,
}

/// Streams what any of the streams has. Each of them is in the order of positions. `seen` has the snapshot rows that
/// were shown before.
pub(super) fn merged(streams: Vec<Records>, seen: Seen) -> impl Stream<Item = Result<Record, StoreError>> + Send {
    let merge = Merge { streams, next: Vec::new(), seen };
    futures::stream::try_unfold(merge, |mut merge| async move {
        let next = merge.next().await?;
        Ok(next.map(|record| (record, merge)))
    })
}

impl Merge {
    async fn next(&mut self) -> Result<Option<Record>, StoreError> {
        if self.next.is_empty() {
            for stream in &mut self.streams {
                self.next.push(stream.try_next().await?);
            }
        }
        while let Some(record) = self.first().await? {
            if self.seen.is_new(&record)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Takes the record with the smallest position from every stream that has it, and returns the one that counts.
    async fn first(&mut self) -> Result<Option<Record>, StoreError> {
        let Some(position) = self.next.iter().flatten().map(|record| record.position).min() else { return Ok(None) };
        let mut first: Option<Record> = None;
        for (next, stream) in self.next.iter_mut().zip(&mut self.streams) {
            if next.as_ref().is_some_and(|record| record.position == position) {
                let record = std::mem::replace(next, stream.try_next().await?);
                first = better(first, record);
            }
        }
        Ok(first)
    }
}

/// Of two records of one version, the one of the store that is asked first, unless that store was told to leave the
/// version out.
pub(super) fn better(first: Option<Record>, other: Option<Record>) -> Option<Record> {
    match first {
        Some(first) if first.event != "error" => Some(first),
        first => other.or(first),
    }
}
