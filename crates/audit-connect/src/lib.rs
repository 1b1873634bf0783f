//! Opens sessions with a PostgreSQL server in the way that a production database requires.
//!
//! ```text
//! PgEndpoint ──parse──▶ ConnectConfig ──open──▶ Transport + Login ──▶ tokio_postgres::Client     (connect)
//!  (config)              (hosts, TLS, …)          (plain or TLS)  └──▶ replication in audit-capture
//! ```
//!
//! Ordinary sessions and replication share the code up to the open [`Transport`], so connection strings, host lists,
//! passwords and above all the meaning of `sslmode` are decided once. There are three rules:
//!
//! - **TLS is verified by default.** Without an `sslmode` a remote host must show a certificate with its name from a
//!   trusted CA (`verify-full`). A host on this machine may do without TLS (`prefer`), unless `sslrootcert` or
//!   `sslnegotiation` show that TLS is wanted. Unix sockets have no TLS. We do not use libpq's default, `prefer`,
//!   because anyone on the network path can turn its TLS off. After TLS was agreed on, a failure never leads to plain
//!   text. A password itself, or its MD5 hash, goes to no server whose identity was not verified, unless `require_auth`
//!   allows it.
//! - **Text looks the same everywhere.** Every session runs with the settings in [`PINNED`].
//! - **No password is shown.** Passwords are read when needed and kept in [`Password`], whose `Debug` shows only where
//!   it came from. Errors, logs and `Debug` name a server as `user@host:port/database`. Of the server's errors we keep
//!   only SQLSTATE and message ([`ServerError`]).
//!
//! An error says what happens next ([`Outcome`], decided by SQLSTATE) and what a person can do
//! ([`ConnectError::hint`]).

mod binding;
mod config;
mod endpoint;
mod error;
mod methods;
mod open;
mod outcome;
mod parse;
mod passfile;
mod password;
mod pooler;
mod refused;
mod server_error;
mod session;
mod ssl;
mod target;
mod transport;
mod verify;

pub use config::ConnectConfig;
pub use endpoint::PgEndpoint;
pub use error::ConnectError;
pub use open::Login;
pub use outcome::{Outcome, outcome, outcome_of};
pub use password::Password;
pub use pooler::refuse_pooler;
pub use server_error::ServerError;
pub use session::{PINNED, PINNED_SINCE, connect, pin_by_version};
pub use transport::Transport;
