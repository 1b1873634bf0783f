//! `cdc-audit export`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use audit_config::{ByteSize, Problems};
use audit_core::position::{Micros, Position};
use audit_history::export::increment::{self, Increment};
use audit_history::{ExportRequest, Form, Lag, Manifest, Target};
use audit_lake::place::Place;
use audit_lake::store::Opener;
use audit_pipeline::status::{Phase, StatusReport};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::covered::Strict;
use crate::cli::status::ask;
use crate::cli::subject;
use crate::cli::when::When;
use crate::config::Config;
use crate::error::CliError;
use crate::output::{argument, bytes, note, print, print_json, table};
use crate::role::Reader;
use crate::store::open;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit export --table public.orders --since 2026-01-01 --until 2026-04-01 --to ./q1\n  \
    cdc-audit export --to ./everything --from archive --format parquet --part-size 1GiB\n  \
    cdc-audit export --to ./feed --since-last warehouse --format csv --compress gzip\n  \
    cdc-audit export --to s3://acme-audit/export --format parquet --part-size 256MiB\n\nVerify with: jq -r '.files[] | \"\\(.sha256)  \\(.path)\"' manifest.json | sha256sum -c"
)]
pub struct Args {
    /// `schema.table`; several times for several. Default: all tables.
    #[arg(long)]
    table: Vec<String>,
    #[command(flatten)]
    when: When,
    /// Only versions of these actors, divided by commas.
    #[arg(long, value_name = "ACTOR", value_delimiter = ',')]
    actor: Vec<String>,
    /// Only versions of these events, divided by commas: created, updated, deleted, snapshot, …
    #[arg(long, value_name = "EVENT", value_delimiter = ',')]
    event: Vec<String>,
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// Compress the files; Parquet inside of the file, where `zstd` is the default.
    #[arg(long, value_enum)]
    compress: Option<Compression>,
    /// Begin a new file after so many bytes, counted before compression: `256 MiB`. Default: one file for each table.
    #[arg(long, value_name = "SIZE")]
    part_size: Option<ByteSize>,
    /// Export what came since the last export of this name, into a new folder inside of DIR. The first one has everything; one that broke off
    /// is continued.
    #[arg(long, value_name = "NAME", conflicts_with = "resume")]
    since_last: Option<String>,
    /// A folder, or a part of a bucket (`s3://bucket/prefix`, `gs://…`, `az://…`), in which nothing is; with --since-last the place of all
    /// exports of that name. A bucket is reached by the keys of `[export.store]`.
    #[arg(long, value_name = "DIR|URL")]
    to: String,
    /// Go on with an export into this folder that broke off, after the last version that it has.
    #[arg(long)]
    resume: bool,
    /// Only versions at or before this position: the head of an earlier export, which is then repeated.
    #[arg(long, value_name = "POSITION", conflicts_with = "since_last")]
    head: Option<Position>,
    #[command(flatten)]
    strict: Strict,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One record a line, as JSON.
    Jsonl,
    /// A text that a spreadsheet would take for a formula begins with `'`.
    Csv,
    Parquet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compression {
    Gzip,
    Zstd,
}

impl From<Format> for audit_history::Format {
    fn from(format: Format) -> audit_history::Format {
        match format {
            Format::Jsonl => audit_history::Format::Jsonl,
            Format::Csv => audit_history::Format::Csv,
            Format::Parquet => audit_history::Format::Parquet,
        }
    }
}

impl From<Compression> for audit_history::Compression {
    fn from(compression: Compression) -> audit_history::Compression {
        match compression {
            Compression::Gzip => audit_history::Compression::Gzip,
            Compression::Zstd => audit_history::Compression::Zstd,
        }
    }
}

pub fn time(text: &str) -> Result<Micros, String> {
    text.parse().map_err(|_| "give a date (2026-03-01) or a time (2026-03-01T09:30:00Z)".to_string())
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    args.reader.check(config)?;
    let tenant = args.tenant.map(argument).transpose()?;
    let store = open(config, args.from.as_deref(), tenant.as_deref(), &args.reader).await?;
    let (since, until) = args.when.ends(&args.when.clock(config)?)?;
    let mut tables = Vec::new();
    for table in &args.table {
        tables.push(subject::table(config, &store, table).await?);
    }
    let to = target(&args.to, config)?;
    let increment = match &args.since_last {
        Some(name) => increment::next(&to, name, &config.source.name, tenant.as_deref()).await?,
        None => Increment { to, resume: args.resume, after: None },
    };
    if is_nothing_new(&args.since_last, &increment, store.last()) {
        return print("there is nothing new").map(|()| ExitCode::SUCCESS);
    }
    let request = ExportRequest {
        lag: lag(config, store.sink()).await,
        sink: store.sink().to_owned(),
        tenant,
        resume: increment.resume,
        source: config.source.name.clone(),
        tables,
        since,
        until,
        actors: args.actor,
        events: args.event,
        head: args.head,
        after: increment.after,
        form: Form {
            format: args.format.into(),
            compression: args.compress.map(Into::into),
            part_bytes: args.part_size.map(ByteSize::get),
        },
        to: increment.to,
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
        print(format!("{} versions in {}", manifest.rows, request.to.shown().join("manifest.json").display()))?;
    }
    note(format!("from {} · {}", from(&manifest), manifest.coverage));
    Ok(args.strict.code(manifest.coverage.complete, ExitCode::SUCCESS))
}

fn from(manifest: &Manifest) -> String {
    let sinks: Vec<&str> = manifest.coverage.sinks.iter().map(|reached| reached.sink.as_str()).collect();
    sinks.join(" + ")
}

/// Where the files go.
fn target(to: &str, config: &Config) -> Result<Target, CliError> {
    if !to.contains("://") {
        return Ok(Target::Folder(to.into()));
    }
    let store = &config.export.store;
    let place = Place::parse(to)?;
    match &place {
        Place::Folder(folder) => Ok(Target::Folder(folder.clone())),
        Place::Bucket(bucket) => {
            let mut problems = Problems::new(Path::new("the configuration"), BTreeMap::new());
            problems.scope("export.store", |problems| store.check(bucket, problems));
            if problems.is_empty() {
                Ok(Target::Bucket(Opener::new(store, false).open(&place)?))
            } else {
                Err(problems.into())
            }
        }
    }
}

/// Whether the series has everything that the sink has. One that broke off is continued all the same.
fn is_nothing_new(series: &Option<String>, increment: &Increment, reached: Option<Position>) -> bool {
    series.is_some() && !increment.resume && increment.after.is_some() && reached <= increment.after
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
