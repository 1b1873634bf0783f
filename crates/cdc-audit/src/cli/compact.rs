//! `cdc-audit compact`.

use std::io::IsTerminal;
use std::process::ExitCode;

use audit_config::visible;
use audit_lake::{Compacted, Compactor, LakeError, Stores};
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{bytes, print, print_json, table};
use crate::sinks::lake::named;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit compact\n  cdc-audit compact --sink archive --table public.orders --json\n\n\
    The daemon may run meanwhile. Readers of the Delta log see the same versions before and after; lakes with readers that list folders \
    are refused, for those would see versions twice."
)]
pub struct Args {
    /// The lake. Default: the first.
    #[arg(long, value_name = "SINK")]
    sink: Option<String>,
    /// Only what this tenant has, in a lake that keeps tenants apart.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// `schema.table`; several times for several. Default: all tables.
    #[arg(long)]
    table: Vec<String>,
    /// Print one line of JSON for each table.
    #[arg(long)]
    json: bool,
}

/// Memory of a run beside what the program itself takes.
const MEMORY: usize = 192 << 20;

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let (name, lake) = named(config, args.sink.as_deref())?;
    if lake.listing_readers {
        return Err(CliError::new(format!(
            "the files of sink {name} stay as they were written, for readers that list its folders"
        ))
        .hint(format!("say `listing_readers = false` in [sinks.{name}] if every reader reads the Delta log"))
        .code(code::USAGE));
    }
    let stores = Stores::open(lake, false)?;
    let compactor = Compactor::of(lake, stores, &config.source.name, MEMORY)?;
    let mut each = compactor.each().await?;
    if let Some(tenant) = &args.tenant {
        each.retain(|one| one.tenant.as_deref() == Some(tenant));
        if each.is_empty() {
            return Err(CliError::from(LakeError::NoTenant { tenant: tenant.clone() }).code(code::USAGE));
        }
    }
    let mut tables: Vec<(&Compactor, String)> = Vec::new();
    for one in &each {
        let known = one.tables().await?;
        let asked = |table: &String| args.table.is_empty() || args.table.contains(table);
        tables.extend(known.into_iter().filter(asked).map(|table| (one, table)));
    }
    if let Some(table) = args.table.iter().find(|table| !tables.iter().any(|(_, known)| known == *table)) {
        return Err(CliError::from(LakeError::NoTable { table: table.clone() }));
    }
    let bar = progress_bar(tables.len() as u64);
    let mut done: Vec<Compacted> = Vec::new();
    for (one, table) in tables {
        bar.set_message(visible(&table).into_owned());
        let compacted = match one.table(&table).await {
            // Its first file is there, and not its first commit.
            Err(LakeError::NoTable { .. }) => continue,
            compacted => compacted?,
        };
        if args.json {
            print_json(&compacted)?;
        }
        done.push(compacted);
        bar.inc(1);
    }
    let mut removed = 0;
    for one in &each {
        removed += one.sweep().await?;
    }
    bar.finish_and_clear();
    if !args.json {
        let mut rows = table(&["table", "files", "into", "size", "now", "files left"]);
        for table in &done {
            let counts = [table.files, table.into].map(|count| count.to_string());
            let sizes = [bytes(table.bytes), bytes(table.into_bytes)];
            let name = table.tenant.iter().fold(table.table.clone(), |name, tenant| format!("{tenant}: {name}"));
            rows.add_row([&[name][..], &counts, &sizes, &[table.left.to_string()]].concat());
        }
        rows.print()?;
        print(format!("{removed} files that were replaced before were removed"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn progress_bar(tables: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("compacting {bar:30} {pos} of {len} tables, {elapsed}  {msg}");
    ProgressBar::new(tables).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
