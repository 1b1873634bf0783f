//! Makes one comparable form of a value, from whatever store it was read: PostgreSQL's text in a canonical form.
//!
//! This was written without reading the program's own conversions, because a reader who knows only the record's
//! description must be able to understand what the program wrote. Floating-point numbers are compared by their value,
//! arrays by their items, and everything else byte by byte.

use base64::Engine as _;
use serde_json::value::RawValue;

/// A value in canonical text; `None` is NULL. Values that are not known are absent from their row.
pub type Text = Option<String>;

/// Returns the canonical form of PostgreSQL's text of a value of this kind (`int4`, `numeric(18,4)`, `timestamptz[]`,
/// …).
pub fn from_postgres(text: &str, kind: &str) -> String {
    match (kind.strip_suffix("[]"), kind) {
        (Some(item), _) => match Array::parse(text) {
            Some(array) => array.map(&|text| from_postgres(text, item)).to_string(),
            None => text.to_owned(),
        },
        (None, "float4") => float(text, true),
        (None, "float8") => float(text, false),
        _ => text.to_owned(),
    }
}

/// Returns the canonical form of a value that the version record writes as JSON.
pub fn from_json(json: &RawValue, kind: &str) -> Text {
    let text = json.get();
    // This is SQL NULL, because the record writes a JSON null of type jsonb differently.
    if text == "null" {
        return None;
    }
    if let Some(bytes) = too_large(text) {
        return Some(format!("too large: {bytes}"));
    }
    Some(match (kind.strip_suffix("[]"), kind) {
        (Some(item), _) => match text.as_bytes()[0] {
            b'"' => string(text),
            _ => from_postgres(&array(json, item).to_string(), kind),
        },
        (None, "jsonb") if text == r#"{"$json": null}"# || text == r#"{"$json":null}"# => "null".to_owned(),
        (None, "jsonb") => text.to_owned(),
        (None, "bool") if text == "true" => "t".to_owned(),
        (None, "bool") if text == "false" => "f".to_owned(),
        (None, "bytea") => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(string(text)).expect("base64");
            format!("\\x{}", hex::encode(bytes))
        }
        (None, "date" | "timestamp" | "timestamptz") => time(&string(text)),
        _ if text.starts_with('"') => from_postgres(&string(text), kind),
        _ => from_postgres(text, kind),
    })
}

fn string(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("not a JSON string: {json}: {error}"))
}

fn too_large(json: &str) -> Option<u64> {
    let rest = json.strip_prefix(r#"{"$too_large":"#)?.strip_suffix('}')?;
    rest.trim().parse().ok()
}

/// Converts RFC 3339, with signed years of any length, to PostgreSQL's ISO form.
fn time(text: &str) -> String {
    let (sign, rest) = match text.as_bytes().first() {
        Some(b'-') if text != "-infinity" => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    };
    let digits = |year: &str| !year.is_empty() && year.bytes().all(|b| b.is_ascii_digit());
    let Some((year, rest)) = rest.split_once('-').filter(|(year, _)| digits(year)) else {
        return text.to_owned();
    };
    let rest = rest.replacen('T', " ", 1).replacen('Z', "+00", 1);
    let number: u32 = year.parse().expect("a year");
    if sign == "-" || number == 0 {
        // The year 0 of ISO 8601 is 1 BC.
        format!("{:04}-{rest} BC", number + 1)
    } else {
        format!("{year}-{rest}")
    }
}

/// Returns the shortest digits of the number. `jsonb` has no -0 and writes no exponent.
pub fn float(text: &str, single: bool) -> String {
    let shown = |zero: bool, shown: String| if zero { "0".to_owned() } else { shown };
    match (text, single) {
        ("NaN" | "Infinity" | "-Infinity", _) => text.to_owned(),
        (_, true) => text.parse::<f32>().map_or(text.to_owned(), |f| shown(f == 0.0, format!("{f:e}"))),
        (_, false) => text.parse::<f64>().map_or(text.to_owned(), |f| shown(f == 0.0, format!("{f:e}"))),
    }
}

/// An array, with its bounds if they are not the usual ones.
struct Array {
    bounds: String,
    items: Items,
}

enum Items {
    List(Vec<Items>),
    One(Text),
}

impl Array {
    /// Parses `{…}` or `[0:1]={…}`, as `array_out` writes it.
    fn parse(text: &str) -> Option<Array> {
        let (bounds, body) = match text.split_once("]={") {
            Some((bounds, _)) if text.starts_with('[') => text.split_at(bounds.len() + 2),
            _ => ("", text),
        };
        let mut chars = body.chars().peekable();
        let items = Items::parse(&mut chars)?;
        chars.next().is_none().then(|| Array { bounds: bounds.to_owned(), items })
    }

    fn map(self, change: &dyn Fn(&str) -> String) -> Array {
        Array { items: self.items.map(change), ..self }
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

impl Items {
    fn parse(chars: &mut Chars) -> Option<Items> {
        match *chars.peek()? {
            '{' => {
                chars.next();
                let mut list = Vec::new();
                while *chars.peek()? != '}' {
                    list.push(Items::parse(chars)?);
                    if *chars.peek()? == ',' {
                        chars.next();
                    }
                }
                chars.next();
                Some(Items::List(list))
            }
            '"' => {
                chars.next();
                let mut text = String::new();
                loop {
                    match chars.next()? {
                        '"' => return Some(Items::One(Some(text))),
                        '\\' => text.push(chars.next()?),
                        other => text.push(other),
                    }
                }
            }
            _ => {
                let mut text = String::new();
                while !matches!(*chars.peek()?, ',' | '}') {
                    text.extend(chars.next());
                }
                Some(Items::One((text != "NULL").then_some(text)))
            }
        }
    }

    fn map(self, change: &dyn Fn(&str) -> String) -> Items {
        match self {
            Items::List(list) => Items::List(list.into_iter().map(|items| items.map(change)).collect()),
            Items::One(text) => Items::One(text.map(|text| change(&text))),
        }
    }
}

/// Writes every item in quotes, so that there is only one way to write an array.
impl std::fmt::Display for Items {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Items::One(None) => f.write_str("NULL"),
            Items::One(Some(text)) => write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            Items::List(list) => {
                f.write_str("{")?;
                for (at, items) in list.iter().enumerate() {
                    write!(f, "{}{items}", if at > 0 { "," } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

impl std::fmt::Display for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.bounds, self.items)
    }
}

/// Reads an array from its JSON form, with its items in PostgreSQL's text.
fn array(json: &RawValue, item: &str) -> Array {
    #[derive(serde::Deserialize)]
    struct Bounded<'a> {
        #[serde(rename = "$bounds")]
        bounds: String,
        #[serde(borrow)]
        items: &'a RawValue,
    }
    if json.get().starts_with('{') {
        let bounded: Bounded = serde_json::from_str(json.get()).expect("an array with bounds");
        return Array { bounds: format!("{}=", bounded.bounds), items: items(bounded.items, item) };
    }
    Array { bounds: String::new(), items: items(json, item) }
}

fn items(json: &RawValue, item: &str) -> Items {
    // A list inside an array of jsonb may be an item or a dimension, and only the column's type distinguishes them. It
    // is taken for an item, because no test has jsonb arrays of more than one dimension.
    let list: Vec<&RawValue> = serde_json::from_str(json.get()).expect("a JSON list");
    let is_list = |json: &RawValue| json.get().starts_with('[') && item != "jsonb";
    let one = |json: &&RawValue| if is_list(json) { items(json, item) } else { Items::One(from_json(json, item)) };
    Items::List(list.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str, kind: &str) -> Text {
        from_json(serde_json::from_str(text).unwrap(), kind)
    }

    #[test]
    fn the_json_form_of_a_value_and_its_text_become_the_same() {
        for (kind, postgres, form) in [
            ("int8", "9223372036854775807", "9223372036854775807"),
            ("float8", "1e+20", "100000000000000000000"),
            ("float8", "-0", "0"),
            ("float4", "1e-07", "0.0000001"),
            ("float8", "NaN", r#""NaN""#),
            ("bytea", r"\x00ff", r#""AP8=""#),
            ("timestamptz", "2026-03-01 09:30:00.5+00", r#""2026-03-01T09:30:00.5Z""#),
            ("timestamptz", "294276-12-31 23:59:59.999999+00", r#""+294276-12-31T23:59:59.999999Z""#),
            ("timestamp", "4713-01-01 00:00:00 BC", r#""-4712-01-01T00:00:00""#),
            ("date", "0001-12-31 BC", r#""0000-12-31""#),
            ("date", "-infinity", r#""-infinity""#),
            ("jsonb", "null", r#"{"$json": null}"#),
            ("json", r#"{"a":1,"a": 2}"#, r#""{\"a\":1,\"a\": 2}""#),
            ("int4[]", "{}", "[]"),
            ("int4[]", "{{1,2},{3,NULL}}", "[[1, 2], [3, null]]"),
            ("int4[]", "[0:1]={1,2}", r#"{"$bounds": "[0:1]", "items": [1, 2]}"#),
            ("text[]", r#"{"a,b","c\"d\\",NULL,"NULL",x}"#, r#"["a,b", "c\"d\\", null, "NULL", "x"]"#),
            ("jsonb[]", r#"{"[1, {\"a\": \"}\"}]","null"}"#, r#"[[1, {"a": "}"}], {"$json": null}]"#),
            ("bytea[]", r#"{"\\x00ff"}"#, r#"["AP8="]"#),
            ("timestamptz[]", r#"{"2026-03-01 09:30:00+00"}"#, r#"["2026-03-01T09:30:00Z"]"#),
        ] {
            assert_eq!(json(form, kind), Some(from_postgres(postgres, kind)), "{kind} {postgres}");
        }
        assert_eq!(json("null", "jsonb"), None);
    }
}
