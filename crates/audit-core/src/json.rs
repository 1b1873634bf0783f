//! JSON texts as they are: where keys and values begin and end, without building anything.
//!
//! PostgreSQL has checked what it sends. If a text is not valid JSON all the same, these functions return `None` and
//! never panic.

use std::borrow::Cow;

use memchr::memchr2;

/// Members of a JSON object, whose values are JSON texts.
pub fn object<'m>(members: impl IntoIterator<Item = (&'m str, &'m str)>) -> String {
    let member = |(name, json): (&str, &str)| format!("{}:{json}", serde_json::Value::from(name));
    format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
}

/// The end of the string whose opening quote is at `at`.
pub fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut i = at + 1;
    loop {
        i += memchr2(b'"', b'\\', text.get(i..)?)?;
        match text[i] {
            b'"' => return Some(i + 1),
            _ => i += 2,
        }
    }
}

/// The end of the value that begins at `at`.
pub fn value_end(text: &[u8], at: usize) -> Option<usize> {
    let (mut i, mut depth) = (at, 0usize);
    loop {
        match text.get(i)? {
            b'"' => i = string_end(text, i)?,
            b'{' | b'[' => {
                depth += 1;
                i += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                i += 1;
            }
            b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' => {
                i += 1;
                continue;
            }
            _ => i += text[i..].iter().take_while(|b| is_plain(**b)).count(),
        }
        if depth == 0 {
            return Some(i);
        }
    }
}

/// Whether a byte may be part of a number or a word.
fn is_plain(b: u8) -> bool {
    !matches!(b, b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':' | b' ' | b'\n' | b'\r' | b'\t')
}

/// The index of the next character that is not a space.
pub fn skip_space(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Where the value begins whose key ends at `key_end`.
pub fn value_start(text: &[u8], key_end: usize) -> Option<usize> {
    let colon = skip_space(text, key_end);
    (text.get(colon) == Some(&b':')).then(|| skip_space(text, colon + 1))
}

/// A string's characters. `quoted` includes the quotes.
pub fn unquote(quoted: &str) -> Cow<'_, str> {
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(quoted);
    match inner.contains('\\') {
        // Half of a surrogate pair is not a character, so the text is returned as it is written.
        true => serde_json::from_str::<String>(quoted).map_or(Cow::Borrowed(inner), Cow::Owned),
        false => Cow::Borrowed(inner),
    }
}

/// The members of an object, as key with its quotes and value. Ends early if the text is not valid JSON.
pub fn members(object: &str) -> Members<'_> {
    let at = skip_space(object.as_bytes(), 0);
    Members { text: object, at: if object.as_bytes().get(at) == Some(&b'{') { at + 1 } else { object.len() } }
}

pub struct Members<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let bytes = self.text.as_bytes();
        let mut key = skip_space(bytes, self.at);
        if bytes.get(key) == Some(&b',') {
            key = skip_space(bytes, key + 1);
        }
        if bytes.get(key) != Some(&b'"') {
            return None;
        }
        let key_end = string_end(bytes, key)?;
        let start = value_start(bytes, key_end)?;
        let end = value_end(bytes, start)?;
        self.at = end;
        Some((self.text.get(key..key_end)?, self.text.get(start..end)?))
    }
}

/// Whether two texts say the same: neither spaces nor the order of keys matter, and of equal keys the last one counts.
/// Numbers are equal only if they are written alike. Below [`DEPTH_MAX`] levels the texts themselves are compared.
pub fn same(a: &str, b: &str) -> bool {
    same_within(a.trim(), b.trim(), |_, _| false, DEPTH_MAX)
}

/// Does the same, and compares numbers by value: `1`, `1.0` and `1e0` are equal.
pub fn equal(a: &str, b: &str) -> bool {
    same_within(a.trim(), b.trim(), |a, b| number(a).is_some_and(|a| Some(a) == number(b)), DEPTH_MAX)
}

/// Whether two texts are the same decimal number.
pub fn same_number(a: &str, b: &str) -> bool {
    a == b || number(a).is_some_and(|a| Some(a) == number(b))
}

/// A decimal number: whether it is negative, its digits without zeros at either end, and the power of ten of the last
/// digit. Zero has no digits, sign or power.
fn number(text: &str) -> Option<(bool, String, i64)> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, power) = match text.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let kept = digits.trim_end_matches('0');
    let last = power.checked_sub(fraction.len() as i64)?.checked_add((digits.len() - kept.len()) as i64)?;
    match kept.trim_start_matches('0') {
        "" => Some((false, String::new(), 0)),
        kept => Some((negative, kept.to_owned(), last)),
    }
}

/// Deep enough for documents that people make. The comparison recurses once for each level.
const DEPTH_MAX: usize = 64;

fn same_within(a: &str, b: &str, leaf: fn(&str, &str) -> bool, depth: usize) -> bool {
    if a == b {
        return true;
    }
    match (a.as_bytes().first(), b.as_bytes().first()) {
        _ if depth == 0 => false,
        (Some(b'{'), Some(b'{')) => {
            let sorted = |text| {
                let mut members: Vec<_> = members(text).map(|(key, value)| (unquote(key), value)).collect();
                members.sort_by(|a, b| a.0.cmp(&b.0));
                members.reverse();
                // The sort is stable, so of equal keys the last one now comes first.
                members.dedup_by(|a, b| a.0 == b.0);
                members
            };
            let (a, b) = (sorted(a), sorted(b));
            let pairs = || a.iter().zip(&b);
            a.len() == b.len() && pairs().all(|(a, b)| a.0 == b.0 && same_within(a.1, b.1, leaf, depth - 1))
        }
        (Some(b'['), Some(b'[')) => {
            let (mut a, mut b) = (items(a), items(b));
            loop {
                match (a.next(), b.next()) {
                    (None, None) => return true,
                    (Some(a), Some(b)) if same_within(a, b, leaf, depth - 1) => {}
                    _ => return false,
                }
            }
        }
        (Some(b'"'), Some(b'"')) => unquote(a) == unquote(b),
        _ => leaf(a, b),
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    let bytes = list.as_bytes();
    let mut at = 1;
    std::iter::from_fn(move || {
        let mut start = skip_space(bytes, at);
        if bytes.get(start) == Some(&b',') {
            start = skip_space(bytes, start + 1);
        }
        if matches!(bytes.get(start), None | Some(b']')) {
            return None;
        }
        let end = value_end(bytes, start)?;
        at = end;
        list.get(start..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_say_the_same_or_not() {
        for (a, b, expected) in [
            (r#"{"a": 1, "b": [1, {"c": null}]}"#, r#"{"b":[1,{"c":null}],"a":1}"#, true),
            (r#"{"a": 1, "a": 2}"#, r#"{"a": 2}"#, true),
            (r#"{"a": 2, "a": 1}"#, r#"{"a": 2}"#, false),
            (r#"{"a": "\u0041"}"#, r#"{"a": "A"}"#, true),
            ("[1, 2]", "[2, 1]", false),
            ("[1, 2]", "[1, 2, 3]", false),
            ("[]", "[null]", false),
            ("12345678901234567890.1", "12345678901234567890.2", false),
            ("1", "1.0", false),
            (" null", "null ", true),
            ("{}", "[]", false),
        ] {
            assert_eq!(same(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn numbers_are_equal_by_value() {
        for (a, b, expected) in [
            ("1", "1.0", true),
            ("100", "1e2", true),
            ("-0", "0.00", true),
            ("0.10", "1e-1", true),
            ("10", "1", false),
            ("-1", "1", false),
            ("12345678901234567890.1", "12345678901234567890.2", false),
            (r#"{"a": [1.0, "1"]}"#, r#"{"a": [1, "1"]}"#, true),
            (r#""1""#, r#""1.0""#, false),
            ("true", "false", false),
            ("null", "0", false),
        ] {
            assert_eq!(equal(a, b), expected, "{a} {b}");
        }
    }

    proptest! {
        /// No text causes a panic, and no end is before its beginning.
        #[test]
        fn any_text_is_walked(text in "[\\PC{}\\[\\]\",:\\\\ ]{0,40}") {
            for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                prop_assert!(value_end(text.as_bytes(), at).is_none_or(|end| end >= at));
            }
            members(&text).count();
            same(&text, &format!("{{{text}}}"));
        }
    }
}
