//! The signature that `cdc_audit.set_context` appends to its messages: `, "signature": "<key id>:<64 hex>"}`. It is an
//! HMAC-SHA-256 (RFC 2104) over `<xid>:` and the text without the signature.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const SEALED: &[u8] = b"sealed:";

/// A key of the table `cdc_audit.context_keys`.
#[derive(Clone)]
pub struct ContextKey {
    id: u32,
    mac: Hmac<Sha256>,
}

impl ContextKey {
    /// `inner_pad` is the key, padded with zeros to 64 bytes and xored with the inner pad of RFC 2104. Returns `None`
    /// if it has another length.
    pub fn new(id: u32, inner_pad: &[u8]) -> Option<ContextKey> {
        const BLOCK_BYTES: usize = 64;
        const INNER_PAD: u8 = 0x36;
        let key: Vec<u8> = inner_pad.iter().map(|byte| byte ^ INNER_PAD).collect();
        // Trailing zeros do not change an HMAC while the key fits into one block (RFC 2104 pads it with zeros).
        let mac = Hmac::<Sha256>::new_from_slice(&key).ok().filter(|_| key.len() == BLOCK_BYTES)?;
        Some(ContextKey { id, mac })
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    /// `<key id>:<64 hex>` over a text. ⚠ The prefix separates a seal from the signature of a context, whose text
    /// begins with the digits of a transaction id: anyone who may call `set_context` can have such a text signed.
    pub(super) fn seal(&self, text: &str) -> String {
        let mut mac = self.mac.clone();
        mac.update(SEALED);
        mac.update(text.as_bytes());
        format!("{}:{}", self.id, hex::encode(mac.finalize().into_bytes()))
    }

    pub(super) fn sealed(&self, text: &str, seal: &str) -> bool {
        let hash = seal
            .split_once(':')
            .filter(|(id, _)| id.parse() == Ok(self.id))
            .and_then(|(_, hash)| hex::decode(hash).ok());
        let mut mac = self.mac.clone();
        mac.update(SEALED);
        mac.update(text.as_bytes());
        hash.is_some_and(|hash| mac.verify_slice(&hash).is_ok())
    }

    pub(super) fn verifies(&self, signed: &Signed, xid: u32) -> bool {
        let mut mac = self.mac.clone();
        mac.update(xid.to_string().as_bytes());
        mac.update(b":");
        mac.update(&signed.text);
        mac.verify_slice(&signed.hash).is_ok()
    }
}

impl fmt::Debug for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextKey({})", self.id)
    }
}

/// A message that ends in a signature.
pub(super) struct Signed {
    /// The message without its signature.
    pub text: Vec<u8>,
    pub key: u32,
    hash: Vec<u8>,
}

pub(super) fn split(content: &[u8]) -> Option<Signed> {
    const HASH_DIGITS: usize = 64;
    let rest = content.strip_suffix(b"\"}")?;
    let (rest, hash) = rest.split_at_checked(rest.len().checked_sub(HASH_DIGITS)?)?;
    let hash = hex::decode(hash).ok()?;
    let rest = rest.strip_suffix(b":")?;
    let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (rest, key) = rest.split_at(rest.len() - digits);
    let key = std::str::from_utf8(key).ok()?.parse().ok()?;
    let mut text = rest.strip_suffix(b", \"signature\": \"")?.to_vec();
    text.push(b'}');
    Some(Signed { text, key, hash })
}
