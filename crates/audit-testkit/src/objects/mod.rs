//! Object stores on 127.0.0.1: [`ObjectServer`], and [`FaultProxy`] in front of one.
//!
//! S3 is the Versity gateway over a folder, Azure is Azurite in memory. No packaged server accepts what the clients of
//! GCS write, so a bucket in memory replaces it.

mod faults;
mod gcs;
pub(crate) mod http;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use futures::TryStreamExt;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

pub use faults::{Fault, FaultProxy};
pub use http::Request;

use crate::guard::Guard;
use crate::os::free_port;
use crate::tls::Identity;
use crate::wait::eventually;
use audit_install::{azurite, versity};

/// The kinds of object stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    S3,
    Gcs,
    Azure,
}

impl ObjectKind {
    pub const ALL: [ObjectKind; 3] = [ObjectKind::S3, ObjectKind::Gcs, ObjectKind::Azure];
}

/// The only bucket, or container, of every server.
const BUCKET: &str = "lake";
const S3_KEY: (&str, &str) = ("testaccess", "testsecret");
/// Account and key that Microsoft publishes for emulators.
const AZURE_ACCOUNT: &str = "devstoreaccount1";
const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A store, stopped and removed when dropped.
pub struct ObjectServer {
    kind: ObjectKind,
    port: u16,
    tls: bool,
    process: Option<Child>,
    guard: Option<Guard>,
    folder: TempDir,
}

impl ObjectServer {
    pub fn start(kind: ObjectKind) -> ObjectServer {
        ObjectServer::launch(kind, None)
    }

    /// Starts S3 over HTTPS.
    pub fn over_tls(identity: &Identity) -> ObjectServer {
        ObjectServer::launch(ObjectKind::S3, Some(identity))
    }

    fn launch(kind: ObjectKind, tls: Option<&Identity>) -> ObjectServer {
        let folder = tempfile::Builder::new().prefix("cdc-audit-objects-").tempdir().expect("a temporary folder");
        let secret = match kind {
            ObjectKind::S3 => S3_KEY.1,
            ObjectKind::Azure => AZURE_KEY,
            // A client without a login still needs a key.
            ObjectKind::Gcs => {
                r#"{"type": "service_account", "private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": true}"#
            }
        };
        crate::write_secret(folder.path().join("secret"), secret);
        let data = folder.path().join("data").join(BUCKET);
        fs::create_dir_all(&data).expect("a folder for the bucket");
        if kind == ObjectKind::Gcs {
            return ObjectServer {
                kind,
                port: gcs::start(BUCKET, data),
                tls: false,
                process: None,
                guard: None,
                folder,
            };
        }
        let port = free_port();
        let mut command = if kind == ObjectKind::S3 { s3(port, folder.path(), tls) } else { azure(port) };
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a log")).stdout(log);
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let guard = Some(Guard::over_process_in(process.id(), folder.path()));
        let mut server = ObjectServer { kind, port, tls: tls.is_some(), process: Some(process), guard, folder };
        server.wait();
        server
    }

    /// Returns the server of this kind that all tests of this process share. The first call starts it.
    pub async fn shared(kind: ObjectKind) -> &'static ObjectServer {
        static SERVERS: [OnceLock<ObjectServer>; ObjectKind::ALL.len()] =
            [const { OnceLock::new() }; ObjectKind::ALL.len()];
        let started =
            tokio::task::spawn_blocking(move || SERVERS[kind as usize].get_or_init(|| ObjectServer::start(kind)));
        started.await.expect("the object store starts")
    }

    fn wait(&mut self) {
        let (ask, status) = match self.kind {
            ObjectKind::S3 => ("GET /health", "200"),
            ObjectKind::Gcs => return,
            ObjectKind::Azure => ("GET /devstoreaccount1?comp=list", "403"),
        };
        let (port, log) = (self.port, self.folder.path().join("log"));
        eventually("the object store answers", || {
            let ended = self.process.as_mut().is_some_and(|process| !matches!(process.try_wait(), Ok(None)));
            assert!(!ended, "the object store ended: {}", fs::read_to_string(&log).unwrap_or_default());
            if self.tls {
                return TcpStream::connect(("127.0.0.1", port)).is_ok();
            }
            said(port, ask, "").contains(&format!(" {status} "))
        });
        if self.kind == ObjectKind::Azure {
            // Everything that is signed is constant, so the signature is too.
            let signed = "x-ms-date: Thu, 01 Jan 2026 00:00:00 GMT\r\nx-ms-version: 2021-08-06\r\ncontent-length: 0\r\n\
                          authorization: SharedKey devstoreaccount1:rSZgTn1RHvSH1VSq+G0/mbvBXYNB7ty0W3peZSI45HQ=\r\n";
            let made = said(port, "PUT /devstoreaccount1/lake?restype=container", signed);
            assert!(made.contains(" 201 "), "the container was not made: {made}");
        }
    }

    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the folder of a prefix of the bucket, in which each object is a file. Not for Azure, whose objects are
    /// in memory.
    pub fn folder(&self, prefix: &str) -> PathBuf {
        assert_ne!(self.kind, ObjectKind::Azure, "objects lie in memory");
        self.folder.path().join("data").join(BUCKET).join(prefix)
    }

    /// Copies the objects under a prefix of an Azure container, whose server keeps them in memory, into the caller's
    /// folder.
    pub async fn mirror(&self, prefix: &str, folder: &Path) {
        assert_eq!(self.kind, ObjectKind::Azure, "the others have a folder");
        let store = MicrosoftAzureBuilder::new()
            .with_account(AZURE_ACCOUNT)
            .with_access_key(AZURE_KEY)
            .with_container_name(BUCKET)
            .with_endpoint(format!("http://127.0.0.1:{}/{AZURE_ACCOUNT}", self.port))
            .with_allow_http(true)
            .build()
            .expect("a client of the container");
        let listed = store.list(Some(&prefix.into()));
        let objects: Vec<ObjectMeta> = listed.try_collect().await.expect("the container is listed");
        for ObjectMeta { location, .. } in objects {
            let bytes = match store.get(&location).await {
                Ok(object) => object.bytes().await.expect("its bytes"),
                // The writer may have removed it meanwhile.
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => panic!("an object cannot be read: {error}"),
            };
            let name = location.as_ref().strip_prefix(prefix).expect("an object below the prefix");
            let path = folder.join(name.trim_start_matches('/'));
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for an object");
            fs::write(path, bytes).expect("a copy of an object");
        }
    }

    /// Makes another bucket and returns its folder. For S3 only.
    pub fn make_bucket(&self, name: &str) -> PathBuf {
        assert_eq!(self.kind, ObjectKind::S3, "buckets are folders");
        let folder = self.folder.path().join("data").join(name);
        fs::create_dir_all(&folder).expect("a folder for the bucket");
        folder
    }

    /// Writes the configuration of a lake under `prefix`, with the server at `port`, as lines of TOML.
    pub fn lake(&self, prefix: &str, port: u16) -> String {
        let secret = self.folder.path().join("secret");
        let secret = secret.display();
        let http = if self.tls { "https" } else { "http" };
        let (scheme, endpoint, rest) = match self.kind {
            ObjectKind::S3 => {
                let id = S3_KEY.0;
                ("s3", "", format!("access_key_id = \"{id}\", secret_key = {{ file = \"{secret}\" }}"))
            }
            ObjectKind::Gcs => ("gs", "", format!("service_account_file = \"{secret}\"")),
            ObjectKind::Azure => {
                let endpoint = "/devstoreaccount1";
                ("az", endpoint, format!("account = \"{AZURE_ACCOUNT}\", secret_key = {{ file = \"{secret}\" }}"))
            }
        };
        format!(
            "url = \"{scheme}://{BUCKET}/{prefix}\"\nstore = {{ endpoint = \"{http}://127.0.0.1:{port}{endpoint}\", allow_http = true, \
             request_timeout = \"5 s\", retry_for = \"2 s\", {rest} }}\n"
        )
    }
}

impl Drop for ObjectServer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            drop((process.kill(), process.wait()));
        }
        self.guard.take();
    }
}

fn s3(port: u16, folder: &Path, tls: Option<&Identity>) -> Command {
    let mut command = Command::new(versity().unwrap_or_else(|error| panic!("{error:#}")));
    command.env("ROOT_ACCESS_KEY", S3_KEY.0).env("ROOT_SECRET_KEY", S3_KEY.1);
    command.args(["--port", &format!("127.0.0.1:{port}"), "--region", "us-east-1", "--health", "/health", "--quiet"]);
    if let Some(identity) = tls {
        for (option, name, text) in [("--cert", "cert.pem", &identity.certificate), ("--key", "key.pem", &identity.key)]
        {
            fs::write(folder.join(name), text).expect("a file in a temporary folder");
            command.arg(option).arg(folder.join(name));
        }
    }
    command.arg("posix").arg(folder.join("data"));
    command
}

fn azure(port: u16) -> Command {
    let mut command = Command::new("node");
    command.arg(azurite().unwrap_or_else(|error| panic!("{error:#}")));
    command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--disableTelemetry"]);
    command.args(["--skipApiVersionCheck", "--silent", "--inMemoryPersistence"]);
    command
}

/// Returns the first line of an answer; empty if there is none.
fn said(port: u16, ask: &str, headers: &str) -> String {
    let asked = || {
        let mut server = TcpStream::connect(("127.0.0.1", port))?;
        write!(server, "{ask} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{headers}connection: close\r\n\r\n")?;
        let mut answer = String::new();
        server.read_to_string(&mut answer).map(|_| answer)
    };
    asked().unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}
