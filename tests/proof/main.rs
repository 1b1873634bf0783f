//! Tests that a version means the same wherever it is stored: in the daemon, in a hot table, in a lake.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// A daemon in this process that writes to all three.
mod sides;
// JSON is printed as each release of PostgreSQL prints it.
mod printed;
// Values of every type, events, contexts, protected columns: one canonical record.
mod same;
// What somebody changes in a store is named when it is compared with the other.
mod tampered;
