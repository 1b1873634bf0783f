//! The versions of one commit: [`Timeline::commit`].

use audit_core::position::{Micros, Position};
use audit_core::stored::Record;
use futures::stream::TryStreamExt;

use crate::store::{Selection, StoreError};
use crate::timeline::Timeline;

/// Names a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The one that has this position.
    At(Position),
    /// Those of the transactions with this number; numbers are used again after four billion.
    Xid(u32),
}

impl Commit {
    fn has(self, record: &Record) -> bool {
        let in_commit = |at: Position| (record.position.epoch, record.commit_lsn) == (at.epoch, at.commit_lsn);
        match self {
            Commit::At(position) => in_commit(position),
            Commit::Xid(xid) => record.xid == xid && record.event != "snapshot",
        }
    }

    /// The last position before it.
    fn after(self) -> Option<Position> {
        match self {
            Commit::At(at) => at.commit_lsn.0.checked_sub(1).map(|lsn| Position {
                commit_lsn: audit_core::position::Lsn(lsn),
                seq: u32::MAX,
                ..at
            }),
            Commit::Xid(_) => None,
        }
    }

    fn is_over(self, record: &Record) -> bool {
        matches!(self, Commit::At(at) if (record.position.epoch, record.commit_lsn) > (at.epoch, at.commit_lsn))
    }
}

impl Timeline {
    /// Reads the versions of a commit, of all tables, in the order of their positions. `since` spares a search by number
    /// what was committed before.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn commit(&self, source: &str, commit: Commit, since: Option<Micros>) -> Result<Vec<Record>, StoreError> {
        let mut found = Vec::new();
        for table in self.tables(source).await? {
            let selection = Selection {
                source: source.to_owned(),
                table,
                since,
                until: None,
                unattributed: false,
                after: commit.after(),
            };
            let mut versions = self.versions(&selection).await?;
            while let Some(record) = versions.try_next().await? {
                if commit.is_over(&record) {
                    break;
                }
                if commit.has(&record) {
                    found.push(record);
                }
            }
        }
        found.sort_by_key(|record| record.position);
        Ok(found)
    }
}
