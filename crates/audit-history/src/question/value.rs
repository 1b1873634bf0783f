//! Values compared by the type of their column ([`Value`]): `12` equals `12.0` in a number, and not in a text.

use std::cmp::Ordering;

use audit_core::position::Micros;
use audit_core::value::Kind;
use serde_json::value::RawValue;

use super::time::{Clock, Span};

/// A value that a column has, or one that it is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Number(Number),
    Bool(bool),
    Time(Micros),
    Json(serde_json::Value),
    Text(String),
}

/// A value as it is given.
#[derive(Clone, Debug)]
pub enum Given {
    Value(Value),
    /// A day, a minute or a moment: a time is equal to it if it lies in it.
    Span(Span),
}

/// A text that is no value of the column's type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a value of column {column}, whose type is {kind}")]
pub struct NotAValue {
    pub text: String,
    pub column: String,
    pub kind: String,
}

impl Value {
    /// A value as records contain it.
    pub fn stored(kind: &Kind, json: &RawValue) -> Value {
        let text = json.get();
        match text {
            "null" => return Value::Null,
            "true" => return Value::Bool(true),
            "false" => return Value::Bool(false),
            _ => {}
        }
        if matches!(kind, Kind::Jsonb | Kind::Array(_)) {
            return serde_json::from_str(text).map_or_else(|_| Value::Text(text.to_owned()), Value::Json);
        }
        let Ok(text) = serde_json::from_str::<String>(text) else {
            return Number::read(text).map_or_else(|| Value::Text(text.to_owned()), Value::Number);
        };
        let typed = match kind {
            Kind::Numeric(_) => Number::read(&text).map(Value::Number),
            Kind::Date | Kind::Timestamp | Kind::TimestampTz => text.parse().ok().map(Value::Time),
            _ => None,
        };
        typed.unwrap_or(Value::Text(text))
    }

    fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => Some(a.cmp(b)),
            (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

impl Given {
    /// Reads a value of a column. Times of `timestamp with time zone` are in the asker's zone; those without a zone are
    /// taken as they are written.
    ///
    /// # Errors
    /// Returns [`NotAValue`] if the column's type has no such value.
    pub fn read(kind: &Kind, column: &str, text: &str, clock: &Clock) -> Result<Given, NotAValue> {
        let as_is = Clock { now: clock.now, zone: jiff::tz::TimeZone::UTC };
        let span = |clock: &Clock| clock.span(text).ok().map(Given::Span);
        let read = match kind {
            Kind::Int2 | Kind::Int4 | Kind::Int8 => {
                Number::read(text).map(|number| Given::Value(Value::Number(number)))
            }
            Kind::Float4 | Kind::Float8 | Kind::Numeric(_) => match text {
                "NaN" | "Infinity" | "-Infinity" => Some(Given::Value(Value::Text(text.to_owned()))),
                text => Number::read(text).map(|number| Given::Value(Value::Number(number))),
            },
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" => Some(Given::Value(Value::Bool(true))),
                "false" | "f" | "no" => Some(Given::Value(Value::Bool(false))),
                _ => None,
            },
            Kind::TimestampTz => span(clock),
            Kind::Date | Kind::Timestamp => span(&as_is),
            Kind::Uuid => Some(Given::Value(Value::Text(text.to_ascii_lowercase()))),
            Kind::Jsonb | Kind::Array(_) => {
                let json = serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::from(text));
                Some(Given::Value(Value::Json(json)))
            }
            Kind::Bytea | Kind::Json | Kind::Text => Some(Given::Value(Value::Text(text.to_owned()))),
        };
        read.ok_or_else(|| NotAValue { text: text.to_owned(), column: column.to_owned(), kind: kind.to_string() })
    }

    pub fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Given::Value(given), value) => given == value,
            // A moment that was written to the microsecond has no length.
            (Given::Span(span), Value::Time(at)) => span.from <= *at && (*at < span.until || *at == span.from),
            (Given::Span(_), _) => false,
        }
    }

    /// How a value is to what was given; `None` if the two have no order.
    pub fn order(&self, value: &Value) -> Option<Ordering> {
        match (self, value) {
            (Given::Value(given), value) => value.compare(given),
            (Given::Span(_), Value::Time(_)) if self.equals(value) => Some(Ordering::Equal),
            (Given::Span(span), Value::Time(at)) => Some(at.cmp(&span.from)),
            (Given::Span(_), _) => None,
        }
    }
}

/// A decimal number of any length, compared by its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    negative: bool,
    /// Digits without leading and trailing zeros; empty for zero.
    digits: String,
    /// The number of digits before the decimal point; negative if zeros follow it.
    point: i64,
}

impl Number {
    /// Reads `-12.50` and `1e5`.
    pub fn read(text: &str) -> Option<Number> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let leading = all.bytes().take_while(|b| *b == b'0').count();
        let digits = all[leading..].trim_end_matches('0').to_owned();
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()? + i64::from(exponent);
        match digits.is_empty() {
            true => Some(Number { negative: false, digits, point: 0 }),
            false => Some(Number { negative, digits, point }),
        }
    }

    fn magnitude(&self, other: &Number) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (false, false) => self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits)),
            (mine, others) => others.cmp(&mine),
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.magnitude(other),
            (true, true) => other.magnitude(self),
            (mine, others) => others.cmp(&mine),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_value_whatever_their_length() {
        let sorted = [
            "-1e3",
            "-999.5",
            "-0.001",
            "0",
            "1e-9",
            "0.5",
            "1",
            "1.0000000000000000000000001",
            "9",
            "10",
            "12.5",
            "123456789012345678901234567890",
            "1e30",
        ];
        let numbers: Vec<Number> = sorted.iter().filter_map(|text| Number::read(text)).collect();
        assert_eq!(numbers.len(), sorted.len());
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
        for (a, b) in [("12", "12.0"), ("-0", "0.00"), ("1e2", "100"), ("0100", "100"), ("0.10", ".1")] {
            assert_eq!(Number::read(a), Number::read(b), "{a} {b}");
        }
        for text in ["", "-", ".", "1.2.3", "1e", "x", "0x1", "1 2"] {
            assert_eq!(Number::read(text), None, "{text}");
        }
    }

    #[track_caller]
    fn check(kind: Kind, given: &str, stored: &str, order: Option<Ordering>) {
        let clock = Clock { now: Micros(0), zone: jiff::tz::TimeZone::posix("CET-1").unwrap() };
        let given = Given::read(&kind, "c", given, &clock).unwrap_or_else(|error| panic!("{error}"));
        let stored = RawValue::from_string(stored.to_owned()).unwrap();
        let value = Value::stored(&kind, &stored);
        assert_eq!(
            (given.equals(&value), given.order(&value)),
            (order == Some(Ordering::Equal), order),
            "{given:?} {value:?}"
        );
    }

    #[test]
    fn values_compare_by_the_type_of_the_column() {
        use Ordering::{Equal, Greater, Less};
        check(Kind::Numeric(None), "12", "\"12.0\"", Some(Equal));
        check(Kind::Int4, "12.0", "12", Some(Equal));
        check(Kind::Float8, "1000", "1e4", Some(Greater));
        check(Kind::Text, "12", "\"12.0\"", Some(Greater));
        check(Kind::Text, "paid", "\"open\"", Some(Less));
        check(Kind::Text, "paid", "null", None);
        check(Kind::Bool, "yes", "true", Some(Equal));
        check(Kind::Date, "2026-01", "\"2026-01-31\"", Some(Equal));
        check(Kind::Date, "2026-01-31", "\"2026-02-01\"", Some(Greater));
        // 23:30 in UTC is the next day in the asker's zone, unless the column has no zone.
        check(Kind::TimestampTz, "2026-02-01", "\"2026-01-31T23:30:00Z\"", Some(Equal));
        check(Kind::Timestamp, "2026-02-01", "\"2026-01-31T23:30:00\"", Some(Less));
        check(Kind::TimestampTz, "2026-02-01", "\"infinity\"", None);
        check(Kind::Numeric(None), "12", "{\"$too_large\": 7}", None);
        check(Kind::Numeric(None), "NaN", "\"NaN\"", Some(Equal));
    }

    #[test]
    fn what_the_type_cannot_hold_is_refused() {
        let clock = Clock { now: Micros(0), zone: jiff::tz::TimeZone::UTC };
        for (kind, text) in [(Kind::Int4, "abc"), (Kind::Bool, "maybe"), (Kind::Date, "soon")] {
            assert!(Given::read(&kind, "c", text, &clock).is_err(), "{text}");
        }
        let json =
            |text: &str| matches!(Given::read(&Kind::Jsonb, "c", text, &clock), Ok(Given::Value(Value::Json(_))));
        assert!(json("{\"a\": 1}") && json("plain"));
    }
}
