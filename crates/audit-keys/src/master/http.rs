//! Sends requests to a key service, and interprets its answers ([`Http`]).

use std::fmt;
use std::io::Write as _;

use reqwest::{Certificate, Client, RequestBuilder, redirect};
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

use crate::config::Connection;
use crate::error::KeyError;

/// A client for one service.
pub(crate) struct Http {
    client: Client,
    /// ⚠ A client without a proxy for requests in plain text: to services on this machine, and for the machine's
    /// identity. A proxy from the environment would see keys and tokens.
    direct: Client,
    /// The service's name in errors.
    pub name: String,
}

/// An answer. Its body may hold a key, so it is overwritten when dropped.
pub(crate) struct Answer {
    pub status: u16,
    pub body: Zeroizing<Vec<u8>>,
}

/// Maximum length of an answer in bytes. A wrapped key has some hundred bytes, and no valid answer is longer than this.
const ANSWER_MAX: usize = 64 << 10;

/// Maximum number of characters of an error's code that are repeated.
const CODE_MAX: usize = 60;

impl Http {
    pub fn new(name: String, config: &Connection) -> Result<Http, KeyError> {
        match (client(config, false), client(config, true)) {
            (Ok(client), Ok(direct)) => Ok(Http { client, direct, name }),
            (Err(source), _) | (_, Err(source)) => Err(KeyError::Client { service: name, source }),
        }
    }

    pub fn get(&self, url: &str) -> RequestBuilder {
        self.client_for(url).get(url)
    }

    pub fn post(&self, url: &str) -> RequestBuilder {
        self.client_for(url).post(url)
    }

    fn client_for(&self, url: &str) -> &Client {
        let encrypted = Url::parse(url).is_ok_and(|url| url.scheme() == "https");
        if encrypted { &self.client } else { &self.direct }
    }

    pub async fn send(&self, request: RequestBuilder) -> Result<Answer, KeyError> {
        // The address may contain something private.
        let unreachable =
            |source: reqwest::Error| KeyError::Unreachable { service: self.name.clone(), source: source.without_url() };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let mut body = Zeroizing::new(Vec::with_capacity(ANSWER_MAX));
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(self.nonsense("too long"));
            }
            // The body stays within its capacity, because a buffer that grows leaves a copy in freed memory.
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }

    /// Returns a successful answer as `T`, or else the error that it means. `code` finds the error's code in the
    /// answer.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        code: impl Fn(&serde_json::Value) -> Option<String>,
        judge: impl Fn(u16, &str) -> Option<Meaning>,
    ) -> Result<T, KeyError> {
        let answer = self.send(request).await?;
        if answer.status == 200 {
            return serde_json::from_slice(&answer.body).map_err(|_| self.nonsense("not the JSON that was expected"));
        }
        let said = serde_json::from_slice(&answer.body).ok().as_ref().and_then(code).unwrap_or_default();
        let meaning = judge(answer.status, &said).unwrap_or_else(|| Meaning::of(answer.status));
        Err(self.error(meaning, answer.status, &said))
    }

    pub fn error(&self, meaning: Meaning, status: u16, code: &str) -> KeyError {
        let service = self.name.clone();
        let code: String = code.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(CODE_MAX).collect();
        let said = if code.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}, {code}") };
        match meaning {
            Meaning::Unwell => KeyError::Unwell { service, said },
            Meaning::Denied => KeyError::Denied { service, said },
            Meaning::NoMaster => KeyError::NoMaster { service, said },
            Meaning::Disabled => KeyError::Disabled { service, said },
            Meaning::Refused => KeyError::Refused { service, said },
            Meaning::Nonsense => KeyError::Nonsense { service, said },
        }
    }

    pub fn nonsense(&self, what: &str) -> KeyError {
        KeyError::Nonsense { service: self.name.clone(), said: what.to_owned() }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http({})", self.name)
    }
}

/// The meaning of a service's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Unwell,
    Denied,
    NoMaster,
    Disabled,
    Refused,
    Nonsense,
}

impl Meaning {
    /// Decides by the status alone.
    fn of(status: u16) -> Meaning {
        match status {
            401 | 403 => Meaning::Denied,
            404 => Meaning::NoMaster,
            400 | 422 => Meaning::Refused,
            408 | 425 | 429 | 500..=599 => Meaning::Unwell,
            _ => Meaning::Nonsense,
        }
    }
}

fn client(config: &Connection, direct: bool) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let timeout = config.timeout.get();
    // Redirects are not followed, because they would give the credentials to another server.
    let mut builder =
        Client::builder().timeout(timeout).redirect(redirect::Policy::none()).retry(reqwest::retry::never());
    if direct {
        builder = builder.no_proxy();
    }
    if let Some(file) = &config.ca_file {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(&std::fs::read(file)?)?);
    }
    Ok(builder.build()?)
}

/// Writes JSON that holds a key into a buffer that does not grow, which the caller sends. We cannot control what the
/// HTTP client does with its copy.
pub(crate) fn body(value: &serde_json::Value) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 << 10);
    // Writing to memory does not fail.
    let _ = write!(body, "{value}");
    body
}

/// Returns the text at this path of a JSON document.
pub(crate) fn text_at(value: &serde_json::Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}
