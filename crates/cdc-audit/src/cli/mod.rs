//! One command, one file.

mod admin;
pub mod check;
pub mod config;
pub mod export;
pub mod history;
mod kafka;
pub mod output;
pub mod resume;
pub mod run;
pub mod setup;
pub mod status;
mod store;
pub mod teardown;
