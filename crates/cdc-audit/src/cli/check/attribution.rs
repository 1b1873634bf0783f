//! `cdc-audit check --attribution`: the versions that do not say who or why, where their tables require it.

use std::process::ExitCode;

use audit_core::position::Micros;
use audit_core::shape::TableName;
use audit_core::stored::Record;
use audit_history::{Selection, Span, Timeline};
use futures::StreamExt;
use serde_json::json;

use crate::cli::export::time;
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{note, on_terminal, print_json, table};
use crate::role::Reader;
use crate::store::open;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// List the versions that name no actor or reason where `require_actor` or `require_reason` of their table asks for one.
    #[arg(long)]
    pub attribution: bool,
    /// Committed at or after: a date or RFC 3339 time. Default: 30 days ago.
    #[arg(long, value_parser = time, requires = "attribution")]
    since: Option<Micros>,
    /// Committed before.
    #[arg(long, value_parser = time, requires = "attribution")]
    until: Option<Micros>,
    /// The sink to read from. Default: hot tables and lake as one.
    #[arg(long, value_name = "SINK", requires = "attribution")]
    from: Option<String>,
    /// List at most so many; all are counted.
    #[arg(long, default_value_t = 100, requires = "attribution")]
    limit: usize,
    /// Connect to the hot sink's database as another role, which `setup --reader` made a reader. Default: the configured one, the daemon's,
    /// which may not read versions unless it owns them.
    #[arg(long = "as", value_name = "URL", requires = "attribution")]
    role: Option<String>,
}

/// Far enough back for a question that is asked every week.
const SINCE_MICROS: i64 = 30 * 86_400 * 1_000_000;

/// Exit code 0 only where nothing is missing. A table for people, one JSON object a line in a pipe.
pub async fn run(args: &Args, as_json: bool, config: &Config) -> Result<ExitCode, CliError> {
    let reader = Reader::new(args.role.clone());
    reader.check(config)?;
    let store = open(config, args.from.as_deref(), None, &reader).await?;
    let since = args.since.or(Some(Micros(Micros::now().0 - SINCE_MICROS)));
    let parts = store.parts(&config.source.name).await?;
    // Stores that keep tenants apart are not combined: then the parts say what is read.
    let read = parts.first().map_or(&store, |part| &part.store);
    note(read.coverage_of(&config.source.name, Span { since, until: args.until }).await?);
    let mut wanted = Vec::new();
    for part in parts.into_iter().filter(|part| !part.gaps_only) {
        let tables = required(config, &part.store).await?;
        wanted.extend(tables.into_iter().map(|table| (part.store.clone(), table)));
    }
    if wanted.is_empty() {
        let hint = "set require_actor or require_reason in [[tables]]".to_owned();
        return Err(CliError::new("no table with versions requires an actor or a reason").hint(hint).code(code::USAGE));
    }
    let as_json = as_json || !on_terminal();
    let mut rows = table(&["when", "table", "key", "event", "missing", "position"]);
    let mut count = 0;
    for (store, table) in wanted {
        let source = config.source.name.clone();
        let selection = Selection { source, table, since, until: args.until, unattributed: true, after: None };
        let mut records = store.versions(&selection).await?;
        while let Some(record) = records.next().await {
            let record = record?;
            count += 1;
            match (count <= args.limit, as_json) {
                (false, _) => {}
                (true, true) => print_json(&shown(&record))?,
                (true, false) => {
                    rows.add_row([
                        record.committed_at.to_string(),
                        record.table_name.clone(),
                        record.key.clone().unwrap_or_default(),
                        record.event.clone(),
                        record.missing().join(", "),
                        record.position.to_string(),
                    ]);
                }
            }
        }
    }
    if !as_json && count > 0 {
        rows.print()?;
    }
    eprintln!("{count} versions do not say what their tables require");
    Ok(if count == 0 { ExitCode::SUCCESS } else { ExitCode::from(code::NOT_READY) })
}

fn shown(record: &Record) -> serde_json::Value {
    json!({
        "position": record.position.to_string(), "table_name": record.table_name, "key": record.key, "event": record.event,
        "missing": record.missing(), "committed_at": record.committed_at.to_string(), "xid": record.xid, "context": record.context,
    })
}

/// The tables that have versions and require something of them.
async fn required(config: &Config, store: &Timeline) -> Result<Vec<String>, CliError> {
    let tables = store.tables(&config.source.name).await?;
    let rules = config.rules();
    let requires = |name: &String| {
        let (schema, table) = name.split_once('.').unwrap_or(("", name));
        let rule = rules.for_table(&TableName::new(schema.trim_matches('"'), table.trim_matches('"'))).rule;
        rule.require_actor.is_some() || rule.require_reason.is_some()
    };
    Ok(tables.into_iter().filter(requires).collect())
}
