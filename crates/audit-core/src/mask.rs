//! Masks: what the method `partial` leaves of a value.
//!
//! Without a pattern the value's shape decides. The shapes exclude one another, so their order does not matter:
//!
//! | shape | by what it is known | left |
//! |---|---|---|
//! | e-mail address | one `@` between a local part and a domain with a dot | `u***@example.com` |
//! | international phone | `+`, a country code of [E.164][1], 7 digits or more, 15 in all at most | `+1-***-***-4567` |
//! | payment card | 13 to 19 digits, single spaces or dashes between them | `****9012` |
//! | phone | 10 digits, with spaces, dashes, dots or one pair of brackets | `***-***-4567` |
//! | US SSN | 9 digits, together or 3-2-4 | `***-**-6789` |
//! | IBAN | two capitals, two digits, 11 to 30 capitals and digits, single spaces between them | `****3000` |
//! | anything else | | `[REDACTED:15chars]` |
//!
//! [1]: https://www.itu.int/rec/T-REC-E.164

use std::fmt::{self, Write as _};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Appends what `partial` leaves of a text.
pub fn partial(text: &str, out: &mut String) {
    // The type char(n) pads with spaces.
    let value = text.trim_matches(' ');
    let shaped = email(value, out) || international(value, out) || digits(value, out) || iban(value, out);
    if !shaped {
        redacted(text, out);
    }
}

/// Appends `[REDACTED:15chars]`.
pub(crate) fn redacted(text: &str, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "[REDACTED:{}chars]", text.chars().count());
}

/// Maximum lengths of a domain name (RFC 1035, section 2.3.4) and of a local part (RFC 5321, section 4.5.3.1.1).
const DOMAIN_MAX: usize = 253;
const LOCAL_MAX: usize = 64;

fn email(text: &str, out: &mut String) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    if !is_local(local) || !is_domain(domain) {
        return false;
    }
    let mut chars = local.chars();
    // If the name has only one character, showing it would show the whole name.
    if let Some(first) = chars.next().filter(|_| chars.next().is_some()) {
        out.push(first);
    }
    out.push_str("***@");
    out.push_str(domain);
    true
}

/// Whether the text is a dot-atom (RFC 5322, section 3.2.3; RFC 6531 for characters beyond ASCII).
pub(crate) fn is_local(local: &str) -> bool {
    let atom = |part: &str| !part.is_empty() && part.chars().all(is_atom);
    local.len() <= LOCAL_MAX && local.split('.').all(atom)
}

pub(crate) fn is_atom(c: char) -> bool {
    c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

/// Whether the text has two labels at least, the last of letters. This excludes most passwords that contain an `@`,
/// because what follows it there is seldom such a domain.
pub(crate) fn is_domain(domain: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = |label: &str| {
        label.starts_with("xn--") || (label.chars().count() > 1 && label.chars().all(char::is_alphabetic))
    };
    domain.len() <= DOMAIN_MAX
        && domain.split('.').all(label)
        && domain.rsplit_once('.').is_some_and(|(_, tail)| last(tail))
}

/// Number of digits of an international number in all (E.164), and after the country code.
const E164_MAX: usize = 15;
const SUBSCRIBER_MIN: usize = 7;

fn international(text: &str, out: &mut String) -> bool {
    let Some(number) = text.strip_prefix('+') else { return false };
    let mut found = Digits::default();
    if !number.starts_with(|c: char| c.is_ascii_digit()) || !number.bytes().all(|b| found.take(b, b" -.()/")) {
        return false;
    }
    let Some(code) = country_code(found.all()).filter(|code| found.count >= code + SUBSCRIBER_MIN) else {
        return false;
    };
    if found.count > E164_MAX {
        return false;
    }
    out.push('+');
    push_digits(out, &found.all()[..code]);
    out.push_str("-***-***-");
    push_digits(out, found.last4());
    true
}

/// Length of the country code that a number begins with (ITU-T E.164, list of assigned codes): 1 and 7 are codes of one
/// digit, the codes of two digits are listed, all others have three.
fn country_code(digits: &[u8]) -> Option<usize> {
    const TWO: &[u8] = &[
        20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58, 60, 61,
        62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98,
    ];
    let [first, second, ..] = digits else { return None };
    match (first - b'0', (first - b'0') * 10 + second - b'0') {
        (0, _) => None,
        (1 | 7, _) => Some(1),
        (_, two) if TWO.contains(&two) => Some(2),
        _ => Some(3),
    }
}

/// Masks cards, phones and social security numbers, which differ in their number of digits.
fn digits(text: &str, out: &mut String) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_digit);
    if !ends(bytes.last()) || !(ends(bytes.first()) || bytes.first() == Some(&b'(')) {
        return false;
    }
    let mut found = Digits::default();
    if !bytes.iter().all(|b| found.take(*b, b" -.()")) {
        return false;
    }
    let single = || bytes.iter().all(|b| b.is_ascii_digit() || *b == b' ' || *b == b'-') && !doubled(bytes);
    let left = match found.count {
        13..=19 if single() => "****",
        10 if brackets(bytes) => "***-***-",
        9 if single() && three_two_four(bytes) => "***-**-",
        _ => return false,
    };
    out.push_str(left);
    push_digits(out, found.last4());
    true
}

/// Whether two separators are next to each other.
fn doubled(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| !pair[0].is_ascii_alphanumeric() && !pair[1].is_ascii_alphanumeric())
}

/// Whether there are no brackets, or one pair in the right order.
fn brackets(bytes: &[u8]) -> bool {
    let mut kinds = bytes.iter().filter(|b| matches!(b, b'(' | b')'));
    matches!((kinds.next(), kinds.next(), kinds.next()), (None, ..) | (Some(b'('), Some(b')'), None))
}

fn three_two_four(bytes: &[u8]) -> bool {
    bytes.len() == 9 || (bytes.len() == 11 && !bytes[3].is_ascii_digit() && !bytes[6].is_ascii_digit())
}

fn iban(text: &str, out: &mut String) -> bool {
    let bytes = text.as_bytes();
    let body = || bytes.iter().filter(|b| **b != b' ');
    let head: Vec<u8> = body().take(4).copied().collect();
    let [a, b, c, d] = head.as_slice() else { return false };
    let shaped = a.is_ascii_uppercase() && b.is_ascii_uppercase() && c.is_ascii_digit() && d.is_ascii_digit();
    let plain = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b' ';
    if !shaped || !bytes.iter().all(plain) || doubled(bytes) || !(15..=34).contains(&body().count()) {
        return false;
    }
    out.push_str("****");
    let mut last = [0; 4];
    for (place, byte) in last.iter_mut().rev().zip(body().rev()) {
        *place = *byte;
    }
    push_digits(out, &last);
    true
}

/// The digits of a number, as many as any shape can have.
#[derive(Default)]
struct Digits {
    bytes: [u8; 20],
    count: usize,
}

impl Digits {
    /// Takes the next character. Returns false if it is neither a digit nor one of the separators, or if there are too
    /// many digits.
    fn take(&mut self, byte: u8, separators: &[u8]) -> bool {
        if byte.is_ascii_digit() {
            let Some(place) = self.bytes.get_mut(self.count) else { return false };
            *place = byte;
            self.count += 1;
            return true;
        }
        separators.contains(&byte)
    }

    fn all(&self) -> &[u8] {
        &self.bytes[..self.count]
    }

    fn last4(&self) -> &[u8] {
        &self.bytes[self.count.saturating_sub(4)..self.count]
    }
}

/// Appends ASCII characters.
fn push_digits(out: &mut String, ascii: &[u8]) {
    out.extend(ascii.iter().map(|b| char::from(*b)));
}

/// A pattern of the operator's own: text as it is, `{2}` for the first two characters of the value, `{-4}` for its last four, `{{` and
/// `}}` for the brackets themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Mask {
    written: String,
    pieces: Vec<Piece>,
    /// Number of characters of the value that the pattern shows.
    shown: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    First(usize),
    Last(usize),
}

/// At least one third of a value's characters must be hidden, or nothing is shown. This allows the first six and last
/// four digits of a card number.
const HIDDEN_MIN: usize = 3;

/// Maximum number of shown characters; nobody needs more to recognise a value.
const SHOWN_MAX: usize = 64;

impl Mask {
    /// Appends what the pattern leaves of a text: `[REDACTED:15chars]` if the pattern would show more than two thirds
    /// of it.
    pub fn apply(&self, text: &str, out: &mut String) {
        let count = text.chars().count();
        if (count.saturating_sub(self.shown)) * HIDDEN_MIN < count || count == 0 {
            return redacted(text, out);
        }
        for piece in &self.pieces {
            match piece {
                Piece::Text(literal) => out.push_str(literal),
                Piece::First(n) => out.extend(text.chars().take(*n)),
                Piece::Last(n) => out.extend(text.chars().skip(count - n)),
            }
        }
    }
}

/// A pattern that cannot be read. Characters are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    #[error("the pattern is empty: give one such as \"{{2}}***{{-4}}\"")]
    Empty,
    #[error("the bracket at character {0} has no other: write \"{{{{\" or \"}}}}\" for a bracket itself")]
    Bracket(usize),
    #[error("the brackets at character {0} hold no number: say how many characters are shown, as in {{2}} or {{-4}}")]
    Number(usize),
    #[error("the number at character {0} is out of range: from 1 to {SHOWN_MAX} characters may be shown")]
    Range(usize),
    #[error(
        "the brackets at character {0} are too many, or in the wrong order: at most one {{n}}, and behind it one {{-n}}"
    )]
    Order(usize),
}

impl FromStr for Mask {
    type Err = MaskError;

    fn from_str(written: &str) -> Result<Mask, MaskError> {
        let mut mask = Mask { written: written.to_owned(), pieces: Vec::new(), shown: 0 };
        let mut chars = written.chars().zip(1..).peekable();
        let mut literal = String::new();
        while let Some((c, at)) = chars.next() {
            let plain = c != '{' && c != '}' || chars.next_if(|(next, _)| *next == c).is_some();
            if plain {
                literal.push(c);
            } else if c == '}' {
                return Err(MaskError::Bracket(at));
            } else {
                let inside: String = std::iter::from_fn(|| chars.next_if(|(c, _)| *c != '}')).map(|(c, _)| c).collect();
                chars.next().ok_or(MaskError::Bracket(at))?;
                if !literal.is_empty() {
                    mask.pieces.push(Piece::Text(std::mem::take(&mut literal)));
                }
                mask.show(&inside, at)?;
            }
        }
        if !literal.is_empty() {
            mask.pieces.push(Piece::Text(literal));
        }
        if mask.pieces.is_empty() { Err(MaskError::Empty) } else { Ok(mask) }
    }
}

impl Mask {
    fn show(&mut self, inside: &str, at: usize) -> Result<(), MaskError> {
        let (last, count) = match inside.strip_prefix('-') {
            Some(count) => (true, count),
            None => (false, inside),
        };
        if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
            return Err(MaskError::Number(at));
        }
        let count = count.parse().ok().filter(|n| (1..=SHOWN_MAX).contains(n)).ok_or(MaskError::Range(at))?;
        let has = |wanted: fn(&Piece) -> bool| self.pieces.iter().any(wanted);
        let wrong =
            has(|piece| matches!(piece, Piece::Last(_))) || (!last && has(|piece| matches!(piece, Piece::First(_))));
        if wrong {
            return Err(MaskError::Order(at));
        }
        self.pieces.push(if last { Piece::Last(count) } else { Piece::First(count) });
        self.shown += count;
        Ok(())
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl TryFrom<String> for Mask {
    type Error = MaskError;

    fn try_from(written: String) -> Result<Mask, MaskError> {
        written.parse()
    }
}

impl From<Mask> for String {
    fn from(mask: Mask) -> String {
        mask.written
    }
}

#[cfg(test)]
mod tests;
