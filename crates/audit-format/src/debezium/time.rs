//! Converts dates, times and intervals from PostgreSQL's text form to the numbers and texts of `io.debezium.time`.

use std::io::Write as _;

const DAY_MICROS: i64 = 86_400_000_000;
/// Microseconds of a month, which has 365.25 / 12 days.
const MONTH_MICROS: i64 = 2_629_800_000_000;

/// The days that Debezium writes for an infinite date.
const INFINITE_DATES: (i64, i64) = (-2_147_472_692, -2_147_472_691);
/// The milliseconds that Debezium writes for an infinite timestamp.
const INFINITE_MILLIS: (i64, i64) = (9_223_372_036_825_200, -9_223_372_036_832_400);

/// Returns the days since 1970-01-01.
pub(super) fn days(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(INFINITE_DATES.0),
        "-infinity" => Some(INFINITE_DATES.1),
        text => Civil::date(without_era(text)).map(Civil::days),
    }
}

/// Returns the microseconds since 1970-01-01 of a timestamp without time zone. PostgreSQL's latest timestamps need more
/// than 64 bits.
pub(super) fn timestamp_micros(text: &str) -> Option<i128> {
    match text {
        "infinity" => return Some(i128::from(INFINITE_MILLIS.0) * 1_000),
        "-infinity" => return Some(i128::from(INFINITE_MILLIS.1) * 1_000),
        _ => {}
    }
    let (body, before_christ) = without_era(text);
    let (date, time) = body.split_once(' ')?;
    let days = Civil::date((date, before_christ))?.days();
    Some(i128::from(days) * i128::from(DAY_MICROS) + i128::from(time_micros(time)?))
}

/// Returns the microseconds since midnight of a time such as `09:30:01.123456`, up to `24:00:00`.
pub(super) fn time_micros(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hours, minutes, rest) = (parts.next()?, parts.next()?, parts.next());
    if parts.next().is_some() {
        return None;
    }
    let (seconds, fraction) = rest.map_or(("0", ""), |rest| rest.split_once('.').unwrap_or((rest, "")));
    let micros = (0..6).try_fold(0, |micros, at| {
        let digit = fraction.as_bytes().get(at).copied().unwrap_or(b'0');
        digit.is_ascii_digit().then(|| micros * 10 + i64::from(digit - b'0'))
    })?;
    let hours = number(hours)?.checked_mul(3_600)?;
    hours.checked_add(number(minutes)? * 60 + number(seconds)?)?.checked_mul(1_000_000)?.checked_add(micros)
}

/// Appends a time with time zone as a JSON string in UTC, without zeros at the end: `07:30:01.5Z`.
pub(super) fn write_zoned_time(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let at = text.rfind(['+', '-'])?;
    let (time, offset) = text.split_at(at);
    let seconds = time_micros(
        offset
            .get(1..)
            .map(|digits| match digits.len() {
                2 => [digits, ":00:00"].concat(),
                5 => [digits, ":00"].concat(),
                _ => digits.to_owned(),
            })?
            .as_str(),
    )?;
    let east = if offset.starts_with('-') { -seconds } else { seconds };
    let micros = (time_micros(time)? - east).rem_euclid(DAY_MICROS);
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    // Writing into a Vec cannot fail.
    let _ = write!(out, "\"{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction > 0 {
        let digits = format!("{fraction:06}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
    out.extend_from_slice(b"Z\"");
    Some(())
}

/// Appends a timestamp with time zone, which the source sends in UTC, as a JSON string with this number of decimals:
/// `2026-03-01T07:30:01.120000Z`.
pub(super) fn write_zoned_timestamp(out: &mut Vec<u8>, text: &str, decimals: usize) -> Option<()> {
    let (body, before_christ) = without_era(text);
    let (date, time) = body.strip_suffix("+00")?.split_once(' ')?;
    let civil = Civil::date((date, before_christ))?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    // Java writes years after 9999 with a sign, and the year before 1 as 0000.
    let _ = match civil.year {
        year @ 0..=9_999 => write!(out, "\"{year:04}"),
        year if year < 0 => write!(out, "\"-{:04}", -year),
        year => write!(out, "\"+{year}"),
    };
    let _ = write!(out, "-{:02}-{:02}T{clock}", civil.month, civil.day);
    if decimals > 0 {
        let _ = write!(out, ".{fraction:0<decimals$}");
    }
    out.extend_from_slice(b"Z\"");
    Some(())
}

/// Returns the microseconds of an interval in PostgreSQL's own style (`1 year 2 mons -3 days 04:05:06.789`), limited to
/// the range of the type.
pub(super) fn interval_micros(text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let mut total = 0i128;
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        let (negative, digits) = match word.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, word.strip_prefix('+').unwrap_or(word)),
        };
        let micros = match digits.contains(':') {
            true => i128::from(time_micros(digits)?),
            false => {
                let unit = match words.next()?.trim_end_matches('s') {
                    "year" => 12 * MONTH_MICROS,
                    "mon" => MONTH_MICROS,
                    "day" => DAY_MICROS,
                    _ => return None,
                };
                i128::from(number(digits)?) * i128::from(unit)
            }
        };
        total += if negative { -micros } else { micros };
    }
    Some(i64::try_from(total).unwrap_or(if total < 0 { i64::MIN } else { i64::MAX }))
}

/// A day of the proleptic Gregorian calendar, in which 1 BC is the year 0.
#[derive(Clone, Copy)]
struct Civil {
    year: i64,
    month: i64,
    day: i64,
}

impl Civil {
    fn date((text, before_christ): (&str, bool)) -> Option<Civil> {
        let mut parts = text.splitn(3, '-');
        let (year, month, day) = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
        let year = if before_christ { 1 - year } else { year };
        ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some(Civil { year, month, day })
    }

    /// Returns the days since 1970-01-01. The calculation lets years begin in March, so that the leap day is the last
    /// day; 0000-03-01 is 719,468 days before 1970-01-01.
    fn days(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
    }
}

fn without_era(text: &str) -> (&str, bool) {
    match text.strip_suffix(" BC") {
        Some(body) => (body, true),
        None => (text, false),
    }
}

fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_count_as_the_calendar_does() {
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("2026-03-01", Some(20_513)),
            ("0044-03-15 BC", Some(-735_160)),
            ("9999-12-31", Some(2_932_896)),
            ("2000-02-29", Some(11_016)),
            ("5874897-12-31", Some(2_145_042_905)),
            ("2026-13-01", None),
            ("", None),
        ] {
            assert_eq!(days(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in ["", "1", "1:2:3:4", "a:b:c", "1:2:3.x"] {
            assert_eq!(time_micros(text), None, "{text}");
            assert_eq!(timestamp_micros(text), None, "{text}");
        }
        assert_eq!(interval_micros("1 fortnight"), None);
        assert_eq!(interval_micros("1 mon -1 day"), Some(2_543_400_000_000));
        assert_eq!(interval_micros("178000000 years"), Some(i64::MAX));
        assert!(write_zoned_time(&mut Vec::new(), "12:00:00").is_none());
        assert!(write_zoned_timestamp(&mut Vec::new(), "infinity", 6).is_none());
    }
}
