//! The key services that the tests use, each with a key, another key, and one that does not exist ([`Service`]).

use std::path::Path;
use std::sync::OnceLock;

use audit_config::{SecretRef, Span};
use audit_keys::{AwsMaster, AzureMaster, Connection, GcpMaster, LocalMaster, Master, VaultMaster, append_version};
use audit_testkit::{KeyServer, VAULT_TOKEN};
use tempfile::TempDir;

use crate::doubles;

/// A key service.
pub struct Service {
    pub name: &'static str,
    pub master: Master,
    /// Another key of the same service.
    pub other: Master,
    /// A key that the service does not have.
    pub missing: Master,
    _folder: TempDir,
}

pub fn connection() -> Connection {
    Connection { timeout: Span::secs(30), ca_file: None }
}

/// Writes a file with a secret, and refers to it as the configuration does.
pub fn secret(folder: &Path, name: &str, text: &str) -> SecretRef {
    let path = folder.join(name);
    audit_testkit::write_secret(&path, text);
    SecretRef::File(path)
}

fn service(name: &'static str, folder: TempDir, master: impl Fn(&str, &Path) -> Master) -> Service {
    let [master, other, missing] = ["pii", "other", "missing"].map(|key| master(key, folder.path()));
    Service { name, master, other, missing, _folder: folder }
}

/// Every kind of service that is available here. Services that are servers run as long as the process.
pub fn all() -> Vec<Service> {
    let mut all = vec![local(), aws(moto().port()), gcp(doubles::gcp().port()), azure(doubles::azure().port())];
    all.push(vault("vault (double)", doubles::vault().port()));
    all.extend(real_vault().map(|server| vault("vault", server.port())));
    all
}

pub fn local() -> Service {
    let folder = tempfile::tempdir().unwrap();
    append_version(&folder.path().join("pii")).unwrap();
    append_version(&folder.path().join("other")).unwrap();
    service("local", folder, |key, folder| Master::Local(LocalMaster { file: folder.join(key) }))
}

/// moto with the aliases `pii` and `other`.
pub fn moto() -> &'static KeyServer {
    static MOTO: OnceLock<KeyServer> = OnceLock::new();
    MOTO.get_or_init(|| {
        let server = KeyServer::aws();
        for name in ["pii", "other"] {
            let made = server.ask_aws("CreateKey", "{}");
            let id = made["KeyMetadata"]["KeyId"].as_str().expect("a key");
            server.ask_aws("CreateAlias", &format!(r#"{{"AliasName": "alias/{name}", "TargetKeyId": "{id}"}}"#));
        }
        server
    })
}

pub fn aws(port: u16) -> Service {
    service("aws_kms", tempfile::tempdir().unwrap(), |key, folder| {
        Master::AwsKms(Box::new(AwsMaster {
            key: format!("alias/{key}"),
            region: Some("us-east-1".to_owned()),
            endpoint: Some(format!("http://127.0.0.1:{port}/")),
            access_key_id: Some("testaccess".to_owned()),
            secret_key: Some(secret(folder, "secret", "testsecret\n")),
            connection: connection(),
        }))
    })
}

pub fn gcp(port: u16) -> Service {
    service("gcp_kms", tempfile::tempdir().unwrap(), |key, folder| {
        let account = r#"{"type": "service_account", "private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": true}"#;
        secret(folder, "account", account);
        Master::GcpKms(Box::new(GcpMaster {
            key: format!("projects/acme/locations/europe-west3/keyRings/audit/cryptoKeys/{key}"),
            service_account_file: Some(folder.join("account")),
            endpoint: Some(format!("http://127.0.0.1:{port}")),
            connection: connection(),
        }))
    })
}

pub fn azure(port: u16) -> Service {
    service("azure_key_vault", tempfile::tempdir().unwrap(), |key, folder| {
        Master::AzureKeyVault(Box::new(AzureMaster {
            key: format!("http://127.0.0.1:{port}/keys/{key}"),
            tenant_id: Some("tenant".to_owned()),
            client_id: Some("client".to_owned()),
            client_secret: Some(secret(folder, "secret", "s3cret")),
            authority: Some(format!("http://127.0.0.1:{port}")),
            connection: connection(),
        }))
    })
}

/// The real Vault with the keys `pii` and `other`, if it is installed.
pub fn real_vault() -> Option<&'static KeyServer> {
    static VAULT: OnceLock<Option<KeyServer>> = OnceLock::new();
    let server = VAULT.get_or_init(|| {
        let server = KeyServer::vault()?;
        for name in ["pii", "other"] {
            server.ask_vault(&format!("transit/keys/{name}"), "{}");
        }
        Some(server)
    });
    server.as_ref()
}

pub fn vault(name: &'static str, port: u16) -> Service {
    service(name, tempfile::tempdir().unwrap(), |key, folder| {
        let token = Some(secret(folder, "token", VAULT_TOKEN));
        Master::Vault(Box::new(VaultMaster {
            url: format!("http://127.0.0.1:{port}"),
            key: key.to_owned(),
            mount: "transit".to_owned(),
            token,
            namespace: None,
            connection: connection(),
        }))
    })
}
