//! Baselines against real servers, with a small stage that follows a slot.
//!
//! - `world`: the stage, and what it saw
//! - `rows`: which rows arrive, and in what form
//! - `races`: what changes while chunks are read
//! - `places`: tables without a key
//! - `objects`: tables that are new, recreated, renamed, removed from the publication; partitions that are attached
//! - `resume`: kills, sinks and tables that come later
//! - `trouble`: problems that a person has to act on
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

mod objects;
mod places;
mod races;
mod resume;
mod rows;
mod trouble;
mod world;
