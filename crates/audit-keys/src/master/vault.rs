//! The transit engine of HashiCorp Vault and OpenBao: `encrypt` and `decrypt` with associated data.

use audit_cipher::SecretKey;
use audit_config::SecretRef;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::{Zeroize as _, Zeroizing};

use super::http::{Http, Meaning, body, text_at};
use super::{Place, Wrapped};
use crate::config::VaultMaster;
use crate::error::KeyError;

/// A key of a transit engine.
#[derive(Debug)]
pub struct Vault {
    http: Http,
    config: VaultMaster,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

impl Vault {
    pub(super) fn new(config: &VaultMaster) -> Result<Vault, KeyError> {
        let http = Http::new(format!("vault {}/{}", config.mount, config.key), &config.connection)?;
        Ok(Vault { http, config: config.clone() })
    }

    pub(super) fn name(&self) -> &str {
        &self.http.name
    }

    pub(super) async fn wrap(&self, key: &SecretKey, place: &Place<'_>) -> Result<Wrapped, KeyError> {
        let plain = Zeroizing::new(STANDARD.encode(key.expose()));
        let content = json!({"plaintext": plain.as_str(), "associated_data": STANDARD.encode(place.bytes())});
        let Encrypted { ciphertext } = self.ask("encrypt", content).await?;
        // The text is `vault:v3:…` and names the version.
        let version = ciphertext.split(':').nth(1).unwrap_or_default();
        Ok(Wrapped { master: format!("{} {version}", self.http.name), text: ciphertext })
    }

    pub(super) async fn unwrap(&self, wrapped: &Wrapped, place: &Place<'_>) -> Result<SecretKey, KeyError> {
        let content = json!({"ciphertext": wrapped.text, "associated_data": STANDARD.encode(place.bytes())});
        let Decrypted { mut plaintext } = self.ask("decrypt", content).await?;
        let key = STANDARD.decode(&plaintext).map(Zeroizing::new);
        plaintext.zeroize();
        key.ok().and_then(|key| SecretKey::from_slice(&key)).ok_or_else(|| self.http.nonsense("no key"))
    }

    async fn ask<T: DeserializeOwned>(&self, operation: &str, content: Value) -> Result<T, KeyError> {
        let VaultMaster { url, mount, key, namespace, .. } = &self.config;
        let token = self.config.token.clone().unwrap_or_else(|| SecretRef::Env("VAULT_TOKEN".to_owned()));
        let token = token.resolve().map_err(|source| KeyError::Secret { service: self.http.name.clone(), source })?;
        let url = format!("{}/v1/{mount}/{operation}/{key}", url.trim_end_matches('/'));
        let mut request = self.http.post(&url).header("x-vault-token", token.expose().trim());
        if let Some(namespace) = namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        let Data { data } = self.http.ask(request.body(body(&content)), code, judge).await?;
        Ok(data)
    }
}

/// Finds a known phrase in an error's text. Vault's errors have no codes, and the rest of the text is not repeated.
fn code(answer: &Value) -> Option<String> {
    let said = text_at(answer, "/errors/0")?;
    let known = ["key not found", "version is disallowed", "sealed", "permission denied", "no handler for route"];
    known.into_iter().find(|known| said.contains(known)).map(str::to_owned)
}

fn judge(status: u16, said: &str) -> Option<Meaning> {
    match (status, said) {
        (400 | 404, "key not found" | "no handler for route") => Some(Meaning::NoMaster),
        (400, "version is disallowed") => Some(Meaning::Disabled),
        _ => None,
    }
}
