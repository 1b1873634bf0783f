//! Ciphertexts, of which two sinks may lawfully have different ones for one value: after a kill the sink that lags gets
//! the version again, encrypted in another run of the daemon.

use std::borrow::Cow;

use crate::unit::{take_unit, write_unit};
use crate::value::{Kind, Value};

/// How each ciphertext begins.
const ENCRYPTED: &str = "aes256gcm:";

/// Number of hex digits in a key's name, after its letter.
const DIGITS: usize = 16;

/// A record with only the kind of key and the length of each ciphertext.
pub(crate) fn reduced(record: &[u8]) -> Cow<'_, [u8]> {
    let Some((form, mut rest)) = record.split_first().filter(|_| contains(record)) else {
        return Cow::Borrowed(record);
    };
    let mut out = vec![*form];
    while let Some(unit) = take_unit(&mut rest) {
        let bytes = match (unit.kind, std::str::from_utf8(unit.value)) {
            (Kind::Text | Kind::Json, Ok(text)) => reduced_text(text).into_bytes(),
            _ => unit.value.to_vec(),
        };
        write_unit(&mut out, unit.tag, unit.name, &Value { kind: unit.kind, bytes });
    }
    Cow::Owned(out)
}

fn contains(record: &[u8]) -> bool {
    record.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED.as_bytes())
}

/// `aes256gcm:d0123456789abcdef:AUgL…` becomes `aes256gcm:d:60`, wherever it is in the text.
fn reduced_text(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(ENCRYPTED) {
        let (before, after) = rest.split_at(at + ENCRYPTED.len());
        out.push_str(before);
        rest = after;
        if let Some((letter, body)) = key(after) {
            let length = body.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b)).count();
            out.push_str(&format!("{letter}:{length}"));
            rest = &body[length..];
        }
    }
    out.push_str(rest);
    out
}

/// The letter of a key's name, which says what kind of key it is, and what follows the name.
fn key(text: &str) -> Option<(char, &str)> {
    let letter = text.chars().next().filter(|letter| "dts".contains(*letter))?;
    let (name, body) = text.split_at_checked(1 + DIGITS)?;
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    name.bytes().skip(1).all(hex).then(|| body.strip_prefix(':').map(|body| (letter, body)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ciphertext_keeps_its_kind_of_key_and_its_length() {
        for (text, expected) in [
            ("aes256gcm:d0123456789abcdef:AUgL+/==", "aes256gcm:d:8"),
            (r#"{"a": "aes256gcm:s0123456789abcdef:AU=", "b": 1}"#, r#"{"a": "aes256gcm:s:3", "b": 1}"#),
            ("aes256gcm:no aes256gcm:t0123456789abcdef:x.", "aes256gcm:no aes256gcm:t:1."),
            ("aes256gcm:d0123456789abcdeF:AUgL", "aes256gcm:d0123456789abcdeF:AUgL"),
            ("aes256gcm:d01234567é9abcdef:AUgL", "aes256gcm:d01234567é9abcdef:AUgL"),
            ("aes-siv:t0123456789abcdef:AUgL", "aes-siv:t0123456789abcdef:AUgL"),
        ] {
            assert_eq!(reduced_text(text), expected);
        }
    }
}
