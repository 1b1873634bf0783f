//! Snowflake.

use crate::engine::Engine;
use crate::lake::{Lake, Table};
use crate::types::Type;
use crate::{Refused, Statement};

/// Name of the external volume and the storage integration that the operator made and allowed to read the bucket.
const INTEGRATION: &str = "cdc_audit";
const PARQUET: &str = "FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE)";

pub fn snowflake(lake: &Lake, plain: bool) -> Result<Vec<Statement>, Refused> {
    let (engine, schema) = (Engine::Snowflake, lake.schema());
    let mut all =
        vec![Statement::new("what belongs together", format!("CREATE SCHEMA IF NOT EXISTS {}", engine.quote(&schema)))];
    let root = lake.place.locate(engine, "")?;
    if !plain {
        all.push(Statement::new(
            format!("Delta tables; the external volume {INTEGRATION} has STORAGE_BASE_URL = '{root}'"),
            "CREATE CATALOG INTEGRATION IF NOT EXISTS cdc_audit_delta\n  CATALOG_SOURCE = OBJECT_STORE\n  TABLE_FORMAT = DELTA\n  ENABLED = TRUE"
                .to_owned(),
        ));
        for table in &lake.tables {
            all.push(Statement::new(
                format!("{} by its Delta log", table.shown()),
                format!(
                    "CREATE OR REPLACE ICEBERG TABLE {}\n  EXTERNAL_VOLUME = '{INTEGRATION}'\n  CATALOG = 'cdc_audit_delta'\n  BASE_LOCATION = {}\n  AUTO_REFRESH = TRUE",
                    engine.object(&schema, &table.base()),
                    engine.literal(&format!("{}/", table.folder))
                ),
            ));
        }
        return Ok(all);
    }
    let stage = engine.object(&schema, "lake");
    all.push(Statement::new(
        format!("the lake's files; the storage integration {INTEGRATION} may read them"),
        format!(
            "CREATE STAGE IF NOT EXISTS {stage}\n  URL = {}\n  STORAGE_INTEGRATION = {INTEGRATION}\n  {PARQUET}",
            engine.literal(&root)
        ),
    ));
    all.push(Statement::new(
        "where they lie now, if the stage was made for another place",
        format!("ALTER STAGE {stage} SET URL = {}", engine.literal(&root)),
    ));
    for table in &lake.tables {
        all.extend(external(lake, table, &stage));
        all.extend(load(lake, table, &stage));
    }
    Ok(all)
}

fn external(lake: &Lake, table: &Table, stage: &str) -> [Statement; 2] {
    let engine = Engine::Snowflake;
    let name = engine.object(&lake.schema(), &table.base());
    let own = table.columns.iter().map(|column| {
        let (quoted, kind) = (engine.quote(&column.name), engine.type_name(&column.kind));
        format!("{quoted} {kind} AS (VALUE:{quoted}::{kind})")
    });
    let partitions = table.layout.columns().into_iter().map(|(name, kind)| {
        let (quoted, kind) = (engine.quote(name), engine.type_name(&kind));
        format!("{quoted} {kind} AS (SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '/{name}=', 2), '/', 1)::{kind})")
    });
    let columns: Vec<String> = own.chain(partitions).collect();
    let names: Vec<String> = table.layout.columns().iter().map(|(name, _)| engine.quote(name)).collect();
    [
        Statement::new(
            format!("{} by its files; they are listed when they are refreshed", table.shown()),
            format!(
                "CREATE OR REPLACE EXTERNAL TABLE {name} (\n  {})\nPARTITION BY ({})\nLOCATION = @{stage}/{}/data/\nAUTO_REFRESH = FALSE\n{PARQUET}",
                columns.join(",\n  "),
                names.join(", "),
                table.folder
            ),
        ),
        Statement::new("again for files that come later", format!("ALTER EXTERNAL TABLE {name} REFRESH")),
    ]
}

/// Copies a table into Snowflake. COPY remembers for 64 days which files it has loaded, and loads each once.
fn load(lake: &Lake, table: &Table, stage: &str) -> [Statement; 2] {
    let engine = Engine::Snowflake;
    let name = engine.object(&lake.schema(), &format!("loaded__{}", table.view()));
    let typed = |name: &str, kind: &Type| format!("{} {}", engine.quote(name), engine.type_name(kind));
    let columns: Vec<String> = table.columns.iter().map(|column| typed(&column.name, &column.kind)).collect();
    [
        Statement::new(
            format!("{} inside, for those who load; new columns come with the files that have them", table.shown()),
            format!(
                "CREATE TABLE IF NOT EXISTS {name} (\n  {})\nENABLE_SCHEMA_EVOLUTION = TRUE",
                columns.join(",\n  ")
            ),
        ),
        Statement::new(
            "again and again: each file is loaded once",
            format!(
                "COPY INTO {name}\nFROM @{stage}/{}/data/\n{PARQUET}\nMATCH_BY_COLUMN_NAME = CASE_INSENSITIVE",
                table.folder
            ),
        ),
    ]
}
