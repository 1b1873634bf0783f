//! `cdc-audit history`.

use std::process::ExitCode;

use audit_core::shape::TableName;
use audit_core::stored::Record;
use audit_history::Store;

use crate::cli::output::{print, print_json, table, wants_json};
use crate::cli::store::open;
use crate::config::Config;
use crate::error::{CliError, code};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit history public.orders 42\n  cdc-audit history public.order_items '[42,3]'      a key of two columns\n  \
    cdc-audit history public.orders 42 --from archive --json"
)]
pub struct Args {
    /// `schema.table`.
    table: String,
    /// The row's key: of one column its text, of more a JSON array in key order.
    key: String,
    /// The sink to read from. Default: a hot one, else a lake.
    #[arg(long, value_name = "SINK")]
    from: Option<String>,
    /// At most so many versions.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// One JSON record a line.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let store = open(config, args.from.as_deref()).await?;
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
    if wants_json(args.json) {
        records.iter().try_for_each(print_json)?;
    } else {
        show(&args, &records)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A protected key is stored as its HMAC: who knows the raw key, and may read the row key, can still ask for it.
async fn stored_key(args: &Args, config: &Config, store: &Store) -> Result<String, CliError> {
    let names = store
        .key_columns(&config.source.name, &args.table)
        .await
        .map_err(|error| CliError::of(&error).hint(error.hint()))?;
    let (schema, name) = args.table.split_once('.').unwrap_or(("", &args.table));
    let rules = config.rules().for_table(&TableName::new(schema.trim_matches('"'), name.trim_matches('"')));
    let protected = |column: &String| rules.method(column).is_some();
    if !names.iter().any(protected) {
        return Ok(args.key.clone());
    }
    let policy = config.policy().map_err(|error| CliError::of(&error).hint(error.hint()))?;
    let Some(key) = policy.row_key else { return Ok(args.key.clone()) };
    match names.as_slice() {
        [column] => Ok(key.hash(&args.table, column, args.key.as_bytes())),
        columns => {
            let parts: Vec<serde_json::Value> = serde_json::from_str(&args.key).map_err(|_| {
                CliError::new("the key of this table has several columns")
                    .hint("give a JSON array in key order".to_string())
                    .code(code::USAGE)
            })?;
            let hashed = columns.iter().zip(parts).map(|(column, part)| match part {
                part if !protected(column) => part,
                serde_json::Value::String(text) => key.hash(&args.table, column, text.as_bytes()).into(),
                other => key.hash(&args.table, column, other.to_string().as_bytes()).into(),
            });
            Ok(serde_json::Value::from_iter(hashed).to_string())
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
    print(rows)?;
    if records.len() as u32 == args.limit {
        print(format!("The newest {}; older ones with --limit.", args.limit))?;
    }
    Ok(())
}
