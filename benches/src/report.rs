//! What was measured: a table for people, `target/bench.json` for programs, and every single run beside it.

use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::process::Cost;
use crate::stats::Median;

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    AtLeast(f64),
    AtMost(f64),
}

impl Gate {
    fn bound(self) -> f64 {
        match self {
            Gate::AtLeast(bound) | Gate::AtMost(bound) => bound,
        }
    }

    fn is_met(self, value: f64) -> bool {
        match self {
            Gate::AtLeast(bound) => value >= bound,
            Gate::AtMost(bound) => value <= bound,
        }
    }
}

/// A line of `bench.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    pub gate: Option<f64>,
    pub met: Option<bool>,
    /// What the value lies in with some 95 %, where it is a median of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    pub samples: usize,
}

/// One run of one process.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub workload: String,
    pub variant: &'static str,
    pub rows: u64,
    /// Runs of one pair, and only they, are compared.
    pub pair: usize,
    /// Strangers took too much of the machine; the pair was set aside where there was time for another.
    pub disturbed: bool,
    #[serde(flatten)]
    pub cost: Cost,
}

#[derive(Debug, Default)]
pub struct Report {
    entries: Vec<Entry>,
    runs: Vec<Run>,
}

impl Report {
    pub fn value(&mut self, name: impl Into<String>, value: f64, unit: &'static str, gate: Option<Gate>) {
        self.push(name.into(), Median { value, low: value, high: value, samples: 1 }, unit, gate);
    }

    pub fn median(&mut self, name: impl Into<String>, median: Median, unit: &'static str, gate: Option<Gate>) {
        self.push(name.into(), median, unit, gate);
    }

    fn push(&mut self, name: String, median: Median, unit: &'static str, gate: Option<Gate>) {
        let interval = (median.samples > 1).then(|| [rounded(median.low), rounded(median.high)]);
        let (bound, met) = (gate.map(Gate::bound).map(rounded), gate.map(|gate| gate.is_met(median.value)));
        let entry =
            Entry { name, value: rounded(median.value), unit, gate: bound, met, interval, samples: median.samples };
        println!("{}", line(&entry));
        self.entries.push(entry);
    }

    pub fn run(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// The table: gates first.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["", "value", "unit", "95 % interval", "gate", "met"]);
        for column in [1, 3, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let gated = self.entries.iter().filter(|entry| entry.gate.is_some());
        let others = self.entries.iter().filter(|entry| entry.gate.is_none());
        for entry in gated.chain(others) {
            let met = entry.met.map_or("", |met| if met { "yes" } else { "NO" });
            let gate = entry.gate.map(number).unwrap_or_default();
            let interval = entry.interval.map(|[low, high]| format!("{} to {}", number(low), number(high)));
            let cells = [&entry.name, &number(entry.value), entry.unit, &interval.unwrap_or_default(), &gate, met];
            table.add_row(cells);
        }
        table
    }

    pub fn missed(&self) -> usize {
        self.entries.iter().filter(|entry| entry.met == Some(false)).count()
    }

    pub fn disturbed(&self) -> (usize, usize) {
        (self.runs.iter().filter(|run| run.disturbed).count(), self.runs.len())
    }

    /// `bench.json`, and beside it `bench-runs.json` with the machine, the versions and every run.
    pub fn write(&self, folder: &Path, machine: &serde_json::Value) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("bench.json", serde_json::to_string_pretty(&self.entries)? + "\n")?;
        let runs = serde_json::json!({ "machine": machine, "runs": self.runs });
        write("bench-runs.json", serde_json::to_string_pretty(&runs)? + "\n")
    }
}

fn line(entry: &Entry) -> String {
    let gate = match (entry.gate, entry.met) {
        (Some(gate), Some(met)) => format!("  gate {}: {}", number(gate), if met { "met" } else { "NOT MET" }),
        _ => String::new(),
    };
    let interval = entry.interval.map(|[low, high]| format!("  [{} to {}]", number(low), number(high)));
    format!("  {}: {} {}{}{gate}", entry.name, number(entry.value), entry.unit, interval.unwrap_or_default())
}

/// Four significant digits are more than any measurement here has.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let factor = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * factor).round() / factor
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}
