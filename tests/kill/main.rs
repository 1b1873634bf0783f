//! The daemon killed, paused and cut off: nothing lost, nothing twice.
//!
//! `CDC_AUDIT_KILL_ROUNDS` says how many rounds are played (`cargo xtask kill-rounds N`), `CDC_AUDIT_SEED` which.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// A source that is written to without end, a hot server, a lake, and proxies before both servers.
mod arena;
// Everything that can go wrong, by chance, round after round.
mod rounds;
// The source and the hot database as older copies of themselves.
mod restores;
// Every named fault point: reached, and survived.
mod points;
// A daemon that sleeps while another takes over, and wakes.
mod paused;
