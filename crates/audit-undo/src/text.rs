//! Turns the JSON form of a value back into PostgreSQL's text form: [`text_of`].

use audit_core::json::{members, unquote};
use audit_core::value::Kind;
use base64::Engine as _;
use serde_json::value::RawValue;

/// The text of a value, given in the JSON form of its kind; `Ok(None)` for NULL.
///
/// # Errors
/// Fails with `()` if the JSON is not of this kind's form.
pub fn text_of(kind: &Kind, json: &str) -> Result<Option<String>, ()> {
    match json {
        "null" => Ok(None),
        json => text(kind, json).map(Some),
    }
}

fn text(kind: &Kind, json: &str) -> Result<String, ()> {
    let string = json.starts_with('"').then(|| unquote(json).into_owned());
    match (kind, string) {
        (Kind::Bytea, Some(string)) => Ok(bytea(string)),
        (Kind::Date | Kind::Timestamp, Some(string)) => Ok(date(string, "")),
        (Kind::TimestampTz, Some(string)) => Ok(date(string, "+00")),
        (Kind::Jsonb, _) => Ok(jsonb(json)),
        (_, Some(string)) => Ok(string),
        (Kind::Bool, None) if matches!(json, "true" | "false") => Ok(json[..1].to_owned()),
        (Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Float4 | Kind::Float8, None) if is_number(json) => {
            Ok(json.to_owned())
        }
        (Kind::Array(element), None) => array(element, json),
        _ => Err(()),
    }
}

fn is_number(json: &str) -> bool {
    json.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// A text that is not base64 is one that the writer could not read either, and kept.
fn bytea(string: String) -> String {
    match base64::engine::general_purpose::STANDARD.decode(&string) {
        Ok(bytes) => format!("\\x{}", hex::encode(bytes)),
        Err(_) => string,
    }
}

/// A top-level JSON null is marked, because NULL is written as null.
fn jsonb(json: &str) -> String {
    let mut all = members(json);
    match (all.next(), all.next()) {
        (Some((r#""$json""#, "null")), None) => "null".to_owned(),
        _ => json.to_owned(),
    }
}

/// Turns ISO 8601 with years of any sign into PostgreSQL's ISO style.
fn date(string: String, zone: &str) -> String {
    let (negative, unsigned) = match string.as_bytes().first() {
        Some(b'-') => (true, &string[1..]),
        Some(b'+') => (false, &string[1..]),
        _ => (false, string.as_str()),
    };
    let Some((year, rest)) = unsigned.split_once('-') else { return string };
    let Ok(number) = year.parse::<u32>() else { return string };
    let (rest, zone) = match rest.strip_suffix('Z') {
        Some(rest) => (rest, zone),
        None => (rest, ""),
    };
    let rest = rest.replace('T', " ");
    match negative || number == 0 {
        true => format!("{:04}-{rest}{zone} BC", number + 1),
        false => format!("{year}-{rest}{zone}"),
    }
}

fn array(element: &Kind, json: &str) -> Result<String, ()> {
    let mut out = String::new();
    if json.starts_with('{') {
        let (mut bounds, mut items) = (None, None);
        for (name, value) in members(json) {
            match name {
                r#""$bounds""# => bounds = Some(unquote(value)),
                r#""items""# => items = Some(value),
                _ => return Err(()),
            }
        }
        out.push_str(&bounds.ok_or(())?);
        out.push('=');
        items_of(element, items.ok_or(())?, &mut out)?;
    } else {
        items_of(element, json, &mut out)?;
    }
    Ok(out)
}

/// PostgreSQL's own limit on an array's dimensions is 6, so the recursion ends soon.
fn items_of(element: &Kind, json: &str, out: &mut String) -> Result<(), ()> {
    let items: Vec<&RawValue> = serde_json::from_str(json).map_err(drop)?;
    out.push('{');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match item.get() {
            "null" => out.push_str("NULL"),
            // A list inside of a list of documents is a document.
            list if list.starts_with('[') && *element != Kind::Jsonb => items_of(element, list, out)?,
            item => quoted(&text(element, item)?, out),
        }
    }
    out.push('}');
    Ok(())
}

fn quoted(item: &str, out: &mut String) {
    out.push('"');
    for c in item.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use audit_core::value::write_json_value;
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(kind: &str, value: &str) -> String {
        let kind: Kind = kind.parse().unwrap();
        let mut json = Vec::new();
        write_json_value(&mut json, &kind, value);
        text_of(&kind, std::str::from_utf8(&json).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        for (kind, text) in [
            ("bool", "t"),
            ("bool", "f"),
            ("int8", "-9223372036854775808"),
            ("float8", "1e+20"),
            ("float8", "NaN"),
            ("numeric", "12345678901234567890.50"),
            ("bytea", r"\x00ff"),
            ("bytea", r"\x"),
            ("date", "0044-03-15 BC"),
            ("date", "0001-01-01 BC"),
            ("date", "infinity"),
            ("date", "2026-02-28"),
            ("date", "12026-02-28"),
            ("timestamp", "2026-03-01 09:30:00.5"),
            ("timestamp", "-infinity"),
            ("timestamptz", "2026-03-01 09:30:00+00"),
            ("timestamptz", "294276-12-31 23:59:59.999999+00"),
            ("timestamptz", "4713-01-01 00:00:00+00 BC"),
            ("json", r#"{"a":1,"a":-0}"#),
            ("jsonb", r#"{"a": [1, null]}"#),
            ("jsonb", "null"),
            ("jsonb", r#""null""#),
            ("text", "null"),
            ("text", "a\"\u{2028}\n\\"),
            ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            ("int4[]", "{}"),
        ] {
            assert_eq!(there_and_back(kind, text), text, "{kind}");
        }
        assert_eq!(text_of(&Kind::Int4, "null"), Ok(None));
    }

    #[test]
    fn items_of_arrays_are_quoted() {
        for (kind, text, expected) in [
            ("int4[]", "{1,NULL,3}", r#"{"1",NULL,"3"}"#),
            ("int4[]", "{{1,2},{3,4}}", r#"{{"1","2"},{"3","4"}}"#),
            ("int4[]", "[0:1]={1,2}", r#"[0:1]={"1","2"}"#),
            ("text[]", r#"{"a,b","c\"d\\",NULL,"NULL"}"#, r#"{"a,b","c\"d\\",NULL,"NULL"}"#),
            ("jsonb[]", r#"{"[1, 2]","null"}"#, r#"{"[1, 2]","null"}"#),
            ("date[]", "{infinity,2026-01-01}", r#"{"infinity","2026-01-01"}"#),
        ] {
            assert_eq!(there_and_back(kind, text), expected, "{kind}");
        }
    }

    #[test]
    fn what_is_not_of_the_kind_is_refused() {
        for (kind, json) in [("int4", "true"), ("bool", "1"), ("text", "{}"), ("int4[]", "1"), ("numeric", "1")] {
            assert_eq!(text_of(&kind.parse().unwrap(), json), Err(()), "{kind} {json}");
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC{0,20}") {
            prop_assert_eq!(there_and_back("text", &text), text.clone());
            prop_assert_eq!(there_and_back("json", &text), text);
        }
    }
}
