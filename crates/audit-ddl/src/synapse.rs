//! Synapse's serverless SQL pool. Tables are views over OPENROWSET, which reads the files itself.

use crate::engine::Engine;
use crate::lake::{Lake, Table};
use crate::types::Type;
use crate::views::{create_view, no_rows, why_by_files};
use crate::{Refused, Statement};

pub fn synapse(lake: &Lake, plain: bool) -> Result<Vec<Statement>, Refused> {
    let (engine, schema) = (Engine::Synapse, lake.schema());
    let mut all = vec![Statement::new(
        "what belongs together",
        format!(
            "IF SCHEMA_ID({}) IS NULL EXEC({})",
            engine.literal(&schema),
            engine.literal(&format!("CREATE SCHEMA {}", engine.quote(&schema)))
        ),
    )];
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

fn columns(columns: impl Iterator<Item = (String, Type)>) -> String {
    let engine = Engine::Synapse;
    let typed: Vec<String> =
        columns.map(|(name, kind)| format!("{} {}", engine.quote(&name), engine.column_type(&kind))).collect();
    typed.join(",\n  ")
}

fn by_log(lake: &Lake, table: &Table) -> Result<String, Refused> {
    let location = lake.place.locate(Engine::Synapse, &format!("{}/", table.folder))?;
    let columns = columns(table.all_columns().into_iter());
    Ok(format!(
        "SELECT *\nFROM OPENROWSET(BULK {}, FORMAT = 'DELTA') WITH (\n  {columns}) AS [lake]",
        quoted(&location)
    ))
}

/// Reads the files. Partition columns come from the path: `filepath(1)` is the text that the first `*` matched.
fn by_files(lake: &Lake, table: &Table) -> Result<String, Refused> {
    let engine = Engine::Synapse;
    if !table.listed {
        return Ok(no_rows(engine, table));
    }
    let partitions = table.layout.columns();
    let folders: String = partitions.iter().map(|(name, _)| format!("{name}=*/")).collect();
    let location = lake.place.locate(engine, &format!("{}/data/{folders}*.parquet", table.folder))?;
    let shown = |(at, (name, kind)): (usize, &(&str, Type))| {
        format!("CAST([lake].filepath({}) AS {}) AS {}", at + 1, engine.type_name(kind), engine.quote(name))
    };
    let shown: Vec<String> = partitions.iter().enumerate().map(shown).collect();
    let columns = columns(table.columns.iter().map(|column| (column.name.clone(), column.kind)));
    Ok(format!(
        "SELECT [lake].*, {}\nFROM OPENROWSET(BULK {}, FORMAT = 'PARQUET') WITH (\n  {columns}) AS [lake]",
        shown.join(", "),
        quoted(&location)
    ))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
