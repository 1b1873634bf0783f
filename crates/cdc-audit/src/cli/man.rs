//! `cdc-audit man`, for those who make packages.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::CliError;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cdc-audit man --to /usr/local/share/man/man1")]
pub struct Args {
    /// The folder that the pages are written to; it is made if it is missing.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

pub fn run(args: Args, command: clap::Command) -> Result<ExitCode, CliError> {
    let failed = |error: std::io::Error| {
        CliError::new(format!("the manual pages cannot be written to {}", args.to.display())).detail(error.to_string())
    };
    std::fs::create_dir_all(&args.to).map_err(failed)?;
    clap_mangen::generate_to(command, &args.to).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}
