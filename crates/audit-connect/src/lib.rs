//! Sessions with a PostgreSQL server, as a production database demands them.
//!
//! ```text
//! PgEndpoint ──parse──▶ ConnectConfig ──open──▶ Transport + Login ──▶ tokio_postgres::Client     (connect)
//!  (config)              (hosts, TLS, …)          (plain or TLS)  └──▶ replication in audit-capture
//! ```
//!
//! Ordinary sessions and replication go the same way up to the open [`Transport`], so connection strings, host lists,
//! passwords and above all the meaning of `sslmode` are decided once. Three rules:
//!
//! - **TLS is verified unless told otherwise.** Without an `sslmode` a remote host must show a certificate with its
//!   name from a trusted CA (`verify-full`); a host on this machine may do without TLS (`prefer`), unless
//!   `sslrootcert` or `sslnegotiation` show that TLS is meant; Unix sockets have none. libpq's default, `prefer`, can
//!   be turned off by anyone on the way. Where TLS was agreed on, a failure is never answered with plain text. A password itself, or its MD5 hash, goes
//!   to no server whose identity was not verified, unless `require_auth` says so.
//! - **Text looks the same everywhere.** Every session runs under [`PINNED`].
//! - **No password leaves.** Passwords are read when needed and live in [`Password`], whose `Debug` shows where it came
//!   from; errors, logs and `Debug` name a server as `user@host:port/database`; of the server's errors only SQLSTATE
//!   and message remain ([`ServerError`]).
//!
//! An error says what happens next ([`Outcome`], judged by SQLSTATE) and what somebody can do ([`ConnectError::hint`]).

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
mod server_error;
mod session;
mod ssl;
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
