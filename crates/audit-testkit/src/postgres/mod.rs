//! A private PostgreSQL server: [`Postgres`].
//!
//! Each is a separate cluster in a temporary folder, with trust authentication, `wal_level = logical`, and its own port
//! and socket. `fsync` is off, which makes no difference when a process is killed (the kernel keeps what was written);
//! measurements turn it on.

mod backup;
mod client;
mod shared;
mod template;

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub use backup::Backup;
pub use client::connect;
pub use shared::{Database, drop_slots, shared, shared_db};

use crate::guard::Guard;
use crate::os::{self, Signal, free_port};
use crate::tls::{Authority, Identity};
use crate::wait::eventually;
use audit_install::{as_server_user, give_to_server_user, postgres_bin, run};

const BASE_SETTINGS: [(&str, &str); 12] = [
    ("wal_level", "logical"),
    ("max_replication_slots", "60"),
    ("max_wal_senders", "60"),
    ("max_prepared_transactions", "10"),
    ("max_connections", "100"),
    ("wal_sender_timeout", "60s"),
    ("fsync", "off"),
    ("hot_standby_feedback", "on"),
    ("log_line_prefix", "%m [%p] %q%a "),
    ("log_min_messages", "warning"),
    ("listen_addresses", "127.0.0.1"),
    // Tests contain fixed times, so no cluster may depend on the machine's time zone.
    ("timezone", "UTC"),
];

/// The setup of a cluster before its first start.
#[derive(Clone, Debug)]
pub struct Builder {
    major: u16,
    settings: Vec<(String, String)>,
    access: Vec<String>,
    files: Vec<(String, String)>,
}

/// Ways to stop a server, as `pg_ctl` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends sessions and writes a checkpoint.
    Fast,
    /// A crash: the next start recovers from WAL.
    Immediate,
}

/// A cluster, stopped and removed when dropped.
pub struct Postgres {
    major: u16,
    bin: PathBuf,
    port: u16,
    // The order matters: the guard is dismissed before the folder is removed.
    guard: Option<Guard>,
    folder: TempDir,
}

impl Builder {
    /// Adds a line of `postgresql.conf`; the value needs no quotes. Later lines override earlier ones and the base.
    pub fn setting(mut self, name: &str, value: &str) -> Builder {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a line of `pg_hba.conf` before the one that trusts everyone.
    pub fn access(mut self, line: &str) -> Builder {
        self.access.push(line.to_owned());
        self
    }

    /// Adds a file in the data folder that only the server may read: a key, a certificate.
    pub fn file(mut self, name: &str, content: &str) -> Builder {
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    /// Serves TLS with this identity, and accepts client certificates that the authority signed. [`Builder::access`]
    /// decides whether a client must use TLS or show a certificate.
    pub fn tls(self, identity: &Identity, authority: &Authority) -> Builder {
        self.file("server.crt", &identity.certificate)
            .file("server.key", &identity.key)
            .file("root.crt", authority.certificate())
            .setting("ssl", "on")
            .setting("ssl_ca_file", "root.crt")
    }

    pub fn start(&self) -> Postgres {
        let cluster = Postgres::around(self.major, |bin, data| template::copy(self.major, bin, data));
        cluster.configure(&BASE_SETTINGS);
        cluster.configure(&[("unix_socket_directories", cluster.socket_dir())]);
        for (name, value) in &self.settings {
            cluster.configure(&[(name, value)]);
        }
        cluster.grant_access(&self.access);
        for (name, content) in &self.files {
            cluster.write_file(name, content);
        }
        cluster.start_again();
        cluster
    }
}

impl Postgres {
    /// Tells whether this major can be started here. `cargo xtask servers install MAJOR` installs it.
    pub fn installed(major: u16) -> bool {
        postgres_bin(major).is_ok()
    }

    pub fn builder(major: u16) -> Builder {
        Builder { major, settings: Vec::new(), access: Vec::new(), files: Vec::new() }
    }

    pub fn start(major: u16) -> Postgres {
        Postgres::builder(major).start()
    }

    /// Makes a cluster whose data folder is filled by `fill`; it is not yet started.
    fn around(major: u16, fill: impl FnOnce(&Path, &Path)) -> Postgres {
        let bin = postgres_bin(major).unwrap_or_else(|error| panic!("{error:#}"));
        let folder = tempfile::Builder::new().prefix("cdc-audit-pg-").tempdir().expect("a temporary folder");
        assert!(folder.path().as_os_str().len() < 80, "TMPDIR is too long to hold a Unix socket");
        give_to_server_user(folder.path()).expect("chown");
        let guard = Some(Guard::over_cluster(folder.path()));
        fill(&bin, &folder.path().join("data"));
        Postgres { major, bin, port: free_port(), guard, folder }
    }

    pub fn major(&self) -> u16 {
        self.major
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the server's Unix socket and of its `server.log`.
    pub fn socket_dir(&self) -> &str {
        self.folder.path().to_str().expect("temporary folders have plain names")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Reads what the server has written to its log so far.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Adds lines to `postgresql.conf`. They take effect after [`Postgres::reload`] or a restart, depending on the
    /// setting.
    pub fn configure(&self, settings: &[(&str, &str)]) {
        let line = |(name, value): &(&str, &str)| format!("{name} = '{}'\n", value.replace('\'', "''"));
        self.append("postgresql.conf", &settings.iter().map(line).collect::<String>());
    }

    /// Adds lines before the present ones of `pg_hba.conf`.
    pub fn grant_access(&self, lines: &[String]) {
        let path = self.data_dir().join("pg_hba.conf");
        let present = std::fs::read_to_string(&path).expect("pg_hba.conf");
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, lines + &present).expect("pg_hba.conf");
    }

    fn write_file(&self, name: &str, content: &str) {
        let path = self.data_dir().join(name);
        std::fs::write(&path, content).expect("a file in the data folder");
        run(Command::new("chmod").arg("600").arg(&path)).expect("chmod");
        give_to_server_user(&path).expect("chown");
    }

    fn append(&self, name: &str, text: &str) {
        use std::io::Write;
        let mut file =
            std::fs::OpenOptions::new().append(true).open(self.data_dir().join(name)).expect("a configuration file");
        file.write_all(text.as_bytes()).expect("a configuration file");
    }

    pub fn reload(&self) {
        self.pg_ctl(&["reload"]);
    }

    pub fn restart(&self, how: Shutdown) {
        self.stop(how);
        self.start_again();
    }

    /// Stops the server and keeps everything; [`Postgres::start_again`] continues on the same port.
    pub fn stop(&self, how: Shutdown) {
        let mode = match how {
            Shutdown::Fast => "fast",
            Shutdown::Immediate => "immediate",
        };
        self.pg_ctl(&["stop", "-w", "-t", "120", "-m", mode]);
    }

    pub fn start_again(&self) {
        self.start_in(&[]);
    }

    /// Starts the server again with these variables in its environment.
    pub fn start_in(&self, environment: &[(&str, &str)]) {
        // The port is given on the command line, so that an old one in a copied configuration file does not matter.
        let port = format!("-p {}", self.port);
        let log = self.log_path();
        let log = log.to_str().expect("temporary folders have plain names");
        self.pg_ctl_in(environment, &["start", "-w", "-t", "120", "-l", log, "-o", &port]);
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        self.pg_ctl_in(&[], arguments);
    }

    fn pg_ctl_in(&self, environment: &[(&str, &str)], arguments: &[&str]) {
        let mut command = as_server_user(self.bin.join("pg_ctl"));
        command.arg("-s").arg("-D").arg(self.data_dir()).args(arguments).envs(environment.iter().copied());
        if let Err(error) = run(&mut command) {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            panic!("{error:#}\nserver.log, last line first:\n{}", tail.join("\n"));
        }
    }

    /// Tells whether the postmaster runs; a paused one does too.
    pub fn running(&self) -> bool {
        self.postmaster().is_some_and(os::alive)
    }

    fn postmaster(&self) -> Option<u32> {
        let pid_file = std::fs::read_to_string(self.data_dir().join("postmaster.pid")).ok()?;
        pid_file.lines().next()?.parse().ok()
    }

    /// Lists all processes of the cluster, the postmaster first.
    fn processes(&self) -> Vec<u32> {
        let postmaster = self.postmaster();
        postmaster.into_iter().chain(postmaster.map(os::children).unwrap_or_default()).collect()
    }

    /// Sends SIGKILL to every process, as when the machine's memory runs out. Returns when they have ended.
    pub fn kill9(&self) {
        // A paused postmaster cannot fork a process between the listing and the killing.
        self.postmaster().inspect(|&pid| os::signal(pid, Signal::STOP));
        let processes = self.processes();
        processes.iter().for_each(|&pid| os::signal(pid, Signal::KILL));
        eventually("the killed server's processes end", || !processes.iter().any(|&pid| os::alive(pid)));
        // Until the dead postmaster is reaped, its number is in use, and the next start would think it alive.
        let socket_lock = self.folder.path().join(format!(".s.PGSQL.{}.lock", self.port));
        for lock in [self.data_dir().join("postmaster.pid"), socket_lock] {
            drop(std::fs::remove_file(lock));
        }
    }

    /// Sends SIGSTOP to every process: connections stay open without an answer.
    pub fn sigstop(&self) {
        self.processes().into_iter().for_each(|pid| os::signal(pid, Signal::STOP));
    }

    pub fn sigcont(&self) {
        self.processes().into_iter().rev().for_each(|pid| os::signal(pid, Signal::CONT));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let processes = self.processes();
        processes.iter().for_each(|&pid| os::signal(pid, Signal::KILL));
        if !std::thread::panicking() {
            eventually("the server's processes end", || !processes.iter().any(|&pid| os::alive(pid)));
        }
        self.guard.take();
    }
}
