//! Runs commands for a person who watches: each is shown before, and timed after.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::times::{Times, about};

/// Does one part of a chore. Before it prints how long the part took the last time, and after it how long it took now,
/// even if it failed.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let times = Times::of("steps");
    match times.get(name) {
        Some(seconds) => println!("==> {name} (the last time it took {})", about(seconds)),
        None => println!("==> {name}"),
    }
    let begun = Instant::now();
    let result = work();
    let seconds = begun.elapsed().as_secs_f64();
    let outcome = if result.is_ok() { "done" } else { "FAILED" };
    println!("==> {name}: {outcome} in {seconds:.1} s");
    if result.is_ok() {
        times.note([(name, seconds)])?;
    }
    result.with_context(|| format!("{name} failed"))
}

/// Runs a command that shares our output.
pub fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!(
            "{} ended with {}: {}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(output.stdout)
}

/// Tells whether a command runs and succeeds; its output is not shown.
pub fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Writes a command as a person would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
