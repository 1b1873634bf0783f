//! Tokens: deterministic, so that equal values can be joined, and opened by anyone who has the key.

use std::fmt;

use aes_siv::KeyInit as _;
use aes_siv::siv::Aes256Siv;
use zeroize::{Zeroize as _, Zeroizing};

use crate::form::{self, Method, TAG};
use crate::key::{KeyId, SecretKey};

/// Length of an AES-256-SIV key in bytes: it consists of two keys of 32 bytes.
pub(crate) const SIV_KEY: usize = 64;
pub(crate) const SIV_INFO: &[u8] = b"cdc-audit aes-siv 1";

/// The token key of a class, ready for use.
pub(crate) struct Tokens {
    id: KeyId,
    siv: Aes256Siv,
}

impl Tokens {
    pub fn new(id: KeyId, key: &SecretKey) -> Option<Tokens> {
        let mut derived = Zeroizing::new([0; SIV_KEY]);
        key.derive(&[], SIV_INFO, derived.as_mut_slice())?;
        Some(Tokens { id, siv: Aes256Siv::new_from_slice(derived.as_slice()).ok()? })
    }

    /// Appends the token of a value. The domain is authenticated too: the same value has another token in another
    /// domain.
    pub fn write(&mut self, domain: &[u8], plain: &[u8], scratch: &mut Vec<u8>, out: &mut String) -> Option<()> {
        scratch.clear();
        // Reserve all of it first, because a buffer that grows leaves a copy of the plain text in freed memory.
        scratch.reserve(plain.len() + TAG);
        scratch.extend_from_slice(plain);
        let sealed = self.siv.encrypt_in_place([domain], scratch);
        match sealed {
            Ok(()) => form::write(Method::Token, &self.id, scratch, out),
            Err(_) => scratch.zeroize(),
        }
        sealed.ok()
    }
}

/// The token of a value in a domain, for anyone who has the key and searches for it; `None` if the value is too long.
pub fn token(id: &KeyId, key: &SecretKey, domain: &[u8], plain: &[u8]) -> Option<String> {
    let (mut scratch, mut out) = (Vec::new(), String::new());
    Tokens::new(id.clone(), key)?.write(domain, plain, &mut scratch, &mut out)?;
    Some(out)
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.id)
    }
}
