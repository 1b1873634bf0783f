//! What the tests of the whole program share. The tests themselves: `e2e/` (the daemon between real servers), `kill/`
//! (the same, killed), `cli/` (what commands print), `readers/` (other engines over the lake), `deploy/` (what an
//! operator installs).
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

/// Whether tests may take long: set by `cargo xtask test --all`. A test that would take minutes does less without it; it
/// is never left out.
pub fn thorough() -> bool {
    std::env::var_os("CDC_AUDIT_TEST_ALL").is_some_and(|value| !value.is_empty() && value != "0")
}

/// How often the daemon is killed: by `cargo xtask kill-rounds N`, else many times in a thorough run and few in others.
pub fn kill_rounds() -> u32 {
    let asked = std::env::var("CDC_AUDIT_KILL_ROUNDS").ok().map(|rounds| rounds.parse().expect("a number of rounds"));
    asked.unwrap_or(if thorough() { 200 } else { 12 })
}

/// A file of the repository, by its path from the top.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").join(path)
}
