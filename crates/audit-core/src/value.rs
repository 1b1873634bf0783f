//! What a column's text means: [`Kind`], and the JSON form of each kind.
//!
//! PostgreSQL sends every value as text under pinned output settings (`DateStyle` ISO, `TimeZone` UTC, `bytea_output`
//! hex). The JSON form is decided by the column's type alone, so that a column never mixes forms. A text that does not
//! have the form of its type becomes a JSON string, never an error.

use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

use base64::Engine as _;

use crate::position::ParseError;

/// The form of a column's values. All types of PostgreSQL beyond these keep their own text form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// `(precision, scale)` if the column declares them.
    Numeric(Option<(u16, i16)>),
    Bytea,
    Date,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
    Jsonb,
    Text,
    Array(Box<Kind>),
}

impl Kind {
    /// The kind of a built-in type; `None` for types that only the catalog knows (domains, enums, extensions).
    pub fn of(type_oid: u32, typmod: i32) -> Option<Kind> {
        Some(match type_oid {
            16 => Kind::Bool,
            17 => Kind::Bytea,
            20 => Kind::Int8,
            21 => Kind::Int2,
            23 => Kind::Int4,
            700 => Kind::Float4,
            701 => Kind::Float8,
            1700 => Kind::Numeric(numeric_modifier(typmod)),
            1082 => Kind::Date,
            1114 => Kind::Timestamp,
            1184 => Kind::TimestampTz,
            2950 => Kind::Uuid,
            114 => Kind::Json,
            3802 => Kind::Jsonb,
            1000 => Kind::Bool.array(),
            1001 => Kind::Bytea.array(),
            1005 => Kind::Int2.array(),
            1007 => Kind::Int4.array(),
            1016 => Kind::Int8.array(),
            1021 => Kind::Float4.array(),
            1022 => Kind::Float8.array(),
            1231 => Kind::Numeric(None).array(),
            1182 => Kind::Date.array(),
            1115 => Kind::Timestamp.array(),
            1185 => Kind::TimestampTz.array(),
            2951 => Kind::Uuid.array(),
            199 => Kind::Json.array(),
            3807 => Kind::Jsonb.array(),
            // Arrays of types that keep their text form. box[] (1020) is not among them, because its delimiter is a
            // semicolon.
            143
            | 651
            | 719
            | 791
            | 1002
            | 1003
            | 1009..=1015
            | 1017..=1019
            | 1027
            | 1028
            | 1034
            | 1040
            | 1041
            | 1183
            | 1187
            | 1270
            | 1561
            | 1563
            | 2949
            | 3221
            | 3643
            | 3645
            | 3905
            | 3907
            | 3909
            | 3911
            | 3913
            | 3927
            | 4073
            | 6150..=6157 => Kind::Text.array(),
            18..16384 => Kind::Text,
            _ => return None,
        })
    }

    pub fn array(self) -> Kind {
        Kind::Array(Box::new(self))
    }
}

/// `(precision, scale)` of a `numeric` from its type modifier (`numeric.c`, `make_numeric_typmod`).
pub fn numeric_modifier(typmod: i32) -> Option<(u16, i16)> {
    let packed = typmod.checked_sub(4).filter(|m| *m >= 0)?;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    Some(((packed >> 16 & 0xffff) as u16, scale as i16))
}

/// Prints the stored form: `int4`, `numeric(18,4)`, `text[]`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Bool => "bool",
            Kind::Int2 => "int2",
            Kind::Int4 => "int4",
            Kind::Int8 => "int8",
            Kind::Float4 => "float4",
            Kind::Float8 => "float8",
            Kind::Numeric(None) => "numeric",
            Kind::Numeric(Some((precision, scale))) => return write!(f, "numeric({precision},{scale})"),
            Kind::Bytea => "bytea",
            Kind::Date => "date",
            Kind::Timestamp => "timestamp",
            Kind::TimestampTz => "timestamptz",
            Kind::Uuid => "uuid",
            Kind::Json => "json",
            Kind::Jsonb => "jsonb",
            Kind::Text => "text",
            Kind::Array(element) => return write!(f, "{element}[]"),
        })
    }
}

impl FromStr for Kind {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Kind, ParseError> {
        if let Some(element) = s.strip_suffix("[]") {
            return Ok(element.parse::<Kind>()?.array());
        }
        let modifier = || {
            let (precision, scale) = s.strip_prefix("numeric(")?.strip_suffix(')')?.split_once(',')?;
            Some((precision.parse().ok()?, scale.parse().ok()?))
        };
        Ok(match s {
            "bool" => Kind::Bool,
            "int2" => Kind::Int2,
            "int4" => Kind::Int4,
            "int8" => Kind::Int8,
            "float4" => Kind::Float4,
            "float8" => Kind::Float8,
            "numeric" => Kind::Numeric(None),
            "bytea" => Kind::Bytea,
            "date" => Kind::Date,
            "timestamp" => Kind::Timestamp,
            "timestamptz" => Kind::TimestampTz,
            "uuid" => Kind::Uuid,
            "json" => Kind::Json,
            "jsonb" => Kind::Jsonb,
            "text" => Kind::Text,
            _ => Kind::Numeric(Some(modifier().ok_or(ParseError { what: "column kind" })?)),
        })
    }
}

/// Appends `text` as a JSON string.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    // Most values need no escape, so they cost one pass to check and one copy.
    if text.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\') {
        // Writing into a Vec cannot fail.
        let _ = serde_json::to_writer(&mut *out, text);
    } else {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

/// Appends the JSON form of a value, given in PostgreSQL's text form.
pub fn write_json_value(out: &mut Vec<u8>, kind: &Kind, text: &str) {
    match kind {
        Kind::Bool if text == "t" => out.extend_from_slice(b"true"),
        Kind::Bool if text == "f" => out.extend_from_slice(b"false"),
        Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Float4 | Kind::Float8 if is_number(text) => {
            out.extend_from_slice(text.as_bytes())
        }
        Kind::Bytea => match text.strip_prefix("\\x").and_then(|digits| hex::decode(digits).ok()) {
            Some(bytes) => {
                out.push(b'"');
                out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(bytes).as_bytes());
                out.push(b'"');
            }
            None => write_json_string(out, text),
        },
        Kind::Date => write_date(out, text, ""),
        Kind::Timestamp => write_date(out, text, ""),
        Kind::TimestampTz => write_date(out, text, "Z"),
        // A top-level JSON null must stay different from SQL NULL.
        Kind::Jsonb if text == "null" => out.extend_from_slice(br#"{"$json": null}"#),
        Kind::Jsonb if !text.is_empty() => out.extend_from_slice(text.as_bytes()),
        Kind::Array(element) => write_array(out, element, text),
        _ => write_json_string(out, text),
    }
}

/// Whether the text is a JSON number: `NaN` and the infinities are not.
fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Appends a date or timestamp as RFC 3339; years outside 0 to 9999 are in ISO 8601's signed form, infinities stay as
/// they are.
fn write_date(out: &mut Vec<u8>, text: &str, zone: &str) {
    let (body, before_christ) = match text.strip_suffix(" BC") {
        Some(body) => (body, true),
        None => (text, false),
    };
    let body = if zone.is_empty() { body } else { body.strip_suffix("+00").unwrap_or(body) };
    let shaped = |(year, rest): &(&str, &str)| {
        !year.is_empty()
            && year.bytes().all(|b| b.is_ascii_digit())
            && rest.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b' ' | b':' | b'.' | b'+'))
    };
    let Some((year, rest)) = body.split_once('-').filter(shaped) else {
        return write_json_string(out, text);
    };
    out.push(b'"');
    match (before_christ, year.parse::<u32>()) {
        // 1 BC is the year 0 of ISO 8601.
        (true, Ok(year)) if year > 1 => {
            let _ = write!(out, "-{:04}", year - 1);
        }
        (true, _) => out.extend_from_slice(b"0000"),
        (false, _) => {
            if year.len() > 4 {
                out.push(b'+');
            }
            out.extend_from_slice(year.as_bytes());
        }
    }
    out.push(b'-');
    out.extend(rest.bytes().map(|b| if b == b' ' { b'T' } else { b }));
    if rest.len() > 5 {
        out.extend_from_slice(zone.as_bytes());
    }
    out.push(b'"');
}

/// Appends an array's text (`{1,NULL,"a b"}`, nested, with bounds `[0:1]={…}`) as a JSON list. Bounds other than the
/// default are kept: `{"$bounds": "[0:1]", "items": […]}`. A text that cannot be parsed becomes a string.
fn write_array(out: &mut Vec<u8>, element: &Kind, text: &str) {
    let start = out.len();
    let (bounds, body) = match text.split_once("]={") {
        Some((bounds, _)) if text.starts_with('[') => (Some(&text[..=bounds.len()]), &text[bounds.len() + 2..]),
        _ => (None, text),
    };
    if let Some(bounds) = bounds {
        out.extend_from_slice(br#"{"$bounds": "#);
        write_json_string(out, bounds);
        out.extend_from_slice(br#", "items": "#);
    }
    let rest = write_items(out, element, body, 0);
    if bounds.is_some() {
        out.push(b'}');
    }
    if rest != Some("") {
        out.truncate(start);
        write_json_string(out, text);
    }
}

/// PostgreSQL's own limit on an array's dimensions (`MAXDIM`).
const MAX_DIMENSIONS: usize = 6;

/// Appends one level of an array, beginning with its `{`. Returns the text after its `}`, or `None` if the text is not
/// an array.
fn write_items<'a>(out: &mut Vec<u8>, element: &Kind, text: &'a str, depth: usize) -> Option<&'a str> {
    let mut rest = text.strip_prefix('{').filter(|_| depth < MAX_DIMENSIONS)?;
    out.push(b'[');
    if let Some(after) = rest.strip_prefix('}') {
        out.push(b']');
        return Some(after);
    }
    loop {
        if rest.starts_with('{') {
            rest = write_items(out, element, rest, depth + 1)?;
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (item, after) = unquote(quoted)?;
            write_json_value(out, element, &item);
            rest = after;
        } else {
            let end = rest.find([',', '}'])?;
            match &rest[..end] {
                "NULL" => out.extend_from_slice(b"null"),
                item => write_json_value(out, element, item),
            }
            rest = &rest[end..];
        }
        let mut following = rest.chars();
        let separator = following.next()?;
        rest = following.as_str();
        match separator {
            ',' => out.extend_from_slice(b", "),
            '}' => {
                out.push(b']');
                return Some(rest);
            }
            _ => return None,
        }
    }
}

/// Reads a quoted array item after its opening quote. Returns the item and the text after its closing quote, or `None`
/// if there is no closing quote.
pub fn unquote(text: &str) -> Option<(String, &str)> {
    let mut item = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((item, &text[at + 1..])),
            '\\' => item.push(chars.next()?.1),
            c => item.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(kind: &str, text: &str) -> String {
        let mut out = Vec::new();
        write_json_value(&mut out, &kind.parse().unwrap(), text);
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).expect(&text);
        text
    }

    #[test]
    fn each_kind_has_one_json_form() {
        for (kind, text, expected) in [
            ("bool", "t", "true"),
            ("int8", "-9223372036854775808", "-9223372036854775808"),
            ("float8", "1e+20", "1e+20"),
            ("float8", "-0", "-0"),
            ("float8", "NaN", r#""NaN""#),
            ("float4", "-Infinity", r#""-Infinity""#),
            ("numeric", "12.50", r#""12.50""#),
            ("bytea", r"\x00ff", r#""AP8=""#),
            ("date", "0044-03-15 BC", r#""-0043-03-15""#),
            ("date", "0001-01-01 BC", r#""0000-01-01""#),
            ("date", "infinity", r#""infinity""#),
            ("timestamp", "2026-03-01 09:30:00.5", r#""2026-03-01T09:30:00.5""#),
            ("timestamptz", "2026-03-01 09:30:00+00", r#""2026-03-01T09:30:00Z""#),
            ("timestamptz", "294276-12-31 23:59:59.999999+00", r#""+294276-12-31T23:59:59.999999Z""#),
            ("timestamptz", "4713-01-01 00:00:00+00 BC", r#""-4712-01-01T00:00:00Z""#),
            ("timestamptz", "-infinity", r#""-infinity""#),
            ("json", r#"{"a":1,"a":-0}"#, r#""{\"a\":1,\"a\":-0}""#),
            ("jsonb", r#"{"a": [1, null]}"#, r#"{"a": [1, null]}"#),
            ("jsonb", "null", r#"{"$json": null}"#),
            ("text", "a\"\u{2028}\n", "\"a\\\"\u{2028}\\n\""),
            ("int4[]", "{}", "[]"),
            ("int4[]", "{1,NULL,3}", "[1, null, 3]"),
            ("int4[]", "{{1,2},{3,4}}", "[[1, 2], [3, 4]]"),
            ("int4[]", "[0:1]={1,2}", r#"{"$bounds": "[0:1]", "items": [1, 2]}"#),
            ("text[]", r#"{"a,b","c\"d\\",NULL,"NULL",x}"#, r#"["a,b", "c\"d\\", null, "NULL", "x"]"#),
            ("jsonb[]", r#"{"{\"a\": 1}","null"}"#, r#"[{"a": 1}, {"$json": null}]"#),
            ("int4[]", "{1,2", r#""{1,2""#),
            ("text[]", "{\"a\"ň,b}", r#""{\"a\"ň,b}""#),
        ] {
            assert_eq!(json(kind, text), expected, "{kind} {text}");
        }
    }

    #[test]
    fn a_numeric_modifier_is_read_as_postgres_packs_it() {
        let typmod = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        assert_eq!(Kind::of(1700, typmod(18, 4)), Some(Kind::Numeric(Some((18, 4)))));
        assert_eq!(Kind::of(1700, typmod(5, -3)), Some(Kind::Numeric(Some((5, -3)))));
        assert_eq!(Kind::of(1700, -1), Some(Kind::Numeric(None)));
    }

    proptest! {
        #[test]
        fn any_text_of_any_kind_but_jsonb_makes_valid_json(
            text in "[\\PC{}\",\\\\0-9eNUL\\-\\[\\]:=]{0,30}",
            kind in prop::sample::select(vec![
                "bool", "int4", "float8", "numeric", "bytea", "date", "timestamp", "timestamptz", "json", "text", "int4[]",
                "text[]", "float8[]", "date[]",
            ])
        ) {
            let kind: Kind = kind.parse().unwrap();
            let mut out = Vec::new();
            write_json_value(&mut out, &kind, &text);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
            prop_assert_eq!(kind.to_string().parse::<Kind>(), Ok(kind));
        }
    }
}
