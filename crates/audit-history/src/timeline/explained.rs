//! What it took to answer the questions of a look: [`Explained`].

use std::fmt;

use audit_core::cost::{Cost, StatementCost};
use serde::Serialize;

use super::Timeline;

/// What was read, by sink, in the order in which they were asked.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    sinks: Vec<Asked>,
}

#[derive(Clone, Debug, Serialize)]
struct Asked {
    sink: String,
    #[serde(flatten)]
    cost: Cost,
}

impl Timeline {
    /// Has servers explain all further statements, so that [`Timeline::explained`] can say how they read tables.
    pub fn explain(&self) {
        self.tiers.iter().for_each(|tier| tier.whole.explain());
    }

    /// What the stores have read so far.
    pub fn explained(&self) -> Explained {
        let asked = self.tiers.iter().map(|tier| Asked { sink: tier.sink.to_string(), cost: tier.whole.cost() });
        Explained { sinks: asked.collect() }
    }
}

/// Lines for people.
impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Asked { sink, cost }) in self.sinks.iter().enumerate() {
            let line = if at > 0 { "\n" } else { "" };
            write!(f, "{line}{sink}:")?;
            if cost.files + cost.files_skipped > 0 || cost.statements.is_empty() {
                let Cost { files, files_skipped, row_groups, row_groups_skipped, bytes, .. } = cost;
                write!(f, " {files} files opened, {files_skipped} skipped by their bounds")?;
                write!(f, "; {row_groups} row groups read, {row_groups_skipped} skipped; {bytes} bytes")?;
            }
            for statement in &cost.statements {
                write!(f, "\n  {}", Line(statement))?;
            }
        }
        Ok(())
    }
}

struct Line<'s>(&'s StatementCost);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StatementCost { doing, times, rows, reads } = self.0;
        write!(f, "{doing}: {times} statements, {rows} rows")?;
        for (how, tables) in reads {
            write!(f, "; {how} ({tables})")?;
        }
        Ok(())
    }
}
