//! `cdc-audit report`.

mod row;

use std::process::ExitCode;

use audit_core::position::{Micros, Position};
use audit_history::report::{self, Looked, Report, ReportRequest, largest_first};
use audit_keys::KeyStore;
use clap::ValueEnum;

use crate::cli::covered::Strict;
use crate::cli::subject;
use crate::cli::when::When;
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{argument, on_terminal, print, print_exactly, print_json, table};
use crate::role::Reader;
use crate::store::{Explain, open_reachable};

/// Days of the span where none is given.
const DAYS: i64 = 90;

/// Rows of a table on the terminal; the other formats have more or all.
const ROWS_MAX: usize = 15;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit report\n  cdc-audit report --since 2026-01-01 --until 2026-04-01 --format html > q1.html\n  \
    cdc-audit report --table orders --key 7 --format json\n\n\
    Who looked at values is read from the access log, where the role may read it: see `setup --auditor`."
)]
pub struct Args {
    #[command(flatten)]
    when: When,
    /// Only this table; several times for several.
    #[arg(long)]
    table: Vec<String>,
    /// The changes of one row in the span, instead of totals. `-`: a line of standard input.
    #[arg(long, requires = "table")]
    key: Option<String>,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Only versions at or before this position: the head of an earlier report, which is then repeated, with the same --since and --until.
    #[arg(long, value_name = "POSITION")]
    head: Option<Position>,
    #[command(flatten)]
    strict: Strict,
    /// The sink to read from. Default: hot tables and lake as one.
    #[arg(long, value_name = "SINK")]
    from: Option<String>,
    /// Only what this tenant has, in a sink that keeps tenants apart. `-`: a line of standard input.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    explain: Explain,
    #[command(flatten)]
    reader: Reader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Bars on the terminal.
    Table,
    /// One line of JSON.
    Json,
    /// A page with charts that needs nothing but itself.
    Html,
    /// Markdown.
    Md,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    args.reader.check(config)?;
    let clock = args.when.clock()?;
    let (since, until) = args.when.span(&clock, DAYS)?;
    let tenant = args.tenant.map(argument).transpose()?;
    let store = open_reachable(config, args.from.as_deref(), tenant.as_deref(), &args.reader).await?;
    let store = args.head.map_or(store.clone(), |head| store.up_to(head));
    args.explain.begin(&store);
    let mut tables = Vec::new();
    for table in &args.table {
        tables.push(subject::table(config, &store, table).await?);
    }
    let format = if args.json { Format::Json } else { args.format };
    if let Some(key) = args.key.map(argument).transpose()? {
        let [table] = tables.as_slice() else {
            return Err(CliError::new("--key is the key of a row of one table")
                .hint("give --table once".to_owned())
                .code(code::USAGE));
        };
        let coverage = row::run(config, &store, (table, &key), (since, until), format).await?;
        let coverage = args.head.map_or(coverage.clone(), |head| coverage.up_to(head));
        let code = args.strict.close(&coverage, ExitCode::SUCCESS);
        args.explain.say(&store, format == Format::Json);
        return Ok(code);
    }
    let request = ReportRequest {
        source: config.source.name.clone(),
        sink: store.sink().to_owned(),
        tables,
        since,
        until,
        zone: clock.zone,
        zone_name: args.when.zone_name().to_owned(),
        config_fingerprint: fingerprint(config)?,
        looked: looked(config, &args.reader, (since, until)).await?,
    };
    let mut report = report::report(&store, &request).await?;
    if let Some(head) = args.head {
        report.coverage = report.coverage.up_to(head);
    }
    match format {
        Format::Json => print_json(&report)?,
        Format::Html => print_exactly(report.html().trim_end())?,
        Format::Table => show(&report)?,
        Format::Md => print_exactly(markdown(&report))?,
    }
    let code = args.strict.close(&report.coverage, ExitCode::SUCCESS);
    args.explain.say(&store, format == Format::Json);
    Ok(code)
}

/// The rules about tables and protection, which decide what a report can know.
fn fingerprint(config: &Config) -> Result<String, CliError> {
    let rules = serde_json::to_string(&(&config.tables, &config.protection));
    let rules = rules.map_err(|error| CliError::new("the configuration has no form").detail(error.to_string()))?;
    Ok(report::fingerprint(&rules))
}

/// `None` where the role cannot read the access log, which a person is told.
async fn looked(
    config: &Config,
    reader: &Reader,
    (since, until): (Micros, Micros),
) -> Result<Option<Vec<Looked>>, CliError> {
    // Without keys there is nothing that could be opened, and no log.
    if config.protection.keys.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let store = KeyStore::new(reader.endpoint(config.key_store())?, "cdc-audit report");
    match store.accesses(&config.source.name, &since.to_string(), &until.to_string()).await {
        Ok(found) => {
            let looked =
                |found: audit_keys::Accesses| Looked { user: found.user, action: found.action, count: found.count };
            Ok(Some(found.into_iter().map(looked).collect()))
        }
        Err(error) => {
            eprintln!("warning: the report does not say who looked at values: {}", audit_config::Chain(&error));
            Ok(None)
        }
    }
}

fn bar(count: u64, most: u64) -> String {
    const WIDTH: u64 = 30;
    "▇".repeat((count.saturating_mul(WIDTH) / most.max(1)).max(u64::from(count > 0)) as usize)
}

/// Each part of the report: its title, and its rows.
fn parts(report: &Report) -> [(&'static str, Vec<(String, u64)>); 4] {
    let owned = |rows: Vec<(&str, u64)>| rows.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    [
        ("by actor", owned(report.actors())),
        ("by table", owned(largest_first(&report.changes_by_table))),
        ("by event", owned(largest_first(&report.changes_by_event))),
        ("by day", report.timeline()),
    ]
}

/// What the numbers are about, and what they do not say.
fn remarks(report: &Report) -> Vec<String> {
    let mut remarks = vec![format!(
        "without a required actor {} · without a required reason {} · undone {}",
        report.unattributed.without_actor, report.unattributed.without_reason, report.undone
    )];
    if let Some(looked) = &report.sensitive_field_access {
        let each = looked.iter().map(|looked| format!("{}: {} {}", looked.user, looked.action, looked.count));
        let all = each.collect::<Vec<_>>().join(", ");
        remarks.push(format!("looked at values: {}", if all.is_empty() { "nobody" } else { &all }));
    }
    for gap in &report.gaps {
        let lost = gap.lost.as_ref().map_or("", |lost| lost.get());
        remarks.push(format!("gap at {}: {lost}", gap.committed_at));
    }
    let further = report.total_gaps.saturating_sub(report.gaps.len() as u64);
    remarks.extend((further > 0).then(|| format!("{further} gaps more")));
    remarks.push(format!("answered {}", report.coverage));
    remarks
}

fn title(report: &Report) -> String {
    format!(
        "{} · {} {} · {} versions · {} gaps",
        report.source, report.period, report.timezone, report.total_versions, report.total_gaps
    )
}

fn show(report: &Report) -> Result<(), CliError> {
    print(title(report))?;
    for (title, rows) in parts(report) {
        let most = rows.iter().map(|(_, count)| *count).max().unwrap_or_default();
        // The days are in order, and the last ones matter; of the others the first ones are the largest.
        let skipped = if title == "by day" { rows.len().saturating_sub(ROWS_MAX) } else { 0 };
        let mut shown = table(&[title, "versions", ""]);
        for (name, count) in rows.iter().skip(skipped).take(ROWS_MAX) {
            shown.add_row([name.as_str(), &count.to_string(), &bar(*count, most)]);
        }
        if on_terminal() {
            print("")?;
        }
        shown.print()?;
        if rows.len() > ROWS_MAX {
            print(format!("{} more in the other formats", rows.len() - ROWS_MAX))?;
        }
    }
    remarks(report).iter().try_for_each(print)
}

fn markdown(report: &Report) -> String {
    // A name may hold what has a meaning in Markdown or HTML.
    let escaped = |text: &str| {
        let mut out = String::new();
        for c in audit_config::visible(text).chars() {
            match c {
                '<' => out.push_str("&lt;"),
                c if c.is_ascii_punctuation() && !matches!(c, '.' | '-' | ':' | ',') => out.extend(['\\', c]),
                c => out.push(c),
            }
        }
        out
    };
    let mut out = format!("# {}\n", escaped(&title(report)));
    for (title, rows) in parts(report) {
        out += &format!("\n| {title} | versions |\n|---|---:|\n");
        rows.iter().for_each(|(name, count)| out += &format!("| {} | {count} |\n", escaped(name)));
    }
    out += "\n";
    remarks(report).iter().for_each(|remark| out += &format!("- {}\n", escaped(remark)));
    out.trim_end().to_owned()
}
