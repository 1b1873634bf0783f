//! What each index of the hot table costs: a bare COPY of the same rows, without one of them at a time.
//!
//! Every row has an actor here, one of twenty: the index on actors holds only those that have one.

use anyhow::Result;

use crate::report::Report;
use crate::stats::Median;
use crate::variant::Bench;
use crate::workload::Prepared;

const INDEXES: [&str; 4] = ["versions_key", "versions_actor", "versions_table_at", "versions_place"];

pub fn measure(bench: &Bench, prepared: &Prepared, repeats: usize, report: &mut Report) -> Result<()> {
    let file = bench.program.folder().join("actors.copy");
    bench.record_as(prepared, &file, Some(("actor_id", "'user_' || seq % 20")))?;
    let rows = prepared.workload.rows;
    let mut cases = vec![("all indexes".to_owned(), Vec::new())];
    cases.extend(INDEXES.map(|index| (format!("without {index}"), vec![index])));
    cases.push(("without these four".to_owned(), INDEXES.to_vec()));
    let mut rates = vec![Vec::new(); cases.len()];
    for repeat in 0..repeats {
        let mut order: Vec<usize> = (0..cases.len()).collect();
        if repeat % 2 == 1 {
            order.reverse();
        }
        for case in order {
            let database = bench.cluster.hot_database()?;
            for index in &cases[case].1 {
                bench.cluster.sql(&database, &format!("DROP INDEX cdc_audit.{index};"))?;
            }
            rates[case].push(rows as f64 / bench.copy(&database, &file, rows)?.seconds);
            bench.cluster.drop_database(&database)?;
        }
    }
    std::fs::remove_file(file)?;
    for ((case, _), rates) in cases.iter().zip(rates) {
        if let Some(median) = Median::of(&rates) {
            report.median(format!("bare COPY, {}, {case}", prepared.workload), median, "rows/s", None);
        }
    }
    Ok(())
}
