//! Messages for what others made: compared with those of Debezium itself, and read by a connector that was made for it.
//!
//! - [`messages`]: what the daemon gives a sink, as messages;
//! - [`oracle`]: what Debezium makes of the same WAL;
//! - [`envelope`]: the two are alike, but for what `docs/formats.md` says;
//! - [`connector`]: a sink connector made for Debezium, between Kafka and PostgreSQL.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod connector;
mod envelope;
mod messages;
mod oracle;
