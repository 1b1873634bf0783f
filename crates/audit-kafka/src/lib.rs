//! Kafka as a sink: versions and checkpoint in one Kafka transaction, fenced by the transactional id.
//!
//! ```text
//! Batch ──plan──▶ unit ──audit-format──▶ messages ─┐
//!                                                  ├─▶ one Kafka transaction, under `cdc-audit.SOURCE.SINK`
//!              shapes, baselines, checkpoint ──────┘
//! ```
//!
//! [`KafkaSink`] is the sink, [`KafkaConfig`] configures it, and [`set_up`] makes the checkpoint's topic.
//!
//! # Transactions and takeovers
//!
//! - **The transactional id is the fence.** `cdc-audit.SOURCE.SINK`: brokers commit only transactions of the
//!   process that initialised it last, so no other compare and set is needed. For the same reason it is initialised
//!   once in a session: a second time could fence a daemon that took over meanwhile. After an error the stream
//!   begins again under the slot's lock. A record `owner` says by whom a daemon was fenced, and distinguishes that
//!   from a transaction that brokers aborted because it was open for too long.
//! - **Takeovers are serialised** (`take.rs`). A call of librdkafka cannot be cancelled, so a takeover whose caller
//!   stopped waiting keeps running on its thread. The next one waits for it; otherwise the abandoned takeover could
//!   initialise the transactional id last and fence the new owner.
//! - **No answer to a commit is needed.** Initialising the id waits until brokers have ended the last transaction
//!   in one way or the other; the checkpoint's topic, read after it, says in which. It is read until the reader's
//!   own `owner` comes, because after a change of leaders brokers may report its end too early for a moment.
//! - **When a transaction fails, its messages are no longer available.** So the batch of a version that made it
//!   fail gets a transaction of its own after the restart: then the version can be named, and quarantined, with
//!   everything before it committed.
//! - **A topic that was written to is never made again.** The checkpoint's topic knows which were; one that is gone
//!   was deleted, with what it held.
//! - **Kafka uses another TLS library.** librdkafka is written in C and knows OpenSSL only, the system's. That is
//!   the price of transactions.

mod access;
mod checkpoint;
mod client;
mod config;
mod context;
mod error;
mod names;
mod probe;
mod produce;
mod send;
mod session;
mod settings;
mod sink;
mod take;
mod topics;

pub use access::{Mechanism, SaslConfig, TlsConfig};
pub use config::{Compression, KafkaConfig};
pub use probe::{probe, set_up, stored};
pub use sink::KafkaSink;
