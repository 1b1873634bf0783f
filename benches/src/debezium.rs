//! Debezium beside the daemon: its embedded engine, set for throughput, from the same WAL into the same broker, as JSON without schemas.
//!
//! The engine drains one copy of the slot first, in the same JVM, and what counts is the second: what a process that has run for long does.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use audit_testkit::install;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::daemon::Stream;
use crate::process::{self, Cost};
use crate::workload::{DATABASE, Prepared, drop_slot};

const DRAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/java/Drain.java");

/// What the program says of the drain that counts.
#[derive(Deserialize)]
struct Said {
    seconds: f64,
    cpu_seconds: f64,
}

/// The engine from slots into topics; with 0 `rows` until it is killed.
pub fn engine(
    cluster: &Cluster,
    publication: &str,
    table: &str,
    stream: &Stream,
    rows: u64,
    slots: &[(&str, &str)],
) -> Result<Command> {
    let jars = install::debezium()?;
    let mut command = process::command(Path::new("java"));
    command.args(["-Xmx1g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp"]);
    command.arg(jars.join("*")).arg(DRAIN);
    command.args([
        &cluster.server.port().to_string(),
        DATABASE,
        publication,
        table,
        &stream.brokers,
        &rows.to_string(),
    ]);
    command.args(slots.iter().flat_map(|(slot, topic)| [slot, topic]));
    Ok(command)
}

/// Drains two copies of a slot. `stream_of` makes the stream to the broker for a slot.
pub fn drain(cluster: &Cluster, prepared: &Prepared, stream_of: impl Fn(&str) -> Stream) -> Result<Cost> {
    let (server, rows) = (&cluster.server, prepared.workload.rows);
    let (warm, slot) = (prepared.copy_slot(server)?, prepared.copy_slot(server)?);
    let (first, stream) = (stream_of(&warm), stream_of(&slot));
    let slots = [(warm.as_str(), first.topic()?), (slot.as_str(), stream.topic()?)];
    let slots: Vec<(&str, &str)> = slots.iter().map(|(slot, topic)| (*slot, topic.as_str())).collect();
    let table = prepared.workload.table.name();
    let command = engine(cluster, &prepared.workload.publication(), table, &stream, rows, &slots)?;
    cluster.settle()?;
    let cost = process::measure(command, cluster.postmaster)?;
    let said: Said = serde_json::from_str(cost.output.trim()).context("what the engine says of itself")?;
    let (stored, _) = stream.rows()?;
    ensure!(stored == rows, "Debezium sent {stored} of {rows} rows");
    for slot in [&warm, &slot] {
        drop_slot(server, slot)?;
    }
    // The warm-up is not part of it. Who else worked meanwhile was seen over both drains.
    let share = said.seconds / cost.seconds;
    Ok(Cost {
        seconds: said.seconds,
        cpu_seconds: said.cpu_seconds,
        strangers_cpu_seconds: cost.strangers_cpu_seconds * share,
        walsender_cpu_seconds: cost.walsender_cpu_seconds / 2.0,
        ..cost
    })
}
