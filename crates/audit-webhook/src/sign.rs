//! Signs requests as [Standard Webhooks][1] describes: with an HMAC of id, time and body, so that none of them can be
//! exchanged and an old request cannot be replayed.
//!
//! [1]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

use std::fmt;

use audit_config::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The prefix of a secret in base64.
const PREFIX: &str = "whsec_";

/// Minimum length of a secret in bytes. The specification requires 24.
const SECRET_MIN: usize = 24;

/// Signs the bodies of one sink.
#[derive(Clone)]
pub(crate) struct Signer(Hmac<Sha256>);

impl Signer {
    /// Makes a signer. The error says why the secret is not valid.
    pub fn new(secret: &Secret) -> Result<Signer, &'static str> {
        let text = secret.expose().trim();
        let key = Zeroizing::new(match text.strip_prefix(PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| "begins with whsec_, but no base64 follows")?,
            None => text.as_bytes().to_vec(),
        });
        if key.len() < SECRET_MIN {
            return Err("is too short: anybody could find it by trying");
        }
        Hmac::new_from_slice(&key).map(Signer).map_err(|_| "is no key")
    }

    /// Returns the signature as `v1,BASE64`.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own example.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let signer = Signer::new(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let signature = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(Signer::new(&Secret::new("any text of some length")).is_err());
        assert!(Signer::new(&Secret::new("any text of enough length")).is_ok());
        for (secret, why) in [("whsec_!", "no base64"), ("x", "too short"), ("whsec_MfKQ9r8GKYqr", "too short")] {
            let refused = Signer::new(&Secret::new(secret)).unwrap_err();
            assert!(refused.contains(why), "{secret}: {refused}");
        }
    }
}
