//! `cdc-audit decrypt`.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, stdin};

use crate::access::{Purpose, report, revealer};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::print_exactly;
use crate::role::Reader;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit history public.users 42 --json | cdc-audit decrypt --as postgres://ann@audit.internal/audit\n  \
    cdc-audit decrypt versions.jsonl --purpose \"claim 4711\" --limit 50000 > plain.jsonl\n\nEvery value is first written to \
    cdc_audit.access_log: who, what, why, and whether it opened. Whose role may not write there, or may not unwrap the key, sees nothing."
)]
pub struct Args {
    /// A file of versions, one JSON record a line. Default: standard input.
    file: Option<PathBuf>,
    /// At most so many values.
    #[arg(long, default_value_t = 10_000, value_name = "VALUES")]
    limit: u64,
    #[command(flatten)]
    purpose: Purpose,
    #[command(flatten)]
    reader: Reader,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    args.reader.check(config)?;
    let mut revealer = revealer((&args.purpose, &args.reader), config, "decrypt", args.limit).await?;
    let unreadable = |error: std::io::Error| CliError::new("the versions cannot be read").detail(error.to_string());
    let input: Box<dyn AsyncRead + Unpin> = match &args.file {
        Some(path) => Box::new(File::open(path).await.map_err(|error| unreadable(error).code(code::USAGE))?),
        None => Box::new(stdin()),
    };
    let mut lines = BufReader::new(input).lines();
    while let Some(line) = lines.next_line().await.map_err(unreadable)? {
        if !line.trim().is_empty() {
            print_exactly(revealer.line(&line).await?)?;
        }
    }
    report(&revealer)?;
    Ok(ExitCode::SUCCESS)
}
