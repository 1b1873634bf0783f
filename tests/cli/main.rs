//! Tests what commands print and how they end.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// `config`, and the example of the README.
mod config;
// `setup`, `check` and `teardown`.
mod setup;
// `run` and `status`, health and metrics.
mod running;
// `history` and `export` over hot and lake as one.
mod timeline;
// `history` and `export`.
mod trail;
// `search` and `tx`.
mod search;
// `show`, `diff`, `blame`, and the old values that `history` derives.
mod row;
// `as-of`.
mod as_of;
// `activity`.
mod activity;
// `archive`.
mod archive;
// `export`, in all forms.
mod export;
// Exports that are killed and go on.
mod killed;
// Exports into buckets.
mod bucket;
// What answers say that they lack.
mod covered;
// `report`.
mod report;
// Names of actors, and times in the configured zone.
mod actors;
// Renamed columns, and `schema`.
mod names;
// `sql`.
mod sql;
// `plan`, and what `check` says about rules.
mod plan;
// `resume`.
mod resume;
// `keys`, `decrypt` and `history --decrypt`.
mod keys;
// `bind`, and everything else that can be decrypted.
mod opened;
// `subject`: people whose values can be erased.
mod subjects;
// `undo` and `rollback`.
mod undo;
