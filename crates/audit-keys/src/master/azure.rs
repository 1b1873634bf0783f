//! Azure Key Vault: `wrapkey` and `unwrapkey` with RSA-OAEP-256, the only method for a vault's ordinary keys.
//!
//! Its RSA-OAEP accepts no associated data. So the service wraps an intermediate key, a new one for each data key, and
//! the intermediate key wraps the data key here, in its context. The stored text is
//! `<the intermediate key as the service wrapped it, base64url>.<the result of wrap_key, base64url>`.

use audit_cipher::{SecretKey, unwrap_key, wrap_key};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::{Zeroize as _, Zeroizing};

use super::azure_token::Tokens;
use super::http::{Http, Meaning, body, text_at};
use super::{Place, Wrapped};
use crate::config::AzureMaster;
use crate::error::KeyError;

/// An RSA key of a vault.
#[derive(Debug)]
pub struct AzureKeyVault {
    http: Http,
    key: String,
    tokens: Tokens,
}

#[derive(Deserialize)]
struct Done {
    kid: String,
    value: String,
}

const VERSION: &str = "7.4";

impl AzureKeyVault {
    pub(super) fn new(config: &AzureMaster) -> Result<AzureKeyVault, KeyError> {
        let key = config.key.trim_end_matches('/').to_owned();
        let http = Http::new(format!("azure_key_vault {key}"), &config.connection)?;
        Ok(AzureKeyVault { tokens: Tokens::new(config)?, http, key })
    }

    pub(super) fn name(&self) -> &str {
        &self.http.name
    }

    pub(super) async fn wrap(&self, key: &SecretKey, place: &Place<'_>) -> Result<Wrapped, KeyError> {
        let between = SecretKey::generate();
        let value = Zeroizing::new(URL_SAFE_NO_PAD.encode(between.expose()));
        let done = self.ask(&self.key, "wrapkey", &value).await?;
        let version = done.kid.strip_prefix(&self.key).and_then(|rest| rest.strip_prefix('/'));
        let version = version.ok_or_else(|| self.http.nonsense("another key"))?;
        let inner = wrap_key(key, &between, &place.bytes()).map_err(|_| self.refused("not wrapped"))?;
        let text = format!("{}.{}", done.value, URL_SAFE_NO_PAD.encode(inner));
        Ok(Wrapped { master: format!("{} {version}", self.http.name), text })
    }

    pub(super) async fn unwrap(&self, wrapped: &Wrapped, place: &Place<'_>) -> Result<SecretKey, KeyError> {
        let version = wrapped.master.rsplit(' ').next().unwrap_or_default();
        // The version becomes part of an address to which a token is sent.
        if version.is_empty() || !version.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(self.refused("no version of the key"));
        }
        let (value, inner) = wrapped.text.split_once('.').ok_or_else(|| self.refused("not two parts"))?;
        let inner = URL_SAFE_NO_PAD.decode(inner).map_err(|_| self.refused("not base64"))?;
        let mut done = self.ask(&format!("{}/{version}", self.key), "unwrapkey", value).await?;
        let between = URL_SAFE_NO_PAD.decode(&done.value).map(Zeroizing::new);
        done.value.zeroize();
        let between = between.ok().and_then(|key| SecretKey::from_slice(&key));
        let between = between.ok_or_else(|| self.http.nonsense("no key"))?;
        unwrap_key(&inner, &between, &place.bytes()).map_err(|_| self.refused("does not open"))
    }

    async fn ask(&self, key: &str, operation: &str, value: &str) -> Result<Done, KeyError> {
        let token = self.tokens.get(&self.http).await?;
        let request = self.http.post(&format!("{key}/{operation}?api-version={VERSION}"));
        let request = request.bearer_auth(token.as_str()).header("content-type", "application/json");
        let content = body(&json!({"alg": "RSA-OAEP-256", "value": value}));
        self.http.ask(request.body(content), code, judge).await
    }

    fn refused(&self, said: &str) -> KeyError {
        KeyError::Refused { service: self.http.name.clone(), said: said.to_owned() }
    }
}

/// Returns the error's code. The inner error says more, if there is one.
fn code(answer: &Value) -> Option<String> {
    text_at(answer, "/error/innererror/code").or_else(|| text_at(answer, "/error/code"))
}

fn judge(_: u16, code: &str) -> Option<Meaning> {
    Some(match code {
        "KeyDisabled" | "KeyNotYetValid" | "KeyExpired" => Meaning::Disabled,
        "KeyNotFound" | "KeyOperationForbidden" => Meaning::NoMaster,
        _ => return None,
    })
}
