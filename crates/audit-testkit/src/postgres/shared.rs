//! One server of each major for all tests of a process, and a database in it for each test.

use std::sync::OnceLock;

use tokio_postgres::Client;

use super::client::psql;
use super::{Postgres, connect};
use audit_install::MAJORS;

/// A test's own database, dropped with this value together with its slots.
pub struct Database {
    pub server: &'static Postgres,
    pub name: String,
    pub url: String,
}

/// Returns the server of this major that all tests of this process share. The first call starts it. Tests that stop,
/// restart or reconfigure a server start their own.
pub async fn shared(major: u16) -> &'static Postgres {
    tokio::task::spawn_blocking(move || shared_blocking(major)).await.expect("the shared server starts")
}

pub async fn shared_db(major: u16) -> Database {
    let server = shared(major).await;
    tokio::task::spawn_blocking(move || Database::new(server)).await.expect("a database is made")
}

fn shared_blocking(major: u16) -> &'static Postgres {
    static SERVERS: [OnceLock<Postgres>; MAJORS.len()] = [const { OnceLock::new() }; MAJORS.len()];
    let index = MAJORS.iter().position(|&known| known == major).expect("a supported major");
    // It is never dropped: its guard removes it when the process ends.
    SERVERS[index].get_or_init(|| {
        let many = [("max_replication_slots", "100"), ("max_wal_senders", "100"), ("max_connections", "300")];
        many.iter().fold(Postgres::builder(major), |builder, (name, value)| builder.setting(name, value)).start()
    })
}

impl Database {
    /// Makes a new database on a server that runs as long as the process.
    pub fn new(server: &'static Postgres) -> Database {
        let (name, url) = server.new_database();
        Database { server, name, url }
    }

    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }

    #[track_caller]
    pub fn execute(&self, statements: &str) -> String {
        self.server.execute(&self.name, statements)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        drop_slots(&self.url);
        drop(psql(&self.server.url("postgres"), &format!("DROP DATABASE {} WITH (FORCE)", self.name)));
    }
}

/// Drops the slots of a database if possible. A slot that is left disappears with the server, but until then it would
/// keep WAL for every other test, and the number of slots is limited.
pub fn drop_slots(url: &str) {
    let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
               WHERE database = current_database() AND active_pid IS NOT NULL;";
    let forget = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                  WHERE database = current_database();";
    if psql(url, end).is_err() {
        // The server has already ended.
        return;
    }
    // A walsender needs a moment to end and to release its slot.
    for _ in 0..50 {
        if psql(url, forget).is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
