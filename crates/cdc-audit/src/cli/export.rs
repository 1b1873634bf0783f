//! `cdc-audit export`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use audit_core::position::Micros;
use audit_history::{ExportRequest, Lag, Manifest};
use audit_pipeline::status::{Phase, StatusReport};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::status::ask;
use crate::config::Config;
use crate::error::CliError;
use crate::output::{argument, bytes, print, print_json, table};
use crate::role::Reader;
use crate::store::open;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit export --table public.orders --since 2026-01-01 --until 2026-04-01 --to ./q1\n  \
    cdc-audit export --to ./everything --from archive\n\nVerify with: jq -r '.files[] | \"\\(.sha256)  \\(.path)\"' manifest.json | sha256sum -c"
)]
pub struct Args {
    /// `schema.table`; several times for several. Default: all tables.
    #[arg(long)]
    table: Vec<String>,
    /// Committed at or after: a date or RFC 3339 time, in UTC unless it says otherwise.
    #[arg(long, value_parser = time)]
    since: Option<Micros>,
    /// Committed before.
    #[arg(long, value_parser = time)]
    until: Option<Micros>,
    /// A folder that is empty or does not exist.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Go on with an export into this folder that broke off, after the last version that it has.
    #[arg(long)]
    resume: bool,
    /// The sink to read from. Default: hot tables and lake as one.
    #[arg(long, value_name = "SINK")]
    from: Option<String>,
    /// Only what this tenant has, in a sink that keeps tenants apart. `-`: a line of standard input.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Print the manifest as one line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reader: Reader,
}

pub fn time(text: &str) -> Result<Micros, String> {
    text.parse().map_err(|_| "give a date (2026-03-01) or a time (2026-03-01T09:30:00Z)".to_string())
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    args.reader.check(config)?;
    let tenant = args.tenant.map(argument).transpose()?;
    let store = open(config, args.from.as_deref(), tenant.as_deref(), &args.reader).await?;
    let request = ExportRequest {
        lag: lag(config, store.sink()).await,
        sink: store.sink().to_owned(),
        tenant,
        resume: args.resume,
        source: config.source.name.clone(),
        tables: args.table,
        since: args.since,
        until: args.until,
        to: args.to,
    };
    let bar = progress_bar();
    let exported = audit_history::export(&store, &request, |rows| bar.set_position(rows)).await;
    bar.finish_and_clear();
    let manifest = exported?;
    if manifest.is_ahead() {
        warn(&manifest);
    }
    for table in &manifest.left_out {
        let shown = audit_config::visible(table);
        eprintln!("left out: the folder of {shown} holds no table; its first commit may be still to come");
    }
    if args.json {
        print_json(&manifest)?;
    } else {
        let mut rows = table(&["file", "rows", "size", "sha256"]);
        for file in &manifest.files {
            rows.add_row([file.path.clone(), file.rows.to_string(), bytes(file.bytes), file.sha256.clone()]);
        }
        rows.print()?;
        print(format!("{} versions in {}", manifest.rows, request.to.join("manifest.json").display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How far the sink is behind, as the daemon says; `None` where it does not answer. ⚠ Also where it does not hear the source: then it knows
/// only how far the source was when the connection was lost.
async fn lag(config: &Config, sink: &str) -> Option<Lag> {
    let knows = |report: &StatusReport| report.source == config.source.name && report.phase == Phase::Streaming;
    let report = ask(config).await.ok().filter(knows)?;
    let sink = report.sinks.into_iter().find(|known| known.name == sink)?;
    Some(Lag { bytes: sink.lag_bytes, seconds: sink.lag_seconds })
}

fn warn(manifest: &Manifest) {
    let (until, store) = (manifest.until.as_deref().unwrap_or_default(), &manifest.store);
    let newest = match &store.complete_until {
        Some(at) => format!("its newest version was committed at {at}"),
        None => "it had no version in that time".to_string(),
    };
    let behind = match store.lag {
        Some(lag) => format!("it was {} of WAL behind", bytes(lag.bytes)),
        None => {
            "the daemon, which knows how far it was behind, does not answer, or does not hear the source".to_string()
        }
    };
    eprintln!(
        "warning: --until {until} is later than what {} is known to have: {newest}; {behind}. What was committed in between may be missing.",
        store.sink
    );
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} versions, {per_sec}, {elapsed}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
