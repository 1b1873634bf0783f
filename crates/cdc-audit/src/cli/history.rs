//! `cdc-audit history`.

use std::process::ExitCode;

use audit_core::stored::Record;

use crate::access::{Purpose, report, revealer};
use crate::cli::subject::{self, KeyOf};
use crate::config::Config;
use crate::error::CliError;
use crate::output::{argument, print, print_json, table};
use crate::reveal::Revealer;
use crate::role::Reader;
use crate::store::open;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit history public.orders 42\n  cdc-audit history public.order_items 42,3      a key of two columns\n  \
    cdc-audit history public.orders 42 --from archive --json\n  \
    cdc-audit history public.users 42 --decrypt --purpose \"claim 4711\""
)]
pub struct Args {
    /// `schema.table`, or the table's name or label alone where only one table has it.
    table: String,
    /// The row's key: `42`; of several columns `42,3`, "order_id=42 line=3", or a JSON array. `-`: a line of standard input, which no other
    /// user of the machine can see.
    key: String,
    /// The sink to read from. Default: hot tables and lake as one.
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
    #[command(flatten)]
    reader: Reader,
}

pub async fn run(mut args: Args, config: &Config) -> Result<ExitCode, CliError> {
    args.key = argument(args.key)?;
    args.tenant = args.tenant.map(argument).transpose()?;
    args.reader.check(config)?;
    let store = open(config, args.from.as_deref(), args.tenant.as_deref(), &args.reader).await?;
    let table = subject::table(config, &store, &args.table).await?;
    let args = Args { table, ..args };
    let key = KeyOf::table(config, &store, &args.table).await?.stored(&args.key)?;
    let records = store.history(&config.source.name, &args.table, &key, args.limit).await?;
    let mut revealer = match args.decrypt {
        true => Some(revealer((&args.purpose, &args.reader), config, "history", u64::MAX).await?),
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

fn show(args: &Args, records: &[Record]) -> Result<(), CliError> {
    if records.is_empty() {
        return print(format!("{} {}: no versions.", args.table, args.key));
    }
    let mut rows = table(&["when (UTC)", "event", "who", "what", "why"]);
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
    if records.iter().any(|record| record.event == "updated" && !record.before_known) {
        print(format!(
            "What changed is not known where PostgreSQL sends no old rows. From now on it does after: \
             cdc-audit setup --replica-identity full --table {}",
            shell(&args.table)
        ))?;
    }
    if records.len() as u32 == args.limit {
        print(format!("The newest {}; older ones with --limit.", args.limit))?;
    }
    Ok(())
}

/// A word as a shell takes it.
fn shell(word: &str) -> String {
    match word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
