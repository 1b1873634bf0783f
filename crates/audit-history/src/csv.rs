//! Fields of CSV files that spreadsheets open without harm: [`field`].

/// A field. It is quoted where it must be (RFC 4180).
///
/// ⚠ A field that a spreadsheet would take for a formula gets a `'` in front, by which spreadsheets show it as text: a
/// trail holds what an attacker wrote. Numbers stay as they are.
pub fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠']) && !is_number(text);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    text.len() - digits.len() <= 1
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E'))
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn what_would_be_a_formula_is_text() {
        for formula in ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "＝1", "--1", "-"] {
            assert!(field(formula).trim_start_matches('"').starts_with('\''), "{formula}");
        }
        for plain in ["-12.50", "+3", "-1e10", "a=1", "", "7"] {
            assert_eq!(field(plain), plain);
        }
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(field("a \"b\", c\nd"), "\"a \"\"b\"\", c\nd\"");
        assert_eq!(field("=\"a\""), "\"'=\"\"a\"\"\"");
    }
}
