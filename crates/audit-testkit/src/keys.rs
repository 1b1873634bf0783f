//! Key services on 127.0.0.1: real ones ([`KeyServer`]), and one whose answers a test defines ([`Scripted`]).

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::BufReader;

use crate::guard::Guard;
use crate::install;
use crate::objects::http::{Request, answer};
use crate::os::free_port;
use crate::proxy::listen;
use crate::wait::eventually;
use audit_install::run;

/// A key service, stopped when dropped.
pub struct KeyServer {
    port: u16,
    process: Child,
    guard: Option<Guard>,
    folder: TempDir,
}

/// The root token of every Vault here.
pub const VAULT_TOKEN: &str = "root";

impl KeyServer {
    /// Starts moto's AWS KMS, which allows everyone everything and does not check signatures.
    pub fn aws() -> KeyServer {
        let moto = install::moto().unwrap_or_else(|error| panic!("{error:#}"));
        let mut python = Command::new(install::python());
        python.env("PYTHONPATH", moto).args(["-m", "moto.server", "-H", "127.0.0.1", "-p"]);
        KeyServer::start(python, |port| port.to_string())
    }

    /// Starts Vault with a transit engine at `transit/`. `None` if it is not installed, which is an error only in
    /// thorough tests.
    pub fn vault() -> Option<KeyServer> {
        let program = match install::vault() {
            Err(error) if crate::thorough() => panic!("{error:#}"),
            program => program.ok()?,
        };
        let mut command = Command::new(program);
        command.env("VAULT_ROOT_TOKEN", VAULT_TOKEN);
        let server = KeyServer::start(command, |port| format!("127.0.0.1:{port}"));
        server.ask_vault("sys/mounts/transit", r#"{"type": "transit"}"#);
        Some(server)
    }

    fn start(mut command: Command, address: impl Fn(u16) -> String) -> KeyServer {
        let folder = tempfile::Builder::new().prefix("cdc-audit-keys-").tempdir().expect("a temporary folder");
        let port = free_port();
        let log = File::create(folder.path().join("log")).expect("a log");
        command.arg(address(port)).stdin(Stdio::null()).stderr(log.try_clone().expect("a log")).stdout(log);
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let guard = Some(Guard::over_process_in(process.id(), folder.path()));
        let mut server = KeyServer { port, process, guard, folder };
        eventually("the key service answers", || {
            let ended = !matches!(server.process.try_wait(), Ok(None));
            let log = || std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
            assert!(!ended, "the key service ended: {}", log());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends a request to moto's KMS and returns the answer.
    pub fn ask_aws(&self, operation: &str, body: &str) -> Value {
        let target = format!("x-amz-target: TrentService.{operation}");
        // The signature names the service; the rest of it is not checked.
        let who = "authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/kms/aws4_request, SignedHeaders=host, Signature=0";
        self.ask("", &[&target, who, "content-type: application/x-amz-json-1.1"], body)
    }

    /// Sends a request to Vault as root and returns the answer.
    #[track_caller]
    pub fn ask_vault(&self, path: &str, body: &str) -> Value {
        self.ask(&format!("v1/{path}"), &[&format!("x-vault-token: {VAULT_TOKEN}")], body)
    }

    #[track_caller]
    fn ask(&self, path: &str, headers: &[&str], body: &str) -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "60", "-X", "POST", "--data-binary", body]);
        curl.args(headers.iter().flat_map(|header| ["-H", header]));
        let said = run(curl.arg(format!("http://127.0.0.1:{}/{path}", self.port))).expect("the key service answers");
        serde_json::from_str(&said).unwrap_or_default()
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        drop((self.process.kill(), self.process.wait()));
        self.guard.take();
    }
}

/// An answer: status and body.
pub type Said = (u16, String);

type Script = Box<dyn FnMut(&Request) -> Said + Send>;

/// An HTTP server whose answers a test defines. It runs as long as the process.
pub struct Scripted {
    port: u16,
    script: Arc<Mutex<Script>>,
}

impl Scripted {
    pub fn start(script: impl FnMut(&Request) -> Said + Send + 'static) -> Scripted {
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let served = Arc::clone(&script);
        let port = listen(move |listener| async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&served)));
            }
        });
        Scripted { port, script }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Defines the answers from now on.
    pub fn say(&self, script: impl FnMut(&Request) -> Said + Send + 'static) {
        *self.script.lock().expect("no script panics") = Box::new(script);
    }
}

async fn serve(client: tokio::net::TcpStream, script: Arc<Mutex<Script>>) -> io::Result<()> {
    let (from, mut to) = client.into_split();
    let mut from = BufReader::new(from);
    while let Some(request) = Request::read(&mut from).await? {
        let (status, body) = script.lock().expect("no script panics")(&request);
        let status = format!("{status} Said");
        answer(&mut to, &status, &[("content-type", "application/json".to_owned())], body.as_bytes(), false).await?;
    }
    Ok(())
}
