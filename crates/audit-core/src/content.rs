//! Sensitive content inside text: where a value holds a card's number, an e-mail address and the like among other words.
//!
//! What is found is replaced in place. Every search is made to pass quickly over text that holds nothing: a card's number covers one of each
//! thirteen bytes, an address has an `@`.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mask::{is_atom, is_domain, is_local};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Payment cards: 13 to 19 digits of an issuer's range whose check digit is right, together or in the groups in which cards are written,
    /// with spaces or dashes between them.
    Card,
    /// E-mail addresses.
    Email,
    /// US social security numbers, written 3-2-4.
    Ssn,
    /// Phone numbers: `+` and 8 to 15 digits, or 10 digits in groups of 3, 3 and 4.
    Phone,
    /// IBANs whose check digits are right.
    Iban,
}

impl Content {
    pub fn plural(self) -> &'static str {
        match self {
            Content::Card => "card numbers",
            Content::Email => "e-mail addresses",
            Content::Ssn => "social security numbers",
            Content::Phone => "phone numbers",
            Content::Iban => "IBANs",
        }
    }

    /// The first one that lies at or behind `from`, in bytes. A range begins and ends between characters.
    pub fn find(self, text: &str, from: usize) -> Option<Range<usize>> {
        match self {
            Content::Card => find_card(text.as_bytes(), from),
            Content::Email => find_email(text, from),
            Content::Ssn => find_groups(text.as_bytes(), from, |groups| (groups == [3, 2, 4]).then_some(3)),
            Content::Phone => find_phone(text.as_bytes(), from),
            Content::Iban => find_iban(text.as_bytes(), from),
        }
    }
}

const CARD_MIN: usize = 13;
const CARD_MAX: usize = 19;

fn find_card(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from + CARD_MIN - 1;
    while at < text.len() {
        match run_around(text, at, from) {
            Some(run) => {
                let card = if run.len() < CARD_MIN { None } else { card_in(text, run.clone()) };
                if card.is_some() {
                    return card;
                }
                at = run.end + CARD_MIN;
            }
            None => at += CARD_MIN,
        }
    }
    None
}

fn is_digit(text: &[u8], at: usize) -> bool {
    text.get(at).is_some_and(u8::is_ascii_digit)
}

/// Whether a number goes on at `at`: a digit, or a space or dash with digits on both sides.
fn goes_on(text: &[u8], at: usize, from: usize) -> bool {
    match text.get(at) {
        Some(b' ' | b'-') => at > from && is_digit(text, at - 1) && is_digit(text, at + 1),
        Some(b) => b.is_ascii_digit(),
        None => false,
    }
}

/// The longest stretch around `at` of digits with single separators.
fn run_around(text: &[u8], at: usize, from: usize) -> Option<Range<usize>> {
    if !goes_on(text, at, from) {
        return None;
    }
    let (mut start, mut end) = (at, at + 1);
    while start > from && goes_on(text, start - 1, from) {
        start -= 1;
    }
    while goes_on(text, end, from) {
        end += 1;
    }
    Some(start..end)
}

/// The first card in a run. Cards are written together, in fours, or in 4-6-5 and 4-6-4; other groups are other numbers.
fn card_in(text: &[u8], run: Range<usize>) -> Option<Range<usize>> {
    let mut start = run.start;
    loop {
        if let Some(end) = card_from(text, start, run.end) {
            return Some(start..end);
        }
        // The next group.
        start += text[start..run.end].iter().position(|b| !b.is_ascii_digit())? + 1;
    }
}

/// Where a card that begins with the group at `start` ends.
fn card_from(text: &[u8], start: usize, end: usize) -> Option<usize> {
    let bounded = start == 0 || !(text[start - 1].is_ascii_alphanumeric() || matches!(text[start - 1], b'_' | b'.'));
    if !bounded {
        return None;
    }
    let (mut lengths, mut groups) = ([0usize; CARD_MAX], 0);
    let (mut digits, mut found) = ([0u8; CARD_MAX], 0);
    let (mut at, mut card) = (start, None);
    while at < end {
        let length = text[at..end].iter().take_while(|b| b.is_ascii_digit()).count();
        if found + length > CARD_MAX {
            break;
        }
        digits[found..found + length].copy_from_slice(&text[at..at + length]);
        found += length;
        lengths[groups] = length;
        groups += 1;
        at += length;
        let followed = text.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
            || (text.get(at) == Some(&b'.') && is_digit(text, at + 1));
        if is_written_so(&lengths[..groups]) && !followed && is_card(&digits[..found]) {
            card = Some(at);
        }
        at += 1;
    }
    card
}

fn is_written_so(groups: &[usize]) -> bool {
    match groups {
        [_] | [4, 6, 4 | 5] => true,
        [fours @ .., last] => fours.iter().all(|length| *length == 4) && *last <= 4,
        [] => false,
    }
}

/// An issuer's range (ISO/IEC 7812: 3 to 6; Mastercard's 2221 to 2720, Mir's 2200 to 2204), and a check digit that is right (Luhn).
fn is_card(digits: &[u8]) -> bool {
    let head = digits.iter().take(4).fold(0u32, |head, digit| head * 10 + u32::from(digit - b'0'));
    let issued = matches!(digits[0], b'3'..=b'6') || matches!(head, 2200..=2204 | 2221..=2720);
    let value = |(place, digit): (usize, &u8)| match (place % 2, u32::from(digit - b'0')) {
        (1, digit) if digit > 4 => digit * 2 - 9,
        (1, digit) => digit * 2,
        (_, digit) => digit,
    };
    issued && digits.len() >= CARD_MIN && digits.iter().rev().enumerate().map(value).sum::<u32>() % 10 == 0
}

fn find_email(text: &str, from: usize) -> Option<Range<usize>> {
    let mut at = from;
    while let Some(found) = text.get(at..)?.find('@') {
        let middle = at + found;
        let local = text[from..middle].trim_end_matches(|c| is_atom(c) || c == '.');
        let start = from + local.len();
        // Brackets and quotes of the sentence are no part of it, nor is a dot at its end.
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

/// The first run of digits with dashes or spaces whose groups are as `wanted`: it says how many of them, from the first.
fn find_groups(text: &[u8], from: usize, wanted: impl Fn(&[usize]) -> Option<usize>) -> Option<Range<usize>> {
    let mut at = from;
    while at < text.len() {
        if !is_digit(text, at) {
            at += 1;
            continue;
        }
        let run = run_around(text, at, at)?;
        let groups: Vec<usize> = text[run.clone()].split(|b| !b.is_ascii_digit()).map(<[u8]>::len).collect();
        let bounded = |b: Option<&u8>| !b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        let outside = (at.checked_sub(1).and_then(|before| text.get(before)), text.get(run.end));
        if wanted(&groups).is_some() && bounded(outside.0) && bounded(outside.1) {
            return Some(run);
        }
        at = run.end;
    }
    None
}

const PHONE: std::ops::RangeInclusive<usize> = 8..=15;

fn find_phone(text: &[u8], from: usize) -> Option<Range<usize>> {
    let domestic = find_groups(text, from, |groups| (groups == [3, 3, 4]).then_some(3));
    let mut at = from;
    while let Some(found) = text.get(at..)?.iter().position(|b| *b == b'+') {
        let start = at + found;
        if domestic.as_ref().is_some_and(|range| range.start < start) {
            break;
        }
        let run = run_around(text, start + 1, start + 1);
        if let Some(run) =
            run.filter(|run| PHONE.contains(&text[run.clone()].iter().filter(|b| b.is_ascii_digit()).count()))
        {
            return Some(start..run.end);
        }
        at = start + 1;
    }
    domestic
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

/// Where the IBAN that begins at `start` ends: the longest one whose check digits are right (ISO 13616: the first four behind the rest,
/// letters as two digits, is 1 modulo 97).
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
