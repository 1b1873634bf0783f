//! `cdc-audit archive`.

use std::process::ExitCode;

use audit_archive::{Archiver, Due, Finding};
use audit_core::position::Micros;
use audit_core::rules::Rules;
use audit_history::Store;
use audit_history::compare::{Difference, What};
use audit_hot::{Archive, Archived, Partition, State};
use serde_json::{Value, json};

use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{bytes, note, print, print_json, table};
use crate::role::{Reader, os_user};
use crate::sinks::lake;
use crate::store::open_one;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit archive --dry-run\n  cdc-audit archive --month 2026-01\n  cdc-audit archive list\n  cdc-audit archive undo 17\n\n\
    A month leaves when `hot` in [[tables]] lets it go for each of its tables, and after every version of it was found in the lake. It is kept \
    for `archive_grace` before it is dropped. Exit code 10: a month differs from the lake, and stays."
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<Other>,
    /// Compare what is due, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Only this month, as in `2026-01`.
    #[arg(long, value_name = "MONTH")]
    month: Option<String>,
    /// The lake that must have what leaves. Default: the first.
    #[arg(long, value_name = "SINK")]
    to: Option<String>,
    /// The hot sink whose months leave. Default: the first.
    #[arg(long, value_name = "SINK", global = true)]
    hot: Option<String>,
    /// Print one JSON object a line for each month.
    #[arg(long, global = true)]
    json: bool,
    /// Connect to the hot database as another role, which `setup --archiver` allowed it. Default: the configured one, which often may not.
    #[arg(long = "as", value_name = "URL", global = true)]
    role: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Other {
    /// Show the months that are in the hot tables, and those that left them.
    List,
    /// Put a month back that was taken out and is not dropped yet, by its number in the list.
    Undo { number: i64 },
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let reader = Reader::new(args.role.clone());
    reader.check(config)?;
    let archiver = open(&args, config, &reader).await?;
    match args.what {
        None => take_out(&args, config, &archiver).await,
        Some(Other::List) => list(&args, config, &archiver).await,
        Some(Other::Undo { number }) => {
            archiver.archive.attach(number).await?;
            print(format!("month {number} is back in the hot tables"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn open(args: &Args, config: &Config, reader: &Reader) -> Result<Archiver, CliError> {
    let name =
        args.hot.as_deref().or_else(|| config.sinks.keys().map(String::as_str).find(|name| config.hot(name).is_some()));
    let hot = name
        .and_then(|name| config.hot(name))
        .ok_or_else(|| CliError::new("there is no such hot sink: months leave hot tables").code(code::USAGE))?;
    let (name, Store::Hot(session)) = open_one(config, name, None, reader).await? else {
        return Err(CliError::new("months leave hot tables, and that sink has none").code(code::USAGE));
    };
    let (lake_name, lake) = lake::named(config, args.to.as_deref())?;
    Ok(Archiver {
        source: config.source.name.clone(),
        hot: (name, session),
        lake: (lake_name.to_owned(), lake::reader(lake, None).await?),
        archive: Archive::connect(&reader.endpoint(&hot.endpoint)?).await?,
        user: os_user()?,
    })
}

/// Drops first, so that no run both takes a month out and drops it.
async fn take_out(args: &Args, config: &Config, archiver: &Archiver) -> Result<ExitCode, CliError> {
    let (rules, now) = (config.rules(), Micros::now());
    let (mut code, mut seen) = (0, 0);
    if !args.dry_run {
        let wanted = |archived: &Archived| args.month.as_ref().is_none_or(|month| *month == month_of(archived.from));
        for (archived, dropped) in archiver.drop_old(now, wanted).await? {
            let (value, text) = match dropped {
                Ok(()) => {
                    let value = json!({"result": "dropped", "versions": archived.versions, "id": archived.id});
                    (value, "dropped: its time of grace is over".to_owned())
                }
                // One that has to stay does not keep the others.
                Err(error) => {
                    code = code::FAILED.max(code);
                    let hint = format!("`cdc-audit archive undo {}` puts it back", archived.id);
                    let value = json!({"result": "failed", "error": error.to_string(), "id": archived.id});
                    (value, format!("{error}; {hint}"))
                }
            };
            tell(args, &archived.partition, archived.from, value, &text)?;
        }
    }
    for partition in archiver.archive.partitions().await? {
        if args.month.as_ref().is_some_and(|month| *month != month_of(partition.from)) {
            continue;
        }
        // A month that cannot be read does not keep the others.
        match one(args, &rules, archiver, &partition, now).await {
            Ok(None) => continue,
            Ok(Some(found)) => code = code.max(found),
            Err(error) => {
                tell(
                    args,
                    &partition.name,
                    partition.from,
                    json!({"result": "failed", "error": error.to_string()}),
                    &error.to_string(),
                )?;
                code = code::FAILED.max(code);
            }
        }
        seen += 1;
    }
    if seen == 0 {
        note("no month is due: `hot` in [[tables]] says when one is");
    }
    Ok(ExitCode::from(code))
}

/// Compares a month and takes it out, and returns the exit code for it; `None` if it is not due.
async fn one(
    args: &Args,
    rules: &Rules,
    archiver: &Archiver,
    partition: &Partition,
    now: Micros,
) -> Result<Option<u8>, CliError> {
    if archiver.due(rules, partition, now).await? != Due::Now {
        return Ok(None);
    }
    note(format!("comparing {} with lake {}", partition.name, archiver.lake.0));
    let (value, text, code) = match archiver.compare(partition).await? {
        Finding::Equal(proof) if args.dry_run => {
            let versions = proof.versions();
            (json!({"result": "equal", "versions": versions}), format!("{versions} versions, equal; it would leave"), 0)
        }
        Finding::Equal(proof) => {
            let (versions, id) = (proof.versions(), archiver.take_out(partition, &proof).await?);
            let value = json!({"result": "taken_out", "versions": versions, "id": id});
            (value, format!("{versions} versions, equal; taken out as number {id}"), 0)
        }
        Finding::Different { table, differences, behind } => {
            let named: Vec<String> = differences.iter().take(3).map(|one| described(one, &archiver.lake.0)).collect();
            let value = json!({
                "result": "different", "table": table, "behind": behind,
                "differences": differences.iter().map(as_json).collect::<Vec<_>>(),
            });
            let why = if behind { "the lake is behind" } else { "they differ, and the month stays" };
            (value, format!("{table}: {why}: {}", named.join("; ")), code::FINDINGS)
        }
    };
    tell(args, &partition.name, partition.from, value, &text)?;
    Ok(Some(code))
}

fn tell(args: &Args, partition: &str, from: Micros, mut value: Value, text: &str) -> Result<(), CliError> {
    if !args.json {
        return print(format!("{partition}: {text}"));
    }
    value["partition"] = json!(partition);
    value["month"] = json!(month_of(from));
    print_json(&value)
}

/// One difference, without values.
fn described(difference: &Difference, lake: &str) -> String {
    let version = format!("{} {}", difference.event, difference.position);
    match &difference.what {
        What::Missing => format!("{lake} lacks {version}"),
        What::Extra => format!("only {lake} has {version}"),
        What::Altered(fields) => {
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            format!("{version} differs in {}", fields.join(", "))
        }
    }
}

fn as_json(difference: &Difference) -> Value {
    let (what, fields) = match &difference.what {
        What::Missing => ("missing", None),
        What::Extra => ("extra", None),
        What::Altered(fields) => ("altered", Some(fields)),
    };
    json!({
        "what": what, "fields": fields, "position": difference.position.to_string(), "event": difference.event,
        "key": difference.key,
    })
}

fn month_of(from: Micros) -> String {
    let (year, month, _) = from.date();
    format!("{year:04}-{month:02}")
}

async fn list(args: &Args, config: &Config, archiver: &Archiver) -> Result<ExitCode, CliError> {
    let (rules, now) = (config.rules(), Micros::now());
    let mut rows = table(&["month", "partition", "versions", "size", "state"]);
    for partition in archiver.archive.partitions().await? {
        // A month that cannot be read, or that is another source's too, does not hide the others.
        let (due, said) = match archiver.due(&rules, &partition, now).await {
            Ok(due) => (json!(due), said(&due)),
            Err(error) => (json!({"failed": error.to_string()}), format!("hot; {error}")),
        };
        if args.json {
            print_json(&json!({
                "month": month_of(partition.from), "partition": partition.name, "state": "hot", "due": due,
                "estimated_versions": partition.estimate, "bytes": partition.bytes,
            }))?;
        }
        let size = [format!("about {}", partition.estimate), bytes(partition.bytes)];
        rows.add_row([&[month_of(partition.from), partition.name.clone()][..], &size, &[said]].concat());
    }
    for archived in archiver.archive.list(&archiver.source).await? {
        if args.json {
            print_json(&archived)?;
        }
        let cells = [month_of(archived.from), archived.partition.clone(), archived.versions.to_string(), String::new()];
        rows.add_row([&cells[..], &[state(&archived)]].concat());
    }
    if !args.json {
        rows.print()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn said(due: &Due) -> String {
    match due {
        Due::Now => "hot; due".to_owned(),
        Due::Later { table } => format!("hot; kept longer for {table}"),
        Due::Never { table } if table == "*" => "hot; no table has `hot`".to_owned(),
        Due::Never { table } => format!("hot; {table} has no `hot`"),
        Due::Empty => "hot; empty".to_owned(),
    }
}

fn state(archived: &Archived) -> String {
    let id = archived.id;
    match (archived.state, archived.keep_until) {
        (State::Proved, _) => format!("number {id}: compared, not taken out"),
        (State::Detached, Some(until)) => format!("number {id}: taken out, kept until {until}"),
        (State::Detached, None) => format!("number {id}: taken out"),
        (State::Returned, _) => format!("number {id}: put back"),
        (State::Dropped, _) => format!("number {id}: dropped"),
    }
}
