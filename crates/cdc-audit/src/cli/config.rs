//! `cdc-audit config`.

use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;
use crate::error::CliError;
use crate::output::print;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cdc-audit config > config.toml\n  cdc-audit config --effective")]
pub struct Args {
    /// Print what is in force, from the file and the defaults; secrets only by reference.
    #[arg(long)]
    effective: bool,
}

pub fn run(args: Args, path: &Path) -> Result<ExitCode, CliError> {
    if args.effective {
        let config = Config::load(path)?;
        let text = audit_config::effective(&config)
            .map_err(|error| CliError::new("the configuration cannot be shown").detail(error.to_string()))?;
        print(text.trim_end())?;
    } else {
        print(audit_config::reference::<Config>().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
