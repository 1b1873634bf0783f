//! The partitions of a table of versions that a batch needs; they are made before it is written: [`Partitions`].
//!
//! A partition is made in its own transaction, by a function that belongs to the owner role. The session remembers
//! which partitions exist, so that this costs one comparison for each version.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use audit_core::batch::Version;
use audit_core::position::Micros;
use tokio_postgres::Client;

use crate::config::Partitioning;
use crate::encode::committed_at;

const DAY: i64 = 86_400_000_000;

/// A month in UTC, counted from January of the year 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Month(i32);

impl Month {
    pub fn of(time: Micros) -> Month {
        let (year, month) = year_and_month(committed_at(time).0.div_euclid(DAY));
        Month(year * 12 + month - 1)
    }

    pub fn next(self) -> Month {
        Month(self.0 + 1)
    }

    /// The first day as the number of days since 2000-01-01, which the SQL function takes.
    fn first_day(self) -> i32 {
        // There are 10,957 days from 1970-01-01 to 2000-01-01.
        (days(self.0.div_euclid(12), self.0.rem_euclid(12) + 1) - 10_957) as i32
    }

    fn range(self) -> Range<i64> {
        let start = |month: Month| days(month.0.div_euclid(12), month.0.rem_euclid(12) + 1).saturating_mul(DAY);
        start(self)..start(self.next())
    }
}

/// Year and month of a day, which is counted from 1970-01-01, in the proleptic Gregorian calendar. 400 of its years
/// have 146,097 days. Years are counted from March, so that the leap day is the last day of the year.
fn year_and_month(day: i64) -> (i32, i32) {
    let day = day + 719_468;
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + day.div_euclid(146_097) * 400 + i64::from(month <= 2);
    (year as i32, month as i32)
}

/// The first day of a month, counted from 1970-01-01.
fn days(year: i32, month: i32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5;
    year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A partition that must exist.
type Wanted = (Option<Arc<str>>, Month);

/// The partitions of one table of versions that a session knows to exist.
#[derive(Debug)]
pub(crate) struct Partitions {
    of: Arc<str>,
    partitioning: Partitioning,
    /// Whether next month's partition is made before it is needed.
    ahead: bool,
    known: HashSet<Wanted>,
}

impl Partitions {
    /// `partitioning` is that of the existing table, whatever is configured. `ahead` says that the table is sure to be
    /// written to next month.
    pub fn new(of: Arc<str>, partitioning: Partitioning, ahead: bool) -> Partitions {
        // If partitioned by table, most of ten thousand partitions might stay empty, so none is made ahead.
        Partitions { of, partitioning, ahead: ahead && partitioning == Partitioning::Month, known: HashSet::new() }
    }

    /// Makes the partitions that these versions need and that are not known to exist. If the versions are of the
    /// current month, next month's partition may be made too, so that nothing waits for it at midnight.
    pub async fn ensure(&mut self, client: &Client, versions: &[Version<'_>]) -> Result<(), tokio_postgres::Error> {
        for (table, month) in self.missing(versions) {
            self.make(client, table, month).await?;
        }
        let Some(last) = versions.last() else { return Ok(()) };
        let month = Month::of(last.transaction().committed_at);
        let ahead = (None, month.next());
        if self.ahead && !self.known.contains(&ahead) && month == Month::of(Micros::now()) {
            self.make(client, None, ahead.1).await?;
        }
        Ok(())
    }

    /// Forgets which partitions exist, so that each is checked again.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    async fn make(
        &mut self,
        client: &Client,
        table: Option<Arc<str>>,
        month: Month,
    ) -> Result<(), tokio_postgres::Error> {
        let statement = "SELECT cdc_audit.ensure_partition($1, date '2000-01-01' + $2::int4, $3)";
        client.execute(statement, &[&table.as_deref(), &month.first_day(), &self.of.as_ref()]).await?;
        self.known.insert((table, month));
        Ok(())
    }

    fn missing(&self, versions: &[Version<'_>]) -> Vec<Wanted> {
        let by_table = self.partitioning == Partitioning::TableAndMonth;
        let mut missing: Vec<Wanted> = Vec::new();
        // Usually many versions in a row belong to the same month and table.
        let mut last: Option<(Range<i64>, &Arc<str>)> = None;
        for version in versions {
            let time = committed_at(version.transaction().committed_at);
            let name = &version.table().name;
            if last.as_ref().is_some_and(|(range, table)| range.contains(&time.0) && (!by_table || *table == name)) {
                continue;
            }
            let month = Month::of(time);
            let wanted = (by_table.then(|| name.clone()), month);
            if !self.known.contains(&wanted) && !missing.contains(&wanted) {
                missing.push(wanted);
            }
            last = Some((month.range(), name));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_those_of_the_calendar() {
        for day in (-719_162..200_000_i64).step_by(13).chain([-719_162, -1, 0, 10_957, 11_016, 11_017]) {
            let time = Micros(day * DAY + 12_345);
            let (year, month, day_of_month) = time.date();
            let found = Month::of(time);
            assert_eq!(found, Month(year * 12 + i32::from(month) - 1), "{time}");
            assert!(found.range().contains(&time.0), "{time}");
            let first = (day - 10_957) as i32 - i32::from(day_of_month) + 1;
            assert_eq!(found.first_day(), first, "{time}");
        }
    }

    #[test]
    fn the_ends_of_time_have_a_month() {
        assert_eq!(Month::of(Micros(i64::MIN)), Month(12));
        assert_eq!(Month::of(Micros(i64::MAX)), Month(294_247 * 12));
        assert!(Month::of(Micros(i64::MAX)).range().contains(&(i64::MAX - 1)));
    }
}
