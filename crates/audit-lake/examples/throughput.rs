//! How fast the lake takes versions in: `cargo run --release -p audit-lake --example throughput -- [narrow|wide] [rows] [insert|update]
//! [disk|s3]`.
//!
//! Rows look like those of a shop: texts like prose, repeated words, numbers, a JSON document. Only the sink is timed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_core::batch::{Batch, Progress, Transaction};
use audit_core::change::{Cell, Change, Old, Row};
use audit_core::position::{Lsn, Micros, Position};
use audit_core::protect::{Place, Policy};
use audit_core::rules::Rules;
use audit_core::shape::{KeySource, Shape, ShapeColumn, TableName};
use audit_core::sink::{Identity, Sink};
use audit_core::table::Table;
use audit_core::version::version;
use audit_lake::{LakeConfig, LakeSink};
use audit_testkit::{ObjectKind, ObjectServer};

const BATCH: u32 = 2_000;
const TRANSACTION: u32 = 100;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn table(name: &str, columns: &[(&str, &str)]) -> Arc<Table> {
    let column = |(name, kind): &(&str, &str)| ShapeColumn {
        name: (*name).into(),
        type_oid: 0,
        typmod: -1,
        type_name: (*kind).into(),
        kind: kind.parse().unwrap(),
        attnum: None,
        in_identity: true,
    };
    let shape = Shape {
        schema: "public".into(),
        table: name.into(),
        schema_version: 1,
        digest: "d".into(),
        first: Position::default(),
        columns: columns.iter().map(column).collect(),
        key: vec!["id".into()],
        key_source: KeySource::Catalog,
        whole_old_rows: true,
    };
    let rules = Rules::default().for_table(&TableName::new("public", name));
    Arc::new(Table::new(Arc::new(shape), &rules, false).unwrap())
}

const NARROW: [(&str, &str); 5] =
    [("id", "int8"), ("bid", "int4"), ("abalance", "int4"), ("mtime", "timestamptz"), ("filler", "text")];

const WIDE: [(&str, &str); 20] = [
    ("id", "int8"),
    ("account_id", "uuid"),
    ("email", "text"),
    ("full_name", "text"),
    ("status", "text"),
    ("amount", "numeric(18,4)"),
    ("balance", "numeric(18,4)"),
    ("tax", "numeric(10,4)"),
    ("currency", "text"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
    ("due_date", "date"),
    ("is_active", "bool"),
    ("retries", "int4"),
    ("score", "float8"),
    ("attrs", "jsonb"),
    ("address", "text"),
    ("note", "text"),
    ("ref", "uuid"),
    ("version", "int4"),
];

/// Words like prose, sliced as the measured table's are.
fn prose() -> String {
    let mut random = Random(42);
    let words: Vec<String> =
        (0..4000).map(|i| (0..3 + i % 8).map(|_| (b'a' + random.below(26) as u8) as char).collect()).collect();
    (0..8000).map(|_| format!("{} ", words[random.below(4000) as usize])).collect()
}

fn slice<'p>(prose: &'p str, random: &mut Random, len: usize) -> &'p str {
    let at = random.below((prose.len() - len) as u64) as usize;
    &prose[at..at + len]
}

fn uuid(random: &mut Random) -> String {
    let (a, b) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a as u16,
        b as u16 & 0xfff,
        (b >> 16) as u16 & 0xfff,
        b >> 16
    )
}

fn time(random: &mut Random, span: u64) -> String {
    let at = Micros(1_772_323_200_000_000 - (random.below(span * 1_000_000)) as i64).to_string();
    format!("{} {}+00", &at[..10], &at[11..26])
}

fn row(wide: bool, id: u64, prose: &str, random: &mut Random, out: &mut Vec<String>) {
    out.clear();
    out.push(id.to_string());
    if !wide {
        out.extend([(id % 100).to_string(), random.below(1_000_000).to_string(), time(random, 100_000)]);
        out.push((0..4).map(|_| format!("{:016x}", random.next())).collect::<String>()[..60].to_string());
        return;
    }
    let pick = |list: &[&str], at: u64| list[at as usize % list.len()].to_string();
    out.push(uuid(random));
    out.push(format!("user{}@example{}.com", random.below(500_000), id % 40));
    out.push(slice(prose, random, 16).to_string());
    out.push(pick(&["new", "paid", "shipped", "delivered", "cancelled", "returned"], id));
    for digits in [10_000, 1_000_000, 100] {
        out.push(format!("{}.{:04}", random.below(digits), random.below(10_000)));
    }
    out.push(pick(&["EUR", "USD", "GBP", "CHF", "JPY"], id));
    out.extend([time(random, 86_400_000), time(random, 86_400)]);
    out.push(time(random, 60_000_000)[..10].to_string());
    out.push(if id.is_multiple_of(2) { "t" } else { "f" }.to_string());
    out.push((id % 5).to_string());
    out.push((random.below(1 << 50) as f64 / 1e12).to_string());
    let mut doc = String::new();
    let _ = write!(
        doc,
        "{{\"plan\": \"p{}\", \"tags\": [\"t{}\", \"t{}\"], \"flags\": {{\"vip\": {}, \"beta\": {}}}, \"limits\": {{\"cpu\": {}, \"mem\": {}}}, \"source\": \"{:016x}{:08x}\", \"comment\": \"{}\"}}",
        id % 9,
        id % 50,
        id % 37,
        id.is_multiple_of(3),
        id.is_multiple_of(2),
        id % 64,
        id % 4096,
        random.next(),
        random.next() as u32,
        slice(prose, random, 70)
    );
    out.push(doc);
    out.push(format!("{} {}", id % 999, slice(prose, random, 60)));
    out.push(slice(prose, random, 330).to_string());
    out.push(uuid(random));
    out.push((id % 40).to_string());
}

fn cells(values: &[String], bytes: &mut Vec<u8>, cells: &mut Vec<Cell>) {
    for value in values {
        cells.push(Cell::text(bytes.len(), value.len()));
        bytes.extend_from_slice(value.as_bytes());
    }
}

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
    sink.take(&Identity { source: "shop".into(), system_id: 1, timeline: 1 }).await.unwrap();
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
