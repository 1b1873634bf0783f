//! `cdc-audit resume`.

use std::process::ExitCode;

use audit_capture::QueryError;
use audit_core::position::Position;
use audit_core::sink::ALL_SINKS;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::print;
use crate::role::{endpoint, os_user};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cdc-audit resume --sink hot --quarantine 0001:0000000016b37430:0000000002\n\nThe version is not \
    written to that sink; a record with event `error` stands at its position instead, with the row's key, who made the change, who \
    decided, when, and the note. A running daemon sees it within seconds.\n\nIt counts only where the sink refuses the version: one \
    that it takes is written, whatever was decided."
)]
pub struct Args {
    /// The sink that refuses the version; `all` for a change that cannot be decoded.
    #[arg(long)]
    sink: String,
    /// The position, as the error names it.
    #[arg(long, value_name = "POSITION")]
    quarantine: Position,
    /// Why, for those who find the record later.
    #[arg(long)]
    note: Option<String>,
    /// Connect to the source as another role; the record says which it was. A role without the rights for it is told the GRANT.
    #[arg(long = "as", value_name = "URL")]
    role: Option<String>,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    if args.sink != ALL_SINKS && !config.sinks.contains_key(&args.sink) {
        let names: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
        return Err(CliError::new(format!("there is no sink {}", args.sink))
            .hint(format!("the sinks are {}; `all` means every one", names.join(", ")))
            .code(code::USAGE));
    }
    let source = args.role.as_ref().map_or_else(|| Ok(config.source.endpoint.clone()), |url| endpoint("--as", url))?;
    let client = audit_connect::connect(&source, "cdc-audit resume").await?;
    let insert = "INSERT INTO cdc_audit.quarantine (source, sink, position, note, os_user) VALUES ($1, $2, $3, $4, $5) \
                  ON CONFLICT DO NOTHING";
    let (position, os_user) = (args.quarantine.to_string(), os_user()?);
    let added = client.execute(insert, &[&config.source.name, &args.sink, &position, &args.note, &os_user]).await;
    let added = match added {
        Ok(added) => added,
        Err(error) => return Err(refused(&client, QueryError::new("add to cdc_audit.quarantine", error)).await),
    };
    let what = if added == 1 { "is quarantined" } else { "was quarantined before" };
    print(format!("{position} {what} for {}", args.sink))?;
    Ok(ExitCode::SUCCESS)
}

/// A role other than the daemon's needs rights that `setup` gives nobody else: the hint is the statement that gives them.
async fn refused(client: &Client, error: QueryError) -> CliError {
    if error.sqlstate() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return error.into();
    }
    let role = client.query_one("SELECT pg_catalog.quote_ident(CURRENT_USER)", &[]).await;
    match role.and_then(|row| row.try_get::<_, String>(0)) {
        Ok(role) => CliError::from(error).hint(format!(
            "as the owner of schema cdc_audit run GRANT USAGE ON SCHEMA cdc_audit TO {role}; \
             GRANT INSERT (source, sink, position, note, os_user) ON cdc_audit.quarantine TO {role};"
        )),
        Err(_) => error.into(),
    }
}
