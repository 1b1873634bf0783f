//! `cdc-audit schema`.

use std::process::ExitCode;

use audit_core::position::{Micros, Position, Window};
use audit_core::search::{Commit, Wanted};
use audit_history::Timeline;
use audit_history::schema::{Step, steps};
use serde_json::json;

use super::search::time;
use super::subject;
use super::when::clock;
use crate::config::Config;
use crate::error::CliError;
use crate::output::{argument, note, print_json, table};
use crate::role::Reader;
use crate::store::open;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cdc-audit schema orders\n  cdc-audit schema public.orders --json\n\n\
    + a column that was added, - one that was dropped, → a new name, type or rule. A rename is seen by the column's\n\
    number in the catalog; one that the catalog does not show, after a restore or as DROP and ADD, is declared in\n\
    [[tables.renames]].")]
pub struct Args {
    /// `schema.table`, or the table's name or label alone where only one table has it.
    table: String,
    /// The sink to read from. Default: hot tables and lake as one.
    #[arg(long, value_name = "SINK")]
    from: Option<String>,
    /// Only what this tenant has, in a sink that keeps tenants apart. `-`: a line of standard input.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The time zone of times that are shown. Default: the configured one, else UTC.
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// One JSON object a line for each shape, oldest first.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reader: Reader,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    args.reader.check(config)?;
    let clock = clock(args.tz.as_deref(), config)?;
    let tenant = args.tenant.map(argument).transpose()?;
    let store = open(config, args.from.as_deref(), tenant.as_deref(), &args.reader).await?;
    let name = subject::table(config, &store, &args.table).await?;
    let source = &config.source.name;
    let declared = config.rules().for_name(name.clone()).rule.renames;
    let mut rows = table(&["shape", "since", "position", "what changed"]);
    for step in steps(store.shapes(source, &name).await?, &declared) {
        let at = committed_at(&store, source, &name, step.position).await?;
        if args.json {
            let mut line = json!(step);
            line["committed_at"] = json!(at.map(|at| at.to_string()));
            print_json(&line)?;
            continue;
        }
        rows.add_row([
            step.schema_version.to_string(),
            at.map(|at| time(at, &clock.zone)).unwrap_or_default(),
            step.position.to_string(),
            what(&step),
        ]);
    }
    if args.json {
        return Ok(ExitCode::SUCCESS);
    }
    note(format!("{name}: its shapes, oldest first · {}", clock.zone.iana_name().unwrap_or("UTC")));
    rows.print()?;
    Ok(ExitCode::SUCCESS)
}

/// What changed; of the first shape its columns.
fn what(step: &Step) -> String {
    if !step.changes.is_empty() {
        return step.changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    }
    let column = |column: &audit_history::schema::Column| {
        let protection = column.protection.as_ref().map(|method| format!(" ({method})")).unwrap_or_default();
        let untracked = if column.tracked == Some(false) { " (not recorded)" } else { "" };
        format!("{} {}{protection}{untracked}", column.name, column.type_name)
    };
    step.columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// The commit time of a version; `None` if no store has it any more.
async fn committed_at(
    store: &Timeline,
    source: &str,
    table: &str,
    position: Position,
) -> Result<Option<Micros>, CliError> {
    let wanted = Wanted {
        source: source.to_owned(),
        tables: vec![table.to_owned()],
        window: Window { from: Some(position), to: Some(position.next()) },
        commit: Some(Commit::of(position)),
        ..Wanted::default()
    };
    let found = store.search(&wanted, &|_| true, 1).await?;
    Ok(found.first().map(|record| record.committed_at))
}
