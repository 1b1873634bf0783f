//! Searches the list for a host that gives a session: [`ConnectConfig::open`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rand::seq::SliceRandom;
use tokio::net::{UnixStream, lookup_host};
use tokio_postgres::config::ChannelBinding;

use crate::config::{ConnectConfig, Wanted};
use crate::error::ConnectError;
use crate::outcome::Outcome;
use crate::password::{Found, Password};
use crate::server_error::ServerError;
use crate::ssl::SslMode;
use crate::target::{Place, Target};
use crate::transport::{Negotiation, Transport, open_tcp};

/// What a client tells a server about itself after the transport is open, and the server's name for messages.
#[derive(Clone, Debug)]
pub struct Login {
    /// `user@host:port/database`, for messages.
    pub endpoint: String,
    pub user: String,
    pub dbname: String,
    pub application_name: String,
    /// Settings that the connection string gives the session (`-c name=value …`).
    pub options: Option<String>,
    pub channel_binding: ChannelBinding,
    pub(crate) wanted: Wanted,
    password: Found,
}

impl Login {
    /// Returns the password for a server that asks for one.
    ///
    /// # Errors
    /// Fails with [`ConnectError::Login`] if no password is configured.
    pub fn password(&self) -> Result<&Password, ConnectError> {
        match &self.password {
            Found::Password(password) => Ok(password),
            Found::Nothing(complaint) => Err(ConnectError::Login {
                endpoint: self.endpoint.clone(),
                what: "the server asks for a password and none is configured".to_owned(),
                hint: complaint.clone().unwrap_or_else(|| {
                    "set password_file or password_env, or one of PGPASSFILE, ~/.pgpass and PGPASSWORD".to_owned()
                }),
            }),
        }
    }

    /// Returns the statement to run in the new session and the answer of an acceptable server (`target_session_attrs`).
    /// `None` if any server is acceptable.
    pub fn question(&self) -> Option<(&'static str, &'static str)> {
        self.wanted.question()
    }

    /// Makes the error for a server that gave another answer to [`Login::question`].
    pub fn wrong_role(&self) -> ConnectError {
        ConnectError::WrongRole { endpoint: self.endpoint.clone(), wanted: self.wanted.name() }
    }

    /// Makes the error for a login that failed on the client's side.
    pub fn failed(&self, what: impl Into<String>) -> ConnectError {
        let hint = "check the server's authentication method and channel_binding in the url";
        ConnectError::Login { endpoint: self.endpoint.clone(), what: what.into(), hint: hint.to_owned() }
    }

    /// Makes the error for a server that refused the session.
    pub fn refused(&self, source: ServerError) -> ConnectError {
        // PgBouncer says this about `replication` and about settings. A server knows them all, or names the one that it
        // does not know.
        if source.message.starts_with("unsupported startup parameter") {
            let what = "it takes no replication connection, or not the settings that the url gives";
            return ConnectError::Pooler { endpoint: self.endpoint.clone(), what };
        }
        let hint = self.hint(source.sqlstate.code());
        ConnectError::Server { endpoint: self.endpoint.clone(), source, hint }
    }

    fn hint(&self, sqlstate: &str) -> Option<String> {
        let (user, dbname) = (&self.user, &self.dbname);
        Some(match sqlstate {
            "28P01" => match &self.password {
                Found::Password(password) => {
                    format!("the password came from {}: compare it with that of role {user}", password.origin())
                }
                Found::Nothing(complaint) => return complaint.clone(),
            },
            "28000" => format!(
                "check that role {user} exists and may log in, and that pg_hba.conf has a line for it, database \
                 {dbname}, this machine's address and the sslmode in use (replication connections match the \
                 database's name here)"
            ),
            "3D000" => format!("create database {dbname}, or correct its name in the url"),
            "42501" => {
                format!("grant role {user} what the message names; `cdc-audit setup --dry-run` prints all grants")
            }
            "53300" => "raise max_connections (for replication max_wal_senders), or close other sessions".to_owned(),
            _ => return None,
        })
    }
}

impl ConnectConfig {
    /// Opens a transport to one host after the other and passes it to `start`, until that makes a session of one. The
    /// transport and the session of each address together may take `connect_timeout`.
    ///
    /// # Errors
    /// A refused login ends the search. If no host gave a session and the error of one of them may pass by itself, the
    /// result is such an error, because that host may be available again at the next try.
    pub async fn open<S, F>(
        &self,
        application_name: &str,
        start: impl Fn(Transport, Arc<Login>) -> F,
    ) -> Result<S, ConnectError>
    where
        F: Future<Output = Result<S, ConnectError>>,
    {
        let mut targets: Vec<&Target> = self.targets.iter().collect();
        if self.random_order {
            targets.shuffle(&mut rand::rng());
        }
        let mut failure: Option<ConnectError> = None;
        for target in targets {
            let login = Arc::new(self.login(target, application_name)?);
            for address in self.addresses(target, &login.endpoint).await {
                let attempt =
                    async { start(self.transport(target, address?, &login.endpoint).await?, login.clone()).await };
                match self.in_time(&login.endpoint, attempt).await {
                    Ok(session) => return Ok(session),
                    Err(error) if error.ends_search() => return Err(error),
                    Err(error) => failure = Some(worse(failure, error)),
                }
            }
        }
        Err(failure.unwrap_or_else(|| ConnectError::config("the connection string names no host", "add host=…")))
    }

    fn login(&self, target: &Target, application_name: &str) -> Result<Login, ConnectError> {
        Ok(Login {
            endpoint: self.describe_one(target),
            user: self.user.clone(),
            dbname: self.dbname.clone(),
            application_name: self.application_name.clone().unwrap_or_else(|| application_name.to_owned()),
            options: self.options.clone(),
            channel_binding: self.channel_binding,
            wanted: self.wanted,
            password: self.passwords.find(&self.user, &self.dbname, target)?,
        })
    }

    /// Lists the addresses of a host, or the reason why there are none. There is always at least one entry.
    async fn addresses<'t>(&self, target: &'t Target, endpoint: &str) -> Vec<Result<Address<'t>, ConnectError>> {
        let unreachable = |source| ConnectError::Unreachable { endpoint: endpoint.to_owned(), source };
        let host = match &target.place {
            Place::Unix(dir) => return vec![Ok(Address::Unix(dir))],
            Place::Tcp(host) => host,
        };
        let looking = async { lookup_host((host.as_str(), target.port)).await.map_err(unreachable) };
        match self.in_time(endpoint, looking).await {
            Err(error) => vec![Err(error)],
            Ok(found) => {
                let mut addresses: Vec<SocketAddr> = found.collect();
                if self.random_order {
                    addresses.shuffle(&mut rand::rng());
                }
                if addresses.is_empty() {
                    return vec![Err(unreachable(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))];
                }
                addresses.into_iter().map(|address| Ok(Address::Tcp(address))).collect()
            }
        }
    }

    async fn transport(
        &self,
        target: &Target,
        address: Address<'_>,
        endpoint: &str,
    ) -> Result<Transport, ConnectError> {
        let unreachable = |source| ConnectError::Unreachable { endpoint: endpoint.to_owned(), source };
        match address {
            Address::Unix(dir) => {
                let socket = dir.join(format!(".s.PGSQL.{}", target.port));
                let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
                Ok(Transport::unix(stream, self.methods))
            }
            Address::Tcp(address) => {
                let mode = self.ssl.mode_for(target, Some(address.ip()));
                let tls = if mode == SslMode::Disable { None } else { Some(self.ssl.client_config(mode)?) };
                let tcp = open_tcp(address, &self.tcp).await.map_err(unreachable)?;
                let direct = self.ssl.is_direct();
                let (host, verifies, methods) = (target.name.as_str(), self.ssl.verifies(mode), self.methods);
                Transport::negotiate(tcp, &Negotiation { mode, direct, tls, host, endpoint, verifies, methods }).await
            }
        }
    }

    async fn in_time<T>(
        &self,
        endpoint: &str,
        attempt: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let Some(limit) = self.connect_timeout else { return attempt.await };
        let late = |_| ConnectError::TimedOut { endpoint: endpoint.to_owned(), seconds: limit.as_secs() };
        tokio::time::timeout(limit, attempt).await.map_err(late).flatten()
    }
}

enum Address<'t> {
    Tcp(SocketAddr),
    Unix(&'t Path),
}

fn worse(earlier: Option<ConnectError>, later: ConnectError) -> ConnectError {
    match earlier {
        Some(earlier) if earlier.outcome() == Outcome::Retry && later.outcome() != Outcome::Retry => earlier,
        _ => later,
    }
}
