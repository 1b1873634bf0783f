//! The lake on a real disk.

#[path = "../common/mod.rs"]
mod common;
mod write;
