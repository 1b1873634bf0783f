//! Tests what an operator installs (package, systemd unit, image, alert rules, dashboard) with the tools that will read
//! it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod alerts;
mod dashboard;
mod image;
mod manual;
mod package;
mod unit;

use std::process::{Command, Output};

/// Runs a tool to its end and returns whether it succeeded, and everything that it printed.
fn judged(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run `cargo xtask test` to install it"));
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}
