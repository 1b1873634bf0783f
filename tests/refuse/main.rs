//! Tests bad situations. Each gives one clear error with a hint and an exit code, and does no damage: after its cause
//! is removed, everything continues with nothing lost and nothing stored twice.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// The program's messages, made the same on every machine.
mod said;
// The config file.
mod config;
// The source: password, wal_level, publication.
mod source;
// The slot: dropped, moved, without its WAL, held by another daemon.
mod slot;
// The hot database: altered by hand, rights taken away, down.
mod hot;
// The lake: full, read-only, another's, altered by hand.
mod lake;
// Clocks that go backwards.
mod clock;
