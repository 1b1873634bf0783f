//! The PostgreSQL side: everything that speaks to the captured database.
//!
//! - [`config`]: what `[source]` says;
//! - [`baseline`]: the rows that existed before capture began;
//! - [`context_keys`]: what tells a context of `set_context` from anybody else's message;
//! - [`catalog`]: the published tables as the catalog describes them now, and as pgoutput will;
//! - [`former_names`]: what tables were called before, and of which tables partitions were part;
//! - [`slot`]: the state of the replication slot;
//! - [`setup`] and [`teardown`]: publication, slot and schema `cdc_audit`, planned first, printed, then executed;
//! - [`replication`]: the replication connection, from the login to chunks of frames and feedback on the way back;
//! - [`check`]: everything that would keep capture from starting, or from knowing what it should;
//! - [`clock`]: the server's clock against ours;
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

/// The name that the server shows the daemon's sessions under, or that theirs begin with.
pub const APPLICATION: &str = "cdc-audit";

pub use config::SourceConfig;
pub use query::{QueryError, major};
pub use select::selects;
pub use step::{On, Plan, Refusal, Statement, Step, apply};
