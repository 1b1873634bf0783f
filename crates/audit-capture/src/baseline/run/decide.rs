//! What a published table needs: [`decide`].

use std::collections::BTreeSet;
use std::sync::Arc;

use audit_core::baseline::plan::{Begin, Plan};

use super::super::captured::{Captured, Since};
use super::super::listed::Listed;

/// Everything that the decision depends on.
pub(super) struct Facts<'a> {
    pub listed: &'a Listed,
    /// The record under the table's name.
    pub before: Option<&'a Captured>,
    pub since: Option<&'a Since>,
    /// Whether a person has requested a baseline.
    pub requested: bool,
    /// Whether every table has to be read again.
    pub anew: bool,
    /// A partition with rows that the stream may not have had.
    pub joined: Option<&'a String>,
}

/// A baseline that has to be stored before anything is read.
pub(super) struct Asked {
    pub begin: Begin,
    /// Only this partition is read, if one is given.
    pub part: Option<String>,
    pub why: &'static str,
}

/// Decides what to record about a table, and whether it needs a baseline that [`Plan::to_begin`] does not find by
/// itself.
pub(super) fn decide(plan: &mut Plan, facts: &Facts<'_>) -> (Captured, Option<Asked>) {
    let listed = facts.listed;
    let goes_on = facts.before.filter(|before| before.goes_on(listed));
    let is_another = facts.before.is_some() && goes_on.is_none();
    let captured = match goes_on {
        Some(before) => Captured { by: listed.by.clone(), ..before.clone() },
        // Baselines without a record were read by a version of the program that kept no records.
        None if !is_another && plan.is_done() => record(plan, listed, BTreeSet::new()),
        None => {
            // A sink to which the rules send nothing of this table has had none of its rows, though it has those of
            // others.
            let gave = facts.since.map(|since| since.gave(listed)).unwrap_or_default();
            record(plan, listed, plan.sinks().filter(|sink| gave.contains(*sink)).cloned().collect())
        }
    };
    plan.streamed(&captured.streamed, captured.baseline);
    let all: BTreeSet<Arc<str>> = plan.sinks().cloned().collect();
    let rest: BTreeSet<Arc<str>> = all.difference(&captured.streamed).cloned().collect();
    let (sinks, part, why) = if is_another {
        let same = facts.before.is_some_and(|before| before.oid == listed.oid);
        (rest, None, if same { "it was not published for a time" } else { "the table is another one under this name" })
    } else if facts.anew {
        (all, None, "every table is read anew after lost WAL")
    } else if facts.requested && plan.is_done() {
        (all, None, "it was asked for")
    } else if let Some(part) = facts.joined.filter(|_| plan.is_done()) {
        (all, Some(part.clone()), "a partition was attached")
    } else {
        return (captured, None);
    };
    let asked = (!sinks.is_empty()).then(|| Asked { begin: plan.new_for(sinks), part, why });
    if let Some(asked) = &asked {
        plan.begun(&asked.begin, false);
    }
    (captured, asked)
}

/// Whether a baseline of the whole table begins now for every sink.
pub(super) fn reads_all(plan: &Plan, asked: Option<&Asked>) -> bool {
    let begins = match asked {
        Some(asked) => asked.part.is_none().then(|| asked.begin.clone()),
        None => plan.to_begin().filter(|begin| !begin.join),
    };
    begins.is_some_and(|begin| begin.sinks.len() == plan.sinks().count())
}

fn record(plan: &Plan, listed: &Listed, streamed: BTreeSet<Arc<str>>) -> Captured {
    Captured { oid: listed.oid, by: listed.by.clone(), streamed, baseline: plan.next_number() }
}
