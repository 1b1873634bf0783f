//! One command, one file.

pub mod activity;
pub mod baseline;
pub mod check;
pub mod compact;
pub mod completions;
pub mod config;
pub mod ddl;
pub mod decrypt;
pub mod export;
pub mod filters;
pub mod history;
pub mod keys;
pub mod man;
pub mod plan;
pub mod report;
pub mod resume;
pub mod rollback;
pub mod run;
pub mod search;
pub mod setup;
pub mod status;
pub mod subject;
pub mod teardown;
pub mod tx;
pub mod undo;
pub mod when;
