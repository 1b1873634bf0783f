//! Makes text from other sources safe to show: names of tables, values of rows, answers of servers.
//!
//! A line break in a name would begin a new line in a log, in a table or in a comment of an SQL script. An escape
//! sequence would control the reader's terminal, and a directional mark would show a text in a false order.

use std::borrow::Cow;

/// Returns `text` on one line: control characters, line breaks of all kinds and directional marks are escaped as in
/// `\n` and `\u{1b}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_unfit)
}

/// Does the same as [`visible`] for a text of several lines, whose `\n` stay.
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

/// Tells whether a character is a control character (NEL is one), a line or paragraph separator, or a directional mark
/// (Unicode Standard Annex 9, "Unicode Bidirectional Algorithm", section 2).
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
