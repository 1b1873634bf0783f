//! A place in the history of a row or of a source, as people write it: [`Point`].

use std::fmt;

use audit_core::position::{Micros, Position};

use super::time::{Clock, NotATime};

/// A place in a history.
///
/// | text | the place |
/// |---|---|
/// | `now` | after all that has happened |
/// | a time ([`Clock`]) | after all that had happened at that time |
/// | `v3`, `v-1` | after the row's third version; after the one before its newest |
/// | a position | after the version at that position |
/// | `before POSITION`, `before xid:N` | before that version; before the transaction with that number |
///
/// It is printed as it is read, with times in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Now,
    /// Inclusive.
    Time(Micros),
    /// The number of a version of the row, from 1.
    Version(u32),
    /// So many versions before the newest, from 1.
    Back(u32),
    /// Inclusive. It may stand inside a transaction.
    At(Position),
    /// Exclusive.
    Before(Position),
    /// Exclusive. The number may belong to several transactions, because numbers are used again.
    BeforeXid(u32),
}

/// A text that names no place in a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPoint {
    #[error("{text:?} is neither a position nor the number of a transaction (xid:7311)")]
    Before { text: String },
    #[error("{text:?} is not the number of a version: these are v1, v2 and so on, and v-1 before the newest")]
    Version { text: String },
    #[error(transparent)]
    Time(#[from] NotATime),
}

impl NotAPoint {
    /// A hint on what to do about the error.
    pub fn hint(&self) -> String {
        match self {
            NotAPoint::Before { .. } | NotAPoint::Version { .. } => {
                "`cdc-audit history TABLE KEY --json` shows positions and transactions".to_owned()
            }
            NotAPoint::Time(error) => {
                format!("{}; or v3, v-1, a position, \"before POSITION\", \"before xid:N\"", error.hint())
            }
        }
    }
}

impl Point {
    /// Reads a point.
    ///
    /// # Errors
    /// Returns [`NotAPoint`] if the text is not one of those in the type's table.
    pub fn read(text: &str, clock: &Clock) -> Result<Point, NotAPoint> {
        let text = text.trim();
        if text == "now" {
            return Ok(Point::Now);
        }
        if let Some(of) = text.strip_prefix("before ") {
            return before(of.trim_start()).ok_or_else(|| NotAPoint::Before { text: of.to_owned() });
        }
        if let Some(number) = text.strip_prefix('v') {
            return version(number).ok_or_else(|| NotAPoint::Version { text: text.to_owned() });
        }
        match text.parse() {
            Ok(position) => Ok(Point::At(position)),
            Err(_) => Ok(Point::Time(clock.time(text)?)),
        }
    }
}

fn before(text: &str) -> Option<Point> {
    match text.strip_prefix("xid:") {
        Some(xid) => number(xid).map(Point::BeforeXid),
        None => text.parse().ok().map(Point::Before),
    }
}

fn version(text: &str) -> Option<Point> {
    let point = match text.strip_prefix('-') {
        Some(back) => Point::Back(number(back)?),
        None => Point::Version(number(text)?),
    };
    (!matches!(point, Point::Back(0) | Point::Version(0))).then_some(point)
}

/// Reads digits only, unlike the standard library, which also takes a sign.
fn number(digits: &str) -> Option<u32> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::Now => f.write_str("now"),
            Point::Time(at) => at.fmt(f),
            Point::Version(number) => write!(f, "v{number}"),
            Point::Back(count) => write!(f, "v-{count}"),
            Point::At(position) => position.fmt(f),
            Point::Before(position) => write!(f, "before {position}"),
            Point::BeforeXid(xid) => write!(f, "before xid:{xid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock { now: "2026-04-01T09:30:00Z".parse().unwrap(), zone: jiff::tz::TimeZone::UTC }
    }

    #[test]
    fn a_point_is_printed_as_it_is_read() {
        for text in [
            "now",
            "2026-01-31T14:00:00.000000Z",
            "v3",
            "v-1",
            "0001:0000000016b37430:0000000002",
            "before 0001:0000000016b37430:0000000002",
            "before xid:7311",
        ] {
            assert_eq!(Point::read(text, &clock()).map(|point| point.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(Point::read("yesterday", &clock()), Ok(Point::Time("2026-03-31".parse().unwrap())));
    }

    #[test]
    fn what_is_no_point_is_refused() {
        for text in ["v0", "v-0", "v", "v+1", "v1.5", "version 3"] {
            assert!(matches!(Point::read(text, &clock()), Err(NotAPoint::Version { .. })), "{text}");
        }
        for text in ["before", "before ", "before v3", "before xid:", "before xid:+1", "before yesterday"] {
            assert!(Point::read(text, &clock()).is_err(), "{text}");
        }
        assert!(matches!(Point::read("7311", &clock()), Err(NotAPoint::Time(NotATime::Unknown { .. }))));
    }
}
