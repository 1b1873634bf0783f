//! Measures what the hot table costs, on its own server: each index, and the sink compared with a bare binary COPY of
//! the same rows.
//!
//! Run it with `cargo run --release -p audit-hot --example measure -- [ROWS]`. The wide table is the one that the
//! project's limits assume: 20 columns, about 980 bytes per row.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use audit_core::batch::{Batch, Progress, Transaction};
use audit_core::change::{Cell, Change, Old, Row};
use audit_core::context::Context;
use audit_core::position::{Lsn, Micros, Position};
use audit_core::protect::{Place, Policy};
use audit_core::rules::Rules;
use audit_core::shape::{CatalogColumn, CatalogTable, History, Identity, Relation, RelationColumn, TableName};
use audit_core::sink::{self, Sink};
use audit_core::table::Table;
use audit_core::value::Kind;
use audit_core::version::version;
use audit_hot::{Encoder, FIELD_MAX, HotConfig, HotSink, SetupOptions, setup_statements};
use audit_testkit::Postgres;
use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::{Client, SimpleQueryMessage};

const WIDE: &str = "id bigint PRIMARY KEY, account_id uuid, email text, full_name text, status text, amount numeric(18,4), \
    balance numeric(18,4), tax numeric(10,4), currency text, created_at timestamptz, updated_at timestamptz, due_date date, \
    is_active boolean, retries int, score double precision, attrs jsonb, address text, note text, ref uuid, version int";

const FILL: &str = "INSERT INTO w2 SELECT i, gen_random_uuid(), 'user' || (random()*5e5)::int || '@example' || (i % 40) || '.com', \
    substr(t, 1 + (random()*20000)::int, 16), (ARRAY['new','paid','shipped','delivered','cancelled','returned'])[1 + i % 6], \
    (random()*1e4)::numeric(18,4), (random()*1e6)::numeric(18,4), (random()*100)::numeric(10,4), \
    (ARRAY['EUR','USD','GBP','CHF','JPY'])[1 + i % 5], now() - random() * interval '1000 days', now() - random() * interval '1 day', \
    current_date + (i % 700)::int, i % 2 = 0, (i % 5)::int, random()*1000, \
    jsonb_build_object('plan', 'p' || i % 9, 'tags', jsonb_build_array('t' || i % 50, 't' || i % 37), \
      'flags', jsonb_build_object('beta', i % 2 = 0, 'vip', i % 3 = 0), 'limits', jsonb_build_object('cpu', i % 64, 'mem', i % 4096), \
      'source', substr(md5(i::text), 1, 24), 'comment', substr(t, 1 + (random()*20000)::int, 70)), \
    (i % 999) || ' ' || substr(t, 1 + (random()*20000)::int, 60), substr(t, 1 + (random()*20000)::int, 330), gen_random_uuid(), \
    (i % 40)::int FROM generate_series(1, ROWS) i, \
    (SELECT string_agg(substr(translate(md5(k::text), '0123456789', 'ghijklmnop'), 1, 3 + k % 8), ' ' ORDER BY md5(k::text)) AS t \
     FROM generate_series(1, 4000) k) prose";

type Raw = Vec<(Vec<u8>, Vec<Cell>)>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let rows: usize = std::env::args().nth(1).map_or(100_000, |rows| rows.parse().unwrap());
    let mut builder = Postgres::builder(15);
    for (name, value) in
        [("fsync", "on"), ("shared_buffers", "1GB"), ("max_wal_size", "8GB"), ("checkpoint_timeout", "1h")]
    {
        builder = builder.setting(name, value);
    }
    let server = builder.start();
    let client = server.client("postgres").await;
    let (table, raw) = source(&client, rows).await;
    let options = SetupOptions { source: "bench".into(), sinks: vec!["hot".into()], ..SetupOptions::default() };
    for statement in setup_statements(&options) {
        client.batch_execute(&statement.sql).await.unwrap();
    }
    client.batch_execute("SELECT cdc_audit.ensure_partition(NULL, '2026-03-01')").await.unwrap();
    for (name, batches) in [("inserts", batches(&table, &raw, false)), ("updates", batches(&table, &raw, true))] {
        println!("\n{name}: {rows} rows");
        let encoded = encode(&batches);
        one_by_one(&server, &client, &batches[0]).await;
        compare(&server, &client, &batches, &encoded).await;
        if std::env::var_os("INDEXES").is_some() {
            indexes(&client, &encoded, rows).await;
        }
    }
}

/// The rows as the stream would send them, and their table.
async fn source(client: &Client, rows: usize) -> (Arc<Table>, Raw) {
    client.batch_execute(&format!("SELECT setseed(0.42); CREATE UNLOGGED TABLE w2 ({WIDE})")).await.unwrap();
    client.batch_execute(&FILL.replace("ROWS", &rows.to_string())).await.unwrap();
    let columns = client
        .query(
            "SELECT attname::text, attnum, atttypid, atttypmod, format_type(atttypid, atttypmod) FROM pg_attribute \
             WHERE attrelid = 'w2'::regclass AND attnum > 0",
            &[],
        )
        .await
        .unwrap();
    let columns: Vec<CatalogColumn> = columns
        .iter()
        .map(|row| {
            let (type_oid, typmod) = (row.get(2), row.get(3));
            let kind = Kind::of(type_oid, typmod).unwrap();
            CatalogColumn {
                name: row.get(0),
                attnum: row.get(1),
                type_oid,
                typmod,
                type_name: row.get(4),
                holds: Vec::new(),
                kind,
                published: true,
            }
        })
        .collect();
    let relation = Relation {
        oid: 1,
        name: TableName::new("public", "w2"),
        identity: Identity::Full,
        columns: columns
            .iter()
            .map(|c| RelationColumn { name: c.name.clone(), type_oid: c.type_oid, typmod: c.typmod, in_identity: true })
            .collect(),
    };
    let count = columns.len();
    let catalog = CatalogTable { oid: 1, columns, primary_key: vec![1], types: Vec::new() };
    let shape = History::default().add(&relation, Some(&catalog), Position::default());
    let table = Table::new(shape, &Rules::default().for_table(&relation.name), false).unwrap();
    let mut raw = Vec::new();
    for message in client.simple_query("SELECT * FROM w2 ORDER BY id").await.unwrap() {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let (mut bytes, mut cells) = (Vec::new(), Vec::new());
        for column in 0..count {
            let value = row.get(column).unwrap();
            cells.push(Cell::text(bytes.len(), value.len()));
            bytes.extend_from_slice(value.as_bytes());
        }
        raw.push((bytes, cells));
    }
    (Arc::new(table), raw)
}

/// Makes transactions of 100 rows, ten to a batch.
fn batches(table: &Arc<Table>, raw: &Raw, updates: bool) -> Vec<Batch> {
    let policy = Policy::default();
    let mut changed = Vec::new();
    let mut lsn = 0x100_0000;
    let mut list = Vec::new();
    for thousand in raw.chunks(1_000) {
        let mut batch = Batch::default();
        for hundred in thousand.chunks(100) {
            let actor = format!("app_{}", lsn / 100_000 % 20);
            let json = format!("{{\"actor_id\": \"{actor}\"}}");
            let context = Arc::new(Context { json, actor_id: Some(actor), ..Context::default() });
            let context = std::env::var_os("ACTORS").map(|_| &context);
            lsn += 100_000;
            let committed_at = Micros(1_772_323_200_000_000 + lsn as i64);
            batch.transaction(Transaction { xid: 1_000 + (lsn >> 10) as u32, commit_lsn: Lsn(lsn), committed_at });
            for (seq, (bytes, cells)) in hundred.iter().enumerate() {
                let old = Row::new(bytes, cells);
                let (new_bytes, new_cells) = if updates { touched(bytes, cells) } else { (Vec::new(), Vec::new()) };
                let new = Row::new(&new_bytes, &new_cells);
                let change =
                    if updates { Change::Update { old: Old::Full(old), new } } else { Change::Insert { new: old } };
                let place = Place { position: Position::new(1, Lsn(lsn), seq as u32), lsn: Lsn(lsn + 8 * seq as u64) };
                let raw = version(table, change, &mut changed).unwrap();
                policy.seal(&mut batch, table, &raw, place, context).unwrap();
                batch.progress = Progress { position: place.position, change_lsn: place.lsn, flushed_lsn: Lsn(lsn) };
            }
        }
        list.push(batch);
    }
    list
}

/// Returns a row whose amount, updated_at and version have other values.
fn touched(bytes: &[u8], cells: &[Cell]) -> (Vec<u8>, Vec<Cell>) {
    let (mut new_bytes, mut new_cells) = (Vec::new(), Vec::new());
    for (i, cell) in cells.iter().enumerate() {
        let value = cell.get(bytes).text().unwrap();
        let start = new_bytes.len();
        new_bytes.extend_from_slice(value);
        match i {
            5 | 19 => new_bytes.insert(start, b'1'),
            10 => new_bytes[start] = b'3',
            _ => {}
        }
        new_cells.push(Cell::text(start, new_bytes.len() - start));
    }
    (new_bytes, new_cells)
}

/// The stream of a bare COPY: all rows, already encoded.
fn encode(batches: &[Batch]) -> Bytes {
    let mut encoder = Encoder {
        source: "bench",
        recorded_at: Micros(1_772_323_200_000_000),
        keep: &[],
        field_max: FIELD_MAX,
        too_large: 0,
    };
    let mut out = Vec::new();
    for round in 0..2 {
        out.clear();
        let begun = Span::of(std::process::id());
        Encoder::header(&mut out);
        batches.iter().flat_map(Batch::versions).for_each(|version| encoder.row(&mut out, &version));
        Encoder::trailer(&mut out);
        if round == 1 {
            let rows = batches.iter().map(Batch::len).sum::<usize>();
            let micros = begun.cpu_micros() / rows as f64;
            println!("encoding alone: {micros:.2} µs of CPU a row, {} bytes a row", out.len() / rows);
        }
    }
    out.into()
}

/// Time and CPU time of a process since a given moment.
struct Span {
    pid: u32,
    begun: Instant,
    cpu: f64,
}

impl Span {
    fn of(pid: u32) -> Span {
        Span { pid, begun: Instant::now(), cpu: cpu_micros(pid) }
    }

    fn cpu_micros(&self) -> f64 {
        cpu_micros(self.pid) - self.cpu
    }
}

/// User and system time of a process in microseconds: the sum of what the scheduler counted for each of its threads.
fn cpu_micros(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanos = |thread: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0)
    };
    threads.map(nanos).sum::<f64>() / 1e3
}

/// Writes with a bare COPY. Returns the seconds, and the server's CPU time in microseconds.
async fn bare(client: &Client, encoded: &Bytes) -> (f64, f64) {
    empty(client).await;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let begun = Span::of(pid as u32);
    let copy = client.copy_in("COPY cdc_audit.versions FROM STDIN (FORMAT binary)").await.unwrap();
    let mut copy = Box::pin(copy);
    let mut left = encoded.clone();
    while !left.is_empty() {
        copy.feed(left.split_to(left.len().min(128 << 10))).await.unwrap();
    }
    copy.as_mut().finish().await.unwrap();
    (begun.begun.elapsed().as_secs_f64(), begun.cpu_micros())
}

async fn empty(client: &Client) {
    client
        .batch_execute("TRUNCATE cdc_audit.versions; UPDATE cdc_audit.checkpoints SET position = NULL")
        .await
        .unwrap();
    client.batch_execute("CHECKPOINT").await.unwrap();
}

/// Measures the latency of writing one version after the other.
async fn one_by_one(server: &Postgres, client: &Client, batch: &Batch) {
    empty(client).await;
    let mut sink = HotSink::new("hot", &HotConfig { batch_rows: 1, ..HotConfig::new(server.url("postgres")) });
    sink.take(&sink::Identity { source: "bench".into(), system_id: 1, timeline: 1, timeline_start: Lsn::ZERO })
        .await
        .unwrap();
    sink.begin(Progress::default()).await.unwrap();
    let begun = Instant::now();
    // Each version becomes its own transaction.
    sink.write(&[batch]).await.unwrap();
    println!(
        "one version a transaction: {:.2} ms on average",
        begun.elapsed().as_secs_f64() * 1e3 / batch.len() as f64
    );
}

/// Compares the sink with the bare COPY, alternating between them.
async fn compare(server: &Postgres, client: &Client, batches: &[Batch], encoded: &Bytes) {
    let rows = batches.iter().map(Batch::len).sum::<usize>() as f64;
    let (mut ratios, mut cpu, mut line) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..5 {
        let (bare, bare_cpu) = bare(client, encoded).await;
        empty(client).await;
        let mib = std::env::var("BATCH_MIB").ok().and_then(|mib| mib.parse().ok());
        let usual = HotConfig::new(server.url("postgres"));
        let batch_bytes = mib.map_or(usual.batch_bytes, audit_config::ByteSize::mib);
        let mut sink = HotSink::new("hot", &HotConfig { batch_bytes, ..usual });
        sink.take(&sink::Identity { source: "bench".into(), system_id: 1, timeline: 1, timeline_start: Lsn::ZERO })
            .await
            .unwrap();
        sink.begin(Progress::default()).await.unwrap();
        let pid = "SELECT pid FROM pg_stat_activity WHERE application_name = 'cdc-audit hot' ORDER BY backend_start DESC LIMIT 1";
        let pid: i32 = client.query_one(pid, &[]).await.unwrap().get(0);
        let (begun, server) = (Span::of(std::process::id()), Span::of(pid as u32));
        for some in batches.chunks(mib.map_or(8, |_| 64)) {
            let some: Vec<&Batch> = some.iter().collect();
            sink.write(&some).await.unwrap();
        }
        let ours = begun.begun.elapsed().as_secs_f64();
        ratios.push(bare / ours);
        write!(line, " {:.0}k/{:.0}k", rows / ours / 1e3, rows / bare / 1e3).unwrap();
        cpu.push([begun.cpu_micros() / rows, server.cpu_micros() / rows, bare_cpu / rows]);
    }
    ratios.sort_by(f64::total_cmp);
    println!("sink / bare COPY, rows a second:{line}; median ratio {:.2}", ratios[2]);
    let median = |which: usize| {
        let mut all: Vec<f64> = cpu.iter().map(|cpu| cpu[which]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    println!(
        "µs of CPU a row: sink {:.2}, its server process {:.2}; server process of the bare COPY {:.2}",
        median(0),
        median(1),
        median(2)
    );
}

/// Runs the bare COPY with different sets of indexes, in turn; the table is left as it was.
async fn indexes(client: &Client, encoded: &Bytes, rows: usize) {
    let all = ["versions_key", "versions_old_key", "versions_actor", "versions_table_at", "versions_place"];
    let definitions: Vec<String> = {
        let query = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'cdc_audit' AND tablename = 'versions' AND indexname = ANY ($1)";
        client
            .query(query, &[&all.as_slice()])
            .await
            .unwrap()
            .iter()
            .map(|row| row.get::<_, String>(0).replace(" ON ONLY ", " ON "))
            .collect()
    };
    let sets: Vec<(&str, Vec<String>)> = vec![
        ("no index", vec![]),
        ("key only", find(&definitions, &["versions_key"])),
        ("old_key only", find(&definitions, &["versions_old_key"])),
        ("actor only", find(&definitions, &["versions_actor"])),
        ("table and time only", find(&definitions, &["versions_table_at"])),
        ("place only", find(&definitions, &["versions_place"])),
        ("all five, as set up", definitions.clone()),
        (
            "and unique (source, position, committed_at)",
            [
                definitions.clone(),
                vec!["CREATE UNIQUE INDEX extra ON cdc_audit.versions (source, position, committed_at)".into()],
            ]
            .concat(),
        ),
        (
            "and GIN on changes",
            [
                definitions.clone(),
                vec!["CREATE INDEX extra ON cdc_audit.versions USING gin (changes jsonb_path_ops)".into()],
            ]
            .concat(),
        ),
    ];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); sets.len()];
    let mut sizes = vec![0i64; sets.len()];
    for _ in 0..3 {
        for (i, (_, definitions)) in sets.iter().enumerate() {
            drop_indexes(client).await;
            client.batch_execute("TRUNCATE cdc_audit.versions").await.unwrap();
            for definition in definitions {
                client.batch_execute(definition).await.unwrap();
            }
            times[i].push(bare(client, encoded).await.1 / 1e6);
            let size = "SELECT sum(pg_indexes_size(relid))::bigint FROM pg_partition_tree('cdc_audit.versions')";
            sizes[i] = client.query_one(size, &[]).await.unwrap().get(0);
        }
    }
    drop_indexes(client).await;
    client.batch_execute("TRUNCATE cdc_audit.versions").await.unwrap();
    for definition in &definitions {
        client.batch_execute(definition).await.unwrap();
    }
    for ((name, _), (mut times, size)) in sets.iter().zip(times.into_iter().zip(sizes)) {
        times.sort_by(f64::total_cmp);
        let micros = times[1] * 1e6 / rows as f64;
        println!(
            "{name:45} {:6.0}k rows/s at most  {micros:6.2} µs of CPU a row  {:4} bytes of index a row",
            rows as f64 / times[1] / 1e3,
            size / rows as i64
        );
    }
}

fn find(definitions: &[String], names: &[&str]) -> Vec<String> {
    let named = |definition: &&String| names.iter().any(|name| definition.contains(&format!(" {name} ")));
    definitions.iter().filter(named).cloned().collect()
}

async fn drop_indexes(client: &Client) {
    let all = "DO $$ DECLARE i text; BEGIN FOR i IN SELECT indexname FROM pg_indexes WHERE schemaname = 'cdc_audit' \
        AND tablename = 'versions' LOOP EXECUTE format('DROP INDEX cdc_audit.%I', i); END LOOP; END $$";
    client.batch_execute(all).await.unwrap();
}
