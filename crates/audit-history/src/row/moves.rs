//! Rows that moved between partitions of the source: PostgreSQL writes a deletion and an insertion.

use audit_core::stored::Record;

/// Pairs each record with the deletion just before it, if the two are one update of a row that was moved: the same key,
/// in one transaction, next to each other. Records come oldest first.
pub fn moves(records: impl IntoIterator<Item = Record>) -> impl Iterator<Item = (Record, Option<Record>)> {
    let mut records = records.into_iter().peekable();
    std::iter::from_fn(move || {
        let record = records.next()?;
        match records.next_if(|next| is_move(&record, next)) {
            Some(created) => Some((created, Some(record))),
            None => Some((record, None)),
        }
    })
}

/// Whether a deletion and the insertion after it are one update of a row that was moved.
pub(crate) fn is_move(deleted: &Record, created: &Record) -> bool {
    let (from, to) = (deleted.position, created.position);
    (deleted.event.as_str(), created.event.as_str()) == ("deleted", "created")
        && deleted.key == created.key
        && (from.epoch, from.commit_lsn, from.seq.checked_add(1)) == (to.epoch, to.commit_lsn, Some(to.seq))
}
