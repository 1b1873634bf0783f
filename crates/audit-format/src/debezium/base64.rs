//! Writes bytes as JSON strings in base64 (RFC 4648, section 4), without an intermediate copy.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends bytes as a JSON string in base64.
pub(super) fn write_base64(out: &mut Vec<u8>, mut bytes: impl Iterator<Item = u8>) {
    out.push(b'"');
    while let Some(first) = bytes.next() {
        let (second, third) = (bytes.next(), bytes.next());
        let group = u32::from(first) << 16 | u32::from(second.unwrap_or(0)) << 8 | u32::from(third.unwrap_or(0));
        let digit = |at: u32| ALPHABET[(group >> (18 - 6 * at)) as usize & 63];
        let padded = |at, there: bool| if there { digit(at) } else { b'=' };
        out.extend_from_slice(&[digit(0), digit(1), padded(2, second.is_some()), padded(3, third.is_some())]);
    }
    out.push(b'"');
}

/// Decodes PostgreSQL's text form of `bytea`: `\x00ff`. `None` if the text is not of that form.
pub(super) fn bytea(text: &str) -> Option<impl Iterator<Item = u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let hex = |digit: u8| (digit as char).to_digit(16).map(|digit| digit as u8);
    let right = digits.len() % 2 == 0 && digits.iter().all(|digit| digit.is_ascii_hexdigit());
    let byte = move |pair: &[u8]| hex(pair[0]).unwrap_or(0) << 4 | hex(pair[1]).unwrap_or(0);
    right.then(|| digits.chunks_exact(2).map(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        for (text, expected) in [("\\x", ""), ("\\x00", "AA=="), ("\\x00ff", "AP8="), ("\\x00FF10", "AP8Q")] {
            let mut out = Vec::new();
            write_base64(&mut out, bytea(text).unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), format!("\"{expected}\""));
        }
        assert!(bytea("\\x0").is_none() && bytea("00").is_none() && bytea("\\xzz").is_none());
    }
}
