//! Certificates made by openssl for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A folder with a CA (`ca.crt`), a server's certificate for the name `localhost` (`server.*`) and one for the client
/// `ann` (`client.*`), another CA (`other.crt`), and a self-signed server's certificate (`self.*`).
pub struct Certificates(TempDir);

impl Certificates {
    pub fn new() -> Certificates {
        let certificates = Certificates(TempDir::new().unwrap());
        let dir = certificates.0.path();
        for ca in ["ca", "other"] {
            certificate(dir, ca, &format!("/CN={ca}"), "basicConstraints=critical,CA:TRUE", None);
        }
        certificate(dir, "server", "/CN=server", "subjectAltName=DNS:localhost", Some("ca"));
        certificate(dir, "client", "/CN=ann", "extendedKeyUsage=clientAuth", Some("ca"));
        // Made as in PostgreSQL's manual: it is a CA by default, but used by a server.
        certificate(dir, "self", "/CN=self", "subjectAltName=DNS:localhost", None);
        certificates
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

fn certificate(dir: &Path, name: &str, subject: &str, extension: &str, ca: Option<&str>) {
    let file = |name: &str, end: &str| dir.join(format!("{name}.{end}")).to_str().unwrap().to_owned();
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    command.args(["-subj", subject, "-addext", extension]);
    command.args(["-keyout", &file(name, "key"), "-out", &file(name, "crt")]);
    if let Some(ca) = ca {
        command.args(["-CA", &file(ca, "crt"), "-CAkey", &file(ca, "key"), "-addext", "basicConstraints=CA:FALSE"]);
    }
    let output = command.output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
