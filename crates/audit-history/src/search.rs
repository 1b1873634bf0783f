//! Searching all tables ([`search`]), and counting what is found ([`count`]).

mod derive;

use std::collections::{BTreeMap, HashSet};

use audit_core::position::Micros;
use audit_core::rules::Rules;
use audit_core::search::{Moment, Wanted};
use audit_core::shape::ColumnNames;
use audit_core::stored::Record;
use futures::StreamExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::question::filter::{Attribute, Filter};
use crate::question::matcher::Matcher;
use crate::renames::Renames;
use crate::store::{Selection, StoreError};
use crate::timeline::Timeline;

pub use derive::{Deriver, Found};

/// Versions that are read to find further answers, where not each of them is one.
const ROWS_PAGE: usize = 500;

/// Number of groups that are counted. More would be no overview, and take memory.
const GROUPS_MAX: usize = 100_000;

/// A page of the answer.
#[derive(Debug)]
pub struct Page {
    /// Newest first.
    pub found: Vec<Found>,
    /// Whether there are older ones.
    pub more: bool,
}

/// What a filter asks of the stores, for these tables.
pub fn wanted(source: &str, tables: Vec<String>, filter: &Filter, matcher: &Matcher) -> Wanted {
    let (since, until) = filter.span();
    Wanted {
        source: source.to_owned(),
        tables,
        since,
        until,
        events: filter.only(Attribute::Event),
        actors: filter.only(Attribute::Actor),
        xids: filter.only(Attribute::Xid).iter().filter_map(|xid| xid.parse().ok()).collect(),
        changed: matcher.changed(),
        ..Wanted::default()
    }
}

/// The newest versions that match, at most `limit`; with `rows` only the newest one of each key. Old values that the
/// server did not send are derived where the answer depends on them.
///
/// # Errors
/// Fails if the store cannot be read.
pub async fn search(
    store: &Timeline,
    wanted: &Wanted,
    matcher: &Matcher,
    limit: usize,
    rows: bool,
    rules: &Rules,
) -> Result<Page, StoreError> {
    let (mut wanted, mut seen, mut found) = (wanted.clone(), HashSet::new(), Vec::new());
    let source = wanted.source.clone();
    let mut deriver = Deriver::new(store, &source, matcher, rules);
    let mut most = if rows { ROWS_PAGE } else { limit.saturating_add(1) };
    loop {
        let page = candidates(store, &mut wanted, matcher, most).await?;
        let is_last = page.len() < most;
        for record in page {
            let Some(version) = deriver.told(record).await? else { continue };
            let row = (version.record.table_name.clone(), version.record.key.clone());
            if !rows || seen.insert(row) {
                found.push(version);
            }
            if found.len() > limit {
                found.truncate(limit);
                return Ok(Page { found, more: true });
            }
        }
        if is_last {
            return Ok(Page { found, more: false });
        }
        most = ROWS_PAGE;
    }
}

/// The newest versions that may match, at most so many. The next ones come after them.
///
/// # Errors
/// Fails if the store cannot be read.
pub async fn candidates(
    store: &Timeline,
    wanted: &mut Wanted,
    matcher: &Matcher,
    most: usize,
) -> Result<Vec<Record>, StoreError> {
    let page = store.search(wanted, &|record| matcher.truth(record, &[]) != Some(false), most).await?;
    wanted.before = page.last().map(Moment::of).or(wanted.before);
    Ok(page)
}

/// What versions are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Actor,
    Event,
    /// Each column that a version changed.
    Field,
    Table,
    /// The day of the commit, in a time zone.
    Day,
}

/// Why versions cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there are more than {GROUPS_MAX} groups")]
    TooMany,
}

/// Counts by the values of the groups, in the order in which the groups were given.
pub type Counts = BTreeMap<Vec<Option<String>>, u64>;

/// Counts the versions that match; without groups there is one count. Every version of the span is read.
///
/// # Errors
/// Fails if the store cannot be read, or if there are too many groups.
pub async fn count(
    store: &Timeline,
    wanted: &Wanted,
    matcher: &Matcher,
    groups: &[Group],
    zone: &TimeZone,
    renames: &mut Renames<'_>,
) -> Result<Counts, CountError> {
    let rules = renames.rules().clone();
    let mut counts = Counts::new();
    let mut deriver = Deriver::new(store, &wanted.source, matcher, &rules);
    for table in &wanted.tables {
        let selection = Selection {
            source: wanted.source.clone(),
            table: table.clone(),
            since: wanted.since,
            until: wanted.until,
            unattributed: false,
            after: None,
        };
        let names = renames.of_table(table).await?;
        let mut versions = store.versions(&selection).await?;
        while let Some(record) = versions.next().await {
            let Some(found) = deriver.told(record?).await? else { continue };
            for group in grouped(&found.record, groups, zone, names) {
                *counts.entry(group).or_default() += 1;
            }
            if counts.len() > GROUPS_MAX {
                return Err(CountError::TooMany);
            }
        }
    }
    Ok(counts)
}

/// The groups that a record belongs to: one, or one for each column that it changed.
fn grouped(record: &Record, groups: &[Group], zone: &TimeZone, names: &ColumnNames) -> Vec<Vec<Option<String>>> {
    let fields: Vec<Option<String>> = match groups.contains(&Group::Field) {
        true => fields(record, names).into_iter().map(Some).collect(),
        false => vec![None],
    };
    let value = |group: &Group, field: &Option<String>| match group {
        Group::Actor => record.actor_id.clone(),
        Group::Event => Some(record.event.clone()),
        Group::Table => Some(record.table_name.clone()),
        Group::Field => field.clone(),
        Group::Day => day(record.committed_at, zone),
    };
    fields.iter().map(|field| groups.iter().map(|group| value(group, field)).collect()).collect()
}

/// The columns that a version is known to have changed, under the names that they have now.
fn fields(record: &Record, names: &ColumnNames) -> Vec<String> {
    let members = |json: &str| serde_json::from_str::<BTreeMap<String, serde::de::IgnoredAny>>(json).ok();
    let changes = record.changes.as_deref().and_then(|changes| members(changes.get()));
    let shown = |stored: String| names.shown(record.schema_version, &stored).into_owned();
    changes.map_or_else(Vec::new, |changes| changes.into_keys().map(shown).collect())
}

fn day(at: Micros, zone: &TimeZone) -> Option<String> {
    Some(zone.to_datetime(Timestamp::from_microsecond(at.0).ok()?).date().to_string())
}
