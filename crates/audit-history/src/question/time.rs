//! Times and spans as people write them: [`Clock`].
//!
//! | text | the time | the span |
//! |---|---|---|
//! | `2026-01-31T14:00:00Z`, with any offset | that instant | that second or minute |
//! | `2026-01-31` | its start | the day |
//! | `2026-01-31 14:00`, `2026-01-31T14:00:30` | that minute or second | that minute or second |
//! | `14:00` | today at that time | that minute |
//! | `now` | now | |
//! | `today`, `yesterday`, `monday` … `sunday`, also with a time | its start; a weekday is the latest one, today included | the day |
//! | `3d`, `3 days ago`, `90 m`, `2 weeks ago` | so long before now | from then until now |
//! | `2026-01` | its start | the month |
//! | `A..B` | | from the start of A until the start of B |
//!
//! Days, and times without an offset, are those of the asker's zone. Whatever is not in this table is refused: a guess
//! would answer another question than the one that was asked.

use audit_core::position::{Micros, days};
use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Span as Duration, Timestamp};

use super::zone;

/// Now, and the zone in which times are meant.
#[derive(Clone, Debug)]
pub struct Clock {
    pub now: Micros,
    pub zone: TimeZone,
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Inclusive.
    pub from: Micros,
    /// Exclusive.
    pub until: Micros,
}

/// A text that names no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATime {
    #[error("{text:?} is not a time")]
    Unknown { text: String },
    #[error("{text:?} ends before it begins")]
    Backwards { text: String },
    #[error("{text:?} does not exist in the time zone: clocks were moved forward")]
    Skipped { text: String },
    #[error("{text:?} comes twice in the time zone: clocks were moved back")]
    Twice { text: String },
}

impl NotATime {
    /// A hint on what to do about the error.
    pub fn hint(&self) -> String {
        match self {
            NotATime::Unknown { .. } => {
                "write 2026-01-31, \"2026-01-31 14:00\", 14:00, 2026-01-31T14:00:00Z, now, today, yesterday, monday, \
                 \"monday 14:00\", 3d, \"3 days ago\" (s, m, h, d, w, months, years), or, where a span is wanted, also \
                 2026-01 or A..B"
            }
            NotATime::Backwards { .. } => "write the earlier time first",
            NotATime::Skipped { .. } | NotATime::Twice { .. } => {
                "add the offset, as in \"2026-10-25 02:30+02:00\", or use --tz UTC"
            }
        }
        .to_owned()
    }
}

/// What a text names: a moment, and how long it lasts.
enum Named {
    /// A moment in the zone, and the length of what was written: a minute or a second.
    Civil(DateTime, Duration),
    Instant(Micros, Micros),
    Day(Date),
    Month(Date),
    /// So long before now.
    Before(Micros),
    Now,
}

impl Clock {
    /// The moment that a text names; of a day or a month its start.
    ///
    /// # Errors
    /// Returns [`NotATime`] if the text is not one of those in the module's table.
    pub fn time(&self, text: &str) -> Result<Micros, NotATime> {
        match self.named(text)? {
            Named::Civil(at, _) => self.instant(at, text),
            Named::Instant(from, _) | Named::Before(from) => Ok(from),
            Named::Day(date) | Named::Month(date) => Ok(self.start(date)),
            Named::Now => Ok(self.now),
        }
    }

    /// The span that a text names.
    ///
    /// # Errors
    /// Returns [`NotATime`] if the text is not one of those in the module's table.
    pub fn span(&self, text: &str) -> Result<Span, NotATime> {
        if let Some((from, until)) = text.split_once("..") {
            let span = Span { from: self.time(from.trim())?, until: self.time(until.trim())? };
            return if span.from <= span.until { Ok(span) } else { Err(NotATime::Backwards { text: text.to_owned() }) };
        }
        let later = |date: Date, by: Duration| date.checked_add(by).map_err(|_| unknown(text));
        let (from, until) = match self.named(text)? {
            Named::Civil(at, length) => {
                let end = at.checked_add(length).map_err(|_| unknown(text))?;
                (self.instant(at, text)?, self.instant(end, text)?)
            }
            Named::Instant(from, until) => (from, until),
            Named::Day(date) => (self.start(date), self.start(later(date, Duration::new().days(1))?)),
            Named::Month(date) => (self.start(date), self.start(later(date, Duration::new().months(1))?)),
            Named::Before(from) => (from, self.now),
            Named::Now => (self.now, self.now),
        };
        Ok(Span { from, until })
    }

    fn named(&self, text: &str) -> Result<Named, NotATime> {
        let word = text.trim().to_ascii_lowercase();
        let named = match word.as_str() {
            "now" => Some(Named::Now),
            _ => month(&word).map(Named::Month).or_else(|| self.day_and_time(&word)).or_else(|| self.ago(&word)),
        };
        named.ok_or_else(|| unknown(text))
    }

    /// Reads a day, a time of today, or both.
    fn day_and_time(&self, word: &str) -> Option<Named> {
        if let Some((time, length)) = clock_time(word) {
            return Some(Named::Civil(self.today()?.to_datetime(time), length));
        }
        let (first, rest) = match word.split_once(' ') {
            Some((first, rest)) => (first, Some(rest.trim_start())),
            None => match word.split_once('t').filter(|(first, _)| date(first).is_some()) {
                Some((first, rest)) => (first, Some(rest)),
                None => (word, None),
            },
        };
        let day = date(first).or_else(|| self.day(first))?;
        let Some(rest) = rest else { return Some(Named::Day(day)) };
        if let Some((time, length)) = clock_time(rest) {
            return Some(Named::Civil(day.to_datetime(time), length));
        }
        let (time, offset) = with_offset(rest)?;
        let (time, length) = clock_time(time)?;
        let from = micros(day.to_datetime(time), offset);
        let until = micros(day.to_datetime(time).checked_add(length).ok()?, offset);
        Some(Named::Instant(from, until))
    }

    /// Reads `today`, `yesterday`, or a weekday.
    fn day(&self, word: &str) -> Option<Date> {
        let today = self.today()?;
        let weekday = match word {
            "today" => return Some(today),
            "yesterday" => return today.yesterday().ok(),
            "monday" => Weekday::Monday,
            "tuesday" => Weekday::Tuesday,
            "wednesday" => Weekday::Wednesday,
            "thursday" => Weekday::Thursday,
            "friday" => Weekday::Friday,
            "saturday" => Weekday::Saturday,
            "sunday" => Weekday::Sunday,
            _ => return None,
        };
        let since = i64::from(weekday.until(today.weekday()));
        today.checked_sub(Duration::new().try_days(since).ok()?).ok()
    }

    /// Reads `3d` and `3 days ago`.
    fn ago(&self, word: &str) -> Option<Named> {
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = word.split_at(digits);
        let count: i64 = count.parse().ok()?;
        let unit = unit.trim_start();
        let unit = unit.strip_suffix(" ago").unwrap_or(unit).trim_end();
        let span = Duration::new();
        let span = match unit {
            "s" | "second" | "seconds" => span.try_seconds(count),
            "m" | "min" | "minute" | "minutes" => span.try_minutes(count),
            "h" | "hour" | "hours" => span.try_hours(count),
            "d" | "day" | "days" => span.try_days(count),
            "w" | "week" | "weeks" => span.try_weeks(count),
            "month" | "months" => span.try_months(count),
            "y" | "year" | "years" => span.try_years(count),
            _ => return None,
        };
        let now = Timestamp::from_microsecond(self.now.0).ok()?.to_zoned(self.zone.clone());
        let then = now.checked_sub(span.ok()?).ok()?;
        Some(Named::Before(Micros(then.timestamp().as_microsecond())))
    }

    /// Today's date in the zone.
    fn today(&self) -> Option<Date> {
        Some(self.zone.to_datetime(Timestamp::from_microsecond(self.now.0).ok()?).date())
    }

    /// The first instant of a day, which is later than midnight where clocks were moved forward then.
    fn start(&self, date: Date) -> Micros {
        let at = date.to_datetime(Time::midnight());
        let offset = match self.zone.to_ambiguous_timestamp(at).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset,
            // Before a gap the earlier offset gives the instant of the change; in a fold it gives the first midnight.
            AmbiguousOffset::Gap { before, .. } | AmbiguousOffset::Fold { before, .. } => before,
        };
        micros(at, offset)
    }

    fn instant(&self, at: DateTime, text: &str) -> Result<Micros, NotATime> {
        let text = text.to_owned();
        match self.zone.to_ambiguous_timestamp(at).offset() {
            AmbiguousOffset::Unambiguous { offset } => Ok(micros(at, offset)),
            AmbiguousOffset::Gap { .. } => Err(NotATime::Skipped { text }),
            AmbiguousOffset::Fold { .. } => Err(NotATime::Twice { text }),
        }
    }
}

fn unknown(text: &str) -> NotATime {
    NotATime::Unknown { text: text.to_owned() }
}

/// Unlike a timestamp of the library, this has no bound before the last hours of the year 9999.
fn micros(at: DateTime, offset: Offset) -> Micros {
    let days = days(i32::from(at.year()), at.month().unsigned_abs(), at.day().unsigned_abs());
    let seconds = i32::from(at.hour()) * 3600 + i32::from(at.minute()) * 60 + i32::from(at.second()) - offset.seconds();
    let micros = i64::from(at.subsec_nanosecond()) / 1000;
    Micros((i64::from(days) * 86_400 + i64::from(seconds)) * 1_000_000 + micros)
}

/// Whether a text has the form, in which `0` stands for any digit.
fn has_form(text: &str, form: &str) -> bool {
    let fits = |(text, form): (u8, u8)| if form == b'0' { text.is_ascii_digit() } else { text == form };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
}

fn date(text: &str) -> Option<Date> {
    has_form(text, "0000-00-00").then(|| text.parse().ok())?
}

/// The first day of `2026-01`.
fn month(text: &str) -> Option<Date> {
    has_form(text, "0000-00").then(|| format!("{text}-01").parse().ok())?
}

/// Reads `14:00`, `14:00:30` and `14:00:30.5`, with the length of what was written.
fn clock_time(text: &str) -> Option<(Time, Duration)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_fraction = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|b| b.is_ascii_digit());
    let length = match (has_form(whole, "00:00"), has_form(whole, "00:00:00")) {
        (true, _) if whole == text => Duration::new().minutes(1),
        (_, true) if is_fraction => Duration::new().seconds(1),
        _ => return None,
    };
    Some((text.parse().ok()?, length))
}

/// Splits `14:00+02:00` and `14:00:30z`.
fn with_offset(text: &str) -> Option<(&str, Offset)> {
    if let Some(time) = text.strip_suffix('z') {
        return Some((time.trim_end(), Offset::UTC));
    }
    let at = text.rfind(['+', '-'])?;
    Some((text[..at].trim_end(), zone::offset(&text[at..])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Wednesday.
    const NOW: &str = "2026-04-01T09:30:00Z";

    fn clock(zone: &str) -> Clock {
        Clock { now: NOW.parse().unwrap(), zone: TimeZone::posix(zone).unwrap() }
    }

    /// UTC+1, in summer UTC+2.
    const ROME: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    #[track_caller]
    fn check(zone: &str, text: &str, expected: &str) {
        let clock = clock(zone);
        let time = clock.time(text).unwrap_or_else(|error| panic!("{error}"));
        let span = clock.span(text).unwrap_or_else(|error| panic!("{error}"));
        let short = |at: Micros| at.to_string().replace(":00.000000Z", "").replace(".000000Z", "");
        assert_eq!(time, span.from, "{text}");
        assert_eq!(format!("{} … {}", short(span.from), short(span.until)), expected, "{text}");
    }

    #[test]
    fn times_and_spans_are_those_of_the_zone() {
        check(ROME, "2026-01-31T14:00:00Z", "2026-01-31T14:00 … 2026-01-31T14:00:01");
        check(ROME, "2026-01-31 14:00+05:30", "2026-01-31T08:30 … 2026-01-31T08:31");
        check(ROME, "2026-01-31", "2026-01-30T23:00 … 2026-01-31T23:00");
        check("UTC0", "2026-01-31 14:00", "2026-01-31T14:00 … 2026-01-31T14:01");
        check(ROME, "2026-01-31t14:00:30", "2026-01-31T13:00:30 … 2026-01-31T13:00:31");
        check(ROME, "14:00", "2026-04-01T12:00 … 2026-04-01T12:01");
        check(ROME, "now", "2026-04-01T09:30 … 2026-04-01T09:30");
        check(ROME, "Today", "2026-03-31T22:00 … 2026-04-01T22:00");
        check(ROME, "yesterday", "2026-03-30T22:00 … 2026-03-31T22:00");
        check("UTC0", "yesterday 08:15", "2026-03-31T08:15 … 2026-03-31T08:16");
        check("UTC0", "wednesday", "2026-04-01T00:00 … 2026-04-02T00:00");
        check("UTC0", "thursday", "2026-03-26T00:00 … 2026-03-27T00:00");
        check("UTC0", "tuesday 23:59:59", "2026-03-31T23:59:59 … 2026-04-01T00:00");
        check("UTC0", "3d", "2026-03-29T09:30 … 2026-04-01T09:30");
        check("UTC0", "3 days ago", "2026-03-29T09:30 … 2026-04-01T09:30");
        check("UTC0", "90m", "2026-04-01T08:00 … 2026-04-01T09:30");
        check("UTC0", "2 months ago", "2026-02-01T09:30 … 2026-04-01T09:30");
        check("UTC0", "2026-02", "2026-02-01T00:00 … 2026-03-01T00:00");
        check("UTC0", "9999-12-31 14:00", "9999-12-31T14:00 … 9999-12-31T14:01");
    }

    /// On 2026-03-29 the clocks of Rome went from 02:00 to 03:00, on 2025-10-26 from 03:00 to 02:00.
    #[test]
    fn days_have_23_and_25_hours() {
        check(ROME, "2026-03-29", "2026-03-28T23:00 … 2026-03-29T22:00");
        check(ROME, "2025-10-26", "2025-10-25T22:00 … 2025-10-26T23:00");
        // The same time of day, across the change.
        check(ROME, "3d", "2026-03-29T09:30 … 2026-04-01T09:30");
        check(ROME, "4d", "2026-03-28T10:30 … 2026-04-01T09:30");
        let skipped = clock(ROME).time("2026-03-29 02:30");
        assert!(matches!(skipped, Err(NotATime::Skipped { .. })), "{skipped:?}");
        let twice = clock(ROME).time("2025-10-26 02:30");
        assert!(matches!(twice, Err(NotATime::Twice { .. })), "{twice:?}");
        check(ROME, "2025-10-26 02:30+01:00", "2025-10-26T01:30 … 2025-10-26T01:31");
    }

    #[test]
    fn a_span_may_be_written_by_its_ends() {
        let clock = clock("UTC0");
        let span = clock.span("2026-01-01..2026-02").map(|span| (span.from.to_string(), span.until.to_string()));
        assert_eq!(span, Ok(("2026-01-01T00:00:00.000000Z".into(), "2026-02-01T00:00:00.000000Z".into())));
        assert!(matches!(clock.span("today..3d"), Err(NotATime::Backwards { .. })));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_never_guessed() {
        for text in [
            "",
            "14",
            "1400",
            "12:43:50.",
            "12:43.5",
            "2026",
            "2026-1-31",
            "20260131",
            "2026-02-30",
            "31.01.2026",
            "01/31/2026",
            "tomorrow",
            "last week",
            "noon",
            "3",
            "3x",
            "d",
            "-3d",
            "3 d ago now",
            "99999999999y",
            "2026-01-31 25:00",
            "2026-01-31 14:00 CET",
            "2026-01-31T14:00:00+2",
            "monday morning",
            "a week ago",
            "2026-13",
            "..",
            "2026-01-31T",
        ] {
            let error = clock("UTC0").time(text);
            assert!(matches!(&error, Err(NotATime::Unknown { text: told }) if told == text), "{text:?} {error:?}");
            assert!(clock("UTC0").span(text).is_err(), "{text:?}");
        }
        assert!(unknown("noon").hint().contains("3 days ago"));
    }
}
