//! Tests the daemon between real servers.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// The basis of the tests themselves: their workloads run, and they read correctly what happened.
mod ground;
// Tables of every type with random changes, in one session and in several.
mod random;
// Workloads that other programs get wrong, written by hand and compared after each step.
mod written;
// The form of each type in the record, and unchanged TOAST values.
mod values;
// Actor and reason: contexts, also in a rolled-back savepoint.
mod context;
// What is tracked: events, soft deletions, keys, rows.
mod tracked;
// Rows that existed before capture, of tables that are added, and after a gap.
mod baseline;
// The end of an epoch, what is acknowledged, and what a later start must not change.
mod continuity;
// The identity of a table, its key and its columns, whatever is renamed, added or forged.
mod identity;
// Sinks that go back to an earlier state while the daemon runs.
mod put_back;
// The hot tables in the source itself.
mod same_database;
// Tables that go to one or the other of several lakes.
mod routing;
// A lake that keeps tenants apart.
mod tenants;
// Tables of versions in addition to the common one.
mod own_tables;
// The lake in a bucket: written by the daemon, read by the commands.
mod bucket;
