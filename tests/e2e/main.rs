//! The daemon between real servers.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// What the tests themselves rest on: that their workloads run, and that they read what happened as it happened.
mod ground;
// Tables of every type, and whatever chance does to them, in one session and in several.
mod random;
// The workloads that come out wrong elsewhere, written by hand and compared after each step.
mod written;
// The form that each type takes in the record, and what is said of unchanged TOAST values.
mod values;
// Who and why: contexts, and what a rolled-back savepoint said.
mod context;
// What is tracked: events, soft deletions, keys, rows.
mod tracked;
// Rows that existed before capture: of tables that join, and behind a gap.
mod baseline;
// What ends a stretch of history, what is acknowledged, and what a later start must not change.
mod continuity;
// What a table, its key and its columns are, whatever is renamed, added or forged.
mod identity;
// Sinks that go back to an earlier state under a running daemon.
mod put_back;
// The hot tables in the source itself.
mod same_database;
// Which tables go to which of several lakes.
mod routing;
// A lake that keeps tenants apart.
mod tenants;
// Tables of versions beside the common one.
mod own_tables;
// The lake in a bucket: written by the daemon, asked by the commands.
mod bucket;
