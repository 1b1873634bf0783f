//! What the tests of the whole program share. The tests themselves: `e2e/` (the daemon between real servers), `kill/`
//! (the same, killed), `refuse/` (bad situations), `memory/` (its limit), `cli/` (what commands print), `readers/` (other
//! engines over the lake), `deploy/` (what an operator installs), `conformance/` (what every sink owes the daemon).
//!
//! - [`world`]: everything around one daemon
//! - [`hot`], [`lake`], [`kafka`]: reading the sinks back, without the program
//! - [`receiver`]: an HTTP server that takes what a webhook sends, and fails when told to
//! - [`trail`], [`value`]: one form for what was read, and comparing it
//! - [`tables`], [`decoded`]: what the source itself says: its tables, and the changes that `test_decoding` saw
//! - [`oracle`], [`replay`]: a trail against those
//! - [`dice`], [`workload`], [`script`]: what happens in the source, by chance or written, and playing it
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

pub mod decoded;
pub mod dice;
pub mod hot;
pub mod kafka;
pub mod lake;
pub mod oracle;
pub mod receiver;
pub mod replay;
pub mod script;
pub mod tables;
pub mod trail;
pub mod value;
pub mod workload;
pub mod world;

use std::path::{Path, PathBuf};

pub use audit_testkit::thorough;

/// How often the daemon is killed: by `cargo xtask kill-rounds N`, else many times in a thorough run and `few` times in others.
pub fn kill_rounds(few: u32) -> u32 {
    let asked = std::env::var("CDC_AUDIT_KILL_ROUNDS").ok().map(|rounds| rounds.parse().expect("a number of rounds"));
    asked.unwrap_or(if thorough() { 200 } else { few })
}

/// What decides chance: `CDC_AUDIT_SEED`, else another one each time. Printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let asked = std::env::var("CDC_AUDIT_SEED").ok().map(|seed| seed.parse().expect("a seed is a number"));
    let seed = asked.unwrap_or_else(|| {
        use std::hash::BuildHasher;
        std::hash::RandomState::new().hash_one("seed") % 1_000_000
    });
    eprintln!("seed: CDC_AUDIT_SEED={seed}");
    seed
}

/// The majors to test against: every one that the program supports in a thorough run, else 15.
pub fn majors() -> Vec<u16> {
    if thorough() { audit_testkit::install::MAJORS.to_vec() } else { vec![15] }
}

/// A file of the repository, by its path from the top.
pub fn repository(path: &str) -> PathBuf {
    // Asked of cargo when it runs the test: a build in a shared folder may be that of another clone.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&here).parent().expect("tests/ lies in the repository").join(path)
}
