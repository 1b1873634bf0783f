//! Measures nanoseconds and bytes of a message, for a narrow table and a wide one:
//! `cargo run --release --example rate`.

#![allow(clippy::print_stdout, reason = "it measures")]

use std::convert::Infallible;
use std::time::Instant;

use audit_core::batch::Batch;
use audit_core::position::Micros;
use audit_format::{Encoder, Format, FormatConfig};
use audit_testkit::Fixture;

fn batch(columns: &str, row: impl Fn(usize) -> String) -> Batch {
    let mut text = format!("table public.t (id int8 key, {columns}) full\nbegin\n");
    for id in 0..1_000 {
        text.push_str(&format!("insert public.t [{id}, {}]\n", row(id)));
        text.push_str(&format!("update public.t [{id}, {}] -> [{id}, {}]\n", row(id), row(id + 1)));
    }
    text.push_str("commit");
    Fixture::of(&text).remove(0)
}

fn main() {
    let narrow = batch("name text, amount numeric(12,2), at timestamptz", |n| {
        format!(r#""customer {n}", "{n}.50", "2026-03-01 09:30:{:02}.123456+00""#, n % 60)
    });
    let names: Vec<String> =
        (0..24).map(|n| format!("column_{n} {}", ["text", "int8", "timestamptz"][n % 3])).collect();
    let wide = batch(&names.join(", "), |n| {
        let value = |at: usize| match at % 3 {
            0 => format!(r#""value {}""#, n + at),
            1 => format!("{}", n + at),
            _ => r#""2026-03-01 09:30:00+00""#.to_owned(),
        };
        (0..24).map(value).collect::<Vec<_>>().join(", ")
    });
    for (name, batch) in [("narrow", &narrow), ("wide", &wide)] {
        for format in [Format::Record, Format::CloudEvents, Format::Debezium] {
            for inline_schema in [false, true] {
                let config = FormatConfig { format, inline_schema, ..FormatConfig::default() };
                if format == Format::Debezium || !inline_schema {
                    measure(name, batch, &config);
                }
            }
        }
    }
}

fn measure(name: &str, batch: &Batch, config: &FormatConfig) {
    const ROUNDS: u32 = 200;
    let mut encoder = Encoder::new(config, "shop");
    let (mut bytes, mut messages) = (0, 0u64);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        for version in batch.versions() {
            let result: Result<(), Infallible> = encoder.messages(&version, Micros(0), |message| {
                bytes += message.value.map_or(0, <[u8]>::len);
                messages += 1;
                Ok(())
            });
            let Ok(()) = result;
        }
    }
    let each = start.elapsed().as_nanos() as f64 / messages as f64;
    let what = format!("{:?}{}", config.format, if config.inline_schema { " with schema" } else { "" });
    println!("{name:<8} {what:<24} {each:>7.0} ns {:>6} bytes", bytes as u64 / messages);
}
