//! A webhook: batches of messages posted to an HTTP receiver.
//!
//! ```text
//! Batch ──plan──▶ unit ──encode──▶ body ──sign──▶ POST ──2xx──▶ checkpoint, in a database
//! ```
//!
//! HTTP has no transaction that could hold messages and checkpoint together: the checkpoint moves behind the answer, and what was
//! delivered before it moved is delivered again. **At least once**, in the order of positions; a receiver that wants each version once
//! keeps the `position` of what it has, or the `idempotency-key` of the requests that it took.

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
