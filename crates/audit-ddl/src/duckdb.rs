//! DuckDB.

use crate::engine::Engine;
use crate::lake::{Lake, Table};
use crate::views::{create_view, no_rows, why_by_files};
use crate::{Refused, Statement};

pub fn duckdb(lake: &Lake, plain: bool) -> Result<Vec<Statement>, Refused> {
    let (engine, schema) = (Engine::Duckdb, lake.schema());
    let mut all =
        vec![Statement::new("what belongs together", format!("CREATE SCHEMA IF NOT EXISTS {}", engine.quote(&schema)))];
    if !plain {
        all.push(Statement::new("the reader of Delta logs", "INSTALL delta"));
        all.push(Statement::new("in this session", "LOAD delta"));
    }
    for table in &lake.tables {
        let view = engine.object(&schema, &table.base());
        let (why, query) = if plain {
            (why_by_files(table), by_files(lake, table)?)
        } else {
            (format!("{} by its Delta log", table.shown()), by_log(lake, table)?)
        };
        all.push(Statement::new(why, create_view(engine, &view, &query)));
    }
    Ok(all)
}

fn names(table: &Table) -> String {
    let names: Vec<String> = table.all_columns().iter().map(|(name, _)| Engine::Duckdb.quote(name)).collect();
    names.join(", ")
}

fn by_log(lake: &Lake, table: &Table) -> Result<String, Refused> {
    let location = lake.place.locate(Engine::Duckdb, &table.folder)?;
    Ok(format!("SELECT {}\nFROM delta_scan({})", names(table), Engine::Duckdb.literal(&location)))
}

/// Reads the files. The second part of the union has no rows: it names the columns that no file has yet, because their
/// rows may still be only in `fresh/`.
fn by_files(lake: &Lake, table: &Table) -> Result<String, Refused> {
    let engine = Engine::Duckdb;
    let location = lake.place.locate(engine, &format!("{}/data/**/*.parquet", table.folder))?;
    if !table.listed {
        return Ok(no_rows(engine, table));
    }
    let typed: Vec<String> = table
        .all_columns()
        .iter()
        .map(|(name, kind)| format!("NULL::{} AS {}", engine.type_name(kind), engine.quote(name)))
        .collect();
    let partitions: Vec<String> =
        table.layout.columns().iter().map(|(name, kind)| format!("'{name}': {}", engine.type_name(kind))).collect();
    Ok(format!(
        "SELECT {}\nFROM (\n  SELECT * FROM read_parquet({}, hive_partitioning = true, hive_types = {{{}}}, union_by_name = true)\n  UNION ALL BY NAME\n  SELECT {} WHERE false)",
        names(table),
        engine.literal(&location),
        partitions.join(", "),
        typed.join(", ")
    ))
}
