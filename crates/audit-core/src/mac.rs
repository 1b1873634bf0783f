//! Keyed hashes, for the method `hash` and for protected columns inside `key`.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// A secret for HMACs, and the id under which it is known.
#[derive(Clone)]
pub struct MacKey {
    id: String,
    /// The HMAC's state after it has taken in the padded key; each hash starts from a copy.
    mac: Hmac<Sha256>,
}

/// The space of a hash: equal values have equal hashes within one space and different hashes in two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space(Vec<u8>);

impl Space {
    /// The space of a single column.
    pub fn column(table: &str, column: &str) -> Space {
        Space::of(table, column)
    }

    /// A space that columns share. No table has an empty name, so it cannot equal the space of a single column.
    pub fn domain(domain: &str) -> Space {
        Space::of("", domain)
    }

    fn of(first: &str, second: &str) -> Space {
        let mut prefix = Vec::new();
        for part in [first.as_bytes(), second.as_bytes()] {
            prefix.extend_from_slice(&(part.len() as u64).to_be_bytes());
            prefix.extend_from_slice(part);
        }
        Space(prefix)
    }

    /// The bytes that are hashed before a value: for each part its length in eight bytes, then the part.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl MacKey {
    /// `id` becomes part of every stored hash; it may hold letters, digits, `-` and `_`.
    pub fn new(id: impl Into<String>, secret: &[u8]) -> MacKey {
        MacKey { id: id.into(), mac: Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| unreachable_key()) }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Appends `hmac-sha256:<key id>:<64 hex>` for a value.
    pub fn write(&self, space: &Space, value: &[u8], out: &mut String) {
        let mut mac = self.mac.clone();
        mac.update(space.bytes());
        mac.update(value);
        out.push_str("hmac-sha256:");
        out.push_str(&self.id);
        out.push(':');
        write_hex(&mac.finalize().into_bytes(), out);
    }

    /// The text that [`MacKey::write`] writes for a value of a column.
    pub fn hash(&self, table: &str, column: &str, value: &[u8]) -> String {
        let mut out = String::new();
        self.write(&Space::column(table, column), value, &mut out);
        out
    }
}

/// Appends `sha256:<64 hex>`.
pub fn write_sha256(value: &[u8], out: &mut String) {
    out.push_str("sha256:");
    write_hex(&Sha256::digest(value), out);
}

fn write_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend(bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])));
}

/// HMAC accepts keys of any length (RFC 2104), so its constructor cannot fail.
fn unreachable_key() -> Hmac<Sha256> {
    Hmac::<Sha256>::new(&Default::default())
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacKey({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The expected values were computed with Python's hmac and hashlib: anyone who has the key must be able to find
    /// what is stored.
    #[test]
    fn hashes_have_a_form_of_their_own() {
        let key = MacKey::new("k1", b"0123456789abcdef");
        let expected = "hmac-sha256:k1:7c7c502cd45754d3b433135aac20c79a9bdbeef89c517f0d659dc6e832da6bcb";
        assert_eq!(key.hash("public.users", "email", b"ann@example.com"), expected);
        let mut out = String::new();
        key.write(&Space::domain("email"), b"ann@example.com", &mut out);
        assert_eq!(out, "hmac-sha256:k1:06db3c9be71e4530fe1a4621be70ee99e9f90d892e28e962f461c116d90a478b");
        let mut out = String::new();
        write_sha256(b"abc", &mut out);
        assert_eq!(out, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(format!("{key:?}"), "MacKey(k1)");
    }

    proptest! {
        #[test]
        fn same_input_and_key_same_hash(
            a in prop::collection::vec(any::<u8>(), 0..80), b in prop::collection::vec(any::<u8>(), 0..80), column in "\\PC{0,9}"
        ) {
            let key = MacKey::new("k1", b"0123456789abcdef");
            let hash = |value: &[u8]| key.hash("public.t", &column, value);
            prop_assert_eq!(hash(&a), hash(&a));
            prop_assert_eq!(hash(&a) == hash(&b), a == b);
            prop_assert_ne!(hash(&a), MacKey::new("k1", b"another secret!!").hash("public.t", &column, &a));
            prop_assert_ne!(hash(&a), key.hash("public.u", &column, &a));
        }
    }
}
