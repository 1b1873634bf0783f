//! Google Cloud KMS: `encrypt` and `decrypt` of its REST API, with additional authenticated data and with the checksums
//! that Google asks clients to compare.

use std::fmt;

use audit_cipher::SecretKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::{Zeroize as _, Zeroizing};

use super::http::{Http, Meaning, body, text_at};
use super::{Place, Wrapped};
use crate::config::GcpMaster;
use crate::error::KeyError;

/// A symmetric key of Google Cloud KMS.
pub struct GcpKms {
    http: Http,
    key: String,
    endpoint: String,
    credentials: GcpCredentialProvider,
}

/// The answer to `encrypt`. The checksums are texts, because Google's JSON writes numbers of 64 bits as text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encrypted {
    name: String,
    ciphertext: String,
    ciphertext_crc32c: String,
    verified_plaintext_crc32c: bool,
    verified_additional_authenticated_data_crc32c: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decrypted {
    plaintext: String,
    plaintext_crc32c: String,
}

impl GcpKms {
    pub(super) fn new(config: &GcpMaster) -> Result<GcpKms, KeyError> {
        let http = Http::new(format!("gcp_kms {}", config.key), &config.connection)?;
        let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name("unused");
        if let Some(file) = &config.service_account_file {
            builder = builder.with_service_account_path(file.to_string_lossy());
        }
        // The bucket is never read: the library only gives access to its credentials through a store.
        let store = builder.build();
        let store =
            store.map_err(|source| KeyError::Credentials { service: http.name.clone(), source: source.into() })?;
        let endpoint = config.endpoint.as_deref().unwrap_or("https://cloudkms.googleapis.com");
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Ok(GcpKms { credentials: store.credentials().clone(), http, key: config.key.clone(), endpoint })
    }

    pub(super) fn name(&self) -> &str {
        &self.http.name
    }

    pub(super) async fn wrap(&self, key: &SecretKey, place: &Place<'_>) -> Result<Wrapped, KeyError> {
        let (plain, aad) = (Zeroizing::new(STANDARD.encode(key.expose())), place.bytes());
        let content = json!({
            "plaintext": plain.as_str(),
            "plaintextCrc32c": crc32c(key.expose()).to_string(),
            "additionalAuthenticatedData": STANDARD.encode(&aad),
            "additionalAuthenticatedDataCrc32c": crc32c(&aad).to_string(),
        });
        let done: Encrypted = self.ask("encrypt", content).await?;
        let arrived = done.verified_plaintext_crc32c && done.verified_additional_authenticated_data_crc32c;
        let bytes = STANDARD.decode(&done.ciphertext).map_err(|_| self.http.nonsense("not base64"))?;
        if !arrived || done.ciphertext_crc32c != crc32c(&bytes).to_string() {
            return Err(self.http.nonsense("damaged on the way"));
        }
        // The name is `projects/…/cryptoKeyVersions/3`.
        let version = done.name.rsplit('/').next().unwrap_or_default();
        Ok(Wrapped { master: format!("{} {version}", self.http.name), text: done.ciphertext })
    }

    pub(super) async fn unwrap(&self, wrapped: &Wrapped, place: &Place<'_>) -> Result<SecretKey, KeyError> {
        let aad = place.bytes();
        let refused = || self.http.error(Meaning::Refused, 0, "not base64");
        let bytes = STANDARD.decode(&wrapped.text).map_err(|_| refused())?;
        let content = json!({
            "ciphertext": wrapped.text,
            "ciphertextCrc32c": crc32c(&bytes).to_string(),
            "additionalAuthenticatedData": STANDARD.encode(&aad),
            "additionalAuthenticatedDataCrc32c": crc32c(&aad).to_string(),
        });
        let Decrypted { mut plaintext, plaintext_crc32c } = self.ask("decrypt", content).await?;
        let key = STANDARD.decode(&plaintext).map(Zeroizing::new);
        plaintext.zeroize();
        let key = key.ok().filter(|key| plaintext_crc32c == crc32c(key).to_string());
        key.and_then(|key| SecretKey::from_slice(&key)).ok_or_else(|| self.http.nonsense("no key"))
    }

    async fn ask<T: DeserializeOwned>(&self, operation: &str, content: Value) -> Result<T, KeyError> {
        let credential = self.credentials.get_credential().await;
        let credential = credential
            .map_err(|source| KeyError::Credentials { service: self.http.name.clone(), source: source.into() })?;
        let request = self.http.post(&format!("{}/v1/{}:{operation}", self.endpoint, self.key));
        let request = request.bearer_auth(&credential.bearer).header("content-type", "application/json");
        self.http.ask(request.body(body(&content)), |answer| text_at(answer, "/error/status"), judge).await
    }
}

impl fmt::Debug for GcpKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GcpKms({})", self.key)
    }
}

/// Decides by the canonical codes of Google's APIs.
fn judge(_: u16, status: &str) -> Option<Meaning> {
    Some(match status {
        "PERMISSION_DENIED" | "UNAUTHENTICATED" => Meaning::Denied,
        "NOT_FOUND" => Meaning::NoMaster,
        "FAILED_PRECONDITION" => Meaning::Disabled,
        "INVALID_ARGUMENT" => Meaning::Refused,
        "UNAVAILABLE" | "RESOURCE_EXHAUSTED" | "INTERNAL" | "DEADLINE_EXCEEDED" | "ABORTED" => Meaning::Unwell,
        _ => return None,
    })
}

/// Computes CRC-32C (Castagnoli) bit by bit, which is fast enough for a hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second value is from RFC 3720, appendix B.4.
    #[test]
    fn checksums_are_those_of_the_rfc() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
