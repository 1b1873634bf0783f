//! Who and why, as applications say it.
//!
//! - `config`: mistakes in what is configured of it
//! - `frameworks`: the helpers under `examples/attribution`, each in an application of its own
//! - `pooler`: behind PgBouncer in transaction mode
//! - `required`: versions that do not say what their table requires
//! - `verified`: what the trail believes
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod config;
mod frameworks;
mod pooler;
mod required;
mod verified;
