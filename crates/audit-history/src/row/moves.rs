//! Rows that moved between partitions of the source: PostgreSQL writes a deletion and an insertion.

use audit_core::stored::Record;

use super::facts::Facts;

/// Pairs each record with the deletion just before it, if the two are one update of a row that was moved: the same key,
/// in one transaction, next to each other. Records come oldest first. ⚠ In a table without partitions no row moves: there
/// the row was deleted, and another one was made.
pub fn moves(
    facts: &Facts,
    records: impl IntoIterator<Item = Record>,
) -> impl Iterator<Item = (Record, Option<Record>)> {
    let mut records = records.into_iter().peekable();
    std::iter::from_fn(move || {
        let record = records.next()?;
        match records.next_if(|next| is_move(facts, &record, next)) {
            Some(created) => Some((created, Some(record))),
            None => Some((record, None)),
        }
    })
}

/// Whether a deletion and the insertion after it are one update of a row that was moved.
pub(crate) fn is_move(facts: &Facts, deleted: &Record, created: &Record) -> bool {
    let (from, to) = (deleted.position, created.position);
    let stays = facts.shape(created.schema_version).is_some_and(|shape| shape.partitioned == Some(false));
    !stays
        && (deleted.event.as_str(), created.event.as_str()) == ("deleted", "created")
        && deleted.key == created.key
        && (from.epoch, from.commit_lsn, from.seq.checked_add(1)) == (to.epoch, to.commit_lsn, Some(to.seq))
}
