//! `cdc-audit baseline`.

use std::process::ExitCode;

use audit_capture::baseline::{BaselineError, Requested, request};

use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::print;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit baseline public.orders\n  cdc-audit baseline public.orders public.users\n\n\
    All rows that the table has now are read once more, under the next number, and become versions with event `snapshot` in every sink. Needed \
    where changes did not come by the stream: the publication did not publish an operation for a time, or a partition was detached, dropped \
    or truncated. A running daemon begins within half a minute, a stopped one at its next start; `cdc-audit status` shows how far it is."
)]
pub struct Args {
    /// `schema.table`; several for several. The name alone serves where only one schema has such a table.
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    if !config.baseline.enabled {
        return Err(CliError::new("baselines are turned off")
            .hint("set baseline.enabled = true".to_string())
            .code(code::USAGE));
    }
    let source = &config.source;
    let client = audit_connect::connect(&source.endpoint, "cdc-audit baseline").await?;
    let sinks: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
    for table in &args.tables {
        let asked = request(&client, &source.name, &source.publication, &config.rules(), &sinks, table).await;
        let Requested { table, baseline, before } = asked.map_err(failed)?;
        let what = if before { "was asked for before" } else { "is asked for" };
        print(format!("baseline {baseline} of {table} {what}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn failed(error: BaselineError) -> CliError {
    let usage = matches!(error, BaselineError::NotPublished { .. } | BaselineError::NotWanted { .. });
    let told = CliError::from(error);
    if usage { told.code(code::USAGE) } else { told }
}
