//! Text from elsewhere, fit to be shown: names of tables, values of rows, answers of servers.
//!
//! A line break in a name would begin a line of its own in a log, in a table or in an SQL script's comment, an escape sequence would drive the reader's
//! terminal, and a mark of direction would show a text in another order than it has.

use std::borrow::Cow;

/// `text` on one line: control characters, line breaks of all kinds and marks of direction as `\n`, `\u{1b}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_unfit)
}

/// The same of a text that has several lines.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_unfit(c))
}

fn escaped(text: &str, unfit: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&unfit) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match unfit(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Control characters (NEL among them), separators of lines and paragraphs, marks of direction (Unicode, "Bidirectional Algorithm", 2).
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_begins_a_line_or_drives_a_terminal() {
        let text = "a\nb\rc\td\u{85}e\u{2028}f\u{2029}g\u{1b}[31mh\u{202e}i\u{200f}ü日";
        assert_eq!(visible(text), r"a\nb\rc\td\u{85}e\u{2028}f\u{2029}g\u{1b}[31mh\u{202e}i\u{200f}ü日");
        assert_eq!(visible_lines("a\nb\u{1b}"), "a\nb\\u{1b}");
        assert!(matches!(visible("plain ü"), Cow::Borrowed(_)));
    }
}
