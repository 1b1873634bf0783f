//! Measures the daemon against its gates, beside `pg_recvlogical` on the same WAL. `cargo xtask bench` builds and runs it.
//!
//! Every consumer drains a copy of one prepared slot, in alternating order; what counts is the ratio of two runs of the same
//! pair, and of those the median. A pair during which other programs took much of the machine is set aside and repeated.
//! Where the noise is as large as the distance to a gate, more pairs are run.
#![allow(clippy::print_stdout, reason = "a program for a person at a terminal")]

mod cluster;
mod daemon;
mod debezium;
mod indexes;
mod latency;
mod machine;
mod null;
mod pairs;
mod process;
mod protection;
mod questions;
mod report;
mod stages;
mod stats;
mod variant;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cluster::Cluster;
use crate::daemon::Program;
use crate::pairs::Patience;
use crate::report::Report;
use crate::variant::Bench;
use crate::workload::{Kind, Table, Workload};

#[derive(Parser)]
#[command(about = "Measures the daemon against its gates", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// A short run on little data, for a first impression
    #[arg(long)]
    quick: bool,
    /// Measure only these: "W1 A" to "W2 D", "latency", "indexes", "protect", "stages", "questions" (repeatable)
    #[arg(long)]
    only: Vec<String>,
    /// In the workloads measure only these, by the names that the figures have: "lake on S3", "Kafka" (repeatable)
    #[arg(long)]
    variant: Vec<String>,
    /// Pairs of runs for each gate [default: 5; quick: 1]
    #[arg(long)]
    pairs: Option<usize>,
    /// Factor on the number of rows [default: 1; quick: 0.05]
    #[arg(long)]
    scale: Option<f64>,
    /// Versions that questions are put to [default: 1000000; quick: 50000]
    #[arg(long)]
    versions: Option<u64>,
    /// Also run each daemon once under `perf`, and write where its time goes into this folder
    #[arg(long)]
    profile: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Part {
    /// Drain a slot through the daemon's loop with a sink that keeps nothing
    #[command(hide = true)]
    Null(null::Args),
}

/// Rows at full size. More of them where a row is cheap: every run takes some seconds.
const WORKLOADS: [(Table, Kind, u64); 8] = [
    (Table::Narrow, Kind::A, 200_000),
    (Table::Narrow, Kind::B, 600_000),
    (Table::Narrow, Kind::C, 300_000),
    (Table::Narrow, Kind::D, 1_000_000),
    (Table::Wide, Kind::A, 100_000),
    (Table::Wide, Kind::B, 300_000),
    (Table::Wide, Kind::C, 150_000),
    (Table::Wide, Kind::D, 400_000),
];

/// Gates that are still undecided after this stay so.
const TIME: Duration = Duration::from_secs(18 * 60);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.part {
        Some(Part::Null(args)) => null::main(args),
        None => bench(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's own `target`, wherever cargo builds: the benchmark is started at the workspace's top.
fn target() -> PathBuf {
    PathBuf::from("target")
}

fn bench(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let quick = arguments.quick;
    let scale = arguments.scale.unwrap_or(if quick { 0.05 } else { 1.0 });
    let patience =
        Patience { pairs: arguments.pairs.unwrap_or(if quick { 1 } else { 5 }), until: (!quick).then(|| begun + TIME) };
    let rows = |full: u64| ((full as f64 * scale) as u64).max(1000);
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let workloads: Vec<Workload> = WORKLOADS
        .into_iter()
        .map(|(table, kind, full)| Workload { table, kind, rows: rows(full) })
        .filter(|workload| {
            wanted(&workload.to_string())
                || (wanted("indexes") && has_index_costs(workload))
                || (wanted("protect") && has_protection_costs(workload))
        })
        .collect();
    let staged = |table| workloads.iter().filter(|w| w.table == table).map(|w| w.rows).max().unwrap_or(1);

    machine::warn_if_busy();
    let mut report = Report::default();
    let program = Program::new()?;
    if wanted("stages") {
        println!("stages");
        stages::measure(rows(100_000), patience.pairs.min(3), program.folder(), &mut report)?;
    }
    println!("a server, and rows to make workloads from");
    let cluster = Cluster::start(staged(Table::Narrow), staged(Table::Wide))?;
    program.set_up(&cluster)?;
    let bench = Bench::new(cluster, program);
    let machine = machine::describe(&bench)?;
    if wanted("questions") {
        let versions = arguments.versions.unwrap_or(if quick { 50_000 } else { 1_000_000 });
        println!("questions to {versions} versions");
        questions::measure(&bench.cluster, bench.program.folder(), versions, &mut report)?;
    }
    if wanted("latency") {
        println!("latency");
        latency::measure(&bench, if quick { 100 } else { 1000 }, &arguments.variant, &mut report)?;
    }
    for workload in workloads {
        println!("{workload}, {} rows", workload.rows);
        let prepared = workload.prepare(&bench.cluster.server)?;
        if wanted(&workload.to_string()) {
            pairs::measure(&bench, &prepared, &arguments.variant, patience, &mut report)?;
        }
        if wanted("indexes") && has_index_costs(&workload) {
            indexes::measure(&bench, &prepared, patience.pairs.min(3), &mut report)?;
        }
        if wanted("protect") && has_protection_costs(&workload) {
            protection::measure(&bench, &prepared, patience.pairs, &mut report)?;
        }
        if let Some(folder) = &arguments.profile {
            pairs::profile(&bench, &prepared, &arguments.variant, folder)?;
        }
        prepared.drop(&bench.cluster.server)?;
    }
    conclude(&report, &machine, begun)
}

/// Protection is measured where rows are widest and transactions many.
fn has_protection_costs(workload: &Workload) -> bool {
    workload.table == Table::Wide && workload.kind == Kind::B
}

fn has_index_costs(workload: &Workload) -> bool {
    (workload.table, workload.kind) == (Table::Wide, Kind::C)
}

fn conclude(report: &Report, machine: &serde_json::Value, begun: Instant) -> Result<()> {
    report.write(&target(), machine)?;
    println!("\n{}\n\n{machine:#}", report.table());
    let (disturbed, runs) = report.disturbed();
    if disturbed > 0 {
        println!("other programs took much of the machine during {disturbed} of {runs} runs");
    }
    println!(
        "gates missed: {}; {:.0} s; {}",
        report.missed(),
        begun.elapsed().as_secs_f64(),
        target().join("bench.json").display()
    );
    Ok(())
}
