//! The stages alone, on messages made in memory: decode, then decode to protected batch, in nanoseconds a row.
//!
//! `cargo run --release -p cdc-audit-benches --bin stages [ROWS]`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use audit_core::position::Lsn;
use audit_core::protect::Policy;
use audit_core::rules::Rules;
use audit_pgoutput::{Scratch, decode};
use audit_pipeline::continuity::{Server, judge};
use audit_pipeline::stage::{Stage, StageConfig};

/// Transactions hold this many rows.
const TRANSACTION: u64 = 100;

struct Workload {
    name: &'static str,
    types: &'static [u32],
    full: bool,
    row: fn(u64) -> Vec<String>,
}

fn narrow(i: u64) -> Vec<String> {
    vec![
        i.to_string(),
        (i % 100).to_string(),
        (i * 7919 % 1_000_000).to_string(),
        "2026-03-01 09:30:00.123456+00".into(),
        "x".repeat(60),
    ]
}

fn wide(i: u64) -> Vec<String> {
    let mut row = narrow(i);
    row.extend((0..14).map(|c| format!("{:0>16}", i * 31 + c)));
    row.push(format!("{} {}", "lorem ipsum dolor sit amet ".repeat(18), i));
    row
}

const WORKLOADS: &[Workload] = &[
    Workload { name: "narrow insert", types: &[20, 23, 23, 1184, 25], full: false, row: narrow },
    Workload {
        name: "wide insert",
        types: &[20, 23, 23, 1184, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25],
        full: false,
        row: wide,
    },
    Workload {
        name: "wide update, full",
        types: &[20, 23, 23, 1184, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25],
        full: true,
        row: wide,
    },
];

fn relation(workload: &Workload) -> Vec<u8> {
    let mut out = b"R\0\0\0\x05public\0t\0".to_vec();
    out.push(if workload.full { b'f' } else { b'd' });
    out.extend((workload.types.len() as u16).to_be_bytes());
    for (i, oid) in workload.types.iter().enumerate() {
        out.push(u8::from(workload.full || i == 0));
        out.extend(format!("c{i}\0").bytes());
        out.extend(oid.to_be_bytes());
        out.extend((-1i32).to_be_bytes());
    }
    out
}

fn tuple(out: &mut Vec<u8>, row: &[String]) {
    out.extend((row.len() as u16).to_be_bytes());
    for value in row {
        out.push(b't');
        out.extend((value.len() as u32).to_be_bytes());
        out.extend(value.bytes());
    }
}

fn messages(workload: &Workload, rows: u64) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for i in 0..rows {
        let lsn = (i / TRANSACTION + 1) * 8192;
        if i % TRANSACTION == 0 {
            out.push([b"B".as_slice(), &lsn.to_be_bytes(), &0u64.to_be_bytes(), &7u32.to_be_bytes()].concat());
        }
        if i == 0 {
            out.push(relation(workload));
        }
        let mut row = (workload.row)(i);
        let mut message = if workload.full { b"U\0\0\0\x05O".to_vec() } else { b"I\0\0\0\x05N".to_vec() };
        tuple(&mut message, &row);
        if workload.full {
            row[2] = "42".into();
            message.push(b'N');
            tuple(&mut message, &row);
        }
        out.push(message);
        if i % TRANSACTION == TRANSACTION - 1 {
            out.push([b"C\0".as_slice(), &lsn.to_be_bytes(), &(lsn + 8).to_be_bytes(), &0u64.to_be_bytes()].concat());
        }
    }
    out
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows: u64 = std::env::args().nth(1).map_or(Ok(100_000), |n| n.parse())?;
    for workload in WORKLOADS {
        let messages = messages(workload, rows);
        let bytes: usize = messages.iter().map(Vec::len).sum();
        let mut scratch = Scratch::default();
        let since = Instant::now();
        for message in &messages {
            black_box(decode(message, &mut scratch)?);
        }
        let decoded = since.elapsed();
        let server =
            Server { system_id: 1, timeline: 1, forks: Vec::new(), wal_end: Lsn(1 << 40), slot_start: Lsn::ZERO };
        let mut stage = Stage::new(StageConfig {
            rules: Rules::default(),
            policy: Policy::default(),
            verdict: judge(&server, &[(Arc::from("none"), None)]),
            shapes: Vec::new(),
            checks: Vec::new(),
            quarantined: Default::default(),
        });
        let mut versions = 0;
        let since = Instant::now();
        for (i, message) in messages.iter().enumerate() {
            if let Some(relation) = stage.message(message, Lsn(i as u64))? {
                stage.describe(&relation, None)?;
            }
            if stage.batch_bytes() > 1 << 20 {
                versions += black_box(stage.take_batch()).len();
            }
        }
        versions += stage.take_batch().len();
        let staged = since.elapsed();
        assert_eq!(versions as u64, rows);
        let per_row = |d: std::time::Duration| d.as_nanos() as u64 / rows;
        println!(
            "{:<18} {:>5} B/row   decode {:>5} ns   decode to protected batch {:>5} ns",
            workload.name,
            bytes as u64 / rows,
            per_row(decoded),
            per_row(staged)
        );
    }
    Ok(())
}
