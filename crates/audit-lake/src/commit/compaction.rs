//! Commits of a compaction, made while a daemon may own the table: the daemon's application transactions stay as they
//! are.
//!
//! ⚠ A file may replace others only if all of them are still in the log, and other runs replace files at the same time.
//! So every entry since the list of files was read is checked, up to the commit itself. A file that a run has made is
//! removed by others only after a commit that announces it: a run that wakes up late finds that commit before it can
//! commit its own.

use deltalake_core::kernel::transaction::CommitData;
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::logstore::CommitOrBytes;
use deltalake_core::protocol::DeltaOperation;

use super::{TableLog, client, file_name, removed};
use crate::error::{LakeError, fault};
use crate::merge::Merged;

/// Number of other entries that one commit steps over.
const STEPS_MAX: usize = 1000;

/// How [`TableLog::replace`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    Done,
    /// Another run has replaced one of the files, or has abandoned the new one.
    Changed,
}

/// What an entry of the log means for a commit of a compaction.
enum Met {
    /// It is this commit.
    Ours,
    /// It makes this commit impossible.
    Against,
    Neither,
}

impl TableLog {
    /// Names a file instead of those it was made of, which were listed from the log at version `listed`. If it is
    /// repeated after a lost answer, it finds its own commit.
    pub async fn replace(&mut self, merged: &Merged, listed: u64) -> Result<Replaced, LakeError> {
        let replaces: Vec<String> = merged.replaces.iter().map(|file| file.name.to_string()).collect();
        let given_up = given_up(&merged.add.path);
        let meet = |entry: &[Action]| {
            let takes = removed(entry).any(|path| replaces.iter().any(|name| name == file_name(path)));
            let gives_up = entry.iter().any(|action| matches!(action, Action::Txn(txn) if txn.app_id == given_up));
            match (names(entry, &merged.add.path), takes || gives_up) {
                (true, _) => Met::Ours,
                (false, true) => Met::Against,
                (false, false) => Met::Neither,
            }
        };
        let mut actions = vec![Action::Add(Add { data_change: false, ..merged.add.clone() })];
        actions.extend(merged.replaces.iter().map(|file| Action::Remove(file.removal())));
        let operation = DeltaOperation::Optimize { predicate: None, target_size: merged.add.size };
        let done = match self.insert(CommitData::new(actions, operation, client(), Vec::new()), listed, meet).await? {
            true => Replaced::Done,
            false => Replaced::Changed,
        };
        self.reload().await?;
        self.maintain().await;
        Ok(done)
    }

    /// Commits that a file at `path`, which another run has made and the log does not name, will never be named: that
    /// run finds this commit and stops. Returns false if the log names the file after all.
    pub async fn give_up(&mut self, path: &str) -> Result<bool, LakeError> {
        fault!("lake::before_give_up");
        let meet = |entry: &[Action]| if names(entry, path) { Met::Against } else { Met::Neither };
        let transaction = Transaction::new(given_up(path), 1);
        let operation = DeltaOperation::Optimize { predicate: None, target_size: 0 };
        let data = CommitData::new(Vec::new(), operation, client(), vec![transaction]);
        self.insert(data, self.version(), meet).await
    }

    /// Writes an entry, unless an entry after `known` makes it impossible. Returns whether the entry is in the log.
    async fn insert(
        &mut self,
        data: CommitData,
        known: u64,
        meet: impl Fn(&[Action]) -> Met,
    ) -> Result<bool, LakeError> {
        self.is_still_there().await?;
        let bytes = data.get_bytes().map_err(|error| LakeError::log(&self.table, error))?;
        // Entries that existed when the log was read are only examined: the log may have been cleaned up since, and
        // nobody reads an entry whose number is below its checkpoint.
        for version in known + 1..=self.version() {
            match self.entry(version).await?.map(|entry| meet(&entry)) {
                Some(Met::Ours) => return Ok(true),
                Some(Met::Against) | None => return Ok(false),
                Some(Met::Neither) => {}
            }
        }
        for version in (known.max(self.version()) + 1..).take(STEPS_MAX) {
            let entry = CommitOrBytes::LogBytes(bytes.clone());
            let written = self.log.write_commit_entry(version, entry, uuid::Uuid::nil()).await;
            let Err(error) = written else { return Ok(true) };
            let Some(theirs) = self.entry(version).await? else { return Err(LakeError::log(&self.table, error)) };
            match meet(&theirs) {
                Met::Ours => return self.sync().await.map(|()| true),
                Met::Against => return Ok(false),
                Met::Neither => {}
            }
        }
        Err(LakeError::Contended { table: self.table.to_string(), attempts: STEPS_MAX as u32 })
    }
}

/// The application transaction that abandons a file of a run.
fn given_up(path: &str) -> String {
    format!("compact/{}", file_name(path))
}

fn names(entry: &[Action], path: &str) -> bool {
    entry.iter().any(|action| matches!(action, Action::Add(add) if add.path == path))
}
