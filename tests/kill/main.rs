//! Tests a daemon that is killed, paused and cut off: nothing is lost, and nothing is stored twice.
//!
//! `CDC_AUDIT_KILL_ROUNDS` sets the number of rounds (`cargo xtask kill-rounds N`), `CDC_AUDIT_SEED` the random
//! choices.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// A source that is written to all the time, a hot server, a lake, and proxies in front of both servers.
mod arena;
// Random faults of every kind, round after round.
mod rounds;
// The source and the hot database as older copies of themselves.
mod restores;
// Every named fault point: reached, and survived.
mod points;
// A daemon that is paused while another takes over, and then continues.
mod paused;
