//! [`ConnectError`]: the reason why there is no session, what happens next, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use audit_config::secret::SecretError;
use tokio_postgres::error::SqlState;

use crate::outcome::Outcome;
use crate::refused::Refused;
use crate::server_error::ServerError;

/// The reason why no session could be opened. `endpoint` is `user@host:port/database`; nothing here holds a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{what}")]
    Config { what: String, hint: String },
    #[error("cannot use {what} {}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error, hint: String },
    #[error("cannot reach {endpoint}")]
    Unreachable { endpoint: String, source: io::Error },
    #[error("no session with {endpoint} within {seconds} s")]
    TimedOut { endpoint: String, seconds: u64 },
    #[error("lost the connection to {endpoint}")]
    Lost { endpoint: String, source: io::Error },
    #[error("{endpoint} does not offer TLS")]
    NoTls { endpoint: String },
    #[error("the certificate of {endpoint} is not accepted")]
    Certificate { endpoint: String, source: io::Error },
    #[error("TLS with {endpoint} failed")]
    Tls { endpoint: String, source: io::Error },
    #[error("cannot log in to {endpoint}: {what}")]
    Login { endpoint: String, what: String, hint: String },
    #[error("{endpoint} refused the session")]
    Server { endpoint: String, source: ServerError, hint: Option<String> },
    #[error("{endpoint} is not the {wanted} server that target_session_attrs asks for")]
    WrongRole { endpoint: String, wanted: &'static str },
    #[error("{endpoint} is a connection pooler: {what}")]
    Pooler { endpoint: String, what: &'static str },
    #[error("{endpoint} does not speak PostgreSQL's protocol: {what}")]
    Protocol { endpoint: String, what: String },
}

impl ConnectError {
    pub fn outcome(&self) -> Outcome {
        match self {
            ConnectError::Unreachable { .. }
            | ConnectError::TimedOut { .. }
            | ConnectError::Lost { .. }
            | ConnectError::WrongRole { .. } => Outcome::Retry,
            ConnectError::Config { .. }
            | ConnectError::File { .. }
            | ConnectError::NoTls { .. }
            | ConnectError::Certificate { .. }
            | ConnectError::Tls { .. }
            | ConnectError::Login { .. }
            | ConnectError::Pooler { .. }
            | ConnectError::Protocol { .. } => Outcome::Fix,
            ConnectError::Server { source, .. } => source.outcome(),
        }
    }

    /// Returns the server's SQLSTATE if it was the server that refused.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            ConnectError::Server { source, .. } => Some(&source.sqlstate),
            _ => None,
        }
    }

    /// Says what to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            ConnectError::Config { hint, .. } | ConnectError::File { hint, .. } | ConnectError::Login { hint, .. } => {
                hint
            }
            ConnectError::Server { hint, .. } => return hint.clone(),
            ConnectError::Unreachable { .. } | ConnectError::TimedOut { .. } => {
                "check host and port, that the server runs, and that no firewall lies between"
            }
            ConnectError::Lost { .. } => return None,
            ConnectError::NoTls { .. } => {
                "turn TLS on at the server (ssl = on), or, on a network you trust, add sslmode=disable to the url"
            }
            ConnectError::Certificate { source, .. } => return Some(certificate_hint(source)),
            ConnectError::Tls { .. } => {
                "check the server's TLS settings and, if it asks for one, the client certificate"
            }
            ConnectError::WrongRole { .. } => "list all servers of the cluster in the url: host1:5432,host2:5432",
            ConnectError::Pooler { .. } => {
                "name the host and port of PostgreSQL itself in the url: the daemon keeps few sessions, and each for long"
            }
            ConnectError::Protocol { .. } => "check that host and port are those of a PostgreSQL server",
        };
        Some(hint.to_owned())
    }

    pub(crate) fn config(what: impl Into<String>, hint: impl Into<String>) -> ConnectError {
        ConnectError::Config { what: what.into(), hint: hint.into() }
    }

    /// Makes the error for a file that holds a secret and that cannot be read, or that others can read.
    pub(crate) fn secret(what: &'static str, path: &Path, error: SecretError) -> ConnectError {
        let hint = error.hint().to_owned();
        let source = match error {
            SecretError::Unreadable { source, .. } => source,
            _ => io::Error::other("other users of this machine can read it"),
        };
        ConnectError::File { what, path: path.to_owned(), source, hint }
    }

    /// Makes the error for a stream that failed while the session was being opened. In TLS 1.3 a server also refuses a
    /// client's certificate that way, after a handshake that seemed to succeed.
    pub fn lost(endpoint: &str, source: io::Error) -> ConnectError {
        let endpoint = endpoint.to_owned();
        if let Some(refused) = source.get_ref().and_then(|inner| inner.downcast_ref::<Refused>()) {
            return ConnectError::Login { endpoint, what: refused.to_string(), hint: refused.hint() };
        }
        match tls_error(&source) {
            Some(rustls::Error::InvalidCertificate(_)) => ConnectError::Certificate { endpoint, source },
            Some(_) => ConnectError::Tls { endpoint, source },
            None => ConnectError::Lost { endpoint, source },
        }
    }

    pub fn protocol(endpoint: &str, what: impl Into<String>) -> ConnectError {
        ConnectError::Protocol { endpoint: endpoint.to_owned(), what: what.into() }
    }

    /// Tells whether the error ends the search for a host. As in libpq, a refused login does, because the next host of
    /// the same cluster would only refuse it again, and count one more failed login.
    pub(crate) fn ends_search(&self) -> bool {
        match self {
            ConnectError::Server { source, .. } => source.sqlstate.code().starts_with("28"),
            ConnectError::Config { .. } | ConnectError::File { .. } | ConnectError::Login { .. } => true,
            _ => false,
        }
    }
}

fn tls_error(source: &io::Error) -> Option<&rustls::Error> {
    source.get_ref()?.downcast_ref()
}

fn certificate_hint(source: &io::Error) -> String {
    use rustls::CertificateError as E;
    let Some(rustls::Error::InvalidCertificate(error)) = tls_error(source) else { return String::new() };
    match error {
        E::UnknownIssuer => "name the CA that signed it with sslrootcert=FILE in the url",
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "connect by a name that the certificate lists as subjectAltName (a common name alone does not count); \
             if the CA is your own and signs nothing else, sslmode=verify-ca with sslrootcert=FILE checks only that"
        }
        E::Expired | E::ExpiredContext { .. } => "renew the server's certificate, or correct this machine's clock",
        E::NotValidYet | E::NotValidYetContext { .. } => "correct this machine's clock",
        _ => "check the server's certificate and the file that sslrootcert names",
    }
    .to_owned()
}
