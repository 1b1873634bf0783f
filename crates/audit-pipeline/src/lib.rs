//! The daemon's loop: it takes the stream of one source to its sinks, and reports back to the server what is durable.
//!
//! [`run`] starts one session after another; a [`session`] holds the lock on the slot; [`stage`] processes changes and
//! [`driver`] feeds it; [`fanout`] and [`sink_task`] bring batches to the sinks; [`continuity`] decides whether the
//! stream continues what they have.

pub mod config;
pub mod continuity;
mod driver;
mod fanout;
mod retry;
pub mod run;
mod session;
mod sink_task;
pub mod slot;
pub mod stage;
pub mod status;

pub use sink_task::NamedSink;
