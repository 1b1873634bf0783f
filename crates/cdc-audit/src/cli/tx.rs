//! `cdc-audit tx`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use audit_core::position::Position;
use audit_core::search::Commit;
use audit_core::stored::Record;
use audit_history::transaction::{Transaction, Which, find};
use audit_history::{Coverage, Timeline};
use serde_json::json;

use super::covered::Strict;
use super::filters::clock;
use super::search::{actor, time, what};
use super::subject;
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{argument, print, table};
use crate::role::Reader;
use crate::store::{Explain, open_reachable};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit tx xid:7311\n  cdc-audit tx 0001:0000000016b37430:0000000002      the transaction of that version\n  \
    cdc-audit tx last --table orders --json\n\nNumbers of transactions are used again: all transactions that had the number are shown."
)]
pub struct Args {
    /// `xid:7311`, the position of one of its versions, or `last`.
    #[arg(value_name = "TRANSACTION")]
    which: String,
    /// With `last`: the last transaction that changed this table.
    #[arg(long)]
    table: Option<String>,
    /// The sink to read from. Default: a hot one, else a lake.
    #[arg(long, value_name = "SINK")]
    from: Option<String>,
    /// Only what this tenant has, in a sink that keeps tenants apart. `-`: a line of standard input.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// At most so many versions of each transaction.
    #[arg(long, default_value_t = 1_000)]
    limit: u64,
    /// The time zone of times that are shown. Default: the configured one, else UTC.
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// One JSON object a line for each transaction, with its versions.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    explain: Explain,
    #[command(flatten)]
    reader: Reader,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    args.reader.check(config)?;
    let which = which(&args.which)?;
    let clock = clock(args.tz.as_deref(), config)?;
    let tenant = args.tenant.clone().map(argument).transpose()?;
    let store = open_reachable(config, args.from.as_deref(), tenant.as_deref(), &args.reader).await?;
    args.explain.begin(&store);
    let source = &config.source.name;
    let all = store.tables(source).await?;
    let asked = match &args.table {
        Some(name) => vec![subject::named(name, &all, &config.rules())?],
        None => all.clone(),
    };
    let found = find(&store, source, asked, which).await?;
    let coverage = store.coverage(source).await?;
    if found.is_empty() {
        let error = CliError::new(format!("no transaction {} has versions", args.which));
        return Err(match args.strict.refuses(&coverage) {
            true => error.detail(coverage.to_string()).code(code::INCOMPLETE),
            false => error.code(code::NOT_FOUND),
        });
    }
    for transaction in &found {
        if args.json {
            print_as_json(&store, source, &all, transaction, &coverage).await?;
        } else {
            show(&store, source, &all, transaction, &args, &clock.zone).await?;
        }
    }
    let code = args.strict.close(&coverage, ExitCode::SUCCESS);
    args.explain.say(&store, args.json);
    Ok(code)
}

fn which(text: &str) -> Result<Which, CliError> {
    let position = || text.parse::<Position>().ok().map(|position| Which::Of(Commit::of(position)));
    let read = match (text, text.strip_prefix("xid:")) {
        ("last", _) => Some(Which::Last),
        (_, Some(xid)) => xid.parse().ok().map(Which::Xid),
        _ => position(),
    };
    read.ok_or_else(|| {
        CliError::new(format!("{text:?} names no transaction"))
            .hint("give xid:7311, the position of one of its versions, or last".to_owned())
            .code(code::USAGE)
    })
}

/// What a transaction did in each table, by event.
#[derive(Default)]
struct Totals(BTreeMap<String, BTreeMap<String, u64>>);

impl Totals {
    fn add(&mut self, record: &Record) {
        let events = self.0.entry(record.table_name.clone()).or_default();
        *events.entry(record.event.clone()).or_default() += 1;
    }

    fn json(&self) -> Vec<serde_json::Value> {
        let table = |(name, events): (&String, &BTreeMap<String, u64>)| {
            let mut table = json!({ "table_name": name });
            for (event, count) in events {
                table[event] = json!(count);
            }
            table
        };
        self.0.iter().map(table).collect()
    }

    fn text(&self) -> String {
        let table = |(name, events): (&String, &BTreeMap<String, u64>)| {
            let events: Vec<String> = events.iter().map(|(event, count)| format!("{count} {event}")).collect();
            format!("{name}: {}", events.join(", "))
        };
        self.0.iter().map(table).collect::<Vec<_>>().join(" · ")
    }
}

/// One line, written while it is read: a transaction may have any number of versions.
async fn print_as_json(
    store: &Timeline,
    source: &str,
    tables: &[String],
    transaction: &Transaction,
    coverage: &Coverage,
) -> Result<(), CliError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        _ => CliError::new("standard output cannot be written").detail(error.to_string()),
    };
    let unfit = |_: serde_json::Error| CliError::new("the answer cannot be shown as JSON");
    let (mut totals, mut first) = (Totals::default(), true);
    let mut versions = transaction.versions(store, source, tables.to_vec());
    let mut out = std::io::BufWriter::new(std::io::stdout());
    while let Some(records) = versions.next().await? {
        for record in &records {
            totals.add(record);
            let version = serde_json::to_string(record).map_err(unfit)?;
            let before = if std::mem::take(&mut first) { head(record)? } else { ",".to_owned() };
            write!(out, "{before}{version}").map_err(failed)?;
        }
    }
    let tables = serde_json::to_string(&totals.json()).map_err(unfit)?;
    let coverage = serde_json::to_string(coverage).map_err(unfit)?;
    writeln!(out, "],\"tables\":{tables},\"coverage\":{coverage}}}").and_then(|()| out.flush()).map_err(failed)
}

/// The beginning of a transaction's JSON, up to its versions.
fn head(first: &Record) -> Result<String, CliError> {
    let head = json!({
        "xid": first.xid,
        "position": first.position,
        "committed_at": first.committed_at.to_string(),
        "actor_id": first.actor_id,
        "reason": first.reason,
    });
    let text = head.to_string();
    Ok(format!("{},\"versions\":[", text.trim_end_matches('}')))
}

async fn show(
    store: &Timeline,
    source: &str,
    tables: &[String],
    transaction: &Transaction,
    args: &Args,
    zone: &jiff::tz::TimeZone,
) -> Result<(), CliError> {
    let (mut totals, mut count) = (Totals::default(), 0);
    let mut rows = table(&["row", "what", "who", "why"]);
    let mut versions = transaction.versions(store, source, tables.to_vec());
    while let Some(records) = versions.next().await? {
        for record in &records {
            if count == 0 {
                eprintln!("xid {} · {} · {}", record.xid, time(record.committed_at, zone), record.position);
            }
            totals.add(record);
            count += 1;
            if count <= args.limit {
                let key = record.key.clone().unwrap_or_default();
                let row = format!("{} {key}", record.table_name);
                let why = record.reason.clone().unwrap_or_default();
                rows.add_row([row, what(record), actor(record), why]);
            }
        }
    }
    rows.print()?;
    print(totals.text())?;
    if count > args.limit {
        eprintln!("the first {} of {count} versions; more with --limit", args.limit);
    }
    Ok(())
}
