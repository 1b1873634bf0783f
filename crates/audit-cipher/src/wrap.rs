//! Wraps one key under another where no key service does it: the keys of data subjects under the key of their class,
//! and all keys under a local master key.

use aws_lc_rs::aead::{Aad, Nonce};
use zeroize::Zeroizing;

use crate::form::TAG;
use crate::key::{SecretKey, fill};
use crate::open::Unopened;

const SALT: usize = 32;
const WRAP_INFO: &[u8] = b"cdc-audit wrap 1";

/// Wraps a key as `salt (32) | ciphertext (32) | tag (16)`. The encrypting key is derived from `under` and the random
/// salt and used only once, so its nonce is zero. `context` is authenticated.
///
/// # Errors
/// Fails with [`Unopened`] only if the library fails.
pub fn wrap_key(key: &SecretKey, under: &SecretKey, context: &[u8]) -> Result<Vec<u8>, Unopened> {
    let mut salt = [0; SALT];
    fill(&mut salt);
    let gcm = under.derive_gcm(&salt, WRAP_INFO).ok_or(Unopened)?;
    let mut wrapped = Zeroizing::new(Vec::with_capacity(SALT + SecretKey::LEN + TAG));
    wrapped.extend_from_slice(&salt);
    wrapped.extend_from_slice(key.expose());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let tag = gcm.seal_in_place_separate_tag(nonce, Aad::from(context), &mut wrapped[SALT..]).map_err(|_| Unopened)?;
    wrapped.extend_from_slice(tag.as_ref());
    Ok(std::mem::take(&mut *wrapped))
}

/// Unwraps a key that [`wrap_key`] wrapped in the same context.
///
/// # Errors
/// Fails with [`Unopened`] if the bytes were not wrapped under this key in this context.
pub fn unwrap_key(wrapped: &[u8], under: &SecretKey, context: &[u8]) -> Result<SecretKey, Unopened> {
    let (salt, sealed) = wrapped.split_at_checked(SALT).ok_or(Unopened)?;
    let gcm = under.derive_gcm(salt, WRAP_INFO).ok_or(Unopened)?;
    let mut plain = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let key = gcm.open_in_place(nonce, Aad::from(context), &mut plain).map_err(|_| Unopened)?;
    SecretKey::from_slice(key).ok_or(Unopened)
}
