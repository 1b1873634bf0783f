//! Totals over a span of time ([`Report`]): who changed how much, what nobody accounts for, and what is missing.

mod html;

use std::collections::BTreeMap;

use audit_core::position::{Micros, Position};
use audit_core::stored::{Json, Record};
use audit_core::totals::{Bounds, QUARTER, Totals};
use futures::StreamExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::store::{GAPS, Selection, StoreError};
use crate::timeline::{Coverage, Span, Timeline};

/// Maximum number of gaps that a report lists.
const GAPS_MAX: usize = 1_000;

/// Describes the span that is reported.
#[derive(Clone, Debug)]
pub struct ReportRequest {
    pub source: String,
    /// The name of the sink that is read.
    pub sink: String,
    /// The tables whose versions are counted; empty for all.
    pub tables: Vec<String>,
    pub since: Micros,
    pub until: Micros,
    /// The zone in which days begin, and its name.
    pub zone: TimeZone,
    pub zone_name: String,
    /// What distinguishes one configuration from another.
    pub config_fingerprint: String,
    /// Who looked at values, if the access log could be read.
    pub looked: Option<Vec<Looked>>,
}

/// How often a person did something that is in the access log.
#[derive(Clone, Debug, Serialize)]
pub struct Looked {
    pub user: String,
    pub action: String,
    pub count: u64,
}

/// What happened in a span of time. Its JSON form is documented in `docs/asking.md`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub source: String,
    pub period: String,
    pub since: String,
    /// The end of the span, exclusive.
    pub until: String,
    pub timezone: String,
    pub total_versions: u64,
    pub changes_by_actor: BTreeMap<String, u64>,
    /// Versions of which nobody said who made them, whether that was required or not.
    pub changes_without_actor: u64,
    /// Versions of actors beyond the first 100,000.
    pub changes_by_further_actors: u64,
    pub changes_by_table: BTreeMap<String, u64>,
    pub changes_by_event: BTreeMap<String, u64>,
    pub changes_by_day: BTreeMap<String, u64>,
    pub unattributed: Unattributed,
    pub undone: u64,
    /// The gaps that were noticed in the span: the first 1,000, and the number of all.
    pub gaps: Vec<Lost>,
    pub total_gaps: u64,
    /// Null if the access log could not be read.
    pub sensitive_field_access: Option<Vec<Looked>>,
    pub head: ReportHead,
    pub coverage: Coverage,
    pub config_fingerprint: String,
}

/// Versions that lack what their table requires.
#[derive(Clone, Debug, Serialize)]
pub struct Unattributed {
    pub without_actor: u64,
    pub without_reason: u64,
}

/// A stretch of the source's log that was lost.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    pub position: Position,
    pub committed_at: String,
    /// Which sink lost it, from where to where, and why.
    pub lost: Option<Json>,
}

/// How far the sinks had come.
#[derive(Clone, Debug, Serialize)]
pub struct ReportHead {
    /// The one that was asked first.
    pub sink: String,
    /// Everything up to here was read.
    pub position: Option<Position>,
    pub stored_at: Option<String>,
}

/// Makes the report. Memory grows with the number of actors, tables and days, up to a limit, and not with the number of
/// versions.
///
/// # Errors
/// Fails if the store cannot be read.
pub async fn report(store: &Timeline, request: &ReportRequest) -> Result<Report, StoreError> {
    let known = store.tables(&request.source).await?;
    let has_gaps = known.iter().any(|table| table == GAPS);
    let is_asked = |table: &String| table != GAPS && (request.tables.is_empty() || request.tables.contains(table));
    let tables: Vec<String> = known.into_iter().filter(is_asked).collect();
    let bounds = Bounds { since: Some(request.since), until: Some(request.until), ..Bounds::default() };
    let totals = store.totals(&request.source, &tables, &bounds).await?;
    let gaps = if has_gaps { gaps(store, request).await? } else { (Vec::new(), 0) };
    let head = ReportHead {
        sink: request.sink.clone(),
        position: store.last(),
        stored_at: store.head().and_then(|head| head.stored_at).map(|at| at.to_string()),
    };
    let span = Span { since: Some(request.since), until: Some(request.until) };
    let coverage = store.coverage_of(&request.source, span).await?;
    Ok(Report::of(request, totals, gaps, (head, coverage)))
}

/// The first gaps, and the number of all.
async fn gaps(store: &Timeline, request: &ReportRequest) -> Result<(Vec<Lost>, u64), StoreError> {
    let selection = Selection {
        source: request.source.clone(),
        table: GAPS.to_string(),
        since: Some(request.since),
        until: Some(request.until),
        unattributed: false,
        after: None,
    };
    let mut versions = store.versions(&selection).await?;
    let (mut gaps, mut count) = (Vec::new(), 0);
    while let Some(version) = versions.next().await {
        let Record { position, committed_at, context, .. } = version?;
        count += 1;
        if gaps.len() >= GAPS_MAX {
            continue;
        }
        let lost = context.and_then(|context| {
            let parts: BTreeMap<String, Json> = serde_json::from_str(context.get()).ok()?;
            parts.into_iter().find(|(name, _)| name == "lost").map(|(_, lost)| lost)
        });
        gaps.push(Lost { position, committed_at: committed_at.to_string(), lost });
    }
    Ok((gaps, count))
}

/// The date in a zone.
fn day_of(at: Micros, zone: &TimeZone) -> String {
    Timestamp::from_microsecond(at.0).map_or_else(|_| at.to_string(), |at| zone.to_datetime(at).date().to_string())
}

fn by_day(by_quarter: BTreeMap<i64, u64>, zone: &TimeZone) -> BTreeMap<String, u64> {
    let mut days = BTreeMap::new();
    for (quarter, count) in by_quarter {
        *days.entry(day_of(Micros(quarter.saturating_mul(QUARTER)), zone)).or_default() += count;
    }
    days
}

/// The date of a day since 1970-01-01.
fn date(day: i32) -> String {
    let mut text = Micros(i64::from(day).saturating_mul(DAY)).to_string();
    text.truncate(text.find('T').unwrap_or(text.len()));
    text
}

const DAY: i64 = 86_400_000_000;

impl Report {
    fn of(
        request: &ReportRequest,
        totals: Totals,
        (gaps, total_gaps): (Vec<Lost>, u64),
        (head, coverage): (ReportHead, Coverage),
    ) -> Report {
        let day = |at: Micros| day_of(at, &request.zone);
        let last = Micros(request.until.0.saturating_sub(1)).max(request.since);
        let mut by_actor = totals.by_actor;
        let without_actor = by_actor.remove(&None).unwrap_or_default();
        Report {
            source: request.source.clone(),
            period: format!("{} to {}", day(request.since), day(last)),
            since: request.since.to_string(),
            until: request.until.to_string(),
            timezone: request.zone_name.clone(),
            total_versions: totals.versions,
            changes_by_actor: by_actor.into_iter().filter_map(|(actor, count)| Some((actor?, count))).collect(),
            changes_without_actor: without_actor,
            changes_by_further_actors: totals.further_actors,
            changes_by_table: totals.by_table,
            changes_by_event: totals.by_event,
            changes_by_day: by_day(totals.by_quarter, &request.zone),
            unattributed: Unattributed { without_actor: totals.without_actor, without_reason: totals.without_reason },
            undone: totals.undoing,
            gaps,
            total_gaps,
            sensitive_field_access: request.looked.clone(),
            head,
            coverage,
            config_fingerprint: request.config_fingerprint.clone(),
        }
    }

    /// A page that needs nothing but itself: no script, no font and no picture from elsewhere.
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// The actors with the number of their versions, largest first, then those without a name.
    pub fn actors(&self) -> Vec<(&str, u64)> {
        let mut actors = largest_first(&self.changes_by_actor);
        let rest =
            [("(nobody said who)", self.changes_without_actor), ("(further actors)", self.changes_by_further_actors)];
        actors.extend(rest.into_iter().filter(|(_, count)| *count > 0));
        actors
    }

    /// The number of versions of each day of the span, also of days without any; of each month if there are many days.
    pub fn timeline(&self) -> Vec<(String, u64)> {
        const DAYS_MAX: i64 = 100;
        let day = |text: &str| text.parse::<Micros>().map_or(0, |at| at.0.div_euclid(DAY));
        let (first, last) = (self.changes_by_day.keys().next(), self.changes_by_day.keys().next_back());
        let (Some(first), Some(last)) = (first.map(|first| day(first)), last.map(|last| day(last))) else {
            return Vec::new();
        };
        if last - first < DAYS_MAX {
            let count = |day: &String| self.changes_by_day.get(day).copied().unwrap_or_default();
            let days = (first..=last).map(|day| date(day as i32));
            return days.map(|day| (day.clone(), count(&day))).collect();
        }
        let mut months = BTreeMap::<String, u64>::new();
        for (day, count) in &self.changes_by_day {
            *months.entry(day.get(..day.len() - 3).unwrap_or(day).to_owned()).or_default() += count;
        }
        months.into_iter().collect()
    }
}

/// A digest of what a configuration says, by which two reports can be told apart.
pub fn fingerprint(configuration: &str) -> String {
    hex::encode(&Sha256::digest(configuration)[..8])
}

/// The entries, largest first, and by name where they are equal.
pub fn largest_first(counts: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut list: Vec<(&str, u64)> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    list
}

#[cfg(test)]
mod tests;
