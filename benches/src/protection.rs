//! What protection costs: the daemon's loop with five of W2's twenty columns protected, against the same loop without.

use anyhow::Result;

use crate::report::{Gate, Report, Run};
use crate::stats::Median;
use crate::variant::Bench;
use crate::workload::Prepared;

/// A method, and the least share of the rate without it.
const METHODS: [(&str, f64); 5] = [("full", 0.95), ("partial", 0.85), ("hash", 0.85), ("token", 0.7), ("encrypt", 0.7)];

pub fn measure(bench: &Bench, prepared: &Prepared, pairs: usize, report: &mut Report) -> Result<()> {
    let rows = prepared.workload.rows;
    let cases: Vec<Option<&'static str>> =
        std::iter::once(None).chain(METHODS.map(|(method, _)| Some(method))).collect();
    let mut rates = vec![Vec::new(); cases.len()];
    for pair in 0..pairs {
        let mut order: Vec<usize> = (0..cases.len()).collect();
        if pair % 2 == 1 {
            order.reverse();
        }
        for case in order {
            let cost = bench.protected(prepared, cases[case])?;
            rates[case].push(rows as f64 / cost.seconds);
            let (workload, variant) = (prepared.workload.to_string(), cases[case].unwrap_or("unprotected"));
            report.run(Run { workload, variant, rows, pair, disturbed: cost.is_disturbed(), cost });
        }
    }
    let (none, protected) = rates.split_at(1);
    for ((method, gate), rates) in METHODS.iter().zip(protected) {
        let ratios: Vec<f64> = rates.iter().zip(&none[0]).map(|(rate, none)| rate / none).collect();
        if let Some(median) = Median::of(&ratios) {
            let name = format!("{method} on 5 of 20 columns / none, {}", prepared.workload);
            report.median(name, median, "ratio", Some(Gate::AtLeast(*gate)));
        }
    }
    if let Some(median) = Median::of(&none[0]) {
        report.median(format!("no protection, no sink, {}", prepared.workload), median, "rows/s", None);
    }
    Ok(())
}
