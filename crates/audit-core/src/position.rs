//! Where a version is in the stream: [`Lsn`], [`Position`] and commit time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A byte position in the write-ahead log, shown as PostgreSQL shows it (`16/B374D848`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    pub const ZERO: Lsn = Lsn(0);

    /// Bytes of WAL from `earlier` to here; 0 if `earlier` is later.
    pub fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

/// The text does not have the form that the type prints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {what}")]
pub struct ParseError {
    pub what: &'static str,
}

impl FromStr for Lsn {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Lsn, ParseError> {
        let error = ParseError { what: "WAL position (like 16/B374D848)" };
        let (high, low) = s.split_once('/').ok_or(error.clone())?;
        let part = |text: &str| {
            let digits = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
            u32::from_str_radix(text, 16).ok().filter(|_| digits)
        };
        match (part(high), part(low)) {
            (Some(high), Some(low)) => Ok(Lsn(u64::from(high) << 32 | u64::from(low))),
            _ => Err(error),
        }
    }
}

/// A version's place in the total order of its source; together with the source, its identity in every sink.
///
/// Its text form is `eeee:llllllllllllllll:ssssssssss` (epoch and LSN in lower-case hex, `seq` in decimal), so that
/// texts sort bytewise in the order of positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Starts at 1, and rises whenever the WAL does not continue what was captured before.
    pub epoch: u16,
    /// Start of the transaction's commit record, as the Begin message announces it.
    pub commit_lsn: Lsn,
    /// Counts the changes that the server sent in this transaction, from 0.
    pub seq: u32,
}

impl Position {
    pub const fn new(epoch: u16, commit_lsn: Lsn, seq: u32) -> Position {
        Position { epoch, commit_lsn, seq }
    }

    /// The position immediately after this one.
    pub fn next(self) -> Position {
        match self.seq.checked_add(1) {
            Some(seq) => Position { seq, ..self },
            None => Position::new(self.epoch, Lsn(self.commit_lsn.0.saturating_add(1)), 0),
        }
    }
}

impl Position {
    /// The position immediately before this one; `None` if there is none in its epoch.
    pub fn previous(self) -> Option<Position> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Position { seq, ..self }),
            None => self.commit_lsn.0.checked_sub(1).map(|lsn| Position::new(self.epoch, Lsn(lsn), u32::MAX)),
        }
    }
}

/// A range of positions: at or after `from`, and before `to`. `None` means no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub from: Option<Position>,
    pub to: Option<Position>,
}

impl Window {
    pub const ALL: Window = Window { from: None, to: None };

    pub fn holds(&self, position: Position) -> bool {
        self.from.is_none_or(|from| from <= position) && self.to.is_none_or(|to| position < to)
    }

    /// The positions that both ranges hold.
    pub fn within(self, other: Window) -> Window {
        let to = [self.to, other.to].into_iter().flatten().min();
        Window { from: self.from.max(other.from), to }
    }

    /// Whether no position can be in the range.
    pub fn is_empty(&self) -> bool {
        self.from.zip(self.to).is_some_and(|(from, to)| to <= from)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:016x}:{:010}", self.epoch, self.commit_lsn.0, self.seq)
    }
}

impl FromStr for Position {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Position, ParseError> {
        let parse = || {
            let mut parts = s.split(':');
            let (epoch, lsn, seq) = (parts.next()?, parts.next()?, parts.next()?);
            let shaped = parts.next().is_none() && (epoch.len(), lsn.len(), seq.len()) == (4, 16, 10);
            let position = Position {
                epoch: u16::from_str_radix(epoch, 16).ok()?,
                commit_lsn: Lsn(u64::from_str_radix(lsn, 16).ok()?),
                seq: seq.parse().ok()?,
            };
            // Comparing with the printed form refuses signs and capitals, which the number parsers accept.
            (shaped && position.to_string() == s).then_some(position)
        };
        parse().ok_or(ParseError { what: "position (like 0001:0000000016b37430:0000000002)" })
    }
}

/// The text form is also the stored form, so that a position is written the same everywhere.
macro_rules! serde_as_text {
    ($($t:ty),*) => {$(
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<$t, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Lsn, Position);

/// Microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

/// Microseconds from 1970-01-01 to PostgreSQL's own epoch, 2000-01-01.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl Micros {
    /// Converts from the time format of the replication protocol: microseconds since 2000-01-01 UTC.
    pub fn from_postgres(micros: i64) -> Micros {
        Micros(micros.saturating_add(POSTGRES_EPOCH_MICROS))
    }

    pub fn to_postgres(self) -> i64 {
        self.0.saturating_sub(POSTGRES_EPOCH_MICROS)
    }

    /// The current time of the wall clock. This is the only place that reads it.
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub fn now() -> Micros {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)),
            Err(before) => Micros(-i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX)),
        }
    }

    /// `(year, month, day)` in UTC, for every time that the type can hold. The year 0 is 1 BC.
    pub fn date(self) -> (i32, u8, u8) {
        // Years are counted from March, in eras of 400 years, so that leap days come last.
        let day = self.0.div_euclid(DAY) + 719_468;
        let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        ((era * 400 + year + next) as i32, month as u8, day as u8)
    }
}

/// Microseconds in a day.
const DAY: i64 = 86_400_000_000;

/// Number of days from 1970-01-01 to a date of the Gregorian calendar.
pub fn days(year: i32, month: u8, day: u8) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((i32::from(month) + 9) % 12) + 2) / 5 + i32::from(day) - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

/// Prints RFC 3339 in UTC with six decimals: `2026-03-01T09:30:00.000000Z`. Years outside 0 to 9999 are in ISO 8601's
/// signed form.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((year, month, day), micros) = (self.date(), self.0.rem_euclid(DAY));
        let sign = match year {
            ..0 => "-",
            0..10_000 => "",
            _ => "+",
        };
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let year = year.unsigned_abs();
        write!(f, "{sign}{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// Reads a date, or a time in RFC 3339; without an offset it is in UTC.
impl FromStr for Micros {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Micros, ParseError> {
        // The text is read piece by piece, because as a timestamp the last day of the year 9999 would be outside the
        // parser's range.
        let pieces = jiff::fmt::temporal::Pieces::parse(s).ok().filter(|pieces| {
            // A named time zone without an offset would need the rules of that zone.
            pieces.offset().is_some() || pieces.time_zone_annotation().is_none()
        });
        let pieces = pieces.ok_or(ParseError { what: "date or time (like 2026-03-01T09:30:00Z)" })?;
        let (date, time) = (pieces.date(), pieces.time().unwrap_or_default());
        let days = days(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs());
        let offset = pieces.to_numeric_offset().map_or(0, |offset| offset.seconds());
        let seconds = i32::from(time.hour()) * 3600 + i32::from(time.minute()) * 60 + i32::from(time.second()) - offset;
        let micros = i64::from(time.subsec_nanosecond()).div_euclid(1000);
        Ok(Micros(i64::from(days) * DAY + i64::from(seconds) * 1_000_000 + micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_position_sorts_as_its_text_and_comes_back(
            a in any::<(u16, u64, u32)>(), b in any::<(u16, u64, u32)>()
        ) {
            let [a, b] = [a, b].map(|(e, l, s)| Position::new(e, Lsn(l), s));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.to_string().parse::<Position>(), Ok(a));
            prop_assert_eq!(a.commit_lsn.to_string().parse::<Lsn>(), Ok(a.commit_lsn));
        }

        #[test]
        fn text_that_is_no_position_is_refused(s in "\\PC{0,40}") {
            if let Ok(p) = s.parse::<Position>() {
                prop_assert_eq!(p.to_string(), s);
            }
        }
    }

    /// Covers the first and the last 400 years that the typed columns of stores can hold; after 400 years the calendar
    /// repeats.
    #[test]
    fn every_day_of_the_calendar_is_printed_and_read() {
        for first in [1, 9600] {
            let mut expected = (first, 1, 1);
            for day in days(first, 1, 1)..=days(first + 399, 12, 31) {
                let at = Micros(i64::from(day) * DAY + DAY - 1);
                assert_eq!((at.date(), days(expected.0, expected.1, expected.2)), (expected, day));
                let (year, month, day) = expected;
                let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
                let last = match month {
                    2 => 28 + u8::from(leap),
                    4 | 6 | 9 | 11 => 30,
                    _ => 31,
                };
                expected = match (month, day) {
                    (12, 31) => (year + 1, 1, 1),
                    (_, day) if day == last => (year, month + 1, 1),
                    _ => (year, month, day + 1),
                };
                if day == 1 || day == last {
                    assert_eq!(at.to_string().parse(), Ok(at));
                }
            }
            assert_eq!(expected, (first + 400, 1, 1));
        }
    }

    #[test]
    fn times_print_in_utc() {
        for (micros, text) in [
            (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
            (253_402_214_400_000_000, "9999-12-31T00:00:00.000000Z"),
            (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
            (253_402_300_800_000_000, "+10000-01-01T00:00:00.000000Z"),
            (i64::MAX, "+294247-01-10T04:00:54.775807Z"),
            (i64::MIN, "-290308-12-21T19:59:05.224192Z"),
        ] {
            assert_eq!(Micros(micros).to_string(), text);
        }
        assert_eq!(Micros::from_postgres(0).to_string(), "2000-01-01T00:00:00.000000Z");
        assert_eq!(Micros::from_postgres(0).date(), (2000, 1, 1));
        assert_eq!(Micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn times_are_read_in_utc() {
        for (text, expected) in [
            ("2026-03-01", "2026-03-01T00:00:00.000000Z"),
            ("2026-03-01T09:30:00", "2026-03-01T09:30:00.000000Z"),
            ("2026-03-01T09:30:00+02:00", "2026-03-01T07:30:00.000000Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z"),
            ("9999-12-31T23:59:59+02:00", "9999-12-31T21:59:59.000000Z"),
            ("9999-12-31", "9999-12-31T00:00:00.000000Z"),
        ] {
            assert_eq!(text.parse::<Micros>().map(|at| at.to_string()), Ok(expected.to_string()));
        }
        for text in ["yesterday", "2026-02-30", "2026-03-01T25:00:00Z", "2026-03-01T09:30:00[Europe/Berlin]"] {
            assert!(text.parse::<Micros>().is_err(), "{text}");
        }
    }
}
