//! The TLS options of a connection string ([`SslOptions`]), and the rustls configuration that follows from them.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_config::secret::guarded;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::ConnectError;
use crate::parse::Options;
use crate::target::{Place, Target};
use crate::verify::{Checks, Roots, ServerVerifier};

/// libpq's `sslmode`, without `allow` (plain text first), which protects nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    Disable,
    /// TLS if the server offers it.
    Prefer,
    /// TLS with any certificate, but one signed by the CA if `sslrootcert` names one.
    Require,
    /// The certificate is signed by the CA.
    VerifyCa,
    /// The certificate is signed by the CA and has the host's name.
    VerifyFull,
}

#[derive(Clone, Debug)]
pub(crate) struct SslOptions {
    mode: Option<SslMode>,
    root: Option<Root>,
    /// Certificate chain and key of the client.
    client: Option<(PathBuf, PathBuf)>,
    /// `sslnegotiation=direct`: TLS from the first byte (PostgreSQL 17 and later).
    direct: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Root {
    System,
    File(PathBuf),
}

impl SslOptions {
    pub(crate) fn take(options: &mut Options) -> Result<SslOptions, ConnectError> {
        let mode = options.take("sslmode").map(|text| parse_mode(&text)).transpose()?;
        let root = options.take("sslrootcert").filter(|text| !text.is_empty()).map(|text| match text.as_str() {
            "system" => Root::System,
            file => Root::File(PathBuf::from(file)),
        });
        let [cert, key] = ["sslcert", "sslkey"].map(|name| options.take(name).map(PathBuf::from));
        let client = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(ConnectError::config("sslcert and sslkey need each other", "give both, or neither")),
        };
        if root == Some(Root::System) && mode.is_some_and(|mode| mode < SslMode::VerifyFull) {
            // Anyone can get a certificate from a public CA: without the name it proves nothing.
            let what = "sslrootcert=system is pointless with an sslmode that does not check the name";
            return Err(ConnectError::config(what, "use sslmode=verify-full"));
        }
        if mode == Some(SslMode::VerifyCa) && root.is_none() {
            let what = "sslmode=verify-ca needs a CA of your own: anybody can have a certificate from a public one";
            return Err(ConnectError::config(what, "add sslrootcert=FILE with that CA, or use sslmode=verify-full"));
        }
        Ok(SslOptions { mode, root, client, direct: false })
    }

    pub(crate) fn with_direct(self, direct: bool) -> Result<SslOptions, ConnectError> {
        if direct && self.mode.is_some_and(|mode| mode < SslMode::Require) {
            let what = "sslnegotiation=direct needs TLS, and this sslmode does not insist on it";
            return Err(ConnectError::config(what, "use sslmode=verify-full"));
        }
        Ok(SslOptions { direct, ..self })
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    /// Returns the configured mode, or else `verify-full`. The exception is a connection that never leaves this
    /// machine, which may be plain if nothing else in the string asks for TLS. `found` is the address that the host's
    /// name resolved to, because a local name may lead to another machine. PostgreSQL has no TLS on Unix sockets.
    pub(crate) fn mode_for(&self, target: &Target, found: Option<IpAddr>) -> SslMode {
        let stays = target.is_loopback() && found.is_none_or(|ip| ip.is_loopback());
        match (&target.place, self.mode) {
            (Place::Unix(_), _) => SslMode::Disable,
            (Place::Tcp(_), Some(mode)) => mode,
            (Place::Tcp(_), None) if stays && self.root.is_none() && !self.direct => SslMode::Prefer,
            (Place::Tcp(_), None) => SslMode::VerifyFull,
        }
    }

    /// Tells whether nobody else can impersonate the server in this mode.
    pub(crate) fn verifies(&self, mode: SslMode) -> bool {
        mode >= SslMode::VerifyCa || (mode == SslMode::Require && self.root.is_some())
    }

    /// Reads the files again each time, because certificates are renewed while the daemon runs.
    pub(crate) fn client_config(&self, mode: SslMode) -> Result<Arc<ClientConfig>, ConnectError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let checks = match (mode, &self.root) {
            (SslMode::VerifyFull, root) => Checks::ChainAndName(self.roots(root.as_ref())?),
            (SslMode::VerifyCa, root) => Checks::Chain(self.roots(root.as_ref())?),
            // As in libpq, a CA that is named is used.
            (_, Some(root)) => Checks::Chain(self.roots(Some(root))?),
            (_, None) => Checks::Nothing,
        };
        let verifier = Arc::new(ServerVerifier::new(checks, &provider));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConnectError::config(error.to_string(), "this is a defect of the program"))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                builder.with_client_auth_cert(read_certificates(cert)?, read_key(key)?).map_err(|error| {
                    let hint = "sslkey must be the private key of the first certificate in sslcert";
                    file_error("the client certificate", cert, io::Error::other(error), hint)
                })?
            }
        };
        // Direct negotiation requires this; otherwise it is ignored.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self, root: Option<&Root>) -> Result<Roots, ConnectError> {
        let certificates = match root {
            Some(Root::File(path)) => read_certificates(path)?,
            Some(Root::System) | None => system_certificates()?,
        };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates.iter().cloned());
        // The system's certificates are CAs. A file may also hold the server's own self-signed certificate.
        let pinned = if matches!(root, Some(Root::File(_))) { certificates } else { Vec::new() };
        Ok(Roots { store, pinned })
    }
}

fn parse_mode(text: &str) -> Result<SslMode, ConnectError> {
    Ok(match text {
        "disable" => SslMode::Disable,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        "allow" => {
            let what = "sslmode=allow is not supported: it would send the first bytes in plain text";
            return Err(ConnectError::config(what, "use sslmode=prefer, or better verify-full"));
        }
        _ => {
            let hint = "it takes disable, prefer, require, verify-ca or verify-full";
            return Err(ConnectError::config("invalid value of the connection option sslmode", hint));
        }
    })
}

fn system_certificates() -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let certificates = rustls_native_certs::load_native_certs().certs;
    if certificates.is_empty() {
        let hint = "install the package ca-certificates, or name the CA with sslrootcert=FILE in the url";
        return Err(ConnectError::config("this system has no CA certificates to verify the server with", hint));
    }
    Ok(certificates)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let hint = "it must be a PEM file that this user may read";
    match read() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(file_error("the certificate file", path, io::Error::other("no certificate in it"), hint)),
        Err(error) => Err(file_error("the certificate file", path, pem_error(error), hint)),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, ConnectError> {
    let refuse = |source, hint: &str| file_error("the client's private key", path, source, hint);
    guarded(path).map_err(|error| ConnectError::secret("the client's private key", path, error))?;
    let not_a_key = "it must be a PEM file with an unencrypted PKCS #8, PKCS #1 or SEC 1 key";
    PrivateKeyDer::from_pem_file(path).map_err(|error| refuse(pem_error(error), not_a_key))
}

/// Replaces the library's messages, because they quote lines of the file, which may be a key.
fn pem_error(error: rustls::pki_types::pem::Error) -> io::Error {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error,
        _ => io::Error::new(io::ErrorKind::InvalidData, "not PEM"),
    }
}

fn file_error(what: &'static str, path: &Path, source: io::Error, hint: &str) -> ConnectError {
    ConnectError::File { what, path: path.to_owned(), source, hint: hint.to_owned() }
}
