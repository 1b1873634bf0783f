//! The hot audit table against real servers.
//!
//! - `store`: batches arrive once, whatever is repeated; chunks, shapes, partitions, checkpoints
//! - `values`: every kind of value becomes the JSON that the record promises, and what `jsonb` cannot hold is marked
//! - `faults`: two owners, lost answers, lost sessions, a paused owner, refused versions, a table altered by hand
//! - `own`: tables that take versions instead of the common one
//! - `roles`: who may do what; setup and teardown, again and again
//! - `indexes`: databases of earlier releases get the indexes while a writer goes on; questions use them
//! - `read`: the trail of a row through its keys, exports
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod archive;
mod faults;
mod fixture;
mod indexes;
mod own;
mod read;
mod roles;
mod store;
mod values;
