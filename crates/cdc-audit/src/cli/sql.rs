//! `cdc-audit sql`.

mod duckdb;

use std::process::ExitCode;
use std::time::Duration;

use audit_config::Span;
use audit_history::Store;
use audit_hot::{HotReader, SqlAnswer, SqlRow, View, Written};
use clap::ValueEnum;
use futures::TryStreamExt;

use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{argument, print_exactly, table};
use crate::role::Reader;
use crate::store::open_one;

/// Rows of a table for people, which is laid out as a whole.
const ROWS_MAX: usize = 1_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cdc-audit sql --schema\n  \
    cdc-audit sql \"select event, count(*) from versions group by event\"\n  \
    cdc-audit sql \"select committed_at, old_state, new_state from orders__versions where key = '7'\" --format csv\n  \
    cdc-audit sql - --from archive --timeout 5min < question.sql\n\n\
    A hot sink is asked by PostgreSQL, a lake by an installed DuckDB, whose program is called `duckdb`.")]
pub struct Args {
    /// One query. `-`: all of standard input.
    #[arg(required_unless_present = "schema")]
    query: Option<String>,
    /// List the views and their columns instead.
    #[arg(long, conflicts_with = "query")]
    schema: bool,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as `--format json`: one row a line.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// The query is ended after this time.
    #[arg(long, value_name = "TIME", default_value = "30 s")]
    timeout: Span,
    /// The sink to read from. Default: a hot one, else a lake.
    #[arg(long, value_name = "SINK")]
    from: Option<String>,
    /// Only what this tenant has, in a sink that keeps tenants apart.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    reader: Reader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// At most 1,000 rows, for people.
    Table,
    /// One row a line.
    Json,
    Csv,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    args.reader.check(config)?;
    let format = if args.json { Format::Json } else { args.format };
    let tenant = args.tenant.map(argument).transpose()?;
    let query = args.query.map(text).transpose()?.unwrap_or_default();
    let timeout = args.timeout.get();
    let (name, store) = open_one(config, args.from.as_deref(), tenant.as_deref(), &args.reader).await?;
    match store {
        Store::Hot(hot) if args.schema => {
            schema(&hot.views(&config.source.name, &config.rules()).await?, format).await?
        }
        Store::Hot(hot) => ask(&hot, config, &query, format, timeout).await?,
        Store::Lake(_) => {
            let query = if args.schema { duckdb::SCHEMA } else { &query };
            duckdb::run(config, &name, tenant.as_deref(), query, format, timeout).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The query, from standard input where it is `-`.
fn text(query: String) -> Result<String, CliError> {
    if query != "-" {
        return Ok(query);
    }
    let read = std::io::read_to_string(std::io::stdin());
    read.map_err(|error| CliError::new("standard input cannot be read").detail(error.to_string()))
}

async fn ask(hot: &HotReader, config: &Config, query: &str, format: Format, timeout: Duration) -> Result<(), CliError> {
    let answer = hot.sql(&config.source.name, &config.rules(), query, timeout).await;
    let answer = answer.map_err(|error| match &error {
        audit_hot::ReadError::Query { .. } => CliError::from(error).code(code::USAGE),
        _ => CliError::from(error),
    })?;
    show(answer, format).await
}

async fn schema(views: &[View], format: Format) -> Result<(), CliError> {
    let names = ["view", "column", "type"].map(|name| (name.to_owned(), Written::Text));
    let rows = views.iter().flat_map(|view| {
        let row = |(column, kind): &(String, String)| {
            Ok(vec![Some(view.name.clone()), Some(column.clone()), Some(kind.clone())])
        };
        view.columns.iter().map(row).collect::<Vec<_>>()
    });
    let rows: Vec<_> = rows.collect();
    show(SqlAnswer { columns: names.into(), rows: Box::pin(futures::stream::iter(rows)) }, format).await
}

async fn show(mut answer: SqlAnswer, format: Format) -> Result<(), CliError> {
    let names: Vec<&str> = answer.columns.iter().map(|(name, _)| name.as_str()).collect();
    let mut rows = table(&names);
    let mut shown = 0;
    if format == Format::Csv {
        print_exactly(names.iter().map(|name| audit_history::csv::field(name)).collect::<Vec<_>>().join(","))?;
    }
    while let Some(row) = answer.rows.try_next().await? {
        match format {
            Format::Json => print_exactly(json(&answer.columns, &row))?,
            Format::Csv => {
                let fields =
                    row.iter().map(|value| value.as_deref().map_or_else(String::new, audit_history::csv::field));
                print_exactly(fields.collect::<Vec<_>>().join(","))?;
            }
            Format::Table if shown < ROWS_MAX => rows.add_row(row.iter().map(|value| value.as_deref().unwrap_or("∅"))),
            Format::Table => {
                rows.print()?;
                eprintln!("the first {ROWS_MAX} rows; all of them with --format csv or --json");
                return Ok(());
            }
        }
        shown += 1;
    }
    if format == Format::Table {
        rows.print()?;
        eprintln!("{shown} rows");
    }
    Ok(())
}

fn json(columns: &[(String, Written)], row: &SqlRow) -> String {
    let member = |((name, written), value): (&(String, Written), &Option<String>)| {
        let value = match (value, written) {
            (None, _) => "null".to_owned(),
            (Some(value), Written::Bare) => value.clone(),
            (Some(value), Written::Bool) => (value == "t").to_string(),
            (Some(value), Written::Text) => serde_json::Value::from(value.as_str()).to_string(),
        };
        format!("{}:{value}", serde_json::Value::from(name.as_str()))
    };
    let members: Vec<String> = columns.iter().zip(row).map(member).collect();
    format!("{{{}}}", members.join(","))
}
