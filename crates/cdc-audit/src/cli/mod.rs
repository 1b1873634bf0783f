//! One command, one file.

pub mod activity;
pub mod baseline;
pub mod blame;
pub mod check;
pub mod compact;
pub mod completions;
pub mod config;
pub mod ddl;
pub mod decrypt;
pub mod diff;
pub mod export;
pub mod history;
pub mod keys;
pub mod man;
pub mod plan;
pub mod report;
pub mod resume;
pub mod row;
pub mod run;
pub mod setup;
pub mod show;
pub mod status;
pub mod subject;
pub mod teardown;
pub mod when;
