//! The configuration of a PostgreSQL server: [`PgEndpoint`].

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::ConnectConfig;
use crate::error::ConnectError;
use crate::password::Configured;

/// A PostgreSQL server and how to log in. Whatever in the configuration names a database embeds it (`#[serde(flatten)]`).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PgEndpoint {
    /// Connection string as psql takes it: `postgres://user@host:port/database?option=value`, or
    /// `host=… port=… user=… dbname=…`. Several hosts, and Unix sockets (`host=/run/postgresql`), are fine. TLS is
    /// verified in full (`sslmode=verify-full`) unless the host is this machine or `sslmode` says otherwise; the CA is
    /// the system's, or `sslrootcert`. A password itself, or its MD5 hash, goes to no server that TLS has not verified,
    /// unless `require_auth` allows the method. User and password are percent-encoded. Keep the password out of it: `password_file`, `password_env`, PGPASSWORD and
    /// PGPASSFILE are better places.
    #[schemars(example = &"postgres://cdc_audit@db.internal/shop")]
    pub url: String,

    /// File that holds the password and nothing else; read at each connect, so it can be changed at any time.
    #[serde(default)]
    #[schemars(example = &"/run/secrets/cdc_audit_password")]
    pub password_file: Option<PathBuf>,

    /// Name of the environment variable that holds the password.
    #[serde(default)]
    #[schemars(example = &"CDC_AUDIT_PASSWORD")]
    pub password_env: Option<String>,
}

impl PgEndpoint {
    /// Makes an endpoint whose password, if it needs one, comes from libpq's usual places.
    pub fn new(url: impl Into<String>) -> PgEndpoint {
        PgEndpoint { url: url.into(), password_file: None, password_env: None }
    }

    /// Parses the connection string. Opens nothing and reads no file.
    ///
    /// # Errors
    /// Fails with [`ConnectError::Config`] if the string is invalid or says something that we do not support.
    pub fn parse(&self) -> Result<ConnectConfig, ConnectError> {
        let password = Configured::new(self.password_file.as_deref(), self.password_env.as_deref())?;
        ConnectConfig::new(&self.url, password)
    }

    /// Describes the server as `user@host:port/database`, for messages.
    pub fn describe(&self) -> String {
        self.parse().map_or_else(|_| "(unreadable connection string)".to_owned(), |config| config.describe())
    }

    /// Returns the reason why anyone on the network path could impersonate the server, and what to do about it. `None`
    /// if nobody could.
    pub fn unverified(&self) -> Option<(String, String)> {
        let servers = self.parse().map(|parsed| parsed.unverified()).unwrap_or_default();
        if servers.is_empty() {
            return None;
        }
        let message = format!("nothing verifies {}: anyone on the way can pose as it", servers.join(" and "));
        let fix = "set sslmode=verify-full in the url, with sslrootcert=FILE where the CA is your own";
        Some((message, fix.to_owned()))
    }
}

/// Shows the endpoint without the password that the URL may contain.
impl fmt::Debug for PgEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgEndpoint")
            .field("url", &self.describe())
            .field("password_file", &self.password_file)
            .field("password_env", &self.password_env)
            .finish()
    }
}
