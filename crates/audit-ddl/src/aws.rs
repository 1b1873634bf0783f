//! Athena, Glue, Redshift.

use serde_json::{Map, Value, json};

use crate::engine::Engine;
use crate::lake::{Lake, Table};
use crate::types::Type;
use crate::{Refused, Statement};

/// Number of years after a table's first that are projected, because a projection of years needs an end.
const YEARS: i32 = 20;

pub fn athena(lake: &Lake, plain: bool) -> Result<Vec<Statement>, Refused> {
    let schema = lake.schema();
    let mut all = vec![Statement::new("what belongs together", format!("CREATE DATABASE IF NOT EXISTS `{schema}`"))];
    for table in &lake.tables {
        let name = format!("`{schema}`.`{}`", table.base());
        all.push(Statement::definition_dropped(&name));
        if !plain {
            let location = lake.place.locate(Engine::Athena, &format!("{}/", table.folder))?;
            all.push(Statement::new(
                format!("{} by its Delta log: columns that come later are seen by themselves", table.shown()),
                format!(
                    "CREATE EXTERNAL TABLE {name}\nLOCATION {}\nTBLPROPERTIES ('table_type' = 'DELTA')",
                    Engine::Athena.literal(&location)
                ),
            ));
            continue;
        }
        let location = lake.place.locate(Engine::Athena, &format!("{}/data/", table.folder))?;
        let hive = |(name, kind): &(String, Type)| format!("`{}` {}", name.to_lowercase(), Engine::hive_type(kind));
        let own: Vec<(String, Type)> = table.columns.iter().map(|column| (column.name.clone(), column.kind)).collect();
        let partitions: Vec<(String, Type)> =
            table.layout.columns().into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
        let list =
            |columns: &[(String, Type)], between: &str| columns.iter().map(hive).collect::<Vec<_>>().join(between);
        let properties: Vec<String> = projection(table, &location)
            .iter()
            .map(|(key, value)| format!("'{key}' = {}", Engine::Athena.literal(value.as_str().unwrap_or_default())))
            .collect();
        all.push(Statement::new(
            why_plain(table),
            format!(
                "CREATE EXTERNAL TABLE {name} (\n  {})\nPARTITIONED BY ({})\nSTORED AS PARQUET\nLOCATION {}\nTBLPROPERTIES (\n  {})",
                list(&own, ",\n  "),
                list(&partitions, ", "),
                Engine::Athena.literal(&location),
                properties.join(",\n  ")
            ),
        ));
    }
    Ok(all)
}

/// Says what the reader of a statement with projected partitions has to know.
fn why_plain(table: &Table) -> String {
    let until = if table.layout.date { String::new() } else { format!(", to the year {}", last_year(table)) };
    format!("{} by its files; partitions are computed{until}: no crawler, no MSCK REPAIR", table.shown())
}

pub fn last_year(table: &Table) -> i32 {
    table.first_year + YEARS
}

/// Returns the table properties that let Athena compute the partitions.
fn projection(table: &Table, location: &str) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut set = |key: &str, value: String| properties.insert(key.to_owned(), Value::from(value));
    let mut template = location.trim_end_matches('/').to_owned();
    set("projection.enabled", "true".to_owned());
    for (name, _) in table.layout.columns() {
        template.push_str(&format!("/{name}=${{{name}}}"));
        let mut range = |kind: &str, range: String, more: &[(&str, &str)]| {
            set(&format!("projection.{name}.type"), kind.to_owned());
            set(&format!("projection.{name}.range"), range);
            more.iter().for_each(|(key, value)| {
                set(&format!("projection.{name}.{key}"), (*value).to_owned());
            });
        };
        match name {
            // One day more, because the clock of the machine that queries may lag behind the source's.
            "date" => range(
                "date",
                format!("{:04}-01-01,NOW+1DAYS", table.first_year),
                &[("format", "yyyy-MM-dd"), ("interval", "1"), ("interval.unit", "DAYS")],
            ),
            "year" => range("integer", format!("{},{}", table.first_year, last_year(table)), &[("digits", "4")]),
            "month" => range("integer", "1,12".to_owned(), &[("digits", "2")]),
            "day" => range("integer", "1,31".to_owned(), &[("digits", "2")]),
            _ => range("integer", "0,23".to_owned(), &[("digits", "2")]),
        }
    }
    set("storage.location.template", template);
    properties
}

/// Creates Athena's tables in the Glue Data Catalog, for users who maintain it by its API. There are no views, because
/// those are Athena's own.
pub fn glue(lake: &Lake, plain: bool) -> Result<Vec<Statement>, Refused> {
    let schema = lake.schema();
    let database = json!({ "Name": schema });
    let mut all = vec![Statement::new(
        "what belongs together",
        format!(
            "aws glue get-database --name {schema} > /dev/null 2>&1 ||\n  aws glue create-database --database-input {}",
            shell(&database.to_string())
        ),
    )];
    for table in &lake.tables {
        let folder = if plain { format!("{}/data/", table.folder) } else { format!("{}/", table.folder) };
        let location = lake.place.locate(Engine::Glue, &folder)?;
        let column = |name: &str, kind: &Type| json!({ "Name": name.to_lowercase(), "Type": Engine::hive_type(kind) });
        let mut columns: Vec<Value> = table.columns.iter().map(|known| column(&known.name, &known.kind)).collect();
        let partitions: Vec<Value> = table.layout.columns().iter().map(|(name, kind)| column(name, kind)).collect();
        let (keys, parameters) = match plain {
            true => {
                let mut parameters = projection(table, &location);
                parameters.insert("classification".to_owned(), Value::from("parquet"));
                (partitions, parameters)
            }
            false => {
                columns.extend(partitions);
                let delta =
                    json!({ "classification": "delta", "table_type": "delta", "spark.sql.sources.provider": "delta" });
                (Vec::new(), delta.as_object().cloned().unwrap_or_default())
            }
        };
        let input = json!({
            "Name": table.base(),
            "TableType": "EXTERNAL_TABLE",
            "Parameters": parameters,
            "PartitionKeys": keys,
            "StorageDescriptor": {
                "Columns": columns,
                "Location": location,
                "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
                "SerdeInfo": { "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe" },
            },
        });
        let input = shell(&input.to_string());
        let call = |verb: &str| format!("aws glue {verb}-table --database-name {schema} --table-input {input}");
        let why = if plain { why_plain(table) } else { format!("{} by its Delta log", table.shown()) };
        all.push(Statement::new(why, format!("{} ||\n  {}", call("update"), call("create"))));
    }
    Ok(all)
}

/// Quotes a text as one word of a shell command.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Names the schema of Redshift's external tables, which cannot contain Redshift's own tables and views.
pub fn external_schema(lake: &Lake) -> String {
    format!("{}_lake", lake.schema())
}

/// Describes the tables by their files in any case: Redshift reads a Delta log only through lists of files that another
/// program has to maintain.
pub fn redshift(lake: &Lake) -> Result<Vec<Statement>, Refused> {
    let (engine, schema, external) = (Engine::Redshift, lake.schema(), external_schema(lake));
    let mut all = vec![
        Statement::new(
            "the tables outside; the cluster's default role must be allowed to read the bucket and to write to the Glue Data Catalog",
            format!(
                "CREATE EXTERNAL SCHEMA IF NOT EXISTS {}\nFROM DATA CATALOG DATABASE {}\nIAM_ROLE default\nCREATE EXTERNAL DATABASE IF NOT EXISTS",
                engine.quote(&external),
                engine.literal(&format!("{schema}_redshift"))
            ),
        ),
        Statement::new("the views", format!("CREATE SCHEMA IF NOT EXISTS {}", engine.quote(&schema))),
    ];
    for table in &lake.tables {
        let location = lake.place.locate(engine, &format!("{}/data/", table.folder))?;
        let name = engine.object(&external, &table.base());
        let typed = |name: &str, kind: &Type| match kind {
            Type::TextList => format!("{} ARRAY<VARCHAR(65535)>", engine.quote(name)),
            kind => format!("{} {}", engine.quote(name), engine.type_name(kind)),
        };
        let columns: Vec<String> = table.columns.iter().map(|column| typed(&column.name, &column.kind)).collect();
        all.push(Statement::definition_dropped(&name));
        all.push(Statement::new(
            format!(
                "{} by its files, of all days: Redshift Spectrum reads no Delta log and computes no partitions; bounds on cdc_committed_at skip row groups",
                table.shown()
            ),
            format!(
                "CREATE EXTERNAL TABLE {name} (\n  {})\nSTORED AS PARQUET\nLOCATION {}",
                columns.join(",\n  "),
                engine.literal(&location)
            ),
        ));
    }
    Ok(all)
}

/// Copies the tables into Redshift.
pub fn redshift_load(lake: &Lake) -> Result<Vec<Statement>, Refused> {
    let (engine, schema) = (Engine::Redshift, lake.schema());
    let mut all = Vec::new();
    for table in &lake.tables {
        let location = lake.place.locate(engine, &format!("{}/data/", table.folder))?;
        let name = engine.object(&schema, &format!("loaded__{}", table.view()));
        let one_shape = table.versions.len() < 2;
        let columns: Vec<&crate::lake::Column> =
            table.columns.iter().filter(|column| one_shape || column.kind != Type::TextList).collect();
        let typed: Vec<String> = columns
            .iter()
            .map(|column| format!("{} {}", engine.quote(&column.name), engine.type_name(&column.kind)))
            .collect();
        all.push(Statement::new(
            format!("{} inside, for those who load", table.shown()),
            format!("CREATE TABLE IF NOT EXISTS {name} (\n  {})\nSORTKEY (\"cdc_committed_at\")", typed.join(",\n  ")),
        ));
        if one_shape {
            all.push(Statement::new(
                "once; `JOB CREATE name AUTO ON` at its end loads each later file by itself. COPY asks that every file has all columns: print this anew when the table's shape changed",
                format!("COPY {name}\nFROM {}\nIAM_ROLE default\nFORMAT AS PARQUET", engine.literal(&location)),
            ));
            continue;
        }
        let names: Vec<String> = columns.iter().map(|column| engine.quote(&column.name)).collect();
        let position = engine.quote("cdc_position");
        all.push(Statement::new(
            "COPY asks that every file has all columns, and this table's shape has changed: what is not yet there comes by the external table. Drop the copy when there are new columns",
            format!(
                "INSERT INTO {name} ({})\nSELECT {}\nFROM {} AS lake\nWHERE NOT EXISTS (SELECT 1 FROM {name} AS known WHERE known.{position} = lake.{position})",
                names.join(", "),
                names.join(", "),
                engine.object(&external_schema(lake), &table.base())
            ),
        ));
    }
    Ok(all)
}
