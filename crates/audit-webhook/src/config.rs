//! `[sinks.NAME]` with `type = "webhook"`.

use std::path::PathBuf;

use audit_config::{ByteSize, Problems, SecretRef, Span};
use audit_format::{Format, FormatConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use url::{Host, Url};

/// Batches of messages, posted to an HTTP receiver: at least once, in order. Its checkpoint lies in the database of a hot sink, else
/// in the source.
// Unknown keys are found by audit-config, since serde cannot refuse them beside a flattened struct.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookConfig {
    /// Where batches are posted, by https; http only to this machine. No error or log line shows more of it than the host.
    #[schemars(example = &"https://receiver.internal/cdc")]
    #[serde(serialize_with = "shown")]
    pub url: String,

    /// The secret under which requests are signed (HMAC-SHA-256, as standardwebhooks.com says): `whsec_` and base64, or any text.
    pub secret: Option<SecretRef>,

    /// A token for `Authorization: Bearer`.
    pub bearer: Option<SecretRef>,

    #[serde(flatten)]
    pub format: FormatConfig,

    /// How messages stand in a request: `array`, a JSON list, or `lines`, one to a line.
    #[serde(default)]
    pub body: Body,

    /// The most versions that one request carries.
    #[serde(default = "batch_rows")]
    #[schemars(range(min = 1))]
    pub batch_rows: u32,

    /// A request is closed when it has this size. A version that alone is larger goes by itself.
    #[serde(default = "batch_bytes")]
    pub batch_bytes: ByteSize,

    /// How long the receiver may take to answer.
    #[serde(default = "timeout")]
    pub timeout: Span,

    /// A file with the certificates (PEM) that alone may vouch for the receiver. Default: those of the system.
    pub ca_file: Option<PathBuf>,

    /// The hot sink in whose database the checkpoint lies. Default: the first hot sink; without one, the source's database. It is part
    /// of the sink's identity: elsewhere it begins anew.
    pub checkpoint: Option<String>,
}

/// How messages stand in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    #[default]
    Array,
    Lines,
}

impl WebhookConfig {
    /// Makes a configuration with this receiver and the default of everything else.
    pub fn new(url: impl Into<String>) -> WebhookConfig {
        WebhookConfig {
            url: url.into(),
            secret: None,
            bearer: None,
            format: FormatConfig::default(),
            body: Body::default(),
            batch_rows: batch_rows(),
            batch_bytes: batch_bytes(),
            timeout: timeout(),
            ca_file: None,
            checkpoint: None,
        }
    }

    /// Checks what the types cannot express.
    pub fn check(&self, problems: &mut Problems) {
        match Url::parse(&self.url) {
            Ok(url) if url.scheme() == "https" && url.has_host() => {}
            Ok(url) if url.scheme() == "http" && is_here(&url) => {}
            Ok(url) if url.scheme() == "http" => {
                problems.push("url", "what was recorded would travel in the clear", "let the receiver speak https")
            }
            _ => problems.push("url", "not the address of a receiver", "give one like https://receiver.internal/cdc"),
        }
        if self.batch_rows == 0 {
            problems.push("batch_rows", "too small", "give at least 1");
        }
        if self.batch_bytes < ByteSize::kib(4) {
            problems.push("batch_bytes", "too small", "give at least \"4 KiB\"");
        }
        if self.format.tombstones.is_some() {
            problems.push("tombstones", "a request has no place for messages without a value", "take the key out");
        }
        self.format.check(problems);
    }

    /// Tells whether the receiver is on this machine.
    pub(crate) fn is_here(&self) -> bool {
        Url::parse(&self.url).is_ok_and(|url| is_here(&url))
    }

    /// Returns the receiver's address without the parts that may be secret.
    pub fn place(&self) -> String {
        place(&self.url)
    }

    /// Returns the reason why the receiver cannot tell who sent a request, and what to do about it. `None` if it can.
    pub fn unverified(&self) -> Option<(String, String)> {
        let message = "requests are not signed: the receiver cannot tell who they are from";
        let fix = "set secret, and let the receiver verify webhook-signature";
        self.secret.is_none().then(|| (message.to_owned(), fix.to_owned()))
    }

    pub(crate) fn content_type(&self) -> &'static str {
        match (self.body, self.format.format) {
            (Body::Array, Format::CloudEvents) => "application/cloudevents-batch+json",
            (Body::Array, _) => "application/json",
            (Body::Lines, _) => "application/x-ndjson",
        }
    }
}

/// Serialises an address without the part after the host, which may be a secret.
fn shown<S: Serializer>(url: &str, to: S) -> Result<S::Ok, S::Error> {
    let place = place(url);
    let bare = Url::parse(url).is_ok_and(|url| url.path() == "/" && url.query().is_none());
    let shown = if bare { format!("{place}/") } else { format!("{place}/…") };
    to.serialize_str(&shown)
}

fn place(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "the receiver".to_owned(), |url| url.origin().ascii_serialization())
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn batch_rows() -> u32 {
    1_000
}

fn batch_bytes() -> ByteSize {
    ByteSize::mib(1)
}

fn timeout() -> Span {
    Span::secs(30)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn problems(text: &str) -> String {
        let parsed =
            audit_config::parse(Path::new("c.toml"), text, |config: &WebhookConfig, problems| config.check(problems));
        parsed.map_or_else(|problems| problems.to_string(), |_| "none".to_owned())
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        for url in ["https://receiver.internal/cdc", "http://127.0.0.1:9000/", "http://localhost/x", "http://[::1]:1/"]
        {
            assert_eq!(problems(&format!("url = '{url}'")), "none", "{url}");
        }
        for url in ["http://receiver.internal/hush", "ftp://localhost/hush", "hush"] {
            let shown = problems(&format!("url = '{url}'"));
            assert!(shown.contains("url") && !shown.contains("hush"), "{shown}");
        }
    }

    #[test]
    fn keys_that_would_do_nothing_are_refused() {
        for key in
            ["tombstones = true", "decimals = 'string'", "batch_rows = 0", "batch_bytes = '1 B'", "batch_row = 1"]
        {
            let shown = problems(&format!("url = 'https://r.internal/'\n{key}"));
            assert!(shown.contains(&key[..8]), "{shown}");
        }
    }
}
