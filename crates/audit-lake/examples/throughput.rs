//! Measures how fast the lake takes in versions:
//! `cargo run --release -p audit-lake --example throughput -- [narrow|wide] [rows] [insert|update] [disk|s3]`.
//!
//! Only the sink is timed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

#[path = "shop/mod.rs"]
mod shop;

use std::time::{Duration, Instant};

use audit_core::batch::{Batch, Progress, Transaction};
use audit_core::change::{Change, Old, Row};
use audit_core::position::{Lsn, Micros, Position};
use audit_core::protect::{Place, Policy};
use audit_core::sink::{Identity, Sink};
use audit_core::version::version;
use audit_lake::{LakeConfig, LakeSink};
use audit_testkit::{ObjectKind, ObjectServer};
use shop::{NARROW, Random, WIDE, cells, prose, row, table};

const BATCH: u32 = 2_000;
const TRANSACTION: u32 = 100;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wide = arguments.first().is_none_or(|kind| kind == "wide");
    let rows: u64 = arguments.get(1).map_or(1_000_000, |rows| rows.parse().unwrap());
    let update = arguments.get(2).is_some_and(|kind| kind == "update");
    let temporary = tempfile::tempdir().unwrap();
    let (mut folder, mut config) = (temporary.path().to_path_buf(), LakeConfig::at(temporary.path().to_str().unwrap()));
    let s3 = arguments.get(3).is_some_and(|place| place == "s3").then(|| ObjectServer::start(ObjectKind::S3));
    if let Some(server) = &s3 {
        folder = server.folder("lake");
        let keys = server.lake("lake", server.port());
        config = audit_config::parse(std::path::Path::new("lake.toml"), &keys, |_: &LakeConfig, _| {}).unwrap();
    }
    let table = if wide { table("w2", &WIDE) } else { table("w1", &NARROW) };
    let mut sink = LakeSink::new("lake", &config, 64 << 20).unwrap();
    sink.take(&Identity { source: "shop".into(), system_id: 1, timeline: 1, timeline_start: Lsn::ZERO }).await.unwrap();
    sink.begin(Progress { position: Position::new(1, Lsn(0), 0), ..Progress::default() }).await.unwrap();

    let (prose, mut random, policy) = (prose(), Random(7), Policy::default());
    let (mut taken, mut received, mut id) = (Duration::ZERO, 0, 0u64);
    let (mut values, mut bytes, mut list, mut changed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    while id < rows {
        let mut batch = Batch::default();
        for in_batch in 0..BATCH {
            let lsn = Lsn(0x1000 + (id / u64::from(TRANSACTION)) * 0x10000);
            if in_batch % TRANSACTION == 0 {
                batch.transaction(Transaction {
                    xid: 1,
                    commit_lsn: lsn,
                    committed_at: Micros(1_772_323_200_000_000 + id as i64),
                });
            }
            row(wide, id, &prose, &mut random, &mut values);
            bytes.clear();
            list.clear();
            cells(&values, &mut bytes, &mut list);
            if update {
                let at = if wide { 4 } else { 2 };
                values[at] = random.below(1000).to_string();
                cells(&values, &mut bytes, &mut list);
            }
            received += bytes.len();
            let (old, new) = list.split_at(values.len());
            let change = if update {
                Change::Update { old: Old::Full(Row::new(&bytes, old)), new: Row::new(&bytes, new) }
            } else {
                Change::Insert { new: Row::new(&bytes, old) }
            };
            let position = Position::new(1, lsn, in_batch % TRANSACTION);
            let raw = version(&table, change, &mut changed).unwrap();
            policy.seal(&mut batch, &table, &raw, Place { position, lsn }, None).unwrap();
            batch.progress = Progress { position, change_lsn: lsn, flushed_lsn: lsn };
            id += 1;
        }
        let from = Instant::now();
        sink.write(&[&batch]).await.unwrap();
        taken += from.elapsed();
    }
    let from = Instant::now();
    sink.flush(true).await.unwrap();
    taken += from.elapsed();
    let size: u64 = size_of_folder(&folder);
    println!(
        "{} {}: {rows} rows, {} B a row, {:.0} rows/s, {:.2} µs a row, {} B a row on disk, peak {} MB",
        if wide { "wide" } else { "narrow" },
        if update { "updates" } else { "inserts" },
        received as u64 / rows,
        rows as f64 / taken.as_secs_f64(),
        taken.as_secs_f64() * 1e6 / rows as f64,
        size / rows,
        peak_kib() / 1024
    );
}

fn size_of_folder(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { size_of_folder(&path) } else { path.metadata().unwrap().len() }).sum()
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
