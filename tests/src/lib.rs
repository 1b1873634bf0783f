//! Code that the tests of the whole program share. The tests themselves are in `e2e/` (the daemon between real
//! servers), `kill/` (the same, killed), `refuse/` (bad situations), `memory/` (its limit), `cli/` (what commands
//! print), `readers/` (other engines over the lake), `deploy/` (what an operator installs), `conformance/` (what the
//! daemon requires of every sink), `attribution/` (actor and reason), `canary/` (secrets stay secret), `debezium/`
//! (messages like Debezium's), `webhook/`, `undo/` and `oracle/` (answers compared with what triggers saw).
//!
//! - [`world`]: everything around one daemon
//! - [`hot`], [`lake`], [`kafka`]: read the sinks back without the program
//! - [`receiver`]: an HTTP server that accepts a webhook's requests, and fails when a test says so
//! - [`trail`], [`value`]: one form for everything that was read, and its comparison
//! - [`tables`], [`decoded`]: the source's own view: its tables, and the changes that `test_decoding` saw
//! - [`oracle`], [`replay`]: compare a trail with these
//! - [`traces`]: every byte that was written, to be searched for what must not be there
//! - [`dice`], [`workload`], [`script`]: random or written workloads, and playing them
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

pub mod decoded;
pub mod dice;
pub mod hot;
pub mod kafka;
pub mod lake;
pub mod oracle;
pub mod receiver;
pub mod recorded;
pub mod replay;
pub mod script;
pub mod tables;
pub mod traces;
pub mod trail;
pub mod value;
pub mod workload;
pub mod world;

use std::path::{Path, PathBuf};

pub use audit_testkit::thorough;

/// Returns how often the daemon is killed: N times in `cargo xtask kill-rounds N`, or else many times in a thorough run
/// and `few` times in others.
pub fn kill_rounds(few: u32) -> u32 {
    let asked = std::env::var("CDC_AUDIT_KILL_ROUNDS").ok().map(|rounds| rounds.parse().expect("a number of rounds"));
    asked.unwrap_or(if thorough() { 200 } else { few })
}

/// Returns the seed of all random choices: `CDC_AUDIT_SEED`, or else another one each time. It is printed, so that a
/// failure can be repeated.
pub fn seed() -> u64 {
    let asked = std::env::var("CDC_AUDIT_SEED").ok().map(|seed| seed.parse().expect("a seed is a number"));
    let seed = asked.unwrap_or_else(|| {
        use std::hash::BuildHasher;
        std::hash::RandomState::new().hash_one("seed") % 1_000_000
    });
    eprintln!("seed: CDC_AUDIT_SEED={seed}");
    seed
}

/// Returns the majors to test with: in a thorough run every one that the program supports, or else 15.
pub fn majors() -> Vec<u16> {
    if thorough() { audit_testkit::install::MAJORS.to_vec() } else { vec![15] }
}

/// Returns the full path of a file of the repository.
pub fn repository(path: &str) -> PathBuf {
    // Read at run time, not at compile time, because a build in a shared folder may be that of another clone.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&here).parent().expect("tests/ lies in the repository").join(path)
}
