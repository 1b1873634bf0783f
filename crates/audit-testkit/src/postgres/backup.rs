//! Copies clusters: backups to restore, standbys for a failover.
//!
//! There are two kinds of copies, because an operator has two. [`Postgres::backup`] is the same as a `pg_basebackup`:
//! taken while the server works, without replication slots. It uses the low-level interface, which works on every
//! major; Debian's `pg_basebackup 15` refuses 16 and later. [`Postgres::clone_stopped`] is the snapshot of a disk,
//! including slots.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use tempfile::TempDir;

use super::{Postgres, Shutdown, connect};
use crate::os::unique;
use audit_install::give_to_server_user;

/// A data folder that is not in use, from which any number of servers can be started.
pub struct Backup {
    major: u16,
    folder: TempDir,
}

impl Postgres {
    /// Takes a backup of the present state while the server works.
    pub async fn backup(&self) -> Backup {
        let backup = Backup::empty(self.major);
        let data = backup.folder.path().join("data");
        let client = connect(&self.url("postgres")).await;
        let (begin, end) = if self.major < 15 {
            ("SELECT pg_start_backup('test', true, false)", "SELECT labelfile FROM pg_stop_backup(false, false)")
        } else {
            ("SELECT pg_backup_start('test', true)", "SELECT labelfile FROM pg_backup_stop(false)")
        };
        client.execute(begin, &[]).await.expect("the backup begins");
        let left_out = ["postmaster.pid", "postmaster.opts", "pg_wal", "pg_replslot"];
        copy_folder(&self.data_dir(), &data, &|name| left_out.contains(&name));
        let label: String = client.query_one(end, &[]).await.expect("the backup ends").get(0);
        // Copy the WAL last, because it contains everything that was written while the files were copied.
        copy_folder(&self.data_dir().join("pg_wal"), &data.join("pg_wal"), &|_| false);
        fs::create_dir(data.join("pg_replslot")).expect("an empty folder for slots");
        fs::write(data.join("backup_label"), label).expect("the label of the backup");
        backup
    }

    /// Stops the server, copies all its files, and starts it again.
    pub fn clone_stopped(&self) -> Backup {
        self.stop(Shutdown::Fast);
        let backup = Backup::empty(self.major);
        copy_folder(&self.data_dir(), &backup.folder.path().join("data"), &|_| false);
        self.start_again();
        backup
    }

    /// Puts this server back to an earlier copy of itself, without a notice to its sessions: the same port, the same
    /// timeline.
    pub fn put_back(&self, copy: &Backup) {
        self.replace(copy);
        self.start_again();
    }

    /// Does the same by archive recovery, which begins a new timeline.
    pub fn put_back_by_recovery(&self, copy: &Backup) {
        self.replace(copy);
        self.configure(&[NO_ARCHIVE]);
        self.start_in_recovery();
    }

    fn replace(&self, copy: &Backup) {
        self.kill9();
        let data = self.data_dir();
        fs::remove_dir_all(&data).expect("the data folder goes");
        copy.copy_to(&data);
    }

    fn start_in_recovery(&self) {
        self.write_file("recovery.signal", "");
        self.start_again();
        crate::eventually("recovery ends", || self.execute("postgres", "SELECT pg_is_in_recovery()") == "f");
    }

    /// Starts a standby that follows this server through a physical slot, with further settings. For slots that survive
    /// a failover (17 and later) set `sync_replication_slots = on`.
    pub async fn standby(&self, settings: &[(&str, &str)]) -> Postgres {
        let slot = unique("standby");
        let backup = self.backup().await;
        self.execute("postgres", &format!("SELECT pg_create_physical_replication_slot('{slot}', true)"));
        let follow = format!("host=127.0.0.1 port={} user=postgres dbname=postgres application_name={slot}", self.port);
        let base = [("primary_conninfo", follow.as_str()), ("primary_slot_name", slot.as_str())];
        let all: Vec<(&str, &str)> = base.into_iter().chain(settings.iter().copied()).collect();
        let standby = backup.cluster(&all);
        standby.write_file("standby.signal", "");
        standby.start_again();
        standby
    }

    /// Promotes a standby to a primary, on a new timeline. Returns when it accepts writes.
    pub fn promote(&self) {
        self.pg_ctl(&["promote", "-w", "-t", "120"]);
    }
}

impl Backup {
    fn empty(major: u16) -> Backup {
        let folder = tempfile::Builder::new().prefix("cdc-audit-backup-").tempdir().expect("a temporary folder");
        Backup { major, folder }
    }

    /// Starts a server on a copy of the backup, which continues at the end of the backup's WAL, on the same timeline.
    /// This is the restore of an operator who only copies files back.
    pub fn start(&self) -> Postgres {
        self.start_with(&[])
    }

    pub fn start_with(&self, settings: &[(&str, &str)]) -> Postgres {
        let cluster = self.cluster(settings);
        cluster.start_again();
        cluster
    }

    /// Restores by archive recovery, which begins a new timeline.
    pub fn recover(&self) -> Postgres {
        let cluster = self.cluster(&[NO_ARCHIVE]);
        cluster.start_in_recovery();
        cluster
    }

    fn cluster(&self, settings: &[(&str, &str)]) -> Postgres {
        let cluster = Postgres::around(self.major, |_, data| self.copy_to(data));
        cluster.configure(&[("unix_socket_directories", cluster.socket_dir())]);
        cluster.configure(settings);
        cluster
    }

    fn copy_to(&self, data: &Path) {
        copy_folder(&self.folder.path().join("data"), data, &|name| name == "postmaster.pid");
        give_to_server_user(data).expect("chown");
    }
}

/// Setting for an archive recovery that finds nothing in the archive and ends at the end of the copy's WAL.
const NO_ARCHIVE: (&str, &str) = ("restore_command", "false");

/// Copies files and folders. Those that disappear meanwhile, as happens with a working server, are left out.
fn copy_folder(from: &Path, to: &Path, left_out: &dyn Fn(&str) -> bool) {
    let (Ok(metadata), Ok(entries)) = (fs::metadata(from), fs::read_dir(from)) else { return };
    fs::create_dir_all(to).expect("a folder for the copy");
    fs::set_permissions(to, metadata.permissions()).expect("its permissions");
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (source, target) = (entry.path(), to.join(&name));
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if left_out(&name) {
            continue;
        } else if is_folder {
            copy_folder(&source, &target, &|_| false);
        } else if let Err(error) = fs::copy(&source, &target)
            && error.kind() != ErrorKind::NotFound
        {
            panic!("cannot copy {}: {error}", source.display());
        }
    }
}
