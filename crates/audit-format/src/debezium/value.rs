//! Writes a value in the [`Form`] of its column.

use std::io::Write as _;

use audit_core::change::Value;
use audit_core::value::{unquote, write_json_string};

use super::base64::{bytea, write_base64};
use super::form::Form;
use super::number::{Decimal, money_text, write_money};
use super::time;
use crate::stamp::write_number;

/// The placeholder for a value that is not known: an unchanged TOAST value without an old row.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// The same placeholder as a UUID: version 3 of that name.
const UNAVAILABLE_UUID: &str = "b68a35a7-17ad-35b3-af2a-ae46edb4545a";

/// Appends a value. Text that is not of its type becomes null, and so does a value that the form cannot hold (`NaN` as
/// a `Decimal`). `new` says that an unknown value is one that was not sent again.
pub(super) fn write_value(out: &mut Vec<u8>, form: &Form, value: Value<&str>, new: bool) {
    let start = out.len();
    let written = match value {
        Value::Text(text) => write_text(out, form, text),
        Value::Unknown if new => write_unavailable(out, form),
        Value::Unknown | Value::Null => None,
    };
    if written.is_none() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

fn write_text(out: &mut Vec<u8>, form: &Form, text: &str) -> Option<()> {
    match form {
        Form::Bool => out.extend_from_slice(match text {
            "t" => b"true",
            "f" => b"false",
            _ => return None,
        }),
        Form::Bit => out.extend_from_slice(if text == "1" { b"true" } else { b"false" }),
        Form::Bits(_) => write_base64(out, bits(text)?),
        Form::Int16 | Form::Int32 | Form::Int64 => {
            text.parse::<i64>().ok()?;
            out.extend_from_slice(text.as_bytes());
        }
        Form::Float | Form::Double => write_float(out, text)?,
        Form::Decimal { scale, .. } => return Decimal::parse(text)?.write_unscaled(out, *scale).then_some(()),
        Form::VariableDecimal => {
            let decimal = Decimal::parse(text)?.shortest();
            out.extend_from_slice(b"{\"scale\":");
            write_number(out, i64::from(decimal.scale()));
            out.extend_from_slice(b",\"value\":");
            decimal.write_unscaled(out, decimal.scale());
            out.push(b'}');
        }
        Form::Money => return write_money(out, text).then_some(()),
        Form::MoneyText => write_json_string(out, &money_text(text)),
        Form::Bytes => write_base64(out, bytea(text)?),
        Form::Date => write_number(out, time::days(text)?),
        Form::Time => write_number(out, time::time_micros(text)? / 1_000),
        Form::MicroTime => write_number(out, time::time_micros(text)?),
        Form::ZonedTime => return time::write_zoned_time(out, text),
        Form::Timestamp => write_number(out, i64::try_from(time::timestamp_micros(text)?.div_euclid(1_000)).ok()?),
        Form::MicroTimestamp => write_number(out, i64::try_from(time::timestamp_micros(text)?).ok()?),
        Form::ZonedTimestamp(_) if text.ends_with("infinity") => write_json_string(out, text),
        Form::ZonedTimestamp(decimals) => return time::write_zoned_timestamp(out, text, *decimals),
        Form::Interval => write_number(out, time::interval_micros(text)?),
        Form::Point => write_point(out, text)?,
        Form::Hstore => write_json_string(out, &hstore(text)?),
        Form::Text(_) => write_json_string(out, text),
        Form::Array(element) => return write_array(out, element, text),
    }
    Some(())
}

/// Writes a float. `NaN` and the infinities become strings, because JSON has no such numbers. A whole number gets a
/// decimal, so that it is recognised as a float.
fn write_float(out: &mut Vec<u8>, text: &str) -> Option<()> {
    if text.parse::<f64>().ok()?.is_finite() {
        out.extend_from_slice(text.as_bytes());
        if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            out.extend_from_slice(b".0");
        }
    } else {
        write_json_string(out, text);
    }
    Some(())
}

/// Returns the bytes of a bit string such as `101`, the least significant first, without zero bytes at the end.
fn bits(text: &str) -> Option<impl Iterator<Item = u8>> {
    let digits = text.as_bytes();
    let from_first = digits.iter().position(|b| *b == b'1').map_or(&[][..], |first| &digits[first..]);
    let byte = |chunk: &[u8]| chunk.iter().fold(0, |byte, digit| byte << 1 | (digit - b'0'));
    digits.iter().all(|b| matches!(b, b'0' | b'1')).then(|| from_first.rchunks(8).map(byte))
}

/// Writes `(1.5,-2)` as a point with its well-known binary form: little-endian, type 1.
fn write_point(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let (x, y) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let (left, right): (f64, f64) = (x.parse().ok()?, y.parse().ok()?);
    out.extend_from_slice(b"{\"x\":");
    write_float(out, x)?;
    out.extend_from_slice(b",\"y\":");
    write_float(out, y)?;
    out.extend_from_slice(b",\"wkb\":");
    let head = [1, 1, 0, 0, 0];
    write_base64(out, head.into_iter().chain(left.to_le_bytes()).chain(right.to_le_bytes()));
    out.extend_from_slice(b",\"srid\":null}");
    Some(())
}

/// Converts `"a"=>"1", "b"=>NULL` to a JSON text.
fn hstore(text: &str) -> Option<String> {
    let mut json = vec![b'{'];
    let mut rest = text;
    while !rest.is_empty() {
        let (key, after) = unquote(rest.strip_prefix('"')?)?;
        write_json_string(&mut json, &key);
        json.push(b':');
        rest = after.strip_prefix("=>")?;
        match rest.strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = unquote(quoted)?;
                write_json_string(&mut json, &value);
                rest = after;
            }
            None => {
                rest = rest.strip_prefix("NULL")?;
                json.extend_from_slice(b"null");
            }
        }
        if let Some(more) = rest.strip_prefix(", ") {
            json.push(b',');
            rest = more;
        }
    }
    json.push(b'}');
    String::from_utf8(json).ok()
}

/// Writes the items of an array in storage order, because a Connect schema has only one dimension, and no bounds.
fn write_array(out: &mut Vec<u8>, element: &Form, text: &str) -> Option<()> {
    let mut rest = if text.starts_with('[') { text.split_once('=')?.1 } else { text };
    let mut depth = 0usize;
    out.push(b'[');
    let start = out.len();
    while let Some(first) = rest.chars().next() {
        match first {
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1)?,
            ',' => {}
            _ if depth == 0 => return None,
            first => {
                if out.len() > start {
                    out.push(b',');
                }
                rest = match first {
                    '"' => {
                        let (item, after) = unquote(&rest[1..])?;
                        write_value(out, element, Value::Text(&item), false);
                        after
                    }
                    _ => {
                        let (item, after) = rest.split_at(rest.find([',', '}'])?);
                        let value = if item == "NULL" { Value::Null } else { Value::Text(item) };
                        write_value(out, element, value, false);
                        after
                    }
                };
                continue;
            }
        }
        rest = &rest[1..];
    }
    out.push(b']');
    (depth == 0).then_some(())
}

fn write_unavailable(out: &mut Vec<u8>, form: &Form) -> Option<()> {
    match form {
        Form::Text(_) | Form::MoneyText => write_json_string(out, UNAVAILABLE),
        Form::Hstore => write_json_string(out, &format!("{{\"{UNAVAILABLE}\":\"{UNAVAILABLE}\"}}")),
        Form::Bytes => write_base64(out, UNAVAILABLE.bytes()),
        Form::Array(element) => {
            out.push(b'[');
            match element.as_ref() {
                Form::Text(Some(name)) if name.ends_with("Uuid") => write_json_string(out, UNAVAILABLE_UUID),
                Form::Text(_) => write_json_string(out, UNAVAILABLE),
                // Each byte of the text is an item.
                Form::Int32 | Form::Int64 | Form::Date => {
                    for (at, byte) in UNAVAILABLE.bytes().enumerate() {
                        let _ = write!(out, "{}{byte}", if at == 0 { "" } else { "," });
                    }
                }
                _ => return None,
            }
            out.push(b']');
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(form: &Form, text: &str) -> String {
        let mut out = Vec::new();
        write_value(&mut out, form, Value::Text(text), true);
        let text = String::from_utf8(out).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        text
    }

    #[test]
    fn what_is_not_of_its_type_is_null() {
        for form in [
            Form::Bool,
            Form::Bits(9),
            Form::Int32,
            Form::Double,
            Form::Decimal { precision: 4, scale: 2 },
            Form::VariableDecimal,
            Form::Bytes,
            Form::Date,
            Form::Time,
            Form::MicroTime,
            Form::ZonedTime,
            Form::Timestamp,
            Form::MicroTimestamp,
            Form::ZonedTimestamp(6),
            Form::Interval,
            Form::Point,
            Form::Hstore,
            Form::Array(Box::new(Form::Int32)),
        ] {
            for text in ["?", "{", "(1,", "\"a\"", "1-", "-", "é", "{{1}"] {
                assert_eq!(json(&form, text), "null", "{form:?} {text}");
            }
        }
    }

    #[test]
    fn arrays_are_their_items() {
        let texts = Form::Array(Box::new(Form::Text(None)));
        assert_eq!(json(&texts, r#"[0:1]={{"a,b",NULL},{"c\"d",é}}"#), r#"["a,b",null,"c\"d","é"]"#);
        assert_eq!(json(&texts, "{}"), "[]");
        assert_eq!(json(&Form::Array(Box::new(Form::Int32)), "{1,x}"), "[1,null]");
    }
}
