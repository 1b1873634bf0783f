//! Parses PostgreSQL's text forms into typed values. The result is `None` if the type cannot hold the value exactly;
//! the caller then keeps the text.
//!
//! Dates and times outside the years 1 to 9999 are treated as such values, because engines handle them differently.

use audit_core::position::days;

/// Parses a `numeric` with a fixed scale into its number of smallest decimal units.
pub fn decimal(text: &str, scale: u8) -> Option<i128> {
    let bytes = text.as_bytes();
    let (negative, digits) = match bytes.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, bytes),
    };
    let mut value: i128 = 0;
    let mut decimals: Option<u8> = None;
    let mut any = false;
    for &byte in digits {
        match (byte, decimals) {
            (b'0'..=b'9', _) => {
                value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
                decimals = match decimals {
                    Some(count) => Some(count.checked_add(1)?),
                    None => None,
                };
                any = true;
            }
            (b'.', None) => decimals = Some(0),
            _ => return None,
        }
    }
    let missing = scale.checked_sub(decimals.unwrap_or(0))?;
    for _ in 0..missing {
        value = value.checked_mul(10)?;
    }
    any.then_some(if negative { -value } else { value })
}

/// Parses two decimal digits.
fn two(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(u32::from(a - b'0') * 10 + u32::from(b - b'0')),
        _ => None,
    }
}

/// Parses `YYYY-MM-DD` into days since 1970-01-01.
pub fn date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = two(&bytes[..2])? * 100 + two(&bytes[2..4])?;
    let (month, day) = (two(&bytes[5..7])?, two(&bytes[8..])?);
    if year == 0 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days(year as i32, month as u8, day as u8))
}

/// Parses `YYYY-MM-DD HH:MM:SS[.ffffff]`, followed by `+00` if `zone`, into microseconds since 1970-01-01.
pub fn timestamp(text: &str, zone: bool) -> Option<i64> {
    let text = if zone { text.strip_suffix("+00")? } else { text };
    let days = date(text.get(..10)?)?;
    let bytes = text.as_bytes();
    if bytes.len() < 19 || bytes[10] != b' ' || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let (hour, minute, second) = (two(&bytes[11..13])?, two(&bytes[14..16])?, two(&bytes[17..19])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut micros = 0i64;
    if let Some((dot, digits)) = bytes[19..].split_first() {
        if *dot != b'.' || digits.is_empty() || digits.len() > 6 {
            return None;
        }
        for at in 0..6 {
            let digit = match digits.get(at) {
                Some(digit @ b'0'..=b'9') => i64::from(digit - b'0'),
                Some(_) => return None,
                None => 0,
            };
            micros = micros * 10 + digit;
        }
    }
    let seconds = i64::from(days) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    Some(seconds * 1_000_000 + micros)
}

/// Appends the bytes of `\x…` to `out`; on `None` nothing is appended.
pub fn bytea(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let digit = |byte: u8| (byte as char).to_digit(16);
    out.reserve(digits.len() / 2);
    for pair in digits.chunks(2) {
        let value = match pair {
            [high, low] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match value {
            Some((high, low)) => out.push((high * 16 + low) as u8),
            None => {
                out.truncate(start);
                return None;
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        for (text, scale, expected) in [
            ("0", 0, Some(0)),
            ("12.50", 2, Some(1250)),
            ("-12.5", 4, Some(-125_000)),
            ("12", 3, Some(12_000)),
            ("99999999999999999999999999999999999999", 0, Some(99_999_999_999_999_999_999_999_999_999_999_999_999)),
            ("12.345", 2, None),
            ("NaN", 2, None),
            ("Infinity", 2, None),
            ("", 2, None),
            ("-", 2, None),
            (".", 2, None),
            ("1.2.3", 4, None),
            ("9999999999999999999999999999999999999999", 0, None),
        ] {
            assert_eq!(decimal(text, scale), expected, "{text}");
        }
    }

    #[test]
    fn dates_and_times_are_exact_or_refused() {
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("2000-02-29"), Some(11_016));
        assert_eq!(date("0001-01-01"), Some(-719_162));
        assert_eq!(date("9999-12-31"), Some(2_932_896));
        for text in ["0044-03-15 BC", "infinity", "-infinity", "10000-01-01", "294276-12-31", "2026-1-1", ""] {
            assert_eq!(date(text), None, "{text}");
            assert_eq!(timestamp(&format!("{text} 00:00:00+00"), true), None, "{text}");
        }
        assert_eq!(timestamp("1970-01-01 00:00:00+00", true), Some(0));
        assert_eq!(timestamp("2026-03-01 09:30:00.5+00", true), Some(1_772_357_400_500_000));
        assert_eq!(timestamp("2026-03-01 09:30:00.000001", false), Some(1_772_357_400_000_001));
        assert_eq!(timestamp("1969-12-31 23:59:59.999999+00", true), Some(-1));
        for text in [
            "2026-03-01 09:30:00",
            "2026-03-01 09:30:00+01",
            "2026-03-01 09:30:00.1234567+00",
            "infinity",
            "ä026-03-01 09:30:00+00",
        ] {
            assert_eq!(timestamp(text, true), None, "{text}");
        }
        assert_eq!(timestamp("4713-01-01 00:00:00+00 BC", true), None);
    }

    #[test]
    fn bytea_is_exact_or_refused() {
        let mut out = vec![1];
        assert_eq!(bytea("\\x00ff", &mut out), Some(()));
        assert_eq!(out, [1, 0, 255]);
        for text in ["00ff", "\\x0", "\\x0g", "\\xé"] {
            assert_eq!(bytea(text, &mut out), None, "{text}");
        }
        assert_eq!(out, [1, 0, 255]);
    }
}
