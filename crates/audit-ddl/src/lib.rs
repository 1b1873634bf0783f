//! Writes statements that make a lake queryable in common engines, from a description of the lake, without I/O.
//!
//! There are three layers, and the first is made of the engine's own kind of object:
//!
//! ```text
//! lake__public_items   the table as the lake has it: one column for each lake column, also for former types
//! public_items         a view: a column's former types and names joined, `cdc_changes` shown for created and deleted
//! too versions             a view over all tables: the record's fields, `changes` as JSON text
//! ```
//!
//! Everything is put into a schema (database, dataset) that is named after the source, and after the sink too if there
//! are several lakes. Statements can be run again, and must be when tables change or the lake moves: each creates what
//! is missing and replaces what exists, so that nothing points at an old place.

mod aws;
mod clickhouse;
mod columns;
mod duckdb;
mod engine;
mod expression;
mod google;
mod lake;
mod names;
mod place;
mod snowflake;
mod spark;
mod synapse;
mod trino;
mod types;
mod views;

use audit_config::visible;

pub use duckdb::{confined, row_views};
pub use engine::Engine;
pub use lake::{Column, Lake, Layout, Row, Table};
pub use place::Place;
pub use types::Type;

/// One statement and its purpose.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Statement {
    pub why: String,
    /// The SQL text, or for [`Engine::Glue`] a shell command, without the sign that ends it.
    pub sql: String,
}

impl Statement {
    fn new(why: impl Into<String>, sql: impl Into<String>) -> Statement {
        Statement { why: why.into(), sql: sql.into() }
    }

    /// Drops the definition of an external table before it is made, because an existing one may point at another place.
    fn definition_dropped(table: &str) -> Statement {
        Statement::new("only the definition is dropped", format!("DROP TABLE IF EXISTS {table}"))
    }
}

/// The engine cannot read this lake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{engine} does not read {store}")]
pub struct Refused {
    pub engine: &'static str,
    pub store: &'static str,
    pub hint: String,
}

/// Writes the statements for all of the lake's tables. With `plain` they read the Parquet files under `data/` instead
/// of the Delta tables.
///
/// # Errors
/// Fails with [`Refused`] if the engine cannot read the store that holds the lake.
pub fn statements(engine: Engine, lake: &Lake, plain: bool) -> Result<Vec<Statement>, Refused> {
    let mut all = Vec::new();
    all.extend(match engine {
        Engine::Athena => aws::athena(lake, plain)?,
        Engine::Glue => return aws::glue(lake, plain),
        Engine::Redshift => aws::redshift(lake)?,
        Engine::Bigquery => google::bigquery(lake, plain)?,
        Engine::Synapse => synapse::synapse(lake, plain)?,
        Engine::Snowflake => snowflake::snowflake(lake, plain)?,
        Engine::Databricks | Engine::Spark => spark::spark(engine, lake, plain)?,
        Engine::Trino => trino::trino(lake, plain)?,
        Engine::Duckdb => duckdb::duckdb(lake, plain)?,
        Engine::Clickhouse => clickhouse::clickhouse(lake, plain)?,
    });
    all.extend(lake.tables.iter().flat_map(|table| views::of_table(engine, lake, table, plain)));
    if lake.whole {
        all.extend(views::versions(engine, lake, plain));
    }
    if plain && engine == Engine::Redshift {
        all.extend(aws::redshift_load(lake)?);
    }
    Ok(all)
}

/// Writes the statements as one script. A comment before each statement states its purpose, and each ends as the
/// engine's client expects it.
pub fn script(engine: Engine, statements: &[Statement]) -> String {
    let (comment, end) = engine.script();
    let show = |statement: &Statement| {
        // ⚠ The purpose contains names of tables, which must not begin a new line.
        let why: String = statement.why.split('\n').map(|line| format!("{comment} {}\n", visible(line))).collect();
        format!("{why}{}{end}\n", statement.sql)
    };
    statements.iter().map(show).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
