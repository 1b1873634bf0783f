//! The hot audit tables, in any PostgreSQL database: writing and reading them.
//!
//! ```text
//! Batch ──plan──▶ unit ──encode──▶ binary COPY ─┐
//!                                               ├─▶ one transaction, fenced by the owner epoch
//!                        shapes, chunks, position ─┘
//! ```
//!
//! [`HotSink`] is the sink, [`setup_statements`] makes its tables, and [`HotReader`] reads them. The daemon's role can
//! add versions and move its checkpoint, and nothing else: see [`schema`].
//!
//! # Further tables of versions
//!
//! - **One transaction, a hundred tables at the most** (`audit-core/src/plan.rs`): each place takes locks of the
//!   server. A chunk of a baseline is never divided; it has no more rows than that where each row may go to another
//!   table. A unit is divided by the table that takes each version (`audit-hot/src/targets.rs`); each has its COPY,
//!   and the checkpoint comes last. Which table that is, is looked up where table or tenant change, never for a
//!   row; without `versions_table` nothing is divided.
//! - **The database names them** (`schema/ensure_versions_table.sql`): the first tenant gets the wanted name,
//!   another tenant one with a hash (`names.rs`). It is `LIKE` the common table, made by the same owner, and noted
//!   in `versions_tables` before it holds a row: so readers find all of them, also those that a table went to
//!   before.
//! - **A reader asks only the tables that may hold the answer** (`read/places.rs`): the common table, and those
//!   noted for the table in question, or for the tenant.

mod archive;
mod checkpoint;
mod config;
mod connection;
mod copy;
mod encode;
mod error;
mod large;
mod layout;
mod ledger;
mod names;
mod owner;
mod partitions;
mod probe;
mod quote;
mod read;
mod refused;
pub mod schema;
mod session;
mod sink;
mod targets;
mod transaction;

pub use archive::Archive;
pub use config::{HotConfig, Partitioning, Side};
pub use encode::{Encoder, FIELD_MAX};
pub use ledger::CheckpointStore;
pub use names::is_ours;
pub use probe::probe;
pub use read::{
    Archived, HotReader, Partition, ReadError, RowTrail, Selection, SinkState, SqlAnswer, SqlRow, State, View, Written,
};
pub use schema::{SetupOptions, Statement, index_statements, setup_statements, teardown_statements};
pub use session::check_encoding;
pub use sink::{Counters, HotSink};
