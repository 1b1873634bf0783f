//! Values of arrays, rows and `hstore` as PostgreSQL writes them: where their parts are, and what the parts say.
//!
//! An array is `{a,"b c",NULL}`, a row `(a,"b ""c""",)`, an `hstore` `"a"=>"1", "b"=>NULL`. Inside quotes a backslash
//! escapes a quote or another backslash; a row doubles them instead. All readers in PostgreSQL accept backslashes, so
//! parts are written back in that form.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

/// The parts of an array or a row, in order, including those of nested arrays; NULL is left out. `None` if the text is
/// neither.
pub(super) fn parts(text: &str) -> Option<Vec<Range<usize>>> {
    let bytes = text.as_bytes();
    let mut at = match bytes.first()? {
        // The text begins with bounds if the array does not begin at 1: `[0:1]={a,b}`.
        b'[' => text.find("]={")? + 2,
        _ => 0,
    };
    let (open, close) = match bytes.get(at)? {
        b'{' => (b'{', b'}'),
        b'(' => (b'(', b')'),
        _ => return None,
    };
    let (mut parts, mut depth) = (Vec::new(), 0usize);
    while at < bytes.len() {
        match bytes[at] {
            byte if byte == open && (open == b'{' || depth == 0) => {
                depth += 1;
                at += 1;
            }
            byte if byte == close => {
                depth = depth.checked_sub(1)?;
                at += 1;
                if depth == 0 {
                    return (at == bytes.len()).then_some(parts);
                }
            }
            b',' => at += 1,
            b'"' => {
                let end = quoted_end(bytes, at)?;
                parts.push(at..end);
                at = end;
            }
            _ => {
                let end = at + bytes[at..].iter().position(|byte| matches!(byte, b',' | b'"') || *byte == close)?;
                if &text[at..end] != "NULL" || open == b'(' {
                    parts.push(at..end);
                }
                at = end;
            }
        }
    }
    None
}

/// Key and value of each pair of an `hstore`; `None` if the text is something else.
pub(super) fn pairs(text: &str) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    let bytes = text.as_bytes();
    let (mut pairs, mut at) = (Vec::new(), 0);
    loop {
        let key = at..quoted_end(bytes, at)?;
        let start = key.end + text.get(key.end..)?.starts_with("=>").then_some(2)?;
        let end = match bytes.get(start)? {
            b'"' => quoted_end(bytes, start)?,
            _ => start + text[start..].starts_with("NULL").then_some(4)?,
        };
        pairs.push((key, start..end));
        match text.get(end..)? {
            "" => return Some(pairs),
            rest => at = end + rest.starts_with(", ").then_some(2)?,
        }
    }
}

/// The end of the part whose opening quote is at `at`.
fn quoted_end(text: &[u8], at: usize) -> Option<usize> {
    (text.get(at) == Some(&b'"')).then_some(())?;
    let mut i = at + 1;
    loop {
        i += memchr2(b'"', b'\\', text.get(i..)?)?;
        match (text[i], text.get(i + 1)) {
            (b'"', next) if next != Some(&b'"') => return Some(i + 1),
            _ => i += 2,
        }
    }
}

/// The content of a part, without quotes and escapes.
pub(super) fn read(part: &str) -> Cow<'_, str> {
    let Some(inner) = part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return part.into() };
    if !inner.contains(['"', '\\']) {
        return inner.into();
    }
    let (mut out, mut chars) = (String::with_capacity(inner.len()), inner.chars());
    while let Some(c) = chars.next() {
        // An escaped character follows a backslash, or is the second of two quotes.
        out.push(if matches!(c, '\\' | '"') { chars.next().unwrap_or(c) } else { c });
    }
    out.into()
}

/// Appends a part whose content is `text`.
pub(super) fn write(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Option<Vec<String>> {
        Some(parts(text)?.into_iter().map(|part| read(&text[part]).into_owned()).collect())
    }

    #[test]
    fn parts_of_arrays_and_rows_are_read() {
        for (text, expected) in [
            (r#"{a,"b \"c\" \\",NULL,"NULL",""}"#, Some(vec!["a", "b \"c\" \\", "NULL", ""])),
            (r#"{{1,2},{"x}",4}}"#, Some(vec!["1", "2", "x}", "4"])),
            ("[0:1]={a,b}", Some(vec!["a", "b"])),
            ("{}", Some(vec![])),
            (r#"(a,"b ""c"" \\ d",,"")"#, Some(vec!["a", "b \"c\" \\ d", ""])),
            (r#"("(1,""x y"")",{2})"#, Some(vec!["(1,\"x y\")", "{2}"])),
            ("{a", None),
            ("{a}b", None),
            (r#"{"a}"#, None),
            ("(a", None),
            ("a,b", None),
            ("", None),
        ] {
            let expected = expected.map(|parts| parts.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn pairs_of_an_hstore_are_read() {
        let text = r#""a\"=>"=>"1, \\", "b"=>NULL"#;
        let found = pairs(text)
            .map(|pairs| pairs.into_iter().map(|(key, value)| (read(&text[key]), &text[value])).collect::<Vec<_>>());
        assert_eq!(found, Some(vec![("a\"=>".into(), r#""1, \\""#), ("b".into(), "NULL")]));
        for text in ["", "\"a\"", "\"a\"=>", "\"a\"=>\"b\",", "\"a\"=>\"b\" ", "a=>b"] {
            assert_eq!(pairs(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_what_is_written_is_read_again(text in "[\\PC{}()\",\\\\=> ]{0,40}") {
            parts(&text);
            pairs(&text);
            let mut written = String::new();
            write(&text, &mut written);
            let read = |text: &str| shown(text).map(|parts| parts.concat());
            prop_assert_eq!(read(&format!("{{{written}}}")), Some(text.clone()));
            prop_assert_eq!(read(&format!("({written})")), Some(text));
        }
    }
}
