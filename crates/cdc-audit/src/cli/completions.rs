//! `cdc-audit completions`.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::error::CliError;
use crate::output::print_exactly;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  source <(cdc-audit completions bash)\n  source <(cdc-audit completions zsh)\n  \
    cdc-audit completions fish | source\n\nFor all sessions, put the line into the file that your shell reads when it starts. \
    Debian's package brings the scripts for these three shells.")]
pub struct Args {
    /// The shell that will read the script.
    shell: Shell,
}

pub fn run(args: Args, command: &mut clap::Command) -> Result<ExitCode, CliError> {
    // The library panics where its writer fails, so it writes into memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "cdc-audit", &mut script);
    print_exactly(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
