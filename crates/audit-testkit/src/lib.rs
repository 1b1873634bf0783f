//! Real servers for tests.
//!
//! A test that talks to PostgreSQL talks to one that this crate started: a private cluster in a temporary folder, on
//! 127.0.0.1 and a Unix socket of its own, removed when the value is dropped and, by a [`guard`], also when the test
//! process is killed. So do tests of object stores ([`objects`]), of Kafka and of key services. A test that needs the daemon runs the built program. Nothing here is a
//! mock, but for clouds that have no server to install.
//!
//! A test cannot go on without its server, so the functions here panic with what the server said. Where the servers'
//! programs are, and how they are installed, is in the crate `audit-install`, which `cargo xtask` uses too.
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

/// Whether tests may take long: set by `cargo xtask test --all`. A test that would take minutes does less without it; it
/// is never left out.
pub fn thorough() -> bool {
    std::env::var_os("CDC_AUDIT_TEST_ALL").is_some_and(|value| !value.is_empty() && value != "0")
}
