//! Master keys, which wrap data keys, in all supported services ([`MasterKey`]).

mod aws;
mod azure;
mod azure_token;
mod gcp;
mod http;
mod local;
mod vault;

use audit_cipher::{KeyId, Kind, SecretKey};
use serde_json::json;

pub use local::append_version;

use crate::config::Master;
use crate::error::KeyError;

/// The context to which a wrapped key is bound: the encryption context of AWS, the associated data of other services.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub source: &'a str,
    pub class: &'a str,
    pub kind: Kind,
    pub key: &'a KeyId,
}

impl Place<'_> {
    fn pairs(&self) -> [(&'static str, &str); 4] {
        [("source", self.source), ("class", self.class), ("kind", self.kind.as_str()), ("key", self.key.as_str())]
    }

    /// Writes the context as JSON, with the members in this order.
    fn bytes(&self) -> Vec<u8> {
        let [source, class, kind, key] = self.pairs().map(|(_, value)| json!(value));
        format!(r#"{{"source":{source},"class":{class},"kind":{kind},"key":{key}}}"#).into_bytes()
    }
}

/// A wrapped key, as the key store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// The master key that wrapped it, with its version if the service reports one.
    pub master: String,
    /// The wrapped key, as its service writes it: base64, or Vault's own text.
    pub text: String,
}

/// A master key, ready for use.
#[derive(Debug)]
pub enum MasterKey {
    Local(local::Local),
    AwsKms(aws::AwsKms),
    Vault(vault::Vault),
    GcpKms(gcp::GcpKms),
    AzureKeyVault(azure::AzureKeyVault),
}

impl MasterKey {
    /// Reads certificates; connects to nothing.
    ///
    /// # Errors
    /// Fails if the credentials are configured wrongly or certificates cannot be read.
    pub fn new(config: &Master) -> Result<MasterKey, KeyError> {
        Ok(match config {
            Master::Local(config) => MasterKey::Local(local::Local::new(config)),
            Master::AwsKms(config) => MasterKey::AwsKms(aws::AwsKms::new(config)?),
            Master::Vault(config) => MasterKey::Vault(vault::Vault::new(config)?),
            Master::GcpKms(config) => MasterKey::GcpKms(gcp::GcpKms::new(config)?),
            Master::AzureKeyVault(config) => MasterKey::AzureKeyVault(azure::AzureKeyVault::new(config)?),
        })
    }

    /// The name of its service in errors and in the key store: `aws_kms alias/audit`.
    pub fn name(&self) -> &str {
        match self {
            MasterKey::Local(master) => master.name(),
            MasterKey::AwsKms(master) => master.name(),
            MasterKey::Vault(master) => master.name(),
            MasterKey::GcpKms(master) => master.name(),
            MasterKey::AzureKeyVault(master) => master.name(),
        }
    }

    /// Wraps a key and binds it to its place.
    ///
    /// # Errors
    /// Fails if the service refuses, cannot be reached, or gives an invalid answer.
    pub async fn wrap(&self, key: &SecretKey, place: &Place<'_>) -> Result<Wrapped, KeyError> {
        match self {
            MasterKey::Local(master) => master.wrap(key, place),
            MasterKey::AwsKms(master) => master.wrap(key, place).await,
            MasterKey::Vault(master) => master.wrap(key, place).await,
            MasterKey::GcpKms(master) => master.wrap(key, place).await,
            MasterKey::AzureKeyVault(master) => master.wrap(key, place).await,
        }
    }

    /// Unwraps a key that [`MasterKey::wrap`] wrapped for this place.
    ///
    /// # Errors
    /// Fails if the service refuses, cannot be reached, or gives an invalid answer.
    pub async fn unwrap(&self, wrapped: &Wrapped, place: &Place<'_>) -> Result<SecretKey, KeyError> {
        match self {
            MasterKey::Local(master) => master.unwrap(wrapped, place),
            MasterKey::AwsKms(master) => master.unwrap(wrapped, place).await,
            MasterKey::Vault(master) => master.unwrap(wrapped, place).await,
            MasterKey::GcpKms(master) => master.unwrap(wrapped, place).await,
            MasterKey::AzureKeyVault(master) => master.unwrap(wrapped, place).await,
        }
    }

    /// Tells whether this master key wrapped a key, according to the name that was stored with it.
    pub(crate) fn wrapped(&self, wrapped: &Wrapped) -> bool {
        let rest = wrapped.master.strip_prefix(self.name());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }
}
