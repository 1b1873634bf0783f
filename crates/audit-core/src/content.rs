//! Sensitive content inside text: where a value contains a card number, an e-mail address or the like among other
//! words.
//!
//! What is found is replaced in place. Every search passes quickly over text that contains nothing: a card number
//! covers at least one of every thirteen bytes, so only those are looked at, and an address has an `@`.

mod numbers;

use std::borrow::Cow;
use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mask::{is_atom, is_domain, is_local};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Payment cards: 13 to 19 digits of an issuer's range whose check digit is right, together or in the groups in which cards are written,
    /// with spaces, dashes, dots, slashes or line breaks between them; or a track of a magnetic stripe that begins with such a number.
    Card,
    /// E-mail addresses.
    Email,
    /// US social security numbers, written 3-2-4, also beside other numbers.
    Ssn,
    /// Phone numbers: `+` and 8 to 15 digits, or 10 digits in groups of 3, 3 and 4, also beside other numbers.
    Phone,
    /// IBANs whose check digits are right.
    Iban,
}

impl Content {
    pub(crate) const COUNT: usize = Content::Iban as usize + 1;

    pub fn plural(self) -> &'static str {
        match self {
            Content::Card => "card numbers",
            Content::Email => "e-mail addresses",
            Content::Ssn => "social security numbers",
            Content::Phone => "phone numbers",
            Content::Iban => "IBANs",
        }
    }

    /// The first match at or after byte `from`. A range begins and ends between characters.
    pub fn find(self, text: &str, from: usize) -> Option<Range<usize>> {
        match self {
            Content::Card => numbers::find_card(text.as_bytes(), from),
            Content::Email => find_email(text, from),
            Content::Ssn => numbers::find_ssn(text.as_bytes(), from),
            Content::Phone => numbers::find_phone(text.as_bytes(), from),
            Content::Iban => find_iban(text.as_bytes(), from),
        }
    }

    /// What was found, in the form that masks recognise.
    pub(crate) fn plain(self, found: &str) -> Cow<'_, str> {
        match self {
            Content::Card | Content::Ssn | Content::Phone if !found.starts_with('+') => {
                numbers::plain(found).map_or(Cow::Borrowed(found), Cow::Owned)
            }
            _ => Cow::Borrowed(found),
        }
    }
}

fn is_digit(text: &[u8], at: usize) -> bool {
    text.get(at).is_some_and(u8::is_ascii_digit)
}

fn find_email(text: &str, from: usize) -> Option<Range<usize>> {
    let mut at = from;
    while let Some(found) = text.get(at..)?.find('@') {
        let middle = at + found;
        let local = text[from..middle].trim_end_matches(|c| is_atom(c) || c == '.');
        let start = from + local.len();
        // Brackets and quotes of the surrounding sentence are not part of the address, nor is a dot at its end.
        let start = start + text[start..middle].len()
            - text[start..middle].trim_start_matches(['.', '\'', '*', '/', '=']).len();
        let tail = text[middle + 1..].trim_start_matches(|c: char| c.is_alphanumeric() || c == '-' || c == '.');
        let end = text.len() - tail.len();
        let domain = text[middle + 1..end].trim_end_matches(['.', '-']);
        if is_local(&text[start..middle]) && is_domain(domain) {
            return Some(start..middle + 1 + domain.len());
        }
        at = middle + 1;
    }
    None
}

const IBAN: std::ops::RangeInclusive<usize> = 15..=34;

fn find_iban(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    while at + IBAN.start() <= text.len() {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        let head = text[at].is_ascii_uppercase()
            && text[at + 1].is_ascii_uppercase()
            && is_digit(text, at + 2)
            && is_digit(text, at + 3)
            && !before.is_some_and(u8::is_ascii_alphanumeric);
        if let Some(end) = head.then(|| iban_end(text, at)).flatten() {
            return Some(at..end);
        }
        at += 1;
    }
    None
}

/// Where the IBAN that begins at `start` ends: the longest one whose check digits are right (ISO 13616: with the first
/// four characters moved to the end and letters read as two digits, the number modulo 97 is 1).
fn iban_end(text: &[u8], start: usize) -> Option<usize> {
    let (mut characters, mut end, mut found) = (Vec::new(), start, None);
    while let Some(byte) = text.get(end) {
        let spaced = *byte == b' ' && characters.len() % 4 == 0 && text[end - 1] != b' ';
        if byte.is_ascii_uppercase() || byte.is_ascii_digit() {
            characters.push(*byte);
        } else if !spaced {
            break;
        }
        if characters.len() > *IBAN.end() {
            break;
        }
        end += 1;
        let whole = !spaced && !text.get(end).is_some_and(u8::is_ascii_alphanumeric);
        if whole && IBAN.contains(&characters.len()) && remainder(&characters) == 1 {
            found = Some(end);
        }
    }
    found
}

fn remainder(iban: &[u8]) -> u32 {
    let rotated = iban[4..].iter().chain(&iban[..4]);
    rotated.fold(0, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    })
}

#[cfg(test)]
mod tests;
