//! `cdc-audit ddl`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use audit_core::shape::{ColumnNames, Rename, Shape};
use audit_core::table::companion_of;
use audit_core::value::Kind;
use audit_ddl::{Column, Engine, Lake, Layout, Place, Row, Table, Type};
use audit_lake::{FieldDescription, LakeConfig, LakeError, LakeReader, TableDescription};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use futures::{StreamExt, TryStreamExt};

use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{print_exactly, print_json};
use crate::sinks::lake;

/// Tables whose log is read at a time.
const CONCURRENT: usize = 16;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit ddl athena > lake.sql\n  cdc-audit ddl duckdb --plain | duckdb audit.duckdb\n  \
    cdc-audit ddl clickhouse --table public.orders\n\ndocs/readers.md says what each engine needs beside it."
)]
pub struct Args {
    #[arg(value_parser = engine())]
    engine: Engine,
    /// `schema.table`. Default: all tables, and a view `versions` over them.
    #[arg(long)]
    table: Option<String>,
    /// The Parquet files under `data/`, in place of the Delta tables: partitions are found by their folders.
    #[arg(long)]
    plain: bool,
    /// The lake. Default: the first.
    #[arg(long, value_name = "SINK")]
    sink: Option<String>,
    /// Only what this tenant has, in a lake that keeps tenants apart.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The statements as a list, each with what it is for.
    #[arg(long)]
    json: bool,
}

fn engine() -> impl TypedValueParser<Value = Engine> {
    PossibleValuesParser::new(Engine::ALL.map(Engine::word)).try_map(|name| {
        let named = Engine::ALL.into_iter().find(|engine| engine.word() == name);
        named.ok_or("no engine of this name")
    })
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let (name, settings) = lake::named(config, args.sink.as_deref())?;
    let reader = lake::reader(settings, args.tenant.as_deref()).await?;
    let mut statements = Vec::new();
    for described in described(config, (name, settings), &reader, args.table.as_deref()).await? {
        let more = audit_ddl::statements(args.engine, &described, args.plain)
            .map_err(|refused| CliError::new(refused.to_string()).hint(refused.hint).code(code::USAGE))?;
        statements.extend(more);
    }
    if args.json {
        print_json(&statements)?;
    } else {
        print_exactly(audit_ddl::script(args.engine, &statements).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The lake, or its parts, each with the sink's name where there are several lakes.
pub async fn described(
    config: &Config,
    (name, settings): (&str, &LakeConfig),
    reader: &LakeReader,
    table: Option<&str>,
) -> Result<Vec<Lake>, CliError> {
    let sink = (lake::all(config).len() > 1).then(|| name.to_owned());
    let described = describe(config, settings, reader, table).await?;
    Ok(described.into_iter().map(|described| Lake { sink: sink.clone(), ..described }).collect())
}

/// The lake, or its parts where tenants have stores of their own.
async fn describe(
    config: &Config,
    settings: &LakeConfig,
    reader: &LakeReader,
    table: Option<&str>,
) -> Result<Vec<Lake>, CliError> {
    let mut described = Vec::new();
    for part in reader.each().await? {
        described.extend(describe_part(config, settings, &part, table).await?);
    }
    if described.is_empty() {
        let known = reader.tables(&config.source.name).await?;
        let hint = match known.is_empty() {
            true => "no table has versions yet".to_owned(),
            false => format!("tables with versions: {}", known.join(", ")),
        };
        return Err(CliError::new("there is nothing to describe").hint(hint).code(code::USAGE));
    }
    Ok(described)
}

/// `None` where it has no such table.
async fn describe_part(
    config: &Config,
    settings: &LakeConfig,
    reader: &LakeReader,
    table: Option<&str>,
) -> Result<Option<Lake>, CliError> {
    let (source, rules) = (config.source.name.as_str(), config.rules());
    let mut wanted = reader.tables(source).await?;
    wanted.retain(|name| table.is_none_or(|table| table == name));
    if wanted.is_empty() {
        return Ok(None);
    }
    let rules = &rules;
    let described = futures::stream::iter(wanted).map(|name| async move {
        match reader.describe(source, &name).await {
            Err(LakeError::NoTable { .. }) if table.is_none() => {
                let shown = audit_config::visible(&name);
                eprintln!("left out: the folder of {shown} holds no table; its first commit may be still to come");
                Ok(None)
            }
            description => as_table(&name, description?, &rules.for_name(name.clone()).rule.renames).map(Some),
        }
    });
    let described: Vec<Option<Table>> = described.buffered(CONCURRENT).try_collect().await?;
    let tables: Vec<Table> = described.into_iter().flatten().collect();
    if tables.is_empty() {
        return Ok(None);
    }
    let (store, url) = (&settings.store, reader.url()?);
    let place = Place::of(&url, store.endpoint.as_deref(), store.account.as_deref())
        .ok_or_else(|| CliError::new(format!("{url} is no place that other engines read")))?;
    Ok(Some(Lake {
        source: source.to_owned(),
        sink: None,
        tenant: reader.tenant().map(|tenant| tenant.to_string()),
        place,
        tables,
        whole: table.is_none(),
    }))
}

fn as_table(name: &str, description: TableDescription, renames: &[Rename]) -> Result<Table, CliError> {
    let TableDescription { folder, partition_columns, fields, shapes, first_year, listed } = description;
    let partitions: Vec<&str> = partition_columns.iter().map(String::as_str).collect();
    let layout = Layout::of(&partitions).ok_or_else(|| {
        CliError::new(format!("the table {name} is partitioned by {}, as no lake of ours is", partitions.join(", ")))
    })?;
    let (schema, table) = match shapes.last() {
        Some(shape) => (shape.schema.clone(), shape.table.clone()),
        // Only the table of gaps has no shape.
        None => name.split_once('.').map_or_else(Default::default, |(schema, table)| (schema.into(), table.into())),
    };
    let names = ColumnNames::of(&shapes, renames);
    let own = fields.into_iter().filter(|field| !partition_columns.contains(&field.name));
    Ok(Table {
        schema,
        table,
        folder,
        layout,
        first_year,
        listed,
        columns: own.filter_map(|field| as_column(field, &shapes, &names)).collect(),
        versions: shapes.iter().map(|shape| shape.schema_version).collect(),
    })
}

/// `None` for the struct with the row before, which statements leave out: not every engine can declare one that grows.
fn as_column(field: FieldDescription, shapes: &[Shape], names: &ColumnNames) -> Option<Column> {
    let kind: Type = field.kind.parse().ok()?;
    let row = field.source.map(|(source, source_kind)| {
        let source_kind = source_kind.parse().unwrap_or(Kind::Text);
        // What a further method of protection left of a column is there where the column is.
        let beside = companion_of(&source);
        let has = |shape: &&Shape| {
            shape.columns.iter().any(|column| column.name == source || beside == Some(column.name.as_str()))
        };
        let versions: Vec<u32> = shapes.iter().filter(has).map(|shape| shape.schema_version).collect();
        let mut now: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for version in &versions {
            now.entry(names.shown(*version, &source).into_owned()).or_default().push(*version);
        }
        now.retain(|name, in_shapes| *name != source || *in_shapes != versions);
        Row {
            json: matches!(source_kind, Kind::Jsonb | Kind::Array(_)),
            zone: source_kind == Kind::TimestampTz,
            versions,
            names: now.into_iter().collect(),
            source,
        }
    });
    Some(Column { name: field.name, kind, row })
}
