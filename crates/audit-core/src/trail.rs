//! The trail of one row through changes of its key, whatever stores its versions.
//!
//! The trail is a list of stretches: a key, and the range of positions in which the row had it. A version that changed
//! the key has the new key as `key` and the old one as `old_key`, and so joins two stretches:
//!
//! ```text
//! key A   ──created───updated──┐                        asked for: B
//!                              │ old_key A, key B
//! key B                        └──updated──┐
//!                                          │ old_key B, key C
//! key C                                    └──updated──deleted
//! ```

use std::collections::HashSet;
use std::future::Future;

use crate::position::{Position, Window};
use crate::stored::Record;

/// Maximum number of stretches. The trail of a row whose key changed more often is followed no further.
const STRETCHES_MAX: usize = 1_000;

/// The versions under `key` in a range of positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub key: String,
    pub window: Window,
}

/// A version that begins or ends a stretch: it created or deleted the row, or changed its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub position: Position,
    pub deleted: bool,
    pub key: Option<String>,
    pub old_key: Option<String>,
}

impl Turn {
    pub fn leaves(&self, key: &str) -> bool {
        self.old_key.as_deref() == Some(key)
    }
}

/// The versions of one table, in one store or in several.
pub trait Trail: Send {
    type Error;

    /// The versions that changed a key to this one, or from this one, in order of position.
    fn changes(&mut self, key: &str) -> impl Future<Output = Result<Vec<Turn>, Self::Error>> + Send;

    /// The last turn in the range that has the key as `key` or `old_key`.
    fn last_turn(
        &mut self,
        key: &str,
        window: Window,
    ) -> impl Future<Output = Result<Option<Turn>, Self::Error>> + Send;

    /// The first turn in the range that created or deleted a row under the key, or that changed the key to another.
    fn first_turn(
        &mut self,
        key: &str,
        window: Window,
    ) -> impl Future<Output = Result<Option<Turn>, Self::Error>> + Send;

    /// The newest versions of the stretches, at most `limit`, each once and in order of position.
    fn newest(
        &mut self,
        stretches: &[Stretch],
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Record>, Self::Error>> + Send;

    /// The table's truncations in the range, in order of position.
    fn truncations(&mut self, window: Window) -> impl Future<Output = Result<Vec<Record>, Self::Error>> + Send;
}

/// The trail of one row, newest first, at most `limit` versions: what happened under this key, what happened to the
/// same row under its earlier and later keys, and the truncations that removed it. A limit of 0 gives none.
pub async fn history<T: Trail>(trail: &mut T, key: &str, limit: usize) -> Result<Vec<Record>, T::Error> {
    history_before(trail, key, None, limit).await
}

/// The part of that trail before a position: the next page, where it is the position of the last version so far.
pub async fn history_before<T: Trail>(
    trail: &mut T,
    key: &str,
    before: Option<Position>,
    limit: usize,
) -> Result<Vec<Record>, T::Error> {
    let page = Window { from: None, to: before };
    let clipped = |stretch: Stretch| Stretch { window: stretch.window.within(page), ..stretch };
    let stretches: Vec<Stretch> = stretches(trail, key).await?.into_iter().map(clipped).collect();
    let mut versions = trail.newest(&stretches, limit).await?;
    // Versions that are beyond the limit must not decide which truncations are shown.
    if let Some(oldest) = versions.first() {
        let window = Window { from: Some(oldest.position.next()), to: before };
        let truncations = trail.truncations(window).await?;
        versions = with_truncations(versions, truncations);
    }
    versions.reverse();
    versions.truncate(limit);
    Ok(versions)
}

async fn stretches<T: Trail>(trail: &mut T, key: &str) -> Result<Vec<Stretch>, T::Error> {
    let mut stretches = vec![Stretch { key: key.to_owned(), window: Window::ALL }];
    for turn in trail.changes(key).await? {
        if turn.leaves(key) {
            forward(trail, &mut stretches, turn.key, turn.position).await?;
        } else {
            backward(trail, &mut stretches, turn.old_key, turn.position).await?;
        }
    }
    Ok(stretches)
}

/// Follows the row, which had `key` before position `to`, into its past.
async fn backward<T: Trail>(
    trail: &mut T,
    stretches: &mut Vec<Stretch>,
    key: Option<String>,
    to: Position,
) -> Result<(), T::Error> {
    let (mut next, mut to) = (key, Some(to));
    while let Some(key) = next.take().filter(|_| stretches.len() < STRETCHES_MAX) {
        let mut window = Window { from: None, to };
        if let Some(turn) = trail.last_turn(&key, window).await? {
            // An earlier row that was deleted, or that gave this key up, has its own history.
            let another = turn.deleted || turn.leaves(&key);
            window.from = Some(if another { turn.position.next() } else { turn.position });
            next = if another { None } else { turn.old_key };
        }
        to = window.from;
        stretches.push(Stretch { key, window });
    }
    Ok(())
}

/// Follows the row, which has `key` from position `from` on, into its future.
async fn forward<T: Trail>(
    trail: &mut T,
    stretches: &mut Vec<Stretch>,
    key: Option<String>,
    from: Position,
) -> Result<(), T::Error> {
    let (mut next, mut from) = (key, from);
    while let Some(key) = next.take().filter(|_| stretches.len() < STRETCHES_MAX) {
        let mut window = Window { from: Some(from), to: None };
        let later = Window { from: Some(from.next()), to: None };
        if let Some(turn) = trail.first_turn(&key, later).await? {
            let to = if turn.deleted { turn.position.next() } else { turn.position };
            (window.to, from) = (Some(to), to);
            next = turn.leaves(&key).then_some(turn.key).flatten();
        }
        stretches.push(Stretch { key, window });
    }
    Ok(())
}

/// Adds those truncations that removed the row. Both lists are in order of position.
fn with_truncations(versions: Vec<Record>, truncations: Vec<Record>) -> Vec<Record> {
    let mut all: Vec<Record> = versions.into_iter().chain(truncations).collect();
    all.sort_by_key(|version| version.position);
    // ⚠ Another row that has, or had, one of the keys may end before: so each row that is there counts for itself.
    let mut there: HashSet<Option<String>> = HashSet::new();
    all.retain(|version| match version.event.as_str() {
        "truncated" => !std::mem::take(&mut there).is_empty(),
        event => {
            if version.old_key.is_some() {
                there.remove(&version.old_key);
            }
            match event {
                "deleted" => there.remove(&version.key),
                _ => there.insert(version.key.clone()),
            };
            true
        }
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Lsn, Micros};

    fn record(at: u64, event: &str, old_key: Option<&str>, key: Option<&str>) -> Record {
        Record {
            source: "shop".to_owned(),
            position: Position::new(1, Lsn(at), 0),
            table_name: "public.t".to_owned(),
            item_type: "t".to_owned(),
            key: key.map(str::to_owned),
            old_key: old_key.map(str::to_owned),
            event: event.to_owned(),
            changes: None,
            before: None,
            after: None,
            changed: None,
            before_known: false,
            unknown: Vec::new(),
            carried: Vec::new(),
            included: None,
            actor_id: None,
            actor: None,
            reason: None,
            context: None,
            actor_source: None,
            context_verified: None,
            xid: 1,
            commit_lsn: Lsn(at),
            lsn: Lsn(at),
            seq: 0,
            committed_at: Micros(0),
            recorded_at: Micros(0),
            schema_version: 1,
            baseline: None,
            tenant: None,
            summary: String::new(),
        }
    }

    /// Two rows had the key one after the other; the truncation removed the second, whatever became of the first.
    #[test]
    fn a_truncation_belongs_to_each_row_that_was_there() {
        let shown = |versions: Vec<Record>| {
            let all = with_truncations(versions, vec![record(9, "truncated", None, None)]);
            all.iter().filter(|record| record.event == "truncated").count()
        };
        let first = || vec![record(1, "created", None, Some("a")), record(2, "updated", Some("a"), Some("b"))];
        let second = || record(3, "created", None, Some("a"));
        let gone = |at: u64, key: &str| record(at, "deleted", None, Some(key));
        assert_eq!(shown([first(), vec![second(), gone(4, "b")]].concat()), 1);
        assert_eq!(shown([first(), vec![second(), gone(4, "a")]].concat()), 1);
        assert_eq!(shown([first(), vec![second(), gone(4, "a"), gone(5, "b")]].concat()), 0);
    }
}
