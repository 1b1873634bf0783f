//! Sizes and durations as people write them: [`ByteSize`] (`"16 MiB"`) and [`Span`] (`"5 s"`).
//!
//! Both print exactly what they hold, in the unit that gives the smallest whole number, and parse what they print.
//! A number too large for the type is refused, never truncated.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Units by their printed name, with their factor. If two units give the same number, the earlier one is printed.
type Units = [(&'static str, u128)];

const SIZES: &Units = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const SPANS: &Units = &[
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// `format` in the JSON schema of a [`ByteSize`], by which the check of a document recognises the type.
pub(crate) const SIZE_FORMAT: &str = "byte-size";
/// `format` in the JSON schema of a [`Span`].
pub(crate) const SPAN_FORMAT: &str = "time-span";

/// The reason why a text is not a size or duration. It does not contain the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("not a size: write a whole number and B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, as in \"16 MiB\"")]
    Size,
    #[error("not a duration: write a whole number and ms, s, min, h or d, as in \"5 s\"")]
    Span,
    #[error("too large")]
    TooLarge,
}

/// A number of bytes: `"16 MiB"`, `"256MB"`, or a plain number. Letter case and spaces do not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    pub const fn bytes(count: u64) -> ByteSize {
        ByteSize(count)
    }

    pub const fn kib(count: u32) -> ByteSize {
        ByteSize((count as u64) << 10)
    }

    pub const fn mib(count: u32) -> ByteSize {
        ByteSize((count as u64) << 20)
    }

    pub const fn gib(count: u32) -> ByteSize {
        ByteSize((count as u64) << 30)
    }

    /// The size in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteSize, UnitError> {
        let bytes = parse(text, SIZES, Some(1)).unwrap_or(Err(UnitError::Size))?;
        u64::try_from(bytes).map(ByteSize).map_err(|_| UnitError::TooLarge)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self.0.into(), SIZES, "B", f)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"16 MiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom(UnitError::Size))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "format": SIZE_FORMAT,
            "pattern": "^\\s*[0-9]+\\s*(([kKmMgGtT][iI]?)?[bB])?\\s*$",
            "minimum": 0,
        })
    }
}

/// A length of time: `"250ms"`, `"5 s"`, `"5 min"`, `"1h"`, `"7 d"`. A unit is required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

impl Span {
    pub const fn millis(count: u64) -> Span {
        Span(Duration::from_millis(count))
    }

    pub const fn secs(count: u64) -> Span {
        Span(Duration::from_secs(count))
    }

    pub const fn mins(count: u32) -> Span {
        Span::secs(count as u64 * 60)
    }

    pub const fn hours(count: u32) -> Span {
        Span::secs(count as u64 * 3_600)
    }

    pub const fn days(count: u32) -> Span {
        Span::secs(count as u64 * 86_400)
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Span {
        Span(duration)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Span, UnitError> {
        let nanos = parse(text, SPANS, None).unwrap_or(Err(UnitError::Span))?;
        let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| UnitError::TooLarge)?;
        Ok(Span(Duration::new(seconds, (nanos % 1_000_000_000) as u32)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self.0.as_nanos(), SPANS, "s", f)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": SPAN_FORMAT,
            "pattern": "^\\s*[0-9]+\\s*([dD]|[hH]|[mM][iI][nN]|[sS]|[mMuUnN][sS])\\s*$",
        })
    }
}

/// Returns the number times its unit's factor. `bare` is the factor of a number without unit, if that is allowed.
/// `None` if the text is not a number and a unit.
fn parse(text: &str, units: &Units, bare: Option<u128>) -> Option<Result<u128, UnitError>> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = unit.trim_start();
    let factor = match unit {
        "" => bare?,
        _ => units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    if digits.is_empty() {
        return None;
    }
    let product = digits.parse::<u128>().ok().and_then(|number| number.checked_mul(factor));
    Some(product.ok_or(UnitError::TooLarge))
}

fn print(value: u128, units: &Units, zero: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let exact = units.iter().filter(|(_, factor)| value != 0 && value.is_multiple_of(*factor));
    match exact.min_by_key(|(_, factor)| value / factor) {
        Some((name, factor)) => write!(f, "{} {name}", value / factor),
        None => write!(f, "0 {zero}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let size = |text: &str| text.parse::<ByteSize>().map(ByteSize::get);
        assert_eq!(size("16 MiB"), Ok(16 << 20));
        assert_eq!(size(" 256MB "), Ok(256_000_000));
        assert_eq!(size("1gib"), Ok(1 << 30));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("16 EiB"), Err(UnitError::Size));
        assert_eq!(size("1.5 GiB"), Err(UnitError::Size));
        assert_eq!(size("-1"), Err(UnitError::Size));
        assert_eq!(size("MiB"), Err(UnitError::Size));
        assert_eq!(size("16777216 TiB"), Err(UnitError::TooLarge));
        assert_eq!(size(&"9".repeat(60)), Err(UnitError::TooLarge));
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        let span = |text: &str| text.parse::<Span>().map(Span::get);
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(span("5 min"), Ok(Duration::from_secs(300)));
        assert_eq!(span("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(span("5"), Err(UnitError::Span));
        assert_eq!(span("5 m"), Err(UnitError::Span));
        assert_eq!(span("213503982334602 d"), Err(UnitError::TooLarge));
    }

    #[test]
    fn both_print_the_smallest_whole_number() {
        let shown = [ByteSize::mib(1536), ByteSize::bytes(256_000_000), ByteSize::bytes(1_001), ByteSize::default()];
        assert_eq!(shown.map(|size| size.to_string()), ["1536 MiB", "256 MB", "1001 B", "0 B"]);
        let shown = [Span::mins(90), Span::hours(2), Span::millis(250), Span::default()];
        assert_eq!(shown.map(|span| span.to_string()), ["90 min", "2 h", "250 ms", "0 s"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*", unit in "[0-9]{0,45} ?[a-zA-Zµ]{0,4}") {
            for text in [text, unit] {
                let _ = (text.parse::<ByteSize>(), text.parse::<Span>());
            }
        }

        #[test]
        fn what_is_printed_reads_back(bytes: u64, kib: u32, seconds: u64, nanos in 0..1_000_000_000u32) {
            for size in [ByteSize::bytes(bytes), ByteSize::kib(kib)] {
                prop_assert_eq!(size.to_string().parse(), Ok(size));
            }
            for span in [Span(Duration::new(seconds, nanos)), Span::secs(seconds)] {
                prop_assert_eq!(span.to_string().parse(), Ok(span));
            }
        }
    }
}
