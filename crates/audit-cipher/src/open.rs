//! Decrypts stored text back to the value.

use aes_siv::KeyInit as _;
use aes_siv::siv::Aes256Siv;
use aws_lc_rs::aead::{Aad, Nonce};
use zeroize::Zeroizing;

use crate::form::{Form, HEAD, Method, RUN, nonce};
use crate::key::SecretKey;
use crate::sealer::GCM_INFO;
use crate::token::{SIV_INFO, SIV_KEY};

/// A value does not open: it was altered or moved, or the key is another one. The error never says more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value does not open: it was altered, or stood elsewhere when it was encrypted")]
pub struct Unopened;

/// Opens a ciphertext with the key that it names, in the context that it was found in.
///
/// # Errors
/// Fails with [`Unopened`] if the value is a token, or was not encrypted with this key in this context.
pub fn open(form: &Form, key: &SecretKey, aad: &[u8]) -> Result<Zeroizing<String>, Unopened> {
    if form.method != Method::Encrypt {
        return Err(Unopened);
    }
    let (head, sealed) = form.body.split_at_checked(HEAD).ok_or(Unopened)?;
    let (run, counter) = head[1..].split_at(RUN);
    let counter = u64::from_be_bytes(counter.try_into().map_err(|_| Unopened)?);
    let gcm = key.derive_gcm(run, GCM_INFO).ok_or(Unopened)?;
    let mut plain = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::assume_unique_for_key(nonce(counter));
    let length = gcm.open_in_place(nonce, Aad::from(aad), &mut plain).map_err(|_| Unopened)?.len();
    plain.truncate(length);
    text(plain)
}

/// Opens a token with the key that it names, in the domain that it was made for.
///
/// # Errors
/// Fails with [`Unopened`] if the value is a ciphertext, or was not made with this key in this domain.
pub fn open_token(form: &Form, key: &SecretKey, domain: &[u8]) -> Result<Zeroizing<String>, Unopened> {
    if form.method != Method::Token {
        return Err(Unopened);
    }
    let mut derived = Zeroizing::new([0; SIV_KEY]);
    key.derive(&[], SIV_INFO, derived.as_mut_slice()).ok_or(Unopened)?;
    let mut siv = Aes256Siv::new_from_slice(derived.as_slice()).map_err(|_| Unopened)?;
    text(Zeroizing::new(siv.decrypt([domain], &form.body).map_err(|_| Unopened)?))
}

/// Returns the opened bytes as text, because only text is ever encrypted. Bytes that are not UTF-8 are overwritten.
fn text(mut plain: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, Unopened> {
    String::from_utf8(std::mem::take(&mut *plain)).map(Zeroizing::new).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        Unopened
    })
}
