//! `[protection.keys.CLASS]`: which master key a class of keys has, and how long its data keys live.

use std::path::PathBuf;

use audit_config::{Problems, SecretRef, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// A class of keys: those who may use its master key may read what is encrypted under it. Columns name the class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyClass {
    /// The master key, which wraps the class's data keys and never encrypts a value itself.
    pub master: Master,

    /// Master keys that wrapped data keys before: they still open them, until `cdc-audit keys rewrap` is done.
    #[serde(default)]
    pub former: Vec<Master>,

    /// A data key encrypts no value after this. The next one is made when a quarter of the time is left, so that the key service may be
    /// away for that long unnoticed.
    #[serde(default = "rotate_after")]
    pub rotate_after: Span,

    /// A data key encrypts no more values than this.
    #[serde(default = "rotate_count")]
    #[schemars(range(min = 1))]
    pub rotate_count: u64,

    /// So many keys of data subjects are kept in memory, those seen lately.
    #[serde(default = "subjects_max")]
    #[schemars(range(min = 1))]
    pub subjects_max: u32,
}

/// A master key: where it is, and how its service is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Master {
    /// A file on this machine: for tests, and for those who guard files better than accounts.
    Local(LocalMaster),
    /// AWS KMS. Credentials: the keys below, else the environment, a web identity, a container's role or the instance's; profiles are
    /// not read.
    AwsKms(Box<AwsMaster>),
    /// The transit engine of HashiCorp Vault or OpenBao.
    Vault(Box<VaultMaster>),
    /// Google Cloud KMS. Credentials: the file below, else the application default ones or the instance's.
    GcpKms(Box<GcpMaster>),
    /// An RSA key in Azure Key Vault. Credentials: a client's secret, a federated token (workload identity) or the instance's.
    AzureKeyVault(Box<AzureMaster>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalMaster {
    /// The keyring: a line for each version, its name and 64 hex digits; the last one wraps. Others must not be able to
    /// read it (0600, or 0440 for a group of the daemon).
    /// `cdc-audit keys master FILE` makes it, or adds a version.
    #[schemars(example = &"/etc/cdc-audit/keyring")]
    pub file: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsMaster {
    /// The key's ARN, id or alias (`alias/NAME`): a symmetric one.
    #[schemars(example = &"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")]
    pub key: String,
    /// Default: the ARN's, else AWS_REGION or AWS_DEFAULT_REGION.
    pub region: Option<String>,
    /// Where the service is, if not at its public address (a VPC endpoint, say).
    pub endpoint: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_key: Option<SecretRef>,
    #[serde(default)]
    pub connection: Connection,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultMaster {
    #[schemars(example = &"https://vault.internal:8200")]
    pub url: String,
    /// The name of a key of type `aes256-gcm96` (or another that takes associated data), not derived. Allow the daemon `update` on
    /// `MOUNT/encrypt/KEY`, and not `create`, which would make missing keys.
    pub key: String,
    /// Where the transit engine is mounted.
    #[serde(default = "transit")]
    pub mount: String,
    /// The token, read anew for each request, so that Vault's agent may renew it in its file. Default: the variable VAULT_TOKEN.
    pub token: Option<SecretRef>,
    pub namespace: Option<String>,
    #[serde(default)]
    pub connection: Connection,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcpMaster {
    /// The key's full name.
    #[schemars(example = &"projects/acme/locations/europe-west3/keyRings/audit/cryptoKeys/pii")]
    pub key: String,
    pub service_account_file: Option<PathBuf>,
    /// Where the service is, if not at its public address.
    pub endpoint: Option<String>,
    #[serde(default)]
    pub connection: Connection,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AzureMaster {
    /// The key's identifier without a version.
    #[schemars(example = &"https://acme.vault.azure.net/keys/pii")]
    pub key: String,
    /// Default: AZURE_TENANT_ID.
    pub tenant_id: Option<String>,
    /// Default: AZURE_CLIENT_ID.
    pub client_id: Option<String>,
    /// Default: AZURE_CLIENT_SECRET; without one, the file of AZURE_FEDERATED_TOKEN_FILE; without that, the instance's identity.
    pub client_secret: Option<SecretRef>,
    /// Who gives out tokens. Default: AZURE_AUTHORITY_HOST, else the public cloud's.
    pub authority: Option<String>,
    #[serde(default)]
    pub connection: Connection,
}

/// How a key service is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Connection {
    /// How long an answer may take.
    pub timeout: Span,
    /// A file with the certificates (PEM) that alone may vouch for the service. Default: those of the system.
    pub ca_file: Option<PathBuf>,
}

impl Default for Connection {
    fn default() -> Connection {
        Connection { timeout: Span::secs(10), ca_file: None }
    }
}

impl KeyClass {
    /// Makes a class with this master key and the default of everything else.
    pub fn new(master: Master) -> KeyClass {
        let (former, rotate_after, rotate_count) = (Vec::new(), rotate_after(), rotate_count());
        KeyClass { master, former, rotate_after, rotate_count, subjects_max: subjects_max() }
    }

    /// Checks what the types cannot express.
    pub fn check(&self, problems: &mut Problems) {
        problems.scope("master", |problems| self.master.check(problems));
        for (index, former) in self.former.iter().enumerate() {
            problems.scope(&format!("former[{index}]"), |problems| former.check(problems));
        }
        if self.rotate_after < Span::mins(1) {
            problems.push("rotate_after", "too short", "give at least \"1 min\"");
        }
        if self.rotate_count == 0 {
            problems.push("rotate_count", "too small", "give at least 1");
        }
        if self.subjects_max == 0 {
            problems.push("subjects_max", "too small", "give at least 1");
        }
    }
}

impl Master {
    fn check(&self, problems: &mut Problems) {
        match self {
            Master::Local(_) => {}
            Master::AwsKms(aws) => {
                if let Some(endpoint) = &aws.endpoint {
                    address("endpoint", endpoint, problems);
                }
                if aws.access_key_id.is_some() != aws.secret_key.is_some() {
                    problems.push("access_key_id", "given without its other half", "give both, or neither");
                }
            }
            Master::Vault(vault) => address("url", &vault.url, problems),
            Master::GcpKms(gcp) => {
                let parts: Vec<&str> = gcp.key.split('/').collect();
                if !matches!(parts.as_slice(), ["projects", _, "locations", _, "keyRings", _, "cryptoKeys", _]) {
                    let hint = "give projects/P/locations/L/keyRings/R/cryptoKeys/K";
                    problems.push("key", "not the full name of a key", hint);
                }
                if let Some(endpoint) = &gcp.endpoint {
                    address("endpoint", endpoint, problems);
                }
            }
            Master::AzureKeyVault(azure) => {
                address("key", &azure.key, problems);
                if let Some(authority) = &azure.authority {
                    address("authority", authority, problems);
                }
                let path = Url::parse(&azure.key).map(|url| url.path().to_owned()).unwrap_or_default();
                if path.strip_prefix("/keys/").is_none_or(|name| name.is_empty() || name.contains('/')) {
                    let hint = "give https://VAULT.vault.azure.net/keys/NAME";
                    problems.push("key", "not the identifier of a key without a version", hint);
                }
            }
        }
    }
}

/// Checks an address to which keys and credentials are sent: it must use https, except on this machine.
fn address(key: &str, text: &str, problems: &mut Problems) {
    let Ok(url) = Url::parse(text) else {
        return problems.push(key, "not an address", "give one like https://host:port");
    };
    match url.scheme() {
        "http" | "https" if is_guarded(&url) => {}
        "http" => problems.push(key, "credentials and keys would travel in the clear", "let the service speak https"),
        _ => problems.push(key, "not an address of a service", "give one like https://host:port"),
    }
}

/// Tells whether nobody on the network path can read what is sent to an address.
pub(crate) fn is_guarded(url: &Url) -> bool {
    (url.scheme() == "https" && url.has_host()) || (url.scheme() == "http" && is_here(url))
}

/// Tells whether an address is on this machine.
pub(crate) fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn rotate_after() -> Span {
    Span::days(1)
}

/// Far below the limit of AES-GCM, and enough for some hours of a busy source.
fn rotate_count() -> u64 {
    1 << 30
}

fn subjects_max() -> u32 {
    10_000
}

fn transit() -> String {
    "transit".to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn secrets_are_sent_nowhere_in_the_clear() {
        let problems = |text: &str| {
            let text = format!("[master]\n{text}");
            let parsed =
                audit_config::parse(Path::new("c.toml"), &text, |class: &KeyClass, problems| class.check(problems));
            parsed.map_or_else(|problems| problems.to_string(), |_| String::new())
        };
        let azure = "type = 'azure_key_vault'\nkey = 'https://v.vault.azure.net/keys/pii'";
        for (text, key) in [
            (format!("{azure}\nauthority = 'http://login.internal'"), "master.authority"),
            (format!("{azure}\nauthority = 'login.internal'"), "master.authority"),
            ("type = 'vault'\nurl = 'http://vault.internal:8200'\nkey = 'k'".to_owned(), "master.url"),
        ] {
            assert!(problems(&text).contains(key), "{text}: {}", problems(&text));
        }
        assert_eq!(problems(&format!("{azure}\nauthority = 'https://login.internal'")), "");
    }
}
