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

mod checkpoint;
mod config;
mod copy;
mod encode;
mod error;
mod jsonb;
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

pub use config::{HotConfig, Partitioning, Side};
pub use encode::{Encoder, FIELD_MAX};
pub use ledger::CheckpointStore;
pub use names::is_ours;
pub use probe::probe;
pub use read::{HotReader, ReadError, Selection, SinkState};
pub use schema::{SetupOptions, Statement, setup_statements, teardown_statements};
pub use session::check_encoding;
pub use sink::{Counters, HotSink};
