//! Who asks for plain values, and why: the arguments that `history --decrypt` and `decrypt` share.

use audit_keys::{Access, Opener};

use crate::config::Config;
use crate::error::{CliError, code};
use crate::reveal::Revealer;
use crate::role::{Reader, os_user};

#[derive(Debug, clap::Args)]
pub struct Purpose {
    /// Why: it becomes part of the access log, and more than 100 values are not opened without it.
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    /// In whose name, where that is not yours; it becomes part of the access log.
    #[arg(long, value_name = "NAME")]
    on_behalf_of: Option<String>,
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
    let store = reader.endpoint(config.key_store())?;
    let opener = Opener::new(keys, store, &format!("cdc-audit {action}"))?;
    if opener.may_add_keys().await? {
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
