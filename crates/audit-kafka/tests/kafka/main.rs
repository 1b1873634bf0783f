//! The sink against a real broker.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// A source and its sink, and what a consumer sees of it.
mod place;
// What arrives, where, and how often.
mod written;
// Two daemons.
mod fence;
// Brokers that go, answers that are lost, topics that are deleted, messages that are too large.
mod faults;
// Passwords, tokens and certificates.
mod access;
