//! Who asks for plain values, and why: the arguments that `history --decrypt` and `decrypt` share.

use audit_keys::{Access, Opener};

use crate::cli::admin::endpoint;
use crate::config::Config;
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
    /// Connection string of a role for the key store and its access log, which notes the role. Default: the configured one.
    #[arg(long = "as", value_name = "URL")]
    role: Option<String>,
}

/// Who may open values, ready to do so. Nothing is asked of a key service yet.
pub fn revealer(purpose: &Purpose, config: &Config, action: &str, limit: u64) -> Result<Revealer, CliError> {
    let keys = &config.protection.keys;
    if keys.is_empty() {
        return Err(CliError::new("there are no keys in the configuration")
            .hint("add [protection.keys.CLASS] as the daemon has it".to_owned())
            .code(code::USAGE));
    }
    let store = match &purpose.role {
        Some(url) => endpoint("--as", url)?,
        None => config.key_store().clone(),
    };
    let opener = Opener::new(keys, store, &format!("cdc-audit {action}"));
    let opener = opener.map_err(|error| CliError::of(&error).hint(error.hint()))?;
    let os_user = whoami::username().map_err(|error| {
        CliError::new("the access log wants a name, and the system has none for you").detail(error.to_string())
    })?;
    let access = Access {
        os_user,
        requested_by: purpose.on_behalf_of.clone(),
        action: action.to_owned(),
        purpose: purpose.purpose.clone(),
    };
    Ok(Revealer::new(opener, access, config.rules(), config.domains(), limit))
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
