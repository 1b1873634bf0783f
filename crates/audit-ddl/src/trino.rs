//! Trino. Delta tables are in a catalog `delta`, plain files in a catalog `hive`. The operator must have made both.

use crate::aws::last_year;
use crate::engine::Engine;
use crate::lake::{Lake, Table};
use crate::types::Type;
use crate::{Refused, Statement};

/// Names an object with catalog and schema.
pub fn object(lake: &Lake, name: &str, plain: bool) -> String {
    let engine = Engine::Trino;
    format!("{}.{}", engine.quote(catalog(plain)), engine.object(&lake.schema(), name))
}

fn catalog(plain: bool) -> &'static str {
    if plain { "hive" } else { "delta" }
}

pub fn trino(lake: &Lake, plain: bool) -> Result<Vec<Statement>, Refused> {
    let (engine, schema) = (Engine::Trino, lake.schema());
    let catalog = catalog(plain);
    let mut all = vec![Statement::new(
        "what belongs together",
        format!("CREATE SCHEMA IF NOT EXISTS {}", engine.object(catalog, &schema)),
    )];
    for table in &lake.tables {
        if plain {
            all.extend(by_files(lake, table)?);
            continue;
        }
        let location = lake.place.locate(engine, &table.folder)?;
        all.push(Statement::definition_dropped(&object(lake, &table.base(), false)));
        all.push(Statement::new(
            format!("{} by its Delta log: columns that come later are seen by themselves", table.shown()),
            format!(
                "CALL {}.system.register_table(schema_name => {}, table_name => {}, table_location => {})",
                engine.quote(catalog),
                engine.literal(&schema),
                engine.literal(&table.base()),
                engine.literal(&location)
            ),
        ));
    }
    Ok(all)
}

fn by_files(lake: &Lake, table: &Table) -> Result<[Statement; 2], Refused> {
    let engine = Engine::Trino;
    let location = lake.place.locate(engine, &format!("{}/data", table.folder))?;
    let name = object(lake, &table.base(), true);
    let own = table.columns.iter().map(|column| {
        let kind = match column.kind {
            Type::Timestamp => "TIMESTAMP(6)".to_owned(),
            kind => engine.type_name(&kind),
        };
        format!("{} {kind}", engine.quote(&column.name))
    });
    let partitions = table.layout.columns();
    let projected = partitions.iter().map(|(name, kind)| {
        format!("{} {} WITH (\n    {})", engine.quote(name), engine.type_name(kind), projection(name, table))
    });
    let columns: Vec<String> = own.chain(projected).collect();
    let names: Vec<String> = partitions.iter().map(|(name, _)| engine.literal(name)).collect();
    let template: String = partitions.iter().map(|(name, _)| format!("/{name}=${{{name}}}")).collect();
    Ok([
        Statement::definition_dropped(&name),
        Statement::new(
            format!(
                "{} by its files; partitions are computed{}; the catalog has hive.timestamp-precision=MICROSECONDS, hive.partition-projection-enabled=true and hive.ignore-absent-partitions=true",
                table.shown(),
                if table.layout.date { String::new() } else { format!(", to the year {}", last_year(table)) }
            ),
            format!(
                "CREATE TABLE {name} (\n  {})\nWITH (\n  format = 'PARQUET',\n  external_location = {},\n  partitioned_by = ARRAY[{}],\n  partition_projection_enabled = true,\n  partition_projection_location_template = {})",
                columns.join(",\n  "),
                engine.literal(&location),
                names.join(", "),
                engine.literal(&format!("{location}{template}"))
            ),
        ),
    ])
}

fn projection(name: &str, table: &Table) -> String {
    let integers = |first: i32, last: i32, digits: u8| {
        format!(
            "partition_projection_type = 'INTEGER', partition_projection_range = ARRAY['{first}', '{last}'], partition_projection_digits = {digits}"
        )
    };
    match name {
        "date" => format!(
            "partition_projection_type = 'DATE', partition_projection_format = 'yyyy-MM-dd',\n    partition_projection_range = ARRAY['{:04}-01-01', 'NOW+1DAYS'],\n    partition_projection_interval = 1, partition_projection_interval_unit = 'DAYS'",
            table.first_year
        ),
        "year" => integers(table.first_year, last_year(table), 4),
        "month" => integers(1, 12, 2),
        "day" => integers(1, 31, 2),
        _ => integers(0, 23, 2),
    }
}
