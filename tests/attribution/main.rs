//! Tests actor and reason, as applications give them.
//!
//! - `config`: mistakes in their configuration
//! - `frameworks`: the helpers under `examples/attribution`, each in its own application
//! - `pooler`: behind PgBouncer in transaction mode
//! - `required`: versions that lack what their table requires
//! - `verified`: contexts that the trail marks as verified
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod config;
mod frameworks;
mod pooler;
mod required;
mod verified;
