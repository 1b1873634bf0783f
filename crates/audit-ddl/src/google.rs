//! BigQuery.

use crate::engine::Engine;
use crate::lake::Lake;
use crate::{Refused, Statement};

pub fn bigquery(lake: &Lake, plain: bool) -> Result<Vec<Statement>, Refused> {
    let (engine, schema) = (Engine::Bigquery, lake.schema());
    let mut all = vec![Statement::new(
        "in the bucket's location: add OPTIONS (location = '...') where the default is another",
        format!("CREATE SCHEMA IF NOT EXISTS {}", engine.quote(&schema)),
    )];
    for table in &lake.tables {
        let name = engine.object(&schema, &table.base());
        let folder = lake.place.locate(engine, &table.folder)?;
        let literal = |path: &str| engine.literal(&format!("{folder}{path}"));
        if !plain {
            all.push(Statement::new(
                format!(
                    "{} by its Delta log: columns that come later are seen by themselves; the default connection's service account must be allowed to read the bucket",
                    table.shown()
                ),
                format!(
                    "CREATE OR REPLACE EXTERNAL TABLE {name}\nWITH CONNECTION DEFAULT\nOPTIONS (format = 'DELTA_LAKE', uris = [{}])",
                    literal("")
                ),
            ));
            continue;
        }
        let typed = |name: &str, kind| format!("{} {}", engine.quote(name), engine.column_type(&kind));
        let columns: Vec<String> = table.columns.iter().map(|column| typed(&column.name, column.kind)).collect();
        let partitions: Vec<String> =
            table.layout.columns().into_iter().map(|(name, kind)| typed(name, kind)).collect();
        all.push(Statement::new(
            format!("{} by its files; partitions are found by the names of the folders", table.shown()),
            format!(
                "CREATE OR REPLACE EXTERNAL TABLE {name} (\n  {})\nWITH PARTITION COLUMNS ({})\nOPTIONS (\n  format = 'PARQUET',\n  uris = [{}],\n  hive_partition_uri_prefix = {},\n  enable_list_inference = TRUE)",
                columns.join(",\n  "),
                partitions.join(", "),
                literal("/data/*"),
                literal("/data"),
            ),
        ));
    }
    Ok(all)
}
