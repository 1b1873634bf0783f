//! The PostgreSQL side: everything that communicates with the captured database.
//!
//! - [`config`]: the section `[source]` of the configuration;
//! - [`baseline`]: the rows that existed before capture began;
//! - [`context_keys`]: the keys that distinguish a context of `set_context` from anyone else's message;
//! - [`catalog`]: the published tables as the catalog describes them now, and as pgoutput will;
//! - [`former_names`]: what tables were called before, and of which tables partitions were part;
//! - [`slot`]: the state of the replication slot;
//! - [`setup`] and [`teardown`]: publication, slot and schema `cdc_audit`, planned first, printed, then executed;
//! - [`replication`]: the replication connection, from the login to chunks of frames, and feedback to the server;
//! - [`check`]: everything that would keep capture from starting, or from recording what it should;
//! - [`clock`]: the difference between the server's clock and ours;
//! - [`encoding`]: which encodings the source may have;
//! - [`standby`]: whether COMMITs of the source wait for the daemon.

pub mod baseline;
pub mod catalog;
pub mod check;
pub mod clock;
pub mod config;
pub mod context_keys;
pub mod encoding;
mod facts;
pub mod former_names;
mod identity;
mod published;
mod query;
pub mod replication;
mod select;
pub mod setup;
pub mod slot;
pub mod standby;
mod step;
pub mod teardown;

/// The `application_name` of the daemon's sessions, or the beginning of it.
pub const APPLICATION: &str = "cdc-audit";

pub use config::SourceConfig;
pub use query::{QueryError, major};
pub use select::selects;
pub use step::{On, Plan, Refusal, Statement, Step, apply};
