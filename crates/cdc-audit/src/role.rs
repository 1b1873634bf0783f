//! As whom a person acts: the role in a database, and the user of the operating system.

use audit_connect::PgEndpoint;

use crate::config::Config;
use crate::error::{CliError, code};

/// As whom a person reads.
#[derive(Debug, Default, clap::Args)]
pub struct Reader {
    /// Connect to the hot sink's database and to the key store's as another role, which `setup --reader` made a reader; the access log
    /// notes it. Default: the configured one, which is the daemon's.
    #[arg(long = "as", value_name = "URL")]
    role: Option<String>,
}

impl Reader {
    pub fn new(role: Option<String>) -> Reader {
        Reader { role }
    }

    /// The connection to a database: as the role that was given, where it is in that database.
    pub fn endpoint(&self, configured: &PgEndpoint) -> Result<PgEndpoint, CliError> {
        match &self.role {
            Some(url) => {
                let asked = endpoint("--as", url)?;
                Ok(if database(&asked) == database(configured) { asked } else { configured.clone() })
            }
            None => Ok(configured.clone()),
        }
    }

    /// Refuses a role that would be used nowhere.
    pub fn check(&self, config: &Config) -> Result<(), CliError> {
        let Some(url) = &self.role else { return Ok(()) };
        let asked = database(&endpoint("--as", url)?);
        let hot = config.hot_sinks().map(|hot| &hot.endpoint);
        let keys = (!config.protection.keys.is_empty()).then(|| config.key_store());
        if hot.chain(keys).any(|known| database(known) == asked) {
            return Ok(());
        }
        Err(CliError::new("--as names a database with neither a hot sink nor the key store")
            .hint("give the address as the configuration has it, with another role".to_owned())
            .code(code::USAGE))
    }
}

/// A connection string from the command line, where everybody on the machine can read it.
pub fn endpoint(option: &str, url: &str) -> Result<PgEndpoint, CliError> {
    if audit_config::redact(url) != url {
        return Err(CliError::new(format!("{option}: no password on the command line"))
            .hint("put it into ~/.pgpass (or the file that PGPASSFILE names), or into PGPASSWORD".to_owned())
            .code(code::USAGE));
    }
    Ok(PgEndpoint::new(url))
}

/// Hosts, port and database, without the role.
pub fn database(endpoint: &PgEndpoint) -> String {
    let described = endpoint.describe();
    described.split_once('@').map_or(described.clone(), |(_, place)| place.to_owned())
}

/// Who runs this program, as it is recorded.
pub fn os_user() -> Result<String, CliError> {
    whoami::username().map_err(|error| {
        CliError::new("it is recorded who does this, and the system has no name for you").detail(error.to_string())
    })
}
