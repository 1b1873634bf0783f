//! A sink that posts batches of messages to an HTTP receiver.
//!
//! ```text
//! Batch ──plan──▶ unit ──encode──▶ body ──sign──▶ POST ──2xx──▶ checkpoint, in a database
//! ```
//!
//! HTTP has no transaction that could contain both messages and checkpoint: the checkpoint advances only after the
//! answer, so versions that were delivered before it advanced may be delivered again. Delivery is **at least once**, in
//! the order of positions. A receiver that wants each version only once stores the `position` of each version that it
//! has, or the `idempotency-key` of each request that it accepted.

mod config;
mod deliver;
mod error;
mod post;
mod probe;
mod sign;
mod sink;

pub use config::{Body, WebhookConfig};
pub use probe::probe;
pub use sink::WebhookSink;
