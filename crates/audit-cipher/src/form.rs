//! Parses the text of a stored value: [`Form`].

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::key::{KeyId, Kind};

/// How a value was protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Encrypt,
    Token,
}

/// A parsed ciphertext or token that is not yet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    pub method: Method,
    pub key: KeyId,
    /// The decoded bytes that follow the key's name.
    pub(crate) body: Vec<u8>,
}

/// The reason why a text is not a valid protected value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("not an encrypted value")]
    Other,
    #[error("an encrypted value that was cut or altered")]
    Damaged,
    #[error("an encrypted value of a newer format")]
    Newer,
}

pub(crate) const ENCRYPTED: &str = "aes256gcm:";
pub(crate) const TOKEN: &str = "aes-siv:";

/// Every protected value begins with one of these.
pub const PREFIXES: [&str; 2] = [ENCRYPTED, TOKEN];

/// The first byte of an encrypted value's body.
pub(crate) const VERSION: u8 = 1;
pub(crate) const RUN: usize = 16;
const COUNTER: usize = 8;
pub(crate) const HEAD: usize = 1 + RUN + COUNTER;
pub(crate) const TAG: usize = 16;

impl Form {
    /// Parses a stored text. Decrypts nothing and needs no key.
    ///
    /// # Errors
    /// Fails with a [`FormError`] if the text is not a protected value, is damaged, or has a newer format.
    pub fn parse(text: &str) -> Result<Form, FormError> {
        let (method, rest) = match (text.strip_prefix(ENCRYPTED), text.strip_prefix(TOKEN)) {
            (Some(rest), _) => (Method::Encrypt, rest),
            (_, Some(rest)) => (Method::Token, rest),
            _ => return Err(FormError::Other),
        };
        let (key, encoded) = rest.split_once(':').ok_or(FormError::Damaged)?;
        let key = KeyId::parse(key).ok_or(FormError::Damaged)?;
        let (body, least, kind) = match method {
            Method::Encrypt => (STANDARD.decode(encoded), HEAD + TAG, [Kind::Data, Kind::Subject]),
            Method::Token => (URL_SAFE_NO_PAD.decode(encoded), TAG, [Kind::Tokens; 2]),
        };
        let body = body.map_err(|_| FormError::Damaged)?;
        if method == Method::Encrypt && body.first().is_some_and(|version| *version > VERSION) {
            return Err(FormError::Newer);
        }
        if body.len() < least || !kind.contains(&key.kind()) || (method == Method::Encrypt && body[0] != VERSION) {
            return Err(FormError::Damaged);
        }
        Ok(Form { method, key, body })
    }
}

/// Appends `<method>:<key id>:`, then `body` in the method's base64.
pub(crate) fn write(method: Method, key: &KeyId, body: &[u8], out: &mut String) {
    let (prefix, base64) = match method {
        Method::Encrypt => (ENCRYPTED, STANDARD),
        Method::Token => (TOKEN, URL_SAFE_NO_PAD),
    };
    out.push_str(prefix);
    out.push_str(key.as_str());
    out.push(':');
    base64.encode_string(body, out);
}

/// Returns the nonce of a counter: four zero bytes, then the counter's eight bytes.
pub(crate) fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}
