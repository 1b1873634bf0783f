//! JSON as `jsonb` takes it ([`fit`]) and prints it ([`print`]).
//!
//! A context is any JSON object that an application sent, and a member of a `json` column is any JSON at all. `jsonb`
//! refuses some JSON that is valid: the escape `\u0000`, single halves of surrogate pairs, numbers beyond `numeric`,
//! nesting deeper than the server's stack. None of it may stop the trail, so it is replaced here. Whole values of
//! columns need none of this: what is `jsonb` in the source is valid `jsonb` here, and a `json` document is stored as a
//! string.
//!
//! ⚠ The canonical record rests on both functions, and its form can never change: what `fit` returns is fit, also after
//! it was printed.

use std::borrow::Cow;

use crate::json::{skip_space, string_end, unquote};
use crate::value::write_json_string;

/// Deeper documents are stored as their text. This is far below what `max_stack_depth` allows and far above what people
/// write.
const DEPTH_MAX: usize = 200;

/// A number that takes more characters when it is printed without an exponent is stored as its text: `numeric` is
/// limited to 131,072 digits before the decimal point and 16,383 after it.
const NUMBER_MAX: usize = 1_000;

/// Replaces characters that `jsonb` cannot hold.
const REPLACEMENT: &str = "\\ufffd";

/// Returns the document, changed as little as possible, and borrowed if nothing had to change. `json` must be valid
/// JSON, as [`crate::context::Context`] and PostgreSQL's `json` promise; the server refuses anything else.
pub fn fit(json: &str) -> Cow<'_, str> {
    if depth(json) > DEPTH_MAX {
        let mut text = b"{\"text\": ".to_vec();
        write_json_string(&mut text, json);
        text.push(b'}');
        return Cow::Owned(String::from_utf8(text).unwrap_or_default());
    }
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    let bytes = json.as_bytes();
    while at < bytes.len() {
        let (end, replacement) = match bytes[at] {
            b'"' => replace_in_string(json, at, &mut |from, to| {
                out.push_str(&json[copied..from]);
                out.push_str(REPLACEMENT);
                copied = to;
            }),
            b'-' | b'0'..=b'9' => {
                let end = at
                    + json[at..]
                        .bytes()
                        .take_while(|b| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
                        .count();
                (end, (!fits_numeric(&json[at..end])).then(|| format!("\"{}\"", &json[at..end])))
            }
            _ => (at + 1, None),
        };
        if let Some(text) = replacement {
            out.push_str(&json[copied..at]);
            out.push_str(&text);
            copied = end;
        }
        at = end;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut at) = (0usize, 0, 0);
    let bytes = json.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = replace_in_string(json, at, &mut |_, _| ()).0 - 1,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// Walks a string from its opening quote and reports the escapes (`from..to`) that must be replaced. Returns the index
/// after the closing quote. The second part is always `None`, because the escapes of a string are replaced one by one.
fn replace_in_string(json: &str, open: usize, bad: &mut impl FnMut(usize, usize)) -> (usize, Option<String>) {
    let bytes = json.as_bytes();
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return (at + 1, None),
            b'\\' => {
                let length = match (escape(json, at), escape(json, at + 6)) {
                    (None, _) => 2,
                    (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                    (Some(0 | 0xd800..=0xdfff), _) => {
                        bad(at, at + 6);
                        6
                    }
                    (Some(_), _) => 6,
                };
                at += length;
            }
            _ => at += 1,
        }
    }
    (bytes.len(), None)
}

/// The code unit of the `\uXXXX` at this index, if there is one.
fn escape(json: &str, at: usize) -> Option<u16> {
    json.get(at..at + 6)?.strip_prefix("\\u").and_then(|digits| u16::from_str_radix(digits, 16).ok())
}

fn fits_numeric(number: &str) -> bool {
    Decimal::parse(number).is_some_and(|decimal| decimal.printed_len() <= NUMBER_MAX)
}

/// A JSON number: its digits, without a sign, and where its decimal point is.
struct Decimal<'n> {
    negative: bool,
    whole: &'n str,
    fraction: &'n str,
    exponent: i64,
}

impl<'n> Decimal<'n> {
    fn parse(number: &'n str) -> Option<Decimal<'n>> {
        let (negative, unsigned) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        Some(Decimal { negative, whole, fraction, exponent })
    }

    /// Number of digits before the decimal point; none or less if the value begins after it.
    fn point(&self) -> i64 {
        (self.whole.len() as i64).saturating_add(self.exponent)
    }

    /// Upper bound of the characters that it takes without an exponent, and exact where it has none.
    fn printed_len(&self) -> usize {
        let digits = (self.whole.len() + self.fraction.len()) as i64;
        let after = digits.saturating_sub(self.point()).max(0);
        let length = self.point().max(1).saturating_add(after).saturating_add(i64::from(after > 0));
        usize::try_from(length).unwrap_or(usize::MAX).saturating_add(usize::from(self.negative))
    }

    /// Appends it as `numeric` prints it: all digits that it had after the point, no others, and no zero below zero.
    fn print(&self, out: &mut Vec<u8>) {
        let digits = [self.whole, self.fraction].concat();
        let point = self.point();
        let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
        let padded = format!("{}{digits}{}", zeros(-point), zeros(point - digits.len() as i64));
        let (whole, fraction) = padded.split_at(usize::try_from(point).unwrap_or(0));
        if self.negative && digits.bytes().any(|digit| digit != b'0') {
            out.push(b'-');
        }
        let whole = whole.trim_start_matches('0');
        out.extend_from_slice(if whole.is_empty() { b"0" } else { whole.as_bytes() });
        if !fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(fraction.as_bytes());
        }
    }
}

/// The text that PostgreSQL prints for a document that `jsonb` takes: members in the order of their names' lengths,
/// then of their bytes, the last one of equal names; numbers as `numeric`; no escape that is not needed. `json` must be
/// what [`fit`] returned for valid JSON; what is not valid is cut at that place.
pub fn print(json: &str) -> String {
    let mut out = Vec::with_capacity(json.len() + json.len() / 8);
    let _ = print_value(json, skip_space(json.as_bytes(), 0), &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Appends the value that begins at `at`, and returns the index after it. Recursion is bounded, because [`fit`] bounds
/// the depth.
fn print_value(json: &str, at: usize, out: &mut Vec<u8>) -> Option<usize> {
    match json.as_bytes().get(at)? {
        b'{' => print_object(json, at, out),
        b'[' => print_list(json, at, out),
        b'"' => {
            let end = string_end(json.as_bytes(), at)?;
            write_json_string(out, &unquote(json.get(at..end)?));
            Some(end)
        }
        _ => {
            let is_part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
            let end = at + json.as_bytes()[at..].iter().take_while(|b| is_part(b)).count();
            let word = json.get(at..end).filter(|word| !word.is_empty())?;
            match word {
                "true" | "false" | "null" => out.extend_from_slice(word.as_bytes()),
                number => Decimal::parse(number)?.print(out),
            }
            Some(end)
        }
    }
}

fn print_object(json: &str, open: usize, out: &mut Vec<u8>) -> Option<usize> {
    let bytes = json.as_bytes();
    let mut members = Vec::new();
    let end = each_item(bytes, open, b'}', |start| {
        let name_end = string_end(bytes, start)?;
        let name = unquote(json.get(start..name_end)?);
        let colon = skip_space(bytes, name_end);
        let mut value = Vec::new();
        let end = print_value(json, skip_space(bytes, colon + 1), &mut value)?;
        members.push((name, value));
        Some(end)
    })?;
    members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.as_bytes().cmp(b.as_bytes())));
    // The sort is stable, so the last of the equal names is kept.
    members.reverse();
    members.dedup_by(|(a, _), (b, _)| a == b);
    out.push(b'{');
    for (place, (name, value)) in members.iter().rev().enumerate() {
        if place > 0 {
            out.extend_from_slice(b", ");
        }
        write_json_string(out, name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
    }
    out.push(b'}');
    Some(end)
}

fn print_list(json: &str, open: usize, out: &mut Vec<u8>) -> Option<usize> {
    out.push(b'[');
    let mut first = true;
    let end = each_item(json.as_bytes(), open, b']', |start| {
        if !std::mem::take(&mut first) {
            out.extend_from_slice(b", ");
        }
        print_value(json, start, out)
    })?;
    out.push(b']');
    Some(end)
}

/// Passes the place of each member or item to `each`, which returns where it ends. Returns the index after `close`.
fn each_item(json: &[u8], open: usize, close: u8, mut each: impl FnMut(usize) -> Option<usize>) -> Option<usize> {
    let mut at = skip_space(json, open + 1);
    if json.get(at) == Some(&close) {
        return Some(at + 1);
    }
    loop {
        at = skip_space(json, each(at)?);
        match json.get(at)? {
            b',' => at = skip_space(json, at + 1),
            end if *end == close => return Some(at + 1),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_fit_is_left_alone() {
        for json in [r#"{"a": "\ud83d\ude00 \\u0000 \"", "n": [-1.5e10, 12]}"#, "{}", r#"{"a": "é\n"}"#] {
            assert!(matches!(fit(json), Cow::Borrowed(_)), "{json}");
        }
    }

    #[test]
    fn what_jsonb_refuses_is_replaced() {
        assert_eq!(fit(r#"{"a\u0000b": "x\ud800y\udc00"}"#), r#"{"a\ufffdb": "x\ufffdy\ufffd"}"#);
        assert_eq!(fit(r#"{"n": 1e99999, "m": [-2E-00001]}"#), r#"{"n": "1e99999", "m": [-2E-00001]}"#);
        assert_eq!(fit("[1e999, 12e999, -1e999, 1e-998, 1e-999]"), r#"[1e999, "12e999", "-1e999", 1e-998, "1e-999"]"#);
        assert_eq!(
            fit(r#"{"a": "\u0000", "n": 1e5000, "b": "\u0000"}"#),
            r#"{"a": "\ufffd", "n": "1e5000", "b": "\ufffd"}"#
        );
        let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
        assert_eq!(fit(&format!(r#"{{"d": {deep}}}"#)), format!(r#"{{"text": "{{\"d\": {deep}}}"}}"#));
        assert_eq!(fit(r#"{"a": "[[[[\"[[["}"#), r#"{"a": "[[[[\"[[["}"#);
    }

    #[test]
    fn broken_text_does_no_harm() {
        for json in ["\"", "\"\\", "\"\\u12", "{\"a\": \"\\u00", "-", "]]", "\"\\ué\""] {
            let _ = fit(json);
        }
    }

    #[test]
    fn a_document_is_printed_as_postgres_prints_it() {
        for (json, printed) in [
            (r#"{"bb":1,"a":2,"c" : [ ],"a":{ }}"#, r#"{"a": {}, "c": [], "bb": 1}"#),
            (r#"["\u0041\/\u001f\b\u007f\ud83d\ude00",true,null]"#, "[\"A/\\u001f\\b\u{7f}😀\", true, null]"),
            (
                "[1.500, 1E2, 1e-3, -0, -0.00, 1.50e1, 12345e-2, 0e-5, 0.0012e2]",
                "[1.500, 100, 0.001, 0, 0.00, 15.0, 123.45, 0.00000, 0.12]",
            ),
            ("[-1.5e+3, 1e0, 10.01E1]", "[-1500, 1, 100.1]"),
            (" 7 ", "7"),
        ] {
            assert_eq!(print(json), printed);
        }
    }

    proptest! {
        /// What was made fit and printed stays as it is.
        #[test]
        fn a_printed_document_is_fit_and_printed(
            number in "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,4})?",
            text in "(\\\\u[0-9a-f]{4}|\\\\n|[a-c ]){0,4}",
        ) {
            let json = format!("{{\"{text}\": [{number}, \"{text}\"], \"a\": {number}}}");
            let printed = print(&fit(&json));
            prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&printed).is_ok(), "{}", printed);
            prop_assert_eq!(print(&fit(&printed)), printed);
        }

        #[test]
        fn any_text_is_printed(text in "[\\PC{}\\[\\]\",:\\\\ 0-9eE.-]{0,40}") {
            print(&text);
        }
    }
}
