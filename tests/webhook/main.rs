//! Tests the webhook between real servers: a receiver that fails in every way, and a daemon that is killed.
//!
//! - [`shop`]: a source with one table, and what the receiver must have got from it;
//! - [`delivery`]: what arrives, signed and in order, wherever the checkpoint is stored;
//! - [`trouble`]: receivers that fail, refuse, hang and cut;
//! - [`kills`]: a daemon that is killed loses nothing.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod delivery;
mod kills;
mod shop;
mod trouble;
