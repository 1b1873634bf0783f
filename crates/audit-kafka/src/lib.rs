//! Kafka as a sink: versions and checkpoint in one Kafka transaction, fenced by the transactional id.
//!
//! ```text
//! Batch ──plan──▶ unit ──audit-format──▶ messages ─┐
//!                                                  ├─▶ one Kafka transaction, under `cdc-audit.SOURCE.SINK`
//!              shapes, baselines, checkpoint ──────┘
//! ```
//!
//! [`KafkaSink`] is the sink, [`KafkaConfig`] configures it, and [`set_up`] makes the checkpoint's topic.

mod access;
mod checkpoint;
mod config;
mod context;
mod error;
mod names;
mod probe;
mod send;
mod session;
mod sink;
mod take;
mod topics;

pub use access::{Mechanism, SaslConfig, TlsConfig};
pub use config::{Compression, KafkaConfig};
pub use probe::{probe, set_up, stored};
pub use sink::KafkaSink;
