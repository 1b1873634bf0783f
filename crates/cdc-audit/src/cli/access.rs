//! Who asks for plain values, and why: the arguments that `history --decrypt` and `decrypt` share.

use audit_connect::PgEndpoint;
use audit_keys::{Access, KeyError, Opener};

use crate::cli::admin::{database, endpoint};
use crate::config::{Config, SinkConfig};
use crate::error::{CliError, code};
use crate::reveal::Revealer;

#[derive(Debug, clap::Args)]
pub struct Purpose {
    /// Why: it becomes part of the access log, and more than 100 values are not opened without it.
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    /// In whose name, where that is not yours; it becomes part of the access log.
    #[arg(long, value_name = "NAME")]
    on_behalf_of: Option<String>,
}

/// As whom a person reads.
#[derive(Debug, Default, clap::Args)]
pub struct Reader {
    /// Connect to the hot sink's database and to the key store's as another role, which `setup --reader` made a reader; the access log
    /// notes it. Default: the configured one, which is the daemon's.
    #[arg(long = "as", value_name = "URL")]
    role: Option<String>,
}

impl Reader {
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
        let hot = config.sinks.values().filter_map(|sink| match sink {
            SinkConfig::Hot(hot) => Some(&hot.endpoint),
            _ => None,
        });
        let keys = (!config.protection.keys.is_empty()).then(|| config.key_store());
        if hot.chain(keys).any(|known| database(known) == asked) {
            return Ok(());
        }
        Err(CliError::new("--as names a database with neither a hot sink nor the key store")
            .hint("give the address as the configuration has it, with another role".to_owned())
            .code(code::USAGE))
    }
}

/// Who may open values, ready to do so. Nothing is asked of a key service yet.
pub async fn revealer(
    (purpose, reader): (&Purpose, &Reader),
    config: &Config,
    action: &str,
    limit: u64,
) -> Result<Revealer, CliError> {
    let keys = &config.protection.keys;
    if keys.is_empty() {
        return Err(CliError::new("there are no keys in the configuration")
            .hint("add [protection.keys.CLASS] as the daemon has it".to_owned())
            .code(code::USAGE));
    }
    let failed = |error: KeyError| CliError::of(&error).hint(error.hint());
    let store = reader.endpoint(config.key_store())?;
    let opener = Opener::new(keys, store, &format!("cdc-audit {action}")).map_err(failed)?;
    if opener.may_add_keys().await.map_err(failed)? {
        eprintln!(
            "warning: you open values with a role that may add keys, as the daemon's: it may do far more than read, and the access log \
             cannot tell its users apart\n  hint: run `cdc-audit setup --reader ROLE`, and read with --as"
        );
    }
    let access = Access {
        os_user: os_user()?,
        requested_by: purpose.on_behalf_of.clone(),
        action: action.to_owned(),
        purpose: purpose.purpose.clone(),
    };
    Ok(Revealer::new(opener, access, config.rules(), config.domains(), limit))
}

/// Who runs this program, as it is recorded.
pub fn os_user() -> Result<String, CliError> {
    whoami::username().map_err(|error| {
        CliError::new("it is recorded who does this, and the system has no name for you").detail(error.to_string())
    })
}

/// What a person should know when values stayed closed. The exit code says it too.
pub fn report(revealer: &Revealer) -> Result<(), CliError> {
    let failed: u64 = revealer.failed().values().sum();
    if failed == 0 {
        return Ok(());
    }
    let error = CliError::new(format!("{failed} of {} values were not opened", revealer.opened()));
    let reasons = revealer.failed().iter().map(|(why, count)| format!("{count}: {why}"));
    Err(reasons.fold(error, CliError::detail))
}
