//! Looks for what is odd in a span of time, by the rules of the configuration ([`activity`]).
//!
//! The versions of one table after the other pass once, in the order of their positions, and each rule keeps only what
//! it needs of them: memory does not grow with the span. Snapshots of baselines are no activity.

mod config;
mod state;
mod watch;
mod window;

use audit_core::position::{Micros, Position};
use futures::StreamExt;
use serde::Serialize;

pub use config::{ActivityConfig, Of, Rule, Severity, What};

use crate::store::{GAPS, Selection, StoreError};
use crate::timeline::Timeline;
use watch::Watch;

/// Maximum number of findings of one rule in one table; the rest is counted.
const FINDINGS_MAX: usize = 1_000;

/// Describes what is looked at.
#[derive(Clone, Debug)]
pub struct ActivityRequest {
    pub source: String,
    /// Names of tables; empty for all.
    pub tables: Vec<String>,
    pub since: Micros,
    pub until: Micros,
    /// The rules by name.
    pub rules: Vec<(String, Rule)>,
}

/// Something that a person should look at. Its JSON form is documented in `docs/asking.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub rule: String,
    pub severity: Severity,
    pub table_name: String,
    /// Null if the finding is not about one row.
    pub key: Option<String>,
    /// Null if the finding is not about one actor, or nobody said who it was.
    pub actor_id: Option<String>,
    /// The number of versions that it is about.
    pub count: u64,
    pub from: String,
    pub to: String,
    /// The first of their positions.
    pub positions: Vec<Position>,
    pub text: String,
}

/// What was found, and what was looked at.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// The severest first, then the largest.
    pub findings: Vec<Finding>,
    pub versions: u64,
    /// What a rule could not tell, with the reason.
    pub untold: Vec<String>,
}

/// Looks at the versions of the span.
///
/// # Errors
/// Fails if the store cannot be read.
pub async fn activity(store: &Timeline, request: &ActivityRequest) -> Result<Activity, StoreError> {
    let mut all = Activity::default();
    for table in store.tables(&request.source).await? {
        if table != GAPS && (request.tables.is_empty() || request.tables.contains(&table)) {
            look_at(store, request, &table, &mut all).await?;
        }
    }
    all.findings.sort_by(|a, b| (a.severity, b.count, &a.table_name).cmp(&(b.severity, a.count, &b.table_name)));
    Ok(all)
}

async fn look_at(
    store: &Timeline,
    request: &ActivityRequest,
    table: &str,
    all: &mut Activity,
) -> Result<(), StoreError> {
    let concerned = request.rules.iter().filter(|(_, rule)| rule.concerns(table));
    let mut watches: Vec<(&String, Watch)> = concerned.map(|(name, rule)| (name, Watch::of(rule))).collect();
    if watches.is_empty() {
        return Ok(());
    }
    let selection = Selection {
        source: request.source.clone(),
        table: table.to_owned(),
        since: Some(request.since),
        until: Some(request.until),
        unattributed: false,
        after: None,
    };
    let mut versions = store.versions(&selection).await?;
    while let Some(version) = versions.next().await {
        let version = version?;
        if matches!(version.event.as_str(), "snapshot" | "error") {
            continue;
        }
        all.versions += 1;
        for (_, watch) in &mut watches {
            watch.see(store, &version).await?;
        }
    }
    for (name, watch) in watches {
        let (found, untold) = watch.finish(name, table);
        let further = found.len().saturating_sub(FINDINGS_MAX);
        all.findings.extend(found.into_iter().take(FINDINGS_MAX));
        let further = (further > 0).then(|| format!("{name}: {further} more findings in {table}"));
        all.untold.extend(untold.map(|untold| format!("{name}: {untold} in {table}")).into_iter().chain(further));
    }
    Ok(())
}
