//! Writes `numeric` as Kafka Connect's `Decimal`: an unscaled integer in two's complement, big-endian, in as few bytes
//! as possible (Java's `BigInteger.toByteArray`), and its scale.

use super::base64::write_base64;

/// A parsed decimal text: `-12.50` has the digits `12` and `50`. `NaN` and the infinities are not decimals.
#[derive(Clone, Copy)]
pub(super) struct Decimal<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    pub fn parse(text: &'a str) -> Option<Decimal<'a>> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let are_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        (!whole.is_empty() && are_digits(whole) && are_digits(fraction)).then_some(Decimal {
            negative,
            whole,
            fraction,
        })
    }

    /// Removes zeros at the end of the fraction.
    pub fn shortest(self) -> Decimal<'a> {
        Decimal { fraction: self.fraction.trim_end_matches('0'), ..self }
    }

    pub fn scale(self) -> i16 {
        i16::try_from(self.fraction.len()).unwrap_or(i16::MAX)
    }

    /// Appends the unscaled value at a scale as a JSON string in base64. Returns false, and appends nothing, if the
    /// number has more digits than the scale keeps.
    pub fn write_unscaled(self, out: &mut Vec<u8>, scale: i16) -> bool {
        let (cut, zeros) = (self.scale() - scale.max(0), usize::from(scale.unsigned_abs()));
        if scale < 0 {
            let Some((whole, rest)) = self.whole.split_at_checked(self.whole.len().saturating_sub(zeros)) else {
                return false;
            };
            let exact = rest.bytes().chain(self.fraction.bytes()).all(|b| b == b'0');
            return exact && write_integer(out, self.negative, whole.bytes());
        }
        let missing = usize::try_from(-cut).unwrap_or(0);
        let (fraction, rest) = self.fraction.split_at(self.fraction.len().min(usize::from(scale.unsigned_abs())));
        let digits = self.whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', missing));
        rest.bytes().all(|b| b == b'0') && write_integer(out, self.negative, digits)
    }
}

/// Appends `$1,234.50` as an unscaled value of two decimals. Only the digits count, because the locale decides what is
/// between them.
pub(super) fn write_money(out: &mut Vec<u8>, text: &str) -> bool {
    let negative = text.contains(['-', '(']);
    write_integer(out, negative, text.bytes().filter(u8::is_ascii_digit))
}

/// Writes `$1,234.50` as `1234.50`.
pub(super) fn money_text(text: &str) -> String {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let (whole, cents) = digits.split_at(digits.len().saturating_sub(2));
    let sign = if text.contains(['-', '(']) { "-" } else { "" };
    format!("{sign}{}.{cents:0>2}", if whole.is_empty() { "0" } else { whole })
}

/// Number of decimal digits that always fit into an `i128`.
const FAST_DIGITS: usize = 38;

fn write_integer(out: &mut Vec<u8>, negative: bool, digits: impl Iterator<Item = u8> + Clone) -> bool {
    let digits = digits.skip_while(|digit| *digit == b'0');
    if digits.clone().nth(FAST_DIGITS).is_none() {
        let value = digits.fold(0i128, |value, digit| value * 10 + i128::from(digit - b'0'));
        let value = if negative { -value } else { value };
        write_base64(out, shortest(&value.to_be_bytes()).iter().copied());
    } else {
        write_base64(out, shortest(&large(negative, digits)).iter().copied());
    }
    true
}

/// Returns a number of any length in two's complement, big-endian.
fn large(negative: bool, digits: impl Iterator<Item = u8>) -> Vec<u8> {
    // The least significant limb comes first.
    let mut limbs: Vec<u32> = Vec::new();
    let mut multiply_add = |factor: u32, summand: u32| {
        let mut carry = u64::from(summand);
        for limb in &mut limbs {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    };
    let (mut chunk, mut power) = (0, 1);
    for digit in digits {
        (chunk, power) = (chunk * 10 + u32::from(digit - b'0'), power * 10);
        if power == 1_000_000_000 {
            multiply_add(power, chunk);
            (chunk, power) = (0, 1);
        }
    }
    multiply_add(power, chunk);
    // Make room for the sign.
    limbs.push(0);
    let mut bytes: Vec<u8> = limbs.iter().rev().flat_map(|limb| limb.to_be_bytes()).collect();
    if negative {
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    bytes
}

fn shortest(mut bytes: &[u8]) -> &[u8] {
    while let [first, second, ..] = bytes {
        let sign = if second & 0x80 == 0 { 0 } else { 0xff };
        if *first != sign {
            break;
        }
        bytes = &bytes[1..];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unscaled(text: &str, scale: i16) -> String {
        let mut out = Vec::new();
        match Decimal::parse(text).map(|decimal| decimal.write_unscaled(&mut out, scale)) {
            Some(true) => String::from_utf8(out).unwrap(),
            _ => "none".to_owned(),
        }
    }

    /// The expected values are Java's, as Debezium writes them.
    #[test]
    fn decimals_become_the_bytes_of_a_big_integer() {
        for (text, scale, expected) in [
            ("12345678901234.5678", 4, "\"AbabS6Yw804=\""),
            ("-0.0001", 4, "\"/w==\""),
            ("0", 4, "\"AA==\""),
            ("1", 4, "\"JxA=\""),
            ("12345", 0, "\"MDk=\""),
            ("12300", -2, "\"ew==\""),
            ("12301", -2, "none"),
            ("1.5", 0, "none"),
            ("100000000000000000000", 0, "\"BWvHXi1jEAAA\""),
            ("12345678901234567890123456789012345678901234567890.5", 1, "\"VHj54iCtsl5NIYCMzbfPb+QOdmw5\""),
            ("-128", 0, "\"gA==\""),
            ("128", 0, "\"AIA=\""),
            ("NaN", 0, "none"),
            ("", 0, "none"),
        ] {
            assert_eq!(unscaled(text, scale), expected, "{text} at {scale}");
        }
    }

    #[test]
    fn long_numbers_are_those_of_short_ones() {
        for value in [1i128 << 64, (1 << 96) - 1, -(1 << 95), -1, 10i128.pow(37), 7] {
            let digits = value.unsigned_abs().to_string();
            assert_eq!(shortest(&large(value < 0, digits.bytes())), shortest(&value.to_be_bytes()), "{value}");
        }
    }

    #[test]
    fn money_is_its_digits() {
        assert_eq!(money_text("-$1,234.50"), "-1234.50");
        assert_eq!(money_text("$0.01"), "0.01");
        assert_eq!(money_text("1.234,50 €"), "1234.50");
        let mut out = Vec::new();
        assert!(write_money(&mut out, "$1,234.50"));
        assert_eq!(out, b"\"AeI6\"");
    }
}
