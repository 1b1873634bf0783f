//! Bad situations. Each is one clear error with a hint and an exit code, and does no damage: once its cause is gone,
//! everything goes on with nothing lost and nothing twice.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// What the program says, made the same on every machine.
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
