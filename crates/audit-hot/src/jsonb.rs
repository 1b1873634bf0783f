//! Makes JSON from an application fit for `jsonb`.
//!
//! A context is any JSON object that an application sent, and a member of a `json` column is any JSON at all. `jsonb`
//! refuses some JSON that is valid: the escape `\u0000`, single halves of surrogate pairs, numbers beyond `numeric`,
//! nesting deeper than the server's stack. None of it may stop the trail, so it is replaced here. Whole values of
//! columns need none of this: what is `jsonb` in the source is valid `jsonb` here, and a `json` document is stored as a
//! string.

use std::borrow::Cow;

use audit_core::value::write_json_string;

/// Deeper documents are stored as their text. This is far below what `max_stack_depth` allows and far above what people
/// write.
const DEPTH_MAX: usize = 200;

/// Longer numbers, and numbers with longer exponents, are stored as their text: `numeric` is limited to 131,072 digits
/// before the decimal point and 16,383 after it.
const NUMBER_MAX: usize = 1_000;
const EXPONENT_DIGITS_MAX: usize = 3;

/// Replaces characters that `jsonb` cannot hold.
const REPLACEMENT: &str = "\\ufffd";

/// Returns the document, changed as little as possible, and borrowed if nothing had to change. `json` must be valid
/// JSON, as [`audit_core::context::Context`] and PostgreSQL's `json` promise; the server refuses anything else.
pub(crate) fn fit(json: &str) -> Cow<'_, str> {
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
    let exponent = number.find(['e', 'E']).map_or("", |at| &number[at + 1..]);
    let digits = exponent.trim_start_matches(['+', '-']).trim_start_matches('0').len();
    number.len() <= NUMBER_MAX && digits <= EXPONENT_DIGITS_MAX
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

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
}
