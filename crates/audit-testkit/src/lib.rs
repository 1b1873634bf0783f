//! Starts real servers for tests.
//!
//! A test that needs PostgreSQL uses one that this crate started: a private cluster in a temporary folder, on 127.0.0.1
//! and its own Unix socket. It is removed when the value is dropped and, by a [`guard`], also when the test process is
//! killed. The same is true of object stores ([`objects`]), Kafka and key services. A test that needs the daemon runs
//! the built program. Nothing here is a mock, except for clouds that have no server to install.
//!
//! A test cannot continue without its server, so the functions here panic with the server's message. The crate
//! `audit-install`, which `cargo xtask` uses too, finds and installs the servers' programs.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failing server is a failing test")]

mod batches;
mod connect;
mod daemon;
mod guard;
mod kafka;
mod keys;
mod objects;
mod os;
mod pgbouncer;
mod postgres;
mod proxy;
mod secret;
mod tls;
mod wait;

pub use audit_install as install;
pub use batches::Fixture;
pub use connect::Connect;
pub use daemon::{Daemon, Launch, command, program};
pub use kafka::{KAFKA_USER, Kafka};
pub use keys::{KeyServer, Said, Scripted, VAULT_TOKEN};
pub use objects::{Fault, FaultProxy, ObjectKind, ObjectServer, Request};
pub use os::{free_port, unique};
pub use pgbouncer::PgBouncer;
pub use postgres::{Backup, Builder, Database, Postgres, Shutdown, connect, drop_slots, shared, shared_db};
pub use proxy::{Proxy, Traffic};
pub use secret::write_secret;
pub use tls::{Authority, Identity};
pub use wait::{PATIENCE, eventually, eventually_async};

/// Tells whether tests may take long, which `cargo xtask test --all` sets. Without it a test that would take minutes
/// does less, but it is never left out.
pub fn thorough() -> bool {
    std::env::var_os("CDC_AUDIT_TEST_ALL").is_some_and(|value| !value.is_empty() && value != "0")
}
