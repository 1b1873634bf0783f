//! The stages alone, on messages made in memory, in nanoseconds a row: decoding, decoding to protected batch, and what each
//! sink makes of such a batch.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use audit_core::batch::{Batch, Progress};
use audit_core::context::Contexts;
use audit_core::position::{Lsn, Micros, Position};
use audit_core::protect::Policy;
use audit_core::quarantine::Quarantine;
use audit_core::rules::{FormerNames, Rules};
use audit_core::sink::{Identity, Sink};
use audit_hot::{Encoder, FIELD_MAX};
use audit_lake::{LakeConfig, LakeSink};
use audit_pgoutput::{Scratch, decode};
use audit_pipeline::continuity::{Server, judge};
use audit_pipeline::stage::{Stage, StageConfig};

use crate::report::Report;
use crate::stats::Median;

/// Rows of a transaction.
const TRANSACTION: u64 = 100;

/// As the daemon closes its batches.
const BATCH_BYTES: usize = 1 << 20;

/// What a lake may hold in memory under the limit of the other measurements.
const LAKE_BYTES: usize = 16 << 20;

/// 2026-03-01, in PostgreSQL's microseconds.
pub const COMMITTED_AT: i64 = 825_638_400_000_000;

struct Kind {
    name: &'static str,
    types: &'static [u32],
    full: bool,
    row: fn(u64) -> Vec<String>,
}

const NARROW: &[u32] = &[20, 23, 23, 1184, 25];
const WIDE: &[u32] =
    &[20, 2950, 25, 25, 25, 1700, 1700, 1700, 25, 1184, 1184, 1082, 16, 23, 701, 3802, 25, 25, 2950, 23];

const KINDS: &[Kind] = &[
    Kind { name: "narrow insert", types: NARROW, full: false, row: narrow },
    Kind { name: "wide insert", types: WIDE, full: false, row: wide },
    Kind { name: "wide update", types: WIDE, full: true, row: wide },
];

fn narrow(i: u64) -> Vec<String> {
    vec![
        i.to_string(),
        (i % 100).to_string(),
        (i * 7919 % 1_000_000).to_string(),
        "2026-03-01 09:30:00.123456+00".into(),
        format!("{i:0>60}"),
    ]
}

fn wide(i: u64) -> Vec<String> {
    let text = |length: usize| -> String {
        format!("{} lorem ipsum dolor sit amet ", i * 7919).chars().cycle().take(length).collect()
    };
    let uuid = format!("{:08x}-0000-4000-8000-{:012x}", i & 0xffff_ffff, i * 31);
    vec![
        i.to_string(),
        uuid.clone(),
        format!("user{i}@example{}.com", i % 40),
        text(16),
        "shipped".into(),
        format!("{}.{:04}", i % 10_000, i % 9973),
        format!("{}.{:04}", i % 1_000_000, i % 9949),
        "19.0000".into(),
        "EUR".into(),
        "2025-01-07 11:22:33.445566+00".into(),
        "2026-03-01 09:30:00.123456+00".into(),
        "2026-03-01".into(),
        if i.is_multiple_of(2) { "t" } else { "f" }.into(),
        (i % 5).to_string(),
        format!("{}.{}", i % 1000, i % 9941),
        format!(
            "{{\"plan\": \"p{}\", \"tags\": [\"t{}\", \"t{}\"], \"flags\": {{\"vip\": false, \"beta\": true}}, \"limits\": \
             {{\"cpu\": {}, \"mem\": {}}}, \"comment\": \"{}\"}}",
            i % 9,
            i % 50,
            i % 37,
            i % 64,
            i % 4096,
            text(70)
        ),
        text(64),
        text(330),
        uuid,
        (i % 40).to_string(),
    ]
}

pub fn relation(types: &[u32], full: bool) -> Vec<u8> {
    let mut out = b"R\0\0\0\x05public\0t\0".to_vec();
    out.push(if full { b'f' } else { b'd' });
    out.extend((types.len() as u16).to_be_bytes());
    for (i, oid) in types.iter().enumerate() {
        out.push(u8::from(full || i == 0));
        out.extend(format!("c{i}\0").bytes());
        out.extend(oid.to_be_bytes());
        out.extend((-1i32).to_be_bytes());
    }
    out
}

pub fn tuple(out: &mut Vec<u8>, row: &[String]) {
    out.extend((row.len() as u16).to_be_bytes());
    for value in row {
        out.push(b't');
        out.extend((value.len() as u32).to_be_bytes());
        out.extend(value.bytes());
    }
}

fn messages(kind: &Kind, rows: u64) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for i in 0..rows {
        let lsn = (i / TRANSACTION + 1) * 8192;
        if i.is_multiple_of(TRANSACTION) {
            out.push(begin(lsn, COMMITTED_AT, 7));
        }
        if i == 0 {
            out.push(relation(kind.types, kind.full));
        }
        let mut row = (kind.row)(i);
        let mut message = if kind.full { b"U\0\0\0\x05O".to_vec() } else { b"I\0\0\0\x05N".to_vec() };
        tuple(&mut message, &row);
        if kind.full {
            for (column, value) in [(5, "42.5"), (10, "2026-03-01 10:00:00+00"), (19, "41")] {
                row[column] = value.into();
            }
            message.push(b'N');
            tuple(&mut message, &row);
        }
        out.push(message);
        if (i + 1).is_multiple_of(TRANSACTION) || i + 1 == rows {
            out.push(commit(lsn, COMMITTED_AT));
        }
    }
    out
}

pub fn begin(lsn: u64, at: i64, xid: u32) -> Vec<u8> {
    [b"B".as_slice(), &lsn.to_be_bytes(), &at.to_be_bytes(), &xid.to_be_bytes()].concat()
}

pub fn commit(lsn: u64, at: i64) -> Vec<u8> {
    [b"C\0".as_slice(), &lsn.to_be_bytes(), &(lsn + 8).to_be_bytes(), &at.to_be_bytes()].concat()
}

pub fn stage(rules: Rules) -> Stage {
    let server = Server { system_id: 1, timeline: 1, forks: Vec::new(), wal_end: Lsn(1 << 40), slot_start: Lsn::ZERO };
    Stage::new(StageConfig {
        rules,
        names: FormerNames::default(),
        policy: Policy::default(),
        verdict: judge(&server, &[(Arc::from("none"), None)]),
        contexts: Contexts::default(),
        shapes: Vec::new(),
        stored: Position::default(),
        checks: Vec::new(),
        quarantine: Quarantine::new(),
    })
}

fn batches(messages: &[Vec<u8>]) -> Result<Vec<Batch>> {
    let (mut stage, mut batches) = (stage(Rules { default_protection: true, ..Rules::default() }), Vec::new());
    for (i, message) in messages.iter().enumerate() {
        while let Some(relation) = stage.message(message, Lsn(i as u64))? {
            stage.describe(&relation, None)?;
        }
        if stage.batch_bytes() >= BATCH_BYTES {
            batches.push(stage.take_batch());
        }
    }
    batches.push(stage.take_batch());
    Ok(batches)
}

/// Each several times over; `folder` is for lakes.
pub fn measure(rows: u64, repeats: usize, folder: &Path, report: &mut Report) -> Result<()> {
    for kind in KINDS {
        let messages = messages(kind, rows);
        let batches = batches(&messages)?;
        let mut nanos = [const { Vec::new() }; 4];
        for repeat in 0..repeats {
            let lake = folder.join(format!("stage_{repeat}"));
            std::fs::create_dir(&lake)?;
            let times = [decoding(&messages)?, staging(&messages)?, hot(&batches), lake_time(&batches, &lake)?];
            std::fs::remove_dir_all(&lake)?;
            for (nanos, time) in nanos.iter_mut().zip(times) {
                nanos.push(time.as_nanos() as f64 / rows as f64);
            }
        }
        let names = ["decode", "decode to protected batch", "encode for hot", "encode and commit to the lake"];
        for (name, nanos) in names.iter().zip(&nanos) {
            if let Some(median) = Median::of(nanos) {
                report.median(format!("{name}, {}", kind.name), median, "ns/row", None);
            }
        }
    }
    Ok(())
}

fn decoding(messages: &[Vec<u8>]) -> Result<Duration> {
    let mut scratch = Scratch::default();
    let begun = Instant::now();
    for message in messages {
        black_box(decode(message, &mut scratch)?);
    }
    Ok(begun.elapsed())
}

fn staging(messages: &[Vec<u8>]) -> Result<Duration> {
    let begun = Instant::now();
    black_box(batches(messages)?);
    Ok(begun.elapsed())
}

fn hot(batches: &[Batch]) -> Duration {
    let mut encoder =
        Encoder { source: "bench", recorded_at: Micros::now(), keep: &[], field_max: FIELD_MAX, too_large: 0 };
    let mut out = Vec::with_capacity(4 * BATCH_BYTES);
    let begun = Instant::now();
    for batch in batches {
        out.clear();
        batch.versions().for_each(|version| encoder.row(&mut out, &version));
        black_box(&out);
    }
    begun.elapsed()
}

/// The sink whole, files and commits included, on a thread's worth of runtime.
fn lake_time(batches: &[Batch], folder: &Path) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut sink = LakeSink::new("lake", &LakeConfig::at(folder.display().to_string()), LAKE_BYTES)?;
    let identity = Identity { source: "bench".to_owned(), system_id: 1, timeline: 1, timeline_start: Lsn::ZERO };
    Ok(runtime.block_on(async {
        sink.take(&identity).await?;
        sink.begin(Progress { position: Position::new(1, Lsn::ZERO, 0), ..Progress::default() }).await?;
        let begun = Instant::now();
        for batch in batches {
            sink.write(&[batch]).await?;
        }
        sink.flush(true).await?;
        Ok::<_, audit_core::sink::SinkError>(begun.elapsed())
    })?)
}
