//! Where and with what was measured.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use crate::variant::Bench;

/// Above this load the machine does something else too.
const QUIET: f64 = 0.7;

pub fn describe(bench: &Bench) -> Result<Value> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().to_owned()
    };
    Ok(json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_at_start": load(),
        "cdc_audit": bench.program.version()?,
        "postgresql": bench.cluster.sql("postgres", "SELECT version();")?,
        "pg_recvlogical": said(&crate::cluster::pg_recvlogical()?.display().to_string(), "--version"),
        "rustc": said("rustc", "--version"),
    }))
}

/// Processes that run or wait to, of the last minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Says so where somebody else uses the machine.
pub fn warn_if_busy() {
    if load() > QUIET {
        println!("warning: the load is {:.1}: the machine is not quiet, and ratios say little", load());
    }
}
