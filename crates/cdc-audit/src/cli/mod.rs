//! One command, one file.

mod access;
mod admin;
mod attribution;
pub mod baseline;
pub mod check;
pub mod compact;
pub mod completions;
pub mod config;
pub mod ddl;
pub mod decrypt;
pub mod export;
pub mod history;
mod kafka;
pub mod keys;
pub mod man;
pub mod output;
pub mod plan;
pub mod resume;
pub mod run;
pub mod setup;
pub mod status;
mod store;
pub mod teardown;
