//! Gets tokens for Azure Key Vault: by a client's secret, by a federated token, or by the instance's identity.
//!
//! `object_store` only gets tokens for Azure's storage, which a vault refuses.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use audit_config::SecretRef;
use audit_config::secret::read_projected_token;
use reqwest::RequestBuilder;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::http::{Http, Meaning, text_at};
use crate::config::{AzureMaster, is_guarded};
use crate::error::KeyError;

/// The identity that signs in, and the token that it got last.
pub(super) struct Tokens {
    who: Who,
    resource: String,
    last: Mutex<Option<(Zeroizing<String>, Instant)>>,
}

enum Who {
    Client {
        authority: String,
        tenant: String,
        client: String,
        proof: Proof,
    },
    /// The identity of the machine, or of the client with this id.
    Instance(Option<String>),
}

enum Proof {
    Secret(SecretRef),
    Federated(PathBuf),
}

#[derive(Deserialize)]
struct Given {
    access_token: String,
    /// Lifetime in seconds: a number, but a text from the instance's metadata service.
    expires_in: serde_json::Value,
}

/// Seconds before a token's end in which it is no longer used.
const MARGIN: u64 = 300;

const METADATA: &str = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01";

impl Tokens {
    pub fn new(config: &AzureMaster) -> Result<Tokens, KeyError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let tenant = config.tenant_id.clone().or_else(|| variable("AZURE_TENANT_ID"));
        let client = config.client_id.clone().or_else(|| variable("AZURE_CLIENT_ID"));
        let secret = || variable("AZURE_CLIENT_SECRET").map(|_| SecretRef::Env("AZURE_CLIENT_SECRET".to_owned()));
        let federated = || variable("AZURE_FEDERATED_TOKEN_FILE").map(|file| Proof::Federated(file.into()));
        let proof = config.client_secret.clone().or_else(secret).map(Proof::Secret).or_else(federated);
        let authority = config.authority.clone().or_else(|| variable("AZURE_AUTHORITY_HOST"));
        let authority = authority.unwrap_or_else(|| "https://login.microsoftonline.com".to_owned());
        // ⚠ The client's secret is posted to the authority. Check it here, because it may also come from the
        // environment.
        if !Url::parse(&authority).is_ok_and(|url| is_guarded(&url)) {
            let service = format!("Azure Key Vault {}", config.key);
            let source =
                "AZURE_AUTHORITY_HOST is no address by https, and the client's secret would go there in the clear";
            return Err(KeyError::Credentials { service, source: source.into() });
        }
        let who = match (tenant, client, proof) {
            (Some(tenant), Some(client), Some(proof)) => Who::Client { authority, tenant, client, proof },
            (_, client, _) => Who::Instance(client),
        };
        Ok(Tokens { who, resource: resource(&config.key), last: Mutex::new(None) })
    }

    /// Returns a token that is good for some more minutes.
    pub async fn get(&self, http: &Http) -> Result<Zeroizing<String>, KeyError> {
        let mut last = self.last.lock().await;
        if let Some((token, _)) = last.as_ref().filter(|(_, until)| Instant::now() < *until) {
            return Ok(token.clone());
        }
        let code = |answer: &serde_json::Value| text_at(answer, "/error");
        // A client that may not sign in has no rights: the answer to a wrong secret is 400 or 401.
        let judge = |status, _: &str| matches!(status, 400 | 401).then_some(Meaning::Denied);
        let given: Given = http.ask(self.request(http)?, code, judge).await?;
        let seconds = given.expires_in.as_u64().or_else(|| given.expires_in.as_str()?.parse().ok()).unwrap_or(0);
        let token = Zeroizing::new(given.access_token);
        *last = Some((token.clone(), Instant::now() + Duration::from_secs(seconds.saturating_sub(MARGIN))));
        Ok(token)
    }

    fn request(&self, http: &Http) -> Result<RequestBuilder, KeyError> {
        let Who::Client { authority, tenant, client, proof } = &self.who else {
            return Ok(self.instance(http));
        };
        let service = || http.name.clone();
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials").append_pair("client_id", client);
        form.append_pair("scope", &format!("{}/.default", self.resource));
        match proof {
            Proof::Secret(secret) => {
                let secret = secret.resolve().map_err(|source| KeyError::Secret { service: service(), source })?;
                form.append_pair("client_secret", secret.expose().trim());
            }
            Proof::Federated(file) => {
                let token = read_projected_token(file);
                let token = token.map_err(|source| KeyError::Secret { service: service(), source })?;
                form.append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
                form.append_pair("client_assertion", token.expose());
            }
        }
        let url = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let request = http.post(&url).header("content-type", "application/x-www-form-urlencoded");
        Ok(request.body(form.finish()))
    }

    fn instance(&self, http: &Http) -> RequestBuilder {
        let Who::Instance(client) = &self.who else { return http.get(METADATA) };
        let mut query = Serializer::new(String::new());
        query.append_pair("resource", &self.resource);
        if let Some(client) = client {
            query.append_pair("client_id", client);
        }
        http.get(&format!("{METADATA}&{}", query.finish())).header("metadata", "true")
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.who {
            Who::Client { .. } => "Tokens(client)",
            Who::Instance(_) => "Tokens(instance)",
        })
    }
}

/// Returns the resource for which a token is requested, the vault's cloud: `https://vault.azure.net` for
/// `https://acme.vault.azure.net/keys/pii`.
fn resource(key: &str) -> String {
    let host = Url::parse(key).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    match host.split_once('.') {
        Some((_, cloud)) if cloud.contains("azure") || cloud.contains("usgovcloudapi") => format!("https://{cloud}"),
        _ => "https://vault.azure.net".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Connection;

    /// The platform sets the mode of the file, and the operator cannot change it.
    #[test]
    fn a_federated_token_may_be_open_to_others() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "t0ken\n").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let who = Who::Client {
            authority: "https://login.example".to_owned(),
            tenant: "acme".to_owned(),
            client: "audit".to_owned(),
            proof: Proof::Federated(file.path().to_owned()),
        };
        let tokens = Tokens { who, resource: "https://vault.azure.net".to_owned(), last: Mutex::new(None) };
        let http = Http::new("vault".to_owned(), &Connection::default()).unwrap();
        let request = tokens.request(&http).unwrap().build().unwrap();
        let form = String::from_utf8(request.body().unwrap().as_bytes().unwrap().to_vec()).unwrap();
        assert!(form.ends_with("&client_assertion=t0ken"), "{form}");
    }
}
