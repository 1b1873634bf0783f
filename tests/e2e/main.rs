//! The daemon between real servers.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// What the tests themselves rest on: that their workloads run, and that they read what happened as it happened.
mod ground;
