//! Interprets a connection string: [`ConnectConfig`].

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, Host, LoadBalanceHosts, SslNegotiation};

use crate::error::ConnectError;
use crate::methods::Methods;
use crate::parse::Options;
use crate::password::{Configured, PasswordSources};
use crate::ssl::SslOptions;
use crate::target::{Place, Target};

/// Time that one address may take from the first packet to the open session, unless `connect_timeout` says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The socket folders of Debian's servers and of PostgreSQL's own default.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Options that libpq accepts and this program does not. They are listed so that the error does not call them unknown.
const UNSUPPORTED: [&str; 12] = [
    "gsslib",
    "krbsrvname",
    "oauth_client_id",
    "oauth_issuer",
    "replication",
    "requirepeer",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
];

/// Options that we interpret ourselves, because the driver does not know them or knows fewer of their values.
const OURS: [&str; 9] = [
    "connect_timeout",
    "passfile",
    "require_auth",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// Options that the driver understands.
const DRIVER: [&str; 15] = [
    "application_name",
    "channel_binding",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslnegotiation",
    "user",
];

/// Everything that a connection string says, with defaults filled in.
#[derive(Clone)]
pub struct ConnectConfig {
    pub(crate) targets: Vec<Target>,
    pub(crate) user: String,
    pub(crate) dbname: String,
    pub(crate) application_name: Option<String>,
    pub(crate) options: Option<String>,
    pub(crate) passwords: PasswordSources,
    pub(crate) ssl: SslOptions,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) wanted: Wanted,
    pub(crate) methods: Option<Methods>,
    pub(crate) random_order: bool,
    /// `None` means no limit.
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) tcp: TcpOptions,
}

#[derive(Clone, Debug)]
pub(crate) struct TcpOptions {
    pub(crate) keepalive: Option<socket2::TcpKeepalive>,
    pub(crate) user_timeout: Option<Duration>,
}

/// `target_session_attrs`: the kind of server that is accepted from a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
}

impl Wanted {
    fn parse(text: &str) -> Option<Wanted> {
        Some(match text {
            "any" => Wanted::Any,
            "read-write" => Wanted::ReadWrite,
            "read-only" => Wanted::ReadOnly,
            "primary" => Wanted::Primary,
            "standby" => Wanted::Standby,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Wanted::Any => "any",
            Wanted::ReadWrite => "read-write",
            Wanted::ReadOnly => "read-only",
            Wanted::Primary => "primary",
            Wanted::Standby => "standby",
        }
    }

    /// Returns the query to run in a session, and the answer of an acceptable server. `None` if any server is
    /// acceptable.
    pub(crate) fn question(self) -> Option<(&'static str, &'static str)> {
        const READ_ONLY: &str = "SHOW transaction_read_only";
        const STANDBY: &str = "SELECT pg_catalog.pg_is_in_recovery()";
        match self {
            Wanted::Any => None,
            Wanted::ReadWrite => Some((READ_ONLY, "off")),
            Wanted::ReadOnly => Some((READ_ONLY, "on")),
            Wanted::Primary => Some((STANDBY, "f")),
            Wanted::Standby => Some((STANDBY, "t")),
        }
    }
}

impl ConnectConfig {
    pub(crate) fn new(url: &str, password: Option<Configured>) -> Result<ConnectConfig, ConnectError> {
        let mut options = Options::parse(url)?;
        take_without_effect(&mut options)?;
        let ssl = SslOptions::take(&mut options)?;
        let wanted = take_wanted(&mut options)?;
        let methods = options.take("require_auth").map(|text| Methods::parse(&text)).transpose()?;
        let user_timeout = take_milliseconds(&mut options, "tcp_user_timeout")?;
        let connect_timeout = take_connect_timeout(&mut options)?;
        let passfile = options.take("passfile").map(PathBuf::from);
        options.rename("keepalives_count", "keepalives_retries");
        let default_idle = options.names().all(|name| name != "keepalives_idle");
        refuse_unknown(&options)?;

        let driver: tokio_postgres::Config = options.driver_text().parse().map_err(refused_by_driver)?;
        let user = match driver.get_user() {
            Some(user) => user.to_owned(),
            None => operating_system_user()?,
        };
        let keepalive = driver.get_keepalives().then(|| keepalive(&driver, default_idle));
        Ok(ConnectConfig {
            targets: targets(&driver)?,
            dbname: driver.get_dbname().unwrap_or(&user).to_owned(),
            user,
            application_name: driver.get_application_name().map(str::to_owned),
            options: driver.get_options().map(str::to_owned),
            passwords: PasswordSources::new(password, driver.get_password(), passfile),
            ssl: ssl.with_direct(driver.get_ssl_negotiation() == SslNegotiation::Direct)?,
            channel_binding: driver.get_channel_binding(),
            wanted,
            methods,
            random_order: driver.get_load_balance_hosts() == LoadBalanceHosts::Random,
            connect_timeout,
            tcp: TcpOptions { keepalive, user_timeout },
        })
    }

    /// Describes the target as `user@host:port/database`, with all hosts of the list.
    pub fn describe(&self) -> String {
        let hosts: Vec<String> = self.targets.iter().map(|target| format!("{}:{}", target.name, target.port)).collect();
        format!("{}@{}/{}", self.user, hosts.join(","), self.dbname)
    }

    pub(crate) fn describe_one(&self, target: &Target) -> String {
        format!("{}@{}:{}/{}", self.user, target.name, target.port, self.dbname)
    }

    /// Lists the servers on other machines whose identity is not verified: anyone on the network path can read and
    /// alter what is sent.
    pub fn unverified(&self) -> Vec<String> {
        let remote =
            self.targets.iter().filter(|target| matches!(target.place, Place::Tcp(_)) && !target.is_loopback());
        let unverified = remote.filter(|target| !self.ssl.verifies(self.ssl.mode_for(target, None)));
        unverified.map(|target| format!("{}:{}", target.name, target.port)).collect()
    }

    /// The database that sessions are opened in.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// The role that sessions are opened as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Sets the time after which a connection is lost if sent data stays unacknowledged, unless the connection string
    /// has its own `tcp_user_timeout`.
    pub fn or_tcp_user_timeout(mut self, timeout: Duration) -> ConnectConfig {
        self.tcp.user_timeout = self.tcp.user_timeout.or(Some(timeout));
        self
    }
}

/// Shows the target without the password.
impl fmt::Debug for ConnectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectConfig").field(&self.describe()).finish()
    }
}

/// Takes out options of libpq that have no effect here, and refuses values of them that would have one.
fn take_without_effect(options: &mut Options) -> Result<(), ConnectError> {
    options.take("fallback_application_name");
    options.take("sslcompression");
    for (name, accepted) in [
        ("gssencmode", &["disable", "prefer"][..]),
        ("client_encoding", &["auto", "UTF8", "utf8", "UTF-8", "utf-8"]),
        ("sslsni", &["1"]),
    ] {
        if options.take(name).is_some_and(|value| !accepted.contains(&value.as_str())) {
            return Err(invalid(name, &accepted.join(" or ")));
        }
    }
    Ok(())
}

fn take_wanted(options: &mut Options) -> Result<Wanted, ConnectError> {
    let Some(text) = options.take("target_session_attrs") else { return Ok(Wanted::Any) };
    let known = "any, read-write, read-only, primary or standby";
    Wanted::parse(&text).ok_or_else(|| invalid("target_session_attrs", known))
}

fn take_milliseconds(options: &mut Options, name: &str) -> Result<Option<Duration>, ConnectError> {
    let Some(text) = options.take(name) else { return Ok(None) };
    let number: u64 = text.parse().map_err(|_| invalid(name, "a number of milliseconds"))?;
    Ok(Some(number).filter(|&number| number > 0).map(Duration::from_millis))
}

/// Takes out `connect_timeout`. As in libpq, 0 and less mean no limit.
fn take_connect_timeout(options: &mut Options) -> Result<Option<Duration>, ConnectError> {
    let Some(text) = options.take("connect_timeout") else { return Ok(Some(CONNECT_TIMEOUT)) };
    let seconds: i64 = text.parse().map_err(|_| invalid("connect_timeout", "a number of seconds"))?;
    Ok(u64::try_from(seconds).ok().filter(|&seconds| seconds > 0).map(Duration::from_secs))
}

fn refuse_unknown(options: &Options) -> Result<(), ConnectError> {
    for name in options.names() {
        if UNSUPPORTED.contains(&name) {
            let what = format!("the connection option {name} is not supported");
            return Err(ConnectError::config(what, "remove it from the connection string"));
        }
        if !DRIVER.contains(&name) {
            let known = DRIVER.iter().chain(&OURS);
            let distance = |known: &str| strsim::damerau_levenshtein(known, name);
            let nearest = known.min_by_key(|known| distance(known)).filter(|known| distance(known) <= 3);
            // ⚠ The name may be a piece of a password that was not quoted, so it is not shown next to a password.
            let secret = options.names().any(|name| name == "password");
            let what = if secret {
                "unknown connection option".to_owned()
            } else {
                format!("unknown connection option {name}")
            };
            let hint = match (nearest, secret) {
                (Some(nearest), _) => format!("did you mean {nearest}?"),
                (None, true) => "remove it, or put the password into single quotes".to_owned(),
                (None, false) => "remove it from the connection string".to_owned(),
            };
            return Err(ConnectError::config(what, hint));
        }
    }
    Ok(())
}

/// Passes on the driver's error, which names the option but never its value.
fn refused_by_driver(error: tokio_postgres::Error) -> ConnectError {
    let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
    ConnectError::config(format!("invalid connection string: {why}"), "see the manual of libpq, \"Connection Strings\"")
}

fn invalid(name: &str, expected: &str) -> ConnectError {
    ConnectError::config(format!("invalid value of the connection option {name}"), format!("it takes {expected}"))
}

fn operating_system_user() -> Result<String, ConnectError> {
    whoami::username()
        .map_err(|_| ConnectError::config("the connection string names no user", "write postgres://USER@host/database"))
}

fn targets(driver: &tokio_postgres::Config) -> Result<Vec<Target>, ConnectError> {
    let (hosts, addresses, ports) = (driver.get_hosts(), driver.get_hostaddrs(), driver.get_ports());
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(ConnectError::config("host and hostaddr have different numbers of entries", "give one of each"));
    }
    let default: Vec<Host> = SOCKET_DIRS.iter().map(|dir| Host::Unix(PathBuf::from(dir))).collect();
    let hosts = if hosts.is_empty() && addresses.is_empty() { &default } else { hosts };
    let count = hosts.len().max(addresses.len());
    if ports.len() > 1 && ports.len() != count {
        return Err(ConnectError::config(
            "host and port have different numbers of entries",
            "give one port, or one each",
        ));
    }
    let target = |i: usize| {
        let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
        let address = addresses.get(i).map(ToString::to_string);
        let (name, place) = match (hosts.get(i), address) {
            (Some(Host::Unix(dir)), _) => (dir.to_string_lossy().into_owned(), Place::Unix(dir.clone())),
            (Some(Host::Tcp(name)), address) => (name.clone(), Place::Tcp(address.unwrap_or_else(|| name.clone()))),
            (None, address) => {
                let address = address.unwrap_or_default();
                (address.clone(), Place::Tcp(address))
            }
        };
        Target { name, place, port }
    };
    Ok((0..count).map(target).collect())
}

/// Makes the kernel notice a dead peer after two minutes instead of its default of two hours.
fn keepalive(driver: &tokio_postgres::Config, default_idle: bool) -> socket2::TcpKeepalive {
    let idle = if default_idle { Duration::from_secs(60) } else { driver.get_keepalives_idle() };
    socket2::TcpKeepalive::new()
        .with_time(idle)
        .with_interval(driver.get_keepalives_interval().unwrap_or(Duration::from_secs(10)))
        .with_retries(driver.get_keepalives_retries().unwrap_or(6))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
