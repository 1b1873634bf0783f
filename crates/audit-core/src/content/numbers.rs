//! Numbers that people write in groups: payment cards, social security numbers, phone numbers.
//!
//! A *run* is a stretch of digits with up to [`GAP_MAX`] separators between any two of them. A number is searched for
//! at each group of a run, because another number may be next to it with only a space between the two. Full-width
//! digits count as digits; spaces and dashes of all kinds, dots, slashes, brackets and line breaks are separators. Each
//! kind of number has a least length, so that one byte out of that many is enough to find the run that contains it.

use std::ops::Range;

const CARD_MIN: usize = 13;
const CARD_MAX: usize = 19;

/// Length in bytes of the shortest number written 3-2-4, and of the shortest phone number without its `+`.
const SSN_BYTES: usize = 11;
const PHONE_BYTES: usize = 8;

/// Number of digits of an international phone number (E.164).
const PHONE: std::ops::RangeInclusive<usize> = 8..=15;

/// Number of separators between two digits of one number: ` - ` and `) (` are common; more separators divide two
/// numbers.
const GAP_MAX: usize = 3;

/// Number of bytes of a run that are examined in one step. ⚠ A run may be as long as the text; without a bound, each of
/// the numbers in it would cost a scan to the end of the run.
const RUN_MAX: usize = 256;

pub(super) fn find_card(text: &[u8], from: usize) -> Option<Range<usize>> {
    find_in_runs(text, from, CARD_MIN, |run| {
        first_in(text, run, |start| card_from(text, start)).map(|card| stripe(text, card, from))
    })
}

pub(super) fn find_ssn(text: &[u8], from: usize) -> Option<Range<usize>> {
    find_in_runs(text, from, SSN_BYTES, |run| first_in(text, run, |start| groups_from(text, start, [3, 2, 4])))
}

pub(super) fn find_phone(text: &[u8], from: usize) -> Option<Range<usize>> {
    find_in_runs(text, from, PHONE_BYTES, |run| {
        let domestic = || first_in(text, run.clone(), |start| groups_from(text, start, [3, 3, 4]));
        international(text, run.clone(), from).or_else(|| domestic().map(|found| with_bracket(text, found, from)))
    })
}

/// The number in the form that masks recognise: ASCII digits, with one dash for each gap. `None` if the text contains
/// anything else.
pub(super) fn plain(text: &str) -> Option<String> {
    let (bytes, mut out, mut at) = (text.as_bytes(), String::new(), 0);
    while at < bytes.len() {
        if let Some((value, length)) = digit(bytes, at) {
            out.push(char::from(b'0' + value));
            at += length;
        } else {
            at += separator(bytes, at)?;
            if !out.ends_with('-') && !out.is_empty() {
                out.push('-');
            }
        }
    }
    Some(out)
}

/// The value of the digit at `at`, and its length in bytes.
fn digit(text: &[u8], at: usize) -> Option<(u8, usize)> {
    match *text.get(at)? {
        ascii @ b'0'..=b'9' => Some((ascii - b'0', 1)),
        // U+FF10 to U+FF19.
        0xef => match text[at..] {
            [_, 0xbc, wide @ 0x90..=0x99, ..] => Some((wide - 0x90, 3)),
            _ => None,
        },
        _ => None,
    }
}

/// The length in bytes of the separator at `at`.
fn separator(text: &[u8], at: usize) -> Option<usize> {
    match *text.get(at)? {
        b' ' | b'-' | b'.' | b'/' | b'(' | b')' | b'\t' | b'\n' | b'\r' => Some(1),
        0xc2 | 0xe2 | 0xe3 | 0xef => wide_separator(&text[at..]),
        _ => None,
    }
}

fn wide_separator(text: &[u8]) -> Option<usize> {
    match text {
        // A no-break space, or a soft hyphen.
        [0xc2, 0xa0 | 0xad, ..] => Some(2),
        // U+2000 to U+2015, U+2028 to U+202F: spaces, marks without width, dashes, line breaks. U+205F, U+2212, U+3000,
        // U+FF0D: spaces, minus, hyphen.
        [0xe2, 0x80, 0x80..=0x95 | 0xa8..=0xaf, ..]
        | [0xe2, 0x81, 0x9f, ..]
        | [0xe2, 0x88, 0x92, ..]
        | [0xe3, 0x80, 0x80, ..]
        | [0xef, 0xbc, 0x8d, ..] => Some(3),
        _ => None,
    }
}

/// Where the character before `at` begins.
fn before(text: &[u8], at: usize, from: usize) -> Option<usize> {
    let mut place = at.checked_sub(1).filter(|place| *place >= from)?;
    while !is_start(text, place) && place > from {
        place -= 1;
    }
    Some(place)
}

/// Whether a character begins at `at`.
fn is_start(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)
}

/// Where the next digit of a run is whose last group ends at `end`.
fn next_digit(text: &[u8], end: usize) -> Option<usize> {
    let mut at = end;
    for _ in 0..=GAP_MAX {
        if digit(text, at).is_some() {
            return Some(at);
        }
        at += separator(text, at)?;
    }
    None
}

/// Where the digit before `at` is, with no more than a gap between them.
fn digit_before(text: &[u8], at: usize, from: usize) -> Option<usize> {
    let mut place = at;
    for _ in 0..=GAP_MAX {
        place = before(text, place, from)?;
        if digit(text, place).is_some() {
            return Some(place);
        }
        separator(text, place)?;
    }
    None
}

/// The end of the digits that begin at `start`, and their number.
fn group(text: &[u8], start: usize) -> (usize, usize) {
    let (mut end, mut count) = (start, 0);
    while let Some((_, length)) = digit(text, end) {
        end += length;
        count += 1;
    }
    (end, count)
}

/// The run that contains the character at `at`, from its first digit at or after `from` to its last. A long run is cut
/// after a group and continues as the next one.
fn run_around(text: &[u8], at: usize, from: usize) -> Option<Range<usize>> {
    let byte = *text.get(at)?;
    if byte.is_ascii_alphabetic() {
        return None;
    }
    let at = if byte.is_ascii() { at } else { before(text, at + 1, from)? };
    let mut start = match digit(text, at) {
        Some(_) => at,
        None => separator(text, at).and_then(|_| digit_before(text, at, from))?,
    };
    let mut end = group(text, start).0;
    while let Some(digit) = digit_before(text, start, from) {
        start = digit;
    }
    while let Some(next) = next_digit(text, end).filter(|_| end - start < RUN_MAX) {
        end = group(text, next).0;
    }
    Some(start..end)
}

/// The first match of `search` in a run of at least `shortest` bytes. Every such run covers one of the bytes that are
/// examined.
fn find_in_runs(
    text: &[u8],
    from: usize,
    shortest: usize,
    search: impl Fn(Range<usize>) -> Option<Range<usize>>,
) -> Option<Range<usize>> {
    let (mut at, mut floor) = (from + shortest - 1, from);
    while at < text.len() {
        match run_around(text, at, floor) {
            Some(run) => {
                let found = if run.len() < shortest { None } else { search(run.clone()) };
                if found.is_some() {
                    return found;
                }
                floor = run.end;
                at = at.max(run.end) + shortest;
            }
            None => at += shortest,
        }
    }
    None
}

/// The first match of `end_of`, which is called for each group of a run. It may look beyond the run, because the run
/// may have been cut.
fn first_in(text: &[u8], run: Range<usize>, end_of: impl Fn(usize) -> Option<usize>) -> Option<Range<usize>> {
    let mut start = run.start;
    loop {
        if let Some(end) = end_of(start) {
            return Some(start..end);
        }
        start = next_digit(text, group(text, start).0).filter(|next| *next < run.end)?;
    }
}

/// Whether a number may begin at `start`. A word of letters directly before it is allowed (`PAN4111…`), a word with
/// digits is not (`x1y4111…`). Before a `whole` number, one without groups, neither is a digit with a dot (`0.4111…`).
fn begins(text: &[u8], start: usize, whole: bool) -> bool {
    let word = text[..start].iter().rev().take_while(|byte| is_word(**byte));
    let decimal = whole && start > 1 && text[start - 1] == b'.' && text[start - 2].is_ascii_digit();
    !decimal && !word.into_iter().any(u8::is_ascii_digit)
}

/// Whether a number may end at `end`, by the same rules.
fn ends(text: &[u8], end: usize, whole: bool) -> bool {
    let word = text[end..].iter().take_while(|byte| is_word(**byte));
    let decimal = whole && text.get(end) == Some(&b'.') && text.get(end + 1).is_some_and(u8::is_ascii_digit);
    !decimal && !word.into_iter().any(u8::is_ascii_digit)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where a card number that begins with the group at `start` ends. Cards are written in one piece, in groups of four,
/// or as 4-6-5 and 4-6-4; other groups are other numbers.
fn card_from(text: &[u8], start: usize) -> Option<usize> {
    let (mut lengths, mut groups) = ([0usize; CARD_MAX], 0);
    let (mut digits, mut found) = ([0u8; CARD_MAX], 0);
    let (mut at, mut card) = (start, None);
    loop {
        let before = found;
        while let Some((value, length)) = digit(text, at) {
            if found == CARD_MAX {
                return card;
            }
            digits[found] = value;
            found += 1;
            at += length;
        }
        lengths[groups] = found - before;
        groups += 1;
        let whole = groups == 1;
        let bounded = || begins(text, start, whole) && ends(text, at, whole);
        if is_written_so(&lengths[..groups]) && is_card(&digits[..found]) && bounded() {
            card = Some(at);
        }
        // Only a first group of four is followed by others.
        match next_digit(text, at).filter(|_| lengths[0] == 4) {
            Some(next) => at = next,
            None => return card,
        }
    }
}

fn is_written_so(groups: &[usize]) -> bool {
    match groups {
        [_] | [4, 6, 4 | 5] => true,
        [fours @ .., last] => fours.iter().all(|length| *length == 4) && *last <= 4,
        [] => false,
    }
}

/// Whether the digits are in an issuer's range (ISO/IEC 7812: 3 to 6; Mastercard's 2221 to 2720, Mir's 2200 to 2204)
/// and the check digit is right (Luhn).
fn is_card(digits: &[u8]) -> bool {
    let head = digits.iter().take(4).fold(0u32, |head, digit| head * 10 + u32::from(*digit));
    let issued = matches!(digits[0], 3..=6) || matches!(head, 2200..=2204 | 2221..=2720);
    let value = |(place, digit): (usize, &u8)| match (place % 2, u32::from(*digit)) {
        (1, digit) if digit > 4 => digit * 2 - 9,
        (1, digit) => digit * 2,
        (_, digit) => digit,
    };
    issued && digits.len() >= CARD_MIN && digits.iter().rev().enumerate().map(value).sum::<u32>() % 10 == 0
}

/// Number of characters on a track of a magnetic stripe (ISO/IEC 7813).
const TRACK_MAX: usize = 79;

/// Extends the range if the number is on a magnetic stripe. There it is followed by data that nobody may keep, so the
/// whole track counts as found.
fn stripe(text: &[u8], card: Range<usize>, from: usize) -> Range<usize> {
    let longest = &text[card.end..text.len().min(card.start + TRACK_MAX)];
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (head, length) = match longest {
        // The holder's name, and after it the same data as on the other track.
        [b'^', rest @ ..] => match rest.iter().position(|byte| *byte == b'^') {
            Some(name) if digits(&rest[name + 1..]) >= 4 => (&b"%B"[..], name + 2 + digits(&rest[name + 1..])),
            _ => return card,
        },
        [b'=', rest @ ..] if digits(rest) >= 4 => (&b";"[..], 1 + digits(rest)),
        _ => return card,
    };
    let end = card.end + length + usize::from(text.get(card.end + length) == Some(&b'?'));
    let headed = text[from..card.start].to_ascii_uppercase().ends_with(head);
    card.start - if headed { head.len() } else { 0 }..end
}

/// Where the groups that begin at `start` end, if they have as many digits as `wanted`.
fn groups_from(text: &[u8], start: usize, wanted: [usize; 3]) -> Option<usize> {
    let (mut at, mut end) = (Some(start), start);
    for digits in wanted {
        let (group_end, found) = group(text, at?);
        if found != digits {
            return None;
        }
        end = group_end;
        at = next_digit(text, end);
    }
    (begins(text, start, false) && ends(text, end, false)).then_some(end)
}

/// The longest international number at the beginning of a run.
fn international(text: &[u8], run: Range<usize>, from: usize) -> Option<Range<usize>> {
    let plus = before(text, run.start, from).filter(|plus| text[*plus] == b'+')?;
    let (mut digits, mut found, mut at) = (0, None, Some(run.start));
    while let Some(start) = at {
        let (end, length) = group(text, start);
        digits += length;
        if digits > *PHONE.end() {
            break;
        }
        found = Some(plus..end).filter(|_| PHONE.contains(&digits));
        // All North American numbers have eleven digits.
        if digits == 11 && text[run.start] == b'1' {
            break;
        }
        at = next_digit(text, end);
    }
    found
}

/// Adds the opening bracket of a number such as `(555) 123-4567` to the range.
fn with_bracket(text: &[u8], found: Range<usize>, from: usize) -> Range<usize> {
    let open = found.start > from && text[found.start - 1] == b'(' && text[found.clone()].contains(&b')');
    found.start - usize::from(open)..found.end
}
