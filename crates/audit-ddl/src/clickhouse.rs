//! ClickHouse.

use crate::engine::Engine;
use crate::lake::{Lake, Table};
use crate::place::Place;
use crate::types::Type;
use crate::views::create_view;
use crate::{Refused, Statement};

pub fn clickhouse(lake: &Lake, plain: bool) -> Result<Vec<Statement>, Refused> {
    let (engine, schema) = (Engine::Clickhouse, lake.schema());
    let mut all = vec![Statement::new(
        "what belongs together",
        format!("CREATE DATABASE IF NOT EXISTS {}", engine.quote(&schema)),
    )];
    for table in &lake.tables {
        let view = engine.object(&schema, &table.base());
        let names: Vec<String> = table.all_columns().iter().map(|(name, _)| engine.quote(name)).collect();
        let names = names.join(", ");
        let (why, query) = if plain {
            (
                format!("{} by its files", table.shown()),
                format!("SELECT {names}\nFROM {}\nSETTINGS use_hive_partitioning = 1", by_files(lake, table)?),
            )
        } else {
            (format!("{} by its Delta log", table.shown()), format!("SELECT {names}\nFROM {}", by_log(lake, table)?))
        };
        all.push(Statement::new(why, create_view(engine, &view, &query)));
    }
    Ok(all)
}

fn by_log(lake: &Lake, table: &Table) -> Result<String, Refused> {
    let engine = Engine::Clickhouse;
    let location = lake.place.locate(engine, &table.folder)?;
    Ok(match &lake.place {
        Place::Folder(_) => format!("deltaLakeLocal({})", engine.literal(&location)),
        Place::S3 { .. } | Place::Gcs { .. } => format!("deltaLakeS3({})", engine.literal(&location)),
        Place::Azure { account, container, .. } => {
            format!("deltaLakeAzure({})", blob(account, container, &location))
        }
    })
}

fn by_files(lake: &Lake, table: &Table) -> Result<String, Refused> {
    let engine = Engine::Clickhouse;
    let location = lake.place.locate(engine, &format!("{}/data/**/*.parquet", table.folder))?;
    let typed = |(name, kind): &(String, Type)| format!("{} {}", engine.quote(name), engine.column_type(kind));
    let structure = table.all_columns().iter().map(typed).collect::<Vec<_>>().join(", ");
    let structure = engine.literal(&structure);
    Ok(match &lake.place {
        Place::Folder(_) => format!("file({}, Parquet, {structure})", engine.literal(&location)),
        Place::S3 { .. } | Place::Gcs { .. } => format!("s3({}, Parquet, {structure})", engine.literal(&location)),
        Place::Azure { account, container, .. } => {
            format!("azureBlobStorage({}, Parquet, 'auto', {structure})", blob(account, container, &location))
        }
    })
}

/// Writes account, container and path as three arguments.
fn blob(account: &str, container: &str, location: &str) -> String {
    let engine = Engine::Clickhouse;
    let host = format!("https://{account}.blob.core.windows.net");
    let path = location.strip_prefix(&format!("{host}/{container}/")).unwrap_or(location);
    [host.as_str(), container, path].map(|text| engine.literal(text)).join(", ")
}
