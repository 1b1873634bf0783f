//! Partitions: the folders of a table's files, by commit time in UTC.

use std::fmt::Write;

use audit_core::position::Micros;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::form::Form;

/// How finely a table's files are spread over folders. A table keeps what it began with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Partitioning {
    /// `year=2026/month=03/day=01`
    #[default]
    Day,
    /// `date=2026-03-01`
    Date,
    /// `year=2026/month=03/day=01/hour=09`
    Hour,
}

impl Partitioning {
    const ALL: [Partitioning; 3] = [Partitioning::Day, Partitioning::Date, Partitioning::Hour];

    /// The partition columns. They are in the paths of the files and in the Delta log, not in the files.
    pub fn columns(self) -> &'static [(&'static str, Form)] {
        match self {
            Partitioning::Day => &[("year", Form::Int32), ("month", Form::Int32), ("day", Form::Int32)],
            Partitioning::Date => &[("date", Form::Date)],
            Partitioning::Hour => {
                &[("year", Form::Int32), ("month", Form::Int32), ("day", Form::Int32), ("hour", Form::Int32)]
            }
        }
    }

    /// Names of the partition columns.
    pub fn names(self) -> Vec<String> {
        self.columns().iter().map(|(name, _)| (*name).to_string()).collect()
    }

    /// The partitioning that has these columns.
    pub fn of_names(names: &[String]) -> Option<Partitioning> {
        Partitioning::ALL.into_iter().find(|by| by.names() == names)
    }

    fn micros(self) -> i64 {
        match self {
            Partitioning::Day | Partitioning::Date => 86_400_000_000,
            Partitioning::Hour => 3_600_000_000,
        }
    }
}

/// The versions of one day or hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    by: Partitioning,
    /// Number of days or hours since 1970-01-01.
    number: i64,
}

impl Partition {
    pub fn of(by: Partitioning, at: Micros) -> Partition {
        Partition { by, number: at.0.div_euclid(by.micros()) }
    }

    /// The values of the partition columns, padded as in paths.
    fn padded(self) -> Vec<(&'static str, String)> {
        let at = Micros(self.number * self.by.micros());
        let (year, month, day) = at.date();
        let mut values = match self.by {
            Partitioning::Date => vec![format!("{year:04}-{month:02}-{day:02}")],
            Partitioning::Day | Partitioning::Hour => {
                vec![format!("{year:04}"), format!("{month:02}"), format!("{day:02}")]
            }
        };
        if self.by == Partitioning::Hour {
            values.push(format!("{:02}", self.number.rem_euclid(24)));
        }
        self.by.columns().iter().map(|(name, _)| *name).zip(values).collect()
    }

    /// The partition's folder, relative to the table's: `data/year=2026/month=03/day=01`. `root` is one of the table's
    /// own folders.
    pub fn folder(self, root: &str) -> String {
        let mut folder = root.to_string();
        for (name, value) in self.padded() {
            // Writing into a `String` cannot fail.
            let _ = write!(folder, "/{name}={value}");
        }
        folder
    }

    /// The values of the partition columns as the Delta log has them: integers without leading zeros.
    pub fn values(self) -> impl Iterator<Item = (String, Option<String>)> {
        let plain = |value: String| value.parse::<i64>().map_or(value, |number| number.to_string());
        self.padded().into_iter().map(move |(name, value)| (name.to_string(), Some(plain(value))))
    }

    /// Reads the partition from a file's path.
    pub fn from_path(by: Partitioning, path: &str) -> Option<Partition> {
        let part = |name: &str| path.split('/').find_map(|segment| segment.strip_prefix(name)?.strip_prefix('='));
        let (date, hour) = match by {
            Partitioning::Date => (part("date")?.to_string(), "00"),
            Partitioning::Day => (format!("{}-{}-{}", part("year")?, part("month")?, part("day")?), "00"),
            Partitioning::Hour => (format!("{}-{}-{}", part("year")?, part("month")?, part("day")?), part("hour")?),
        };
        let at: Micros = format!("{date}T{hour}:00:00Z").parse().ok()?;
        let partition = Partition::of(by, at);
        path.contains(&partition.folder("")).then_some(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_its_partition_and_a_partition_its_path() {
        let at = Micros(1_772_357_400_000_000);
        let folders = [
            (Partitioning::Day, "data/year=2026/month=03/day=01"),
            (Partitioning::Date, "data/date=2026-03-01"),
            (Partitioning::Hour, "data/year=2026/month=03/day=01/hour=09"),
        ];
        for (by, folder) in folders {
            let partition = Partition::of(by, at);
            assert_eq!(partition.folder("data"), folder);
            assert_eq!(Partition::from_path(by, &format!("t/{folder}/x.parquet")), Some(partition));
            assert_eq!(Partition::from_path(by, "t/data/year=x/date=y/x.parquet"), None);
            assert_eq!(Partitioning::of_names(&by.names()), Some(by));
        }
        let values: Vec<_> = Partition::of(Partitioning::Hour, at).values().map(|(_, value)| value).collect();
        assert_eq!(values, ["2026", "3", "1", "9"].map(|value| Some(value.to_string())));
    }

    #[test]
    fn days_before_the_epoch_and_of_long_years_have_folders_too() {
        for micros in [-1, -62_135_596_800_000_000, 250_000_000_000_000_000] {
            for by in Partitioning::ALL {
                let partition = Partition::of(by, Micros(micros));
                let path = format!("{}/x.parquet", partition.folder("data"));
                assert_eq!(Partition::from_path(by, &path), Some(partition), "{path}");
            }
        }
    }
}
