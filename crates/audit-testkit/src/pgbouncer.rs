//! A pooler in front of a PostgreSQL server: [`PgBouncer`].

use std::fs;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use crate::guard::Guard;
use crate::os::{self, Signal, free_port};
use crate::postgres::Postgres;
use crate::wait::eventually;
use audit_install::{as_server_user, give_to_server_user, pgbouncer};

/// A pooler in transaction mode: clients share the server's connections for one transaction each. Killed when dropped.
pub struct PgBouncer {
    port: u16,
    process: Child,
    guard: Option<Guard>,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts a pooler with this number of connections to the server.
    pub fn start(server: &Postgres, connections: u16) -> PgBouncer {
        let program = pgbouncer().unwrap_or_else(|error| panic!("{error:#}"));
        let folder = tempfile::Builder::new().prefix("cdc-audit-pgbouncer-").tempdir().expect("a temporary folder");
        let (port, users) = (free_port(), folder.path().join("users.txt"));
        let config = folder.path().join("pgbouncer.ini");
        let log = folder.path().join("pgbouncer.log");
        fs::write(&users, "\"postgres\" \"\"\n").expect("a file of users");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = {connections}\nlogfile = {}\n\
             ignore_startup_parameters = extra_float_digits\n",
            server.port(),
            users.display(),
            log.display()
        );
        fs::write(&config, settings).expect("a config file");
        give_to_server_user(folder.path()).expect("chown");
        let mut command = as_server_user(program.to_str().expect("a plain path"));
        command.arg("-q").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("pgbouncer starts");
        let guard = Some(Guard::over_process_in(process.id(), folder.path()));
        eventually("the pooler serves", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        PgBouncer { port, process, guard, _folder: folder }
    }

    /// Returns the address of a database through the pooler.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // If it runs as another user, it is a child of the program that changed the user.
        os::children(self.process.id()).into_iter().for_each(|pid| os::signal(pid, Signal::KILL));
        drop(self.process.kill());
        self.guard.take();
        drop(self.process.wait());
    }
}
