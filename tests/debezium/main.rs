//! Compares our messages in Debezium's format with those of Debezium itself, and lets a connector made for Debezium
//! read them.
//!
//! - [`messages`]: the daemon's versions, as messages;
//! - [`oracle`]: the messages that Debezium makes from the same WAL;
//! - [`envelope`]: both are equal, except for what `docs/formats.md` lists;
//! - [`connector`]: a sink connector made for Debezium, between Kafka and PostgreSQL.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod connector;
mod envelope;
mod messages;
mod oracle;
