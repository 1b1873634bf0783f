//! Where a version stands: [`Lsn`], [`Position`] and commit time.

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

/// The text was not what the type prints.
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

/// A version's place in its source's total order, and with the source its identity in every sink.
///
/// As text `eeee:llllllllllllllll:ssssssssss` (epoch and LSN in lower-case hex, `seq` in decimal), which sorts
/// bytewise as the positions do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Starts at 1, rises whenever the WAL does not continue what was captured before.
    pub epoch: u16,
    /// Start of the transaction's commit record, as Begin announces it.
    pub commit_lsn: Lsn,
    /// Counts, from 0, the changes that the server sent in this transaction.
    pub seq: u32,
}

impl Position {
    pub const fn new(epoch: u16, commit_lsn: Lsn, seq: u32) -> Position {
        Position { epoch, commit_lsn, seq }
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
            // Printing again refuses signs and capitals, which the number parsers accept.
            (shaped && position.to_string() == s).then_some(position)
        };
        parse().ok_or(ParseError { what: "position (like 0001:0000000016b37430:0000000002)" })
    }
}

/// Text forms are the stored forms: one way to write a position everywhere.
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

/// Seconds from 1970-01-01 to PostgreSQL's own epoch, 2000-01-01.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl Micros {
    /// From the time format of the replication protocol: microseconds since 2000-01-01 UTC.
    pub fn from_postgres(micros: i64) -> Micros {
        Micros(micros.saturating_add(POSTGRES_EPOCH_MICROS))
    }

    pub fn to_postgres(self) -> i64 {
        self.0.saturating_sub(POSTGRES_EPOCH_MICROS)
    }

    /// The wall clock, now. The one place that reads it.
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub fn now() -> Micros {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)),
            Err(before) => Micros(-i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX)),
        }
    }

    /// `(year, month, day)` in UTC.
    pub fn date(self) -> (i16, i8, i8) {
        let date = self.timestamp().to_zoned(jiff::tz::TimeZone::UTC).date();
        (date.year(), date.month(), date.day())
    }

    fn timestamp(self) -> jiff::Timestamp {
        let limit = if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(limit)
    }
}

/// RFC 3339 in UTC with six decimals: `2026-03-01T09:30:00.000000Z`.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.timestamp())
    }
}

/// A date, or a time in RFC 3339; without an offset in UTC.
impl FromStr for Micros {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Micros, ParseError> {
        let utc = |civil: jiff::civil::DateTime| civil.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp());
        let parsed = s
            .parse::<jiff::Timestamp>()
            .or_else(|_| s.parse::<jiff::civil::DateTime>().and_then(utc))
            .or_else(|_| s.parse::<jiff::civil::Date>().and_then(|date| utc(date.at(0, 0, 0, 0))));
        parsed
            .map(|at| Micros(at.as_microsecond()))
            .map_err(|_| ParseError { what: "date or time (like 2026-03-01T09:30:00Z)" })
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

    #[test]
    fn times_print_in_utc() {
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
        ] {
            assert_eq!(text.parse::<Micros>().map(|at| at.to_string()), Ok(expected.to_string()));
        }
        assert!("yesterday".parse::<Micros>().is_err());
    }
}
