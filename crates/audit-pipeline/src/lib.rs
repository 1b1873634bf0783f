//! The daemon's loop: from the stream of one source to its sinks, and back to the server what is durable.
//!
//! [`run`] keeps sessions going; a [`session`] is one lock on the slot; [`stage`] is the way of a change, [`driver`] feeds it;
//! [`fanout`] and [`sink_task`] bring batches to the sinks; [`continuity`] decides whether the stream continues what they have.

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
