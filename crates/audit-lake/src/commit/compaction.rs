//! Commits of a compaction, beside the daemon that owns the table: no transaction of the daemon's moves.
//!
//! ⚠ A file may take the place of others only if they are all still there, and other runs replace files at the same time: every entry since the
//! list of files was read is looked at, up to the commit itself. And what a run has made is removed by others only under a commit that says so:
//! the run itself, woken late, finds that commit on its way.

use deltalake_core::kernel::transaction::CommitData;
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::logstore::CommitOrBytes;
use deltalake_core::protocol::DeltaOperation;

use super::{TableLog, client, file_name, removed};
use crate::error::{LakeError, fault};
use crate::merge::Merged;

/// Entries of others that are stepped over in one go.
const STEPS_MAX: usize = 1000;

/// How [`TableLog::replace`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    Done,
    /// Another run has replaced one of the files, or given the new one up.
    Changed,
}

/// What an entry of the log means to a commit of a compaction.
enum Met {
    /// It is this commit.
    Ours,
    /// It rules this commit out.
    Against,
    Neither,
}

impl TableLog {
    /// Names a file in the place of those it was made of, which were listed from the log at version `listed`. Repeated after an answer that
    /// was lost, it finds its own commit.
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

    /// Commits that what another run has made at `path`, and the log does not name, never will be named: that run finds it, and stops. False
    /// where the log names it after all.
    pub async fn give_up(&mut self, path: &str) -> Result<bool, LakeError> {
        fault!("lake::before_give_up");
        let meet = |entry: &[Action]| if names(entry, path) { Met::Against } else { Met::Neither };
        let transaction = Transaction::new(given_up(path), 1);
        let operation = DeltaOperation::Optimize { predicate: None, target_size: 0 };
        let data = CommitData::new(Vec::new(), operation, client(), vec![transaction]);
        self.insert(data, self.version(), meet).await
    }

    /// Writes an entry, unless one after `known` rules it out; whether it is there.
    async fn insert(
        &mut self,
        data: CommitData,
        known: u64,
        meet: impl Fn(&[Action]) -> Met,
    ) -> Result<bool, LakeError> {
        self.is_still_there().await?;
        let bytes = data.get_bytes().map_err(|error| LakeError::log(&self.table, error))?;
        // Entries that were there when the log was read are only looked at: since then it may have been cleaned up, and what is put at a
        // number before its checkpoint is read by nobody.
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

/// The application transaction that gives up what a run has made.
fn given_up(path: &str) -> String {
    format!("compact/{}", file_name(path))
}

fn names(entry: &[Action], path: &str) -> bool {
    entry.iter().any(|action| matches!(action, Action::Add(add) if add.path == path))
}
