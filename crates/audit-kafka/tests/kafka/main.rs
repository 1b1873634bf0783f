//! The sink against a real broker.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// A source and its sink, and what a consumer sees of it.
mod place;
// What is written, where, and how often.
mod written;
// Two daemons for one sink.
mod fence;
// Brokers that stop, answers that are lost, topics that are deleted, messages that are too large.
mod faults;
// Passwords, tokens and certificates.
mod access;
