//! Spark with Delta, and Databricks.

use crate::engine::Engine;
use crate::lake::{Lake, Table};
use crate::types::Type;
use crate::views::{create_view, no_rows, why_by_files};
use crate::{Refused, Statement};

pub fn spark(engine: Engine, lake: &Lake, plain: bool) -> Result<Vec<Statement>, Refused> {
    let schema = lake.schema();
    let mut all =
        vec![Statement::new("what belongs together", format!("CREATE SCHEMA IF NOT EXISTS {}", engine.quote(&schema)))];
    if plain && engine == Engine::Spark {
        all.push(Statement::new(
            "partitions are found by listing, not kept in the catalog: no MSCK REPAIR. A session lists once: REFRESH TABLE there finds what came later",
            "SET spark.sql.hive.manageFilesourcePartitions = false",
        ));
    }
    for table in &lake.tables {
        let name = engine.object(&schema, &table.base());
        if !plain {
            let location = lake.place.locate(engine, &table.folder)?;
            all.push(Statement::definition_dropped(&name));
            all.push(Statement::new(
                format!("{} by its Delta log: columns that come later are seen by themselves", table.shown()),
                format!("CREATE TABLE {name} USING DELTA LOCATION {}", engine.literal(&location)),
            ));
            continue;
        }
        let location = lake.place.locate(engine, &format!("{}/data", table.folder))?;
        let why = why_by_files(table);
        if engine == Engine::Databricks {
            let query = if table.listed { read_files(table, &location) } else { no_rows(engine, table) };
            all.push(Statement::new(why, create_view(engine, &name, &query)));
            continue;
        }
        all.push(Statement::definition_dropped(&name));
        let partitions: Vec<String> = table.layout.columns().iter().map(|(name, _)| engine.quote(name)).collect();
        all.push(Statement::new(
            why,
            format!(
                "CREATE TABLE {name} (\n  {})\nUSING PARQUET\nPARTITIONED BY ({})\nLOCATION {}",
                columns(engine, &table.all_columns(), ",\n  "),
                partitions.join(", "),
                engine.literal(&location)
            ),
        ));
    }
    Ok(all)
}

fn columns(engine: Engine, columns: &[(String, Type)], between: &str) -> String {
    let typed = |(name, kind): &(String, Type)| format!("{} {}", engine.quote(name), engine.column_type(kind));
    columns.iter().map(typed).collect::<Vec<_>>().join(between)
}

/// Writes a query with `read_files`, which finds the folders of partitions. Unity Catalog's partitioned tables of
/// foreign files do not.
fn read_files(table: &Table, location: &str) -> String {
    let engine = Engine::Databricks;
    format!(
        "SELECT *\nFROM read_files(\n  {},\n  format => 'parquet',\n  schema => {})",
        engine.literal(location),
        engine.literal(&columns(engine, &table.all_columns(), ", "))
    )
}
