//! Measures what a lookup of one key reads: `cargo run --release --example lookup -- [versions] [days] [folder]`.
//!
//! It writes updates of random keys, ten for each, over some days; asks for the history of some keys; compacts; and
//! asks again. If the folder already has a lake, that is not written again. Bytes are what the process has read from
//! files, as the kernel counts it, whether from the page cache or not.
#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, reason = "a measurement")]

#[path = "shop/mod.rs"]
mod shop;

use std::path::Path;
use std::time::{Duration, Instant};

use audit_core::batch::{Batch, Progress, Transaction};
use audit_core::change::{Change, Old, Row};
use audit_core::position::{Lsn, Micros, Position};
use audit_core::protect::{Place, Policy};
use audit_core::sink::{Identity, Sink};
use audit_core::version::version;
use audit_lake::store::Store;
use audit_lake::{Compactor, LakeConfig, LakeReader, LakeSink};
use shop::{NARROW, Random, cells, prose, row, table};

const BATCH: u64 = 5_000;
const TRANSACTION: u64 = 100;
const LOOKUPS: u64 = 20;
const DAY: i64 = 86_400_000_000;
const MEMORY: usize = 128 << 20;
const SOON: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let versions: u64 = arguments.first().map_or(2_000_000, |versions| versions.parse().unwrap());
    let days: u64 = arguments.get(1).map_or(5, |days| days.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let folder = arguments.get(2).map_or(temporary.path(), Path::new);
    let mut config = LakeConfig::at(folder.to_str().unwrap());
    config.listing_readers = false;
    config.compact_within = Duration::from_secs(36_500 * 86_400).into();
    config.grace = Duration::ZERO.into();
    if !folder.join("public.w1").exists() {
        write(&config, versions, days).await;
    }
    roll(&mut config).await;
    let store = Store::open(&config, false).unwrap();
    report("as written", &store, folder, versions).await;
    let from = Instant::now();
    let compactor = Compactor::new(&config, store.clone(), "shop", MEMORY).unwrap();
    let done = compactor.table("public.w1").await.unwrap();
    compactor.sweep().await.unwrap();
    println!("compacted {} files into {} in {:.0} s", done.files, done.into, from.elapsed().as_secs_f64());
    report("compacted", &store, folder, versions).await;
}

async fn write(config: &LakeConfig, versions: u64, days: u64) {
    let mut sink = LakeSink::new("lake", config, 64 << 20).unwrap();
    sink.take(&identity()).await.unwrap();
    sink.begin(Progress { position: Position::new(1, Lsn(0), 0), ..Progress::default() }).await.unwrap();
    let (table, prose, mut random, policy) = (table("w1", &NARROW), prose(), Random(7), Policy::default());
    let (mut values, mut bytes, mut list, mut changed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let keys = (versions / 10).max(1);
    let mut written = 0;
    while written < versions {
        let mut batch = Batch::default();
        for at in written..written + BATCH {
            let lsn = Lsn(0x1000 + (at / TRANSACTION) * 0x10000);
            if at % TRANSACTION == 0 {
                let share = (at as f64 / versions as f64 * days as f64 * DAY as f64) as i64;
                let committed_at = Micros(1_772_323_200_000_000 + share);
                batch.transaction(Transaction { xid: 1, commit_lsn: lsn, committed_at });
            }
            let key = random.below(keys);
            row(false, key, &prose, &mut random, &mut values);
            bytes.clear();
            list.clear();
            cells(&values, &mut bytes, &mut list);
            values[2] = random.below(1_000_000).to_string();
            cells(&values, &mut bytes, &mut list);
            let (old, new) = list.split_at(values.len());
            let change = Change::Update { old: Old::Full(Row::new(&bytes, old)), new: Row::new(&bytes, new) };
            let position = Position::new(1, lsn, (at % TRANSACTION) as u32);
            if let Some(raw) = version(&table, change, &mut changed) {
                policy.seal(&mut batch, &table, &raw, Place { position, lsn }, None).unwrap();
            }
            batch.progress = Progress { position, change_lsn: lsn, flushed_lsn: lsn };
        }
        sink.write(&[&batch]).await.unwrap();
        if sink.due().is_some_and(|due| due <= Instant::now()) {
            sink.flush(false).await.unwrap();
        }
        written += BATCH;
    }
    sink.flush(true).await.unwrap();
}

/// Rolls fresh files, as the daemon would an hour later.
async fn roll(config: &mut LakeConfig) {
    config.roll_age = Duration::ZERO.into();
    let mut sink = LakeSink::new("lake", config, 64 << 20).unwrap();
    let stored = sink.take(&identity()).await.unwrap();
    sink.begin(stored.checkpoint.unwrap().progress()).await.unwrap();
    while sink.due().is_some_and(|due| due < Instant::now() + SOON) {
        sink.flush(false).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn identity() -> Identity {
    Identity { source: "shop".into(), system_id: 1, timeline: 1, timeline_start: Lsn::ZERO }
}

async fn report(what: &str, store: &Store, folder: &Path, versions: u64) {
    let reader = LakeReader::over(store.clone());
    let (files, stored) = data_files(&folder.join("public.w1/data"));
    let (mut random, mut found) = (Random(11), 0);
    let (before, from) = (bytes_read(), Instant::now());
    for _ in 0..LOOKUPS {
        let key = random.below((versions / 10).max(1)).to_string();
        found += reader.history("shop", "public.w1", &key, 1000).await.unwrap().len();
    }
    let read = (bytes_read() - before) / LOOKUPS;
    println!(
        "{what}: {versions} versions in {files} files, {stored} B; a lookup finds {:.1} versions, reads {read} B ({:.3} %), takes {:.0} ms",
        found as f64 / LOOKUPS as f64,
        read as f64 / stored as f64 * 100.0,
        from.elapsed().as_millis() as f64 / LOOKUPS as f64,
    );
}

fn data_files(folder: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let (files, bytes) = if path.is_dir() { data_files(&path) } else { (1, path.metadata().unwrap().len()) };
        sum = (sum.0 + files, sum.1 + bytes);
    }
    sum
}

/// Bytes that this process has read so far.
fn bytes_read() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}
