//! `cdc-audit history`.

use std::process::ExitCode;

use audit_core::stored::Record;
use audit_history::Store;
use serde_json::value::RawValue;

use crate::cli::access::{Purpose, report, revealer};
use crate::cli::output::{argument, print, print_json, table};
use crate::cli::store::open;
use crate::config::Config;
use crate::error::{CliError, code};
use crate::reveal::Revealer;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit history public.orders 42\n  cdc-audit history public.order_items '[42,3]'      a key of two columns\n  \
    cdc-audit history public.orders 42 --from archive --json\n  \
    cdc-audit history public.users 42 --decrypt --purpose \"claim 4711\""
)]
pub struct Args {
    /// `schema.table`.
    table: String,
    /// The row's key: of one column its text, of more a JSON array in key order. `-`: a line of standard input, which no other user of the
    /// machine can see.
    key: String,
    /// The sink to read from. Default: a hot one, else a lake.
    #[arg(long, value_name = "SINK")]
    from: Option<String>,
    /// Only what this tenant has, in a sink that keeps tenants apart. `-`: a line of standard input.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// At most so many versions.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// One JSON record a line.
    #[arg(long)]
    json: bool,
    /// Show encrypted values in plain; each is written to the access log first.
    #[arg(long)]
    decrypt: bool,
    #[command(flatten)]
    purpose: Purpose,
}

pub async fn run(mut args: Args, config: &Config) -> Result<ExitCode, CliError> {
    args.key = argument(args.key)?;
    args.tenant = args.tenant.map(argument).transpose()?;
    let store = open(config, args.from.as_deref(), args.tenant.as_deref()).await?;
    let failed = |error: audit_history::StoreError| CliError::of(&error).hint(error.hint());
    let tables = store.tables(&config.source.name).await.map_err(failed)?;
    if !tables.contains(&args.table) {
        let hint = if tables.is_empty() {
            "no table has versions yet".to_string()
        } else {
            format!("tables with versions: {}", tables.join(", "))
        };
        return Err(CliError::new(format!("there are no versions of {}", args.table)).hint(hint).code(code::USAGE));
    }
    let key = stored_key(&args, config, &store).await?;
    let records = store.history(&config.source.name, &args.table, &key, args.limit).await.map_err(failed)?;
    let mut revealer = match args.decrypt {
        true => Some(revealer(&args.purpose, config, "history", u64::MAX)?),
        false => None,
    };
    let records = match &mut revealer {
        Some(revealer) => reveal(revealer, records).await?,
        None => records,
    };
    if args.json {
        records.iter().try_for_each(print_json)?;
    } else {
        show(&args, &records)?;
    }
    revealer.as_ref().map_or(Ok(()), report)?;
    Ok(ExitCode::SUCCESS)
}

async fn reveal(revealer: &mut Revealer, records: Vec<Record>) -> Result<Vec<Record>, CliError> {
    let mut plain = Vec::with_capacity(records.len());
    for record in records {
        plain.push(revealer.record(record).await?);
    }
    Ok(plain)
}

/// The key as it is stored: of several columns a JSON array without spaces, and what is protected as its HMAC. Who knows the raw key, and may
/// read the row key, can still ask for it.
async fn stored_key(args: &Args, config: &Config, store: &Store) -> Result<String, CliError> {
    let shape =
        store.shape(&config.source.name, &args.table).await.map_err(|error| CliError::of(&error).hint(error.hint()))?;
    let Some(shape) = shape else { return Ok(args.key.clone()) };
    let rules = config.rules().for_table(&shape.name());
    let is_protected =
        |name: &str| shape.columns.iter().any(|column| column.name == name && !rules.methods(column).is_empty());
    let names = rules.rule.key.as_ref().unwrap_or(&shape.key);
    let row_key = match names.iter().any(|column| is_protected(column)) {
        true => config.policy().map_err(|error| CliError::of(&error).hint(error.hint()))?.row_key,
        false => None,
    };
    let hashed = |column: &str, text: &str| {
        let key = row_key.as_ref().filter(|_| is_protected(column))?;
        Some(key.hash(&args.table, column, text.as_bytes()))
    };
    match names.as_slice() {
        [] => Ok(args.key.clone()),
        [column] => Ok(hashed(column, &args.key).unwrap_or_else(|| args.key.clone())),
        columns => {
            let parts: Option<Vec<&RawValue>> = serde_json::from_str(&args.key).ok();
            let parts = parts.filter(|parts| parts.len() == columns.len()).ok_or_else(|| {
                CliError::new(format!("the key of this table is ({})", columns.join(", ")))
                    .hint("give a JSON array in that order, such as '[42,\"a\"]'".to_string())
                    .code(code::USAGE)
            })?;
            let part = |(column, part): (&String, &RawValue)| {
                // Numbers stay text, for their digits.
                let string = serde_json::from_str::<String>(part.get()).ok();
                let text = string.as_deref().unwrap_or(part.get());
                match hashed(column, text).or(string.clone()) {
                    Some(text) => serde_json::Value::from(text).to_string(),
                    None => text.to_string(),
                }
            };
            let parts: Vec<String> = columns.iter().zip(parts).map(part).collect();
            Ok(format!("[{}]", parts.join(",")))
        }
    }
}

fn show(args: &Args, records: &[Record]) -> Result<(), CliError> {
    if records.is_empty() {
        return print(format!("{} {}: no versions.", args.table, args.key));
    }
    let mut rows = table(&["when", "event", "who", "what", "why"]);
    for record in records {
        let who = record.actor_id.clone().unwrap_or_default();
        let caution = if record.actor_source.as_deref() == Some("row_unchanged") { "?" } else { "" };
        let key = record.old_key.as_ref().map(|old| format!(" (key was {old})")).unwrap_or_default();
        rows.add_row([
            record.committed_at.to_string().replace('T', " ").trim_end_matches('Z').to_string(),
            record.event.clone(),
            format!("{who}{caution}"),
            format!("{}{key}", record.summary),
            record.reason.clone().unwrap_or_default(),
        ]);
    }
    rows.print()?;
    if records.len() as u32 == args.limit {
        print(format!("The newest {}; older ones with --limit.", args.limit))?;
    }
    Ok(())
}
