//! `cdc-audit resume`.

use std::process::ExitCode;

use audit_core::position::Position;

use crate::cli::output::print;
use crate::config::Config;
use crate::error::{CliError, code};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cdc-audit resume --sink hot --quarantine 0001:0000000016b37430:0000000002\n\nThe version is not \
    written to that sink; a record with event `error` stands at its position instead. A running daemon sees it within seconds."
)]
pub struct Args {
    /// The sink that refuses the version; `all` for a change that cannot be decoded.
    #[arg(long)]
    sink: String,
    /// The position, as the error names it.
    #[arg(long, value_name = "POSITION")]
    quarantine: Position,
    /// Why, for those who find the record later.
    #[arg(long, default_value = "")]
    note: String,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    if args.sink != "all" && !config.sinks.contains_key(&args.sink) {
        let names: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
        return Err(CliError::new(format!("there is no sink {}", args.sink))
            .hint(format!("the sinks are {}; `all` means every one", names.join(", ")))
            .code(code::USAGE));
    }
    let client = audit_connect::connect(&config.source.endpoint, "cdc-audit resume").await?;
    let insert = "INSERT INTO cdc_audit.quarantine (source, sink, position, note) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    let position = args.quarantine.to_string();
    let added = client.execute(insert, &[&config.source.name, &args.sink, &position, &args.note]).await?;
    let what = if added == 1 { "given up" } else { "was given up before" };
    print(format!("{position} {what} for {}", args.sink))?;
    Ok(ExitCode::SUCCESS)
}
