//! DuckDB.

use crate::columns::{Form, Joined, joined};
use crate::engine::Engine;
use crate::lake::{Lake, Table};
use crate::types::Type;
use crate::views::{create_view, in_versions, no_rows, why_by_files};
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

/// Takes from this session, once its views exist, everything but reading these lakes: other files, extensions that are not
/// loaded yet, and the settings that would give them back.
///
/// ⚠ The reader of Delta logs opens logs, and only logs, past these settings.
///
/// # Errors
/// Fails with [`Refused`] if DuckDB cannot read the store that holds a lake.
pub fn confined(lakes: &[Lake]) -> Result<Vec<Statement>, Refused> {
    let engine = Engine::Duckdb;
    let folder = |lake: &Lake| Ok(engine.literal(&lake.place.locate(engine, "")?));
    let folders: Vec<String> = lakes.iter().map(folder).collect::<Result<_, Refused>>()?;
    let reader = lakes.iter().find_map(|lake| lake.place.duckdb_extension());
    let loaded = reader.into_iter().flat_map(|name| [format!("INSTALL {name}"), format!("LOAD {name}")]);
    let settings = [
        format!("SET allowed_directories = [{}]", folders.join(", ")),
        "SET autoinstall_known_extensions = false".to_owned(),
        "SET autoload_known_extensions = false".to_owned(),
        "SET allow_community_extensions = false".to_owned(),
        "SET enable_external_access = false".to_owned(),
        "SET lock_configuration = true".to_owned(),
    ];
    Ok(loaded.chain(settings).map(|sql| Statement::new("nothing but the lake is read", sql)).collect())
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

/// Columns of the record that a row view has, before those of its values.
const RECORD: [&str; 18] = [
    "position",
    "key",
    "old_key",
    "event",
    "changed",
    "changes",
    "before_known",
    "actor_id",
    "actor",
    "reason",
    "context",
    "included",
    "xid",
    "seq",
    "committed_at",
    "schema_version",
    "baseline",
    "tenant",
];

/// Makes a view for each table with the values before and after each version: `orders__versions` with `old_state` and
/// `new_state`. They stand on the views of [`crate::statements`], and are then found by their names alone.
pub fn row_views(lake: &Lake) -> Vec<Statement> {
    let engine = Engine::Duckdb;
    let view = |table: &Table| {
        let is_alone = lake.tables.iter().filter(|other| other.table == table.table).count() < 2;
        let name = if is_alone { table.table.clone() } else { format!("{}_{}", table.schema, table.table) };
        let mut names: Vec<String> = RECORD.iter().map(|name| (*name).to_owned()).collect();
        let record =
            RECORD.iter().map(|name| format!("{} AS {}", engine.quote(&format!("cdc_{name}")), engine.quote(name)));
        let mut shown: Vec<String> = record.collect();
        for column in joined(table) {
            for (prefix, value) in [("old", old(table, &column)), ("new", new(&column))] {
                let name = free_name(&format!("{prefix}_{}", column.name), &names);
                shown.push(format!("{value} AS {}", engine.quote(&name)));
                names.push(name);
            }
        }
        let from = engine.object(&lake.schema(), &table.view());
        let query = format!("SELECT\n  {}\nFROM {from}", shown.join(",\n  "));
        let why = format!("{}: each value before and after", table.shown());
        Statement::new(why, create_view(engine, &engine.object(&lake.schema(), &format!("{name}__versions")), &query))
    };
    let in_force = Statement::new("names without a schema are these", format!("USE {}", engine.quote(&lake.schema())));
    lake.tables.iter().map(view).chain([in_force]).collect()
}

fn free_name(name: &str, names: &[String]) -> String {
    let is_free = |name: &String| !names.iter().any(|known| known.eq_ignore_ascii_case(name));
    let numbered = (2u32..).map(|number| format!("{name}__{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_default()
}

/// The row's own columns hold the last known values of a deleted row.
fn new(column: &Joined<'_>) -> String {
    format!("CASE WHEN cdc_event <> 'deleted' THEN {} END", Engine::Duckdb.quote(&column.name))
}

/// The changes have the names that columns had then.
fn old(table: &Table, column: &Joined<'_>) -> String {
    let engine = Engine::Duckdb;
    let name = engine.quote(&column.name);
    let mut sources: Vec<&Form<'_>> = Vec::new();
    for form in &column.forms {
        if !sources.iter().any(|known| known.row.source == form.row.source) {
            sources.push(form);
        }
    }
    let changed = sources.into_iter().map(|form| {
        let pointer = format!("/{}", form.row.source.replace('~', "~0").replace('/', "~1"));
        let text = format!("json_extract_string(cdc_changes, {})", engine.literal(&format!("{pointer}/0")));
        let value = match column.kind {
            Type::Binary => format!("from_base64({text})"),
            kind => format!("TRY_CAST({text} AS {})", engine.type_name(&kind)),
        };
        let only = form.versions.and_then(|versions| in_versions(engine, table, |version| versions.contains(version)));
        let only = only.map(|only| format!(" AND {only}")).unwrap_or_default();
        format!("WHEN json_exists(cdc_changes, {}){only} THEN {value}", engine.literal(&pointer))
    });
    format!(
        "CASE WHEN cdc_event = 'deleted' THEN {name} {} WHEN cdc_event = 'updated' AND cdc_before_known THEN {name} END",
        changed.collect::<Vec<_>>().join(" ")
    )
}
