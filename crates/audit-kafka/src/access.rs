//! How the sink connects to the brokers and proves its identity: `[sinks.NAME.tls]` and `[sinks.NAME.sasl]`.

use std::path::PathBuf;

use audit_config::{Problems, SecretRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS to the brokers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Certificates (PEM) of the authorities that may vouch for brokers. Default: the system's.
    #[schemars(example = &"/etc/ssl/private-ca.pem")]
    pub ca_file: Option<PathBuf>,
    /// Our certificate (PEM), where brokers ask for one.
    #[schemars(example = &"/etc/cdc-audit/kafka.pem")]
    pub certificate_file: Option<PathBuf>,
    /// Its key (PEM).
    #[schemars(example = &"/run/secrets/kafka.key")]
    pub key_file: Option<PathBuf>,
    /// What the key is encrypted with, if it is.
    pub key_password: Option<SecretRef>,
    /// Demand that the broker's certificate is vouched for and names the broker. Without it anyone on the way can pose as a broker.
    pub verify: bool,
}

impl Default for TlsConfig {
    fn default() -> TlsConfig {
        TlsConfig { ca_file: None, certificate_file: None, key_file: None, key_password: None, verify: true }
    }
}

impl TlsConfig {
    pub(crate) fn check(&self, problems: &mut Problems) {
        if self.certificate_file.is_some() != self.key_file.is_some() {
            problems.push(
                "certificate_file",
                "a certificate needs its key, and a key its certificate",
                "give both or neither",
            );
        }
        if self.key_password.is_some() && self.key_file.is_none() {
            problems.push("key_password", "there is no key that it belongs to", "give key_file, or leave it out");
        }
    }
}

/// Who the brokers take us for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaslConfig {
    pub mechanism: Mechanism,
    /// `PLAIN` and `SCRAM`.
    #[serde(default)]
    #[schemars(example = &"cdc-audit")]
    pub username: Option<String>,
    /// `PLAIN` and `SCRAM`. Read at each connect.
    #[serde(default)]
    pub password: Option<SecretRef>,
    /// `OAUTHBEARER`: the file in which a token lies that somebody else renews, such as a projected token of Kubernetes. Read again before
    /// the token ends. Topics cannot be made with it.
    #[serde(default)]
    #[schemars(example = &"/var/run/secrets/tokens/kafka")]
    pub token_file: Option<PathBuf>,
    /// Let `PLAIN` and `OAUTHBEARER` go without TLS, where `plain_text` is set: then anyone on the way can read password and token.
    #[serde(default)]
    pub allow_clear_text: bool,
}

/// How we prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
}

impl Mechanism {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::OAuthBearer => "OAUTHBEARER",
        }
    }
}

impl SaslConfig {
    pub(crate) fn is_token(&self) -> bool {
        self.mechanism == Mechanism::OAuthBearer
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        let named = self.username.is_some() && self.password.is_some();
        match self.is_token() {
            true if self.token_file.is_none() => {
                problems.push("token_file", "OAUTHBEARER needs a token", "name the file in which it lies")
            }
            false if !named => {
                problems.push("username", "a user and a password are needed", "give username and password")
            }
            _ => {}
        }
        if self.is_token() && (self.username.is_some() || self.password.is_some()) {
            problems.push("username", "not used with OAUTHBEARER", "leave out username and password");
        }
        if !self.is_token() && self.token_file.is_some() {
            problems.push("token_file", "used with OAUTHBEARER only", "leave it out");
        }
    }

    /// Whether secrets would be sent in clear text.
    pub(crate) fn shows_secrets(&self) -> bool {
        matches!(self.mechanism, Mechanism::Plain | Mechanism::OAuthBearer) && !self.allow_clear_text
    }
}
