//! Writes times and positions as text without `std::fmt` where possible, because every message has several.

use std::fmt::Write as _;

use audit_core::position::{Lsn, Micros, Position};

/// Cache of the text of the last time, because versions of one transaction share their time.
#[derive(Debug, Default)]
pub(crate) struct Stamp {
    at: Micros,
    text: String,
}

impl Stamp {
    /// Returns the time in UTC as in RFC 3339, with six decimals.
    pub fn text(&mut self, at: Micros) -> &[u8] {
        if at != self.at || self.text.is_empty() {
            self.at = at;
            self.text.clear();
            // Writing into a String cannot fail.
            let _ = write!(self.text, "{at}");
        }
        self.text.as_bytes()
    }
}

/// Appends `eeee:llllllllllllllll:ssssssssss`.
pub(crate) fn write_position(out: &mut Vec<u8>, position: Position) {
    write_hex(out, u64::from(position.epoch), 4, b"0123456789abcdef");
    out.push(b':');
    write_hex(out, position.commit_lsn.0, 16, b"0123456789abcdef");
    out.push(b':');
    let mut digits = [b'0'; 10];
    let mut rest = position.seq;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits);
}

/// Appends an LSN as PostgreSQL shows it: `16/B374D848`.
pub(crate) fn write_lsn(out: &mut Vec<u8>, lsn: Lsn) {
    for (half, end) in [(lsn.0 >> 32, "/"), (lsn.0 & 0xffff_ffff, "")] {
        let digits = (u64::BITS - half.leading_zeros()).div_ceil(4).max(1);
        write_hex(out, half, digits, b"0123456789ABCDEF");
        out.extend_from_slice(end.as_bytes());
    }
}

fn write_hex(out: &mut Vec<u8>, value: u64, digits: u32, alphabet: &[u8; 16]) {
    out.extend((0..digits).rev().map(|digit| alphabet[(value >> (4 * digit)) as usize & 15]));
}

/// Appends a number in decimal.
pub(crate) fn write_number(out: &mut Vec<u8>, number: i64) {
    use std::io::Write as _;
    // Writing into a Vec cannot fail.
    let _ = write!(out, "{number}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_lsns_are_written_as_they_print() {
        for (epoch, lsn, seq) in
            [(1, 0, 0), (0xffff, u64::MAX, u32::MAX), (2, 0x16_b374_d848, 77), (1, 0x1_0000_0000, 9)]
        {
            let position = Position::new(epoch, Lsn(lsn), seq);
            let mut out = Vec::new();
            write_position(&mut out, position);
            out.push(b' ');
            write_lsn(&mut out, Lsn(lsn));
            assert_eq!(String::from_utf8(out).unwrap(), format!("{position} {}", Lsn(lsn)));
        }
    }
}
