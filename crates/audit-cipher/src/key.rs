//! Keys and their names.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use zeroize::Zeroize;

/// The name of a key, as stored values mention it: a letter for its kind and 16 hex digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

/// The purpose of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Encrypts values until it is rotated.
    Data,
    /// Makes the tokens of a class; it is never rotated.
    Tokens,
    /// Wraps the keys of a class's data subjects and finds them; it is never rotated.
    Subjects,
    /// Encrypts one data subject's values.
    Subject,
}

const DIGITS: usize = 16;

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Data, Kind::Tokens, Kind::Subjects, Kind::Subject];

    /// The kind's name in the key store.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Data => "data",
            Kind::Tokens => "tokens",
            Kind::Subjects => "subjects",
            Kind::Subject => "subject",
        }
    }

    fn letter(self) -> char {
        match self {
            Kind::Data => 'd',
            Kind::Tokens => 't',
            Kind::Subjects => 'w',
            Kind::Subject => 's',
        }
    }
}

impl KeyId {
    /// Generates a new random name.
    pub fn generate(kind: Kind) -> KeyId {
        let mut random = [0; DIGITS / 2];
        fill(&mut random);
        KeyId(format!("{}{}", kind.letter(), hex::encode(random)).into())
    }

    /// Parses a key's name. `None` for a text that is not one.
    pub fn parse(text: &str) -> Option<KeyId> {
        let digits = text.get(1..)?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let named = Kind::ALL.iter().any(|kind| text.starts_with(kind.letter()));
        (named && digits.len() == DIGITS && digits.bytes().all(hex)).then(|| KeyId(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn kind(&self) -> Kind {
        let of = |kind: &&Kind| self.0.starts_with(kind.letter());
        Kind::ALL.iter().find(of).copied().unwrap_or(Kind::Data)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 32 secret bytes, overwritten when dropped. They are never moved in memory before, so that no copy stays.
pub struct SecretKey(Box<[u8; SecretKey::LEN]>);

impl SecretKey {
    pub const LEN: usize = 32;

    /// Generates a key of random bytes.
    pub fn generate() -> SecretKey {
        let mut key = SecretKey(Box::new([0; SecretKey::LEN]));
        fill(key.0.as_mut_slice());
        key
    }

    /// Copies a key. `None` if there are not exactly [`SecretKey::LEN`] bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<SecretKey> {
        if bytes.len() != SecretKey::LEN {
            return None;
        }
        let mut key = SecretKey(Box::new([0; SecretKey::LEN]));
        key.0.copy_from_slice(bytes);
        Some(key)
    }

    /// The key's bytes, for the code that wraps them.
    pub fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Fills `out` with key material for one purpose: HKDF-SHA256 (RFC 5869) with this salt and info. `None` if `out`
    /// is longer than 255 times 32 bytes.
    pub(crate) fn derive(&self, salt: &[u8], info: &[u8], out: &mut [u8]) -> Option<()> {
        let prk = Salt::new(HKDF_SHA256, salt).extract(self.expose());
        prk.expand(&[info], Length(out.len())).ok()?.fill(out).ok()
    }

    /// Derives an AES-256-GCM key for one purpose.
    pub(crate) fn derive_gcm(&self, salt: &[u8], info: &[u8]) -> Option<LessSafeKey> {
        let mut derived = SecretKey(Box::new([0; SecretKey::LEN]));
        self.derive(salt, info, derived.0.as_mut_slice())?;
        UnboundKey::new(&AES_256_GCM, derived.expose()).ok().map(LessSafeKey::new)
    }
}

impl Clone for SecretKey {
    fn clone(&self) -> SecretKey {
        let mut key = SecretKey(Box::new([0; SecretKey::LEN]));
        key.0.copy_from_slice(self.expose());
        key
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Fills `bytes` from the library's random generator, which the system seeds. The library ends the process rather than
/// give out anything else.
pub(crate) fn fill(bytes: &mut [u8]) {
    while rand::fill(bytes).is_err() {
        // Nothing may be encrypted before the system has randomness: wait for it.
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_key_is_for_and_keys_say_nothing() {
        for kind in Kind::ALL {
            let id = KeyId::generate(kind);
            assert_eq!((KeyId::parse(id.as_str()), id.kind()), (Some(id.clone()), kind));
            assert_ne!(KeyId::generate(kind), id);
        }
        for text in [
            "",
            "d",
            "d0123456789abcde",
            "d0123456789abcdef0",
            "x0123456789abcdef",
            "d0123456789ABCDEF",
            "dä123456789abcde",
        ] {
            assert_eq!(KeyId::parse(text), None, "{text}");
        }
        assert_eq!(format!("{:?}", SecretKey::generate()), "SecretKey(…)");
        assert!(SecretKey::from_slice(&[0; 31]).is_none());
    }

    /// The function is the library's, so this does not repeat the test cases of RFC 5869: it checks how we call it.
    #[test]
    fn another_salt_or_purpose_gives_another_key() {
        let key = SecretKey::from_slice(&[7; 32]).unwrap();
        let derive = |salt: &[u8], info: &[u8]| {
            let mut out = [0; 64];
            key.derive(salt, info, &mut out).unwrap();
            out
        };
        assert_eq!(derive(b"salt", b"info"), derive(b"salt", b"info"));
        assert_ne!(derive(b"salt", b"info"), derive(b"salt", b"info2"));
        assert_ne!(derive(b"salt", b"info"), derive(b"salt2", b"info"));
    }
}
