//! The reasons why a key cannot be loaded.

use std::io;
use std::path::PathBuf;

use audit_cipher::{FormError, KeyId, Kind, Unopened};
use audit_config::secret::SecretError;
use audit_connect::{ConnectError, ServerError};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The reason why a key cannot be loaded. It never holds a key, a value, a token, or any text of a service except its
/// error code.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{service} cannot be reached")]
    Unreachable { service: String, source: reqwest::Error },
    #[error("{service} cannot answer at present ({said})")]
    Unwell { service: String, said: String },
    #[error("{service} does not allow the use of its key ({said})")]
    Denied { service: String, said: String },
    #[error("{service} does not know its key ({said})")]
    NoMaster { service: String, said: String },
    #[error("{service} has its key disabled ({said})")]
    Disabled { service: String, said: String },
    #[error(
        "{service} does not unwrap the key: it was wrapped by another master key or in another context, or altered ({said})"
    )]
    Refused { service: String, said: String },
    #[error("{service} gives an answer that is none ({said})")]
    Nonsense { service: String, said: String },
    #[error("the credentials for {service} cannot be had")]
    Credentials { service: String, source: Cause },
    #[error("the secret for {service} cannot be had")]
    Secret { service: String, source: SecretError },
    #[error("the client for {service} cannot be made")]
    Client { service: String, source: Cause },
    #[error("the keyring {} cannot be read", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the keyring {} {what}", path.display())]
    Keyring { path: PathBuf, what: String },
    #[error("there is no class of keys {class:?} in the configuration")]
    NoClass { class: String },
    #[error("class {class:?} has no keys of data subjects")]
    NoSubjects { class: String },
    #[error("the key store gives no session")]
    NoStore { source: ConnectError },
    #[error("the key store: {doing} failed")]
    Store { doing: &'static str, source: Cause },
    #[error("the key store has no key {key}")]
    NoKey { key: KeyId },
    #[error("the key store did not store the new key {key}")]
    NotStored { key: KeyId },
    #[error("the key {key} was destroyed")]
    Destroyed { key: KeyId },
    #[error("what the key store has of key {key} is damaged")]
    Damaged { key: KeyId },
}

impl KeyError {
    pub(crate) fn store(doing: &'static str, error: tokio_postgres::Error) -> KeyError {
        // The server's detail and context may quote rows.
        let source: Cause = match error.as_db_error() {
            Some(server) => Box::new(ServerError::from(server)),
            None => Box::new(error),
        };
        KeyError::Store { doing, source }
    }

    /// Says what a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            KeyError::Unreachable { .. } => {
                "check that the service runs, and its address and certificate in the configuration"
            }
            KeyError::Unwell { .. } => "nothing is lost: it is asked again",
            KeyError::Denied { .. } => {
                "see the credentials, and grant them the use of the key: to encrypt for the daemon, to decrypt for who reads"
            }
            KeyError::NoMaster { .. } => "see the key's name and place in the configuration",
            KeyError::Disabled { .. } => "enable the key, or name another one and this one under `former`",
            KeyError::Refused { .. } => {
                "see `cdc-audit keys list` for the master key that wrapped it; former ones belong under `former`"
            }
            KeyError::Nonsense { .. } => "check that the address is the service's own",
            KeyError::Credentials { .. } => "see the credentials in the configuration, or in the environment",
            KeyError::Secret { source, .. } => source.hint(),
            KeyError::Client { .. } => "see ca_file",
            KeyError::File { .. } => "the file must exist and be readable by this user; `cdc-audit keys master` makes one",
            KeyError::Keyring { .. } => "it holds a line for each version: its name and 64 hex digits",
            KeyError::NoClass { .. } => "add [protection.keys.CLASS]",
            KeyError::NoSubjects { .. } => "see which class the columns of that subject name",
            KeyError::NoStore { source } => {
                return source.hint().unwrap_or_else(|| "check that the database of the key store runs".to_owned());
            }
            KeyError::Store { .. } => "run `cdc-audit setup`, which makes the key store, and check that its database runs",
            KeyError::NoKey { .. } => "check that this is the key store of the source that wrote the value",
            KeyError::NotStored { .. } => {
                "nothing was encrypted under it, and another one is tried; look for triggers and rules of cdc_audit.data_keys"
            }
            KeyError::Destroyed { .. } => "it was destroyed on purpose: what it encrypted is gone",
            KeyError::Damaged { .. } => "restore the row from a backup or from `cdc-audit keys export`",
        }
        .to_owned()
    }
}

impl OpenError {
    /// Tells whether the value is lost because its data subject was erased.
    pub fn is_erased(&self) -> bool {
        matches!(self, OpenError::Key(KeyError::Destroyed { key }) if key.kind() == Kind::Subject)
    }
}

/// The reason why a value cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Form(#[from] FormError),
    #[error(transparent)]
    Unopened(#[from] Unopened),
    #[error("the key of the value cannot be had")]
    Key(#[from] KeyError),
}
