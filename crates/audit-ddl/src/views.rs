//! The views over the tables, alike in all engines.

use serde_json::Value;

use crate::Statement;
use crate::columns::{Joined, joined};
use crate::engine::{Engine, SIDES};
use crate::expression::{after_two, cast, concat, join, json, text};
use crate::lake::{Column, Lake, Layout, Table, Type};
use crate::{aws, trino};

/// A table's view: former types joined, `cdc_changes` of created, snapshot and deleted made of the row.
pub fn of_table(engine: Engine, lake: &Lake, table: &Table, plain: bool) -> Statement {
    let columns = joined(table);
    let record = table.columns.iter().filter(|column| column.row.is_none() && readable(engine, column));
    let mut shown: Vec<String> = record
        .map(|column| match column.name.as_str() {
            "cdc_changes" if !columns.is_empty() => changes(engine, table, &columns),
            name => engine.quote(name),
        })
        .collect();
    shown.extend(columns.iter().map(|column| joined_column(engine, column)));
    shown.extend(partition_columns(engine, table.layout).iter().map(|name| engine.quote(name)));
    let base = base(engine, lake, table, plain);
    let from = if columns.is_empty() { base } else { with_sides(engine, &base) };
    let view = view_name(engine, lake, &table.view(), plain);
    Statement::new(
        format!("{}: former types joined, changes of whole rows shown", table.shown()),
        create_view(engine, &view, &format!("SELECT\n  {}\nFROM {from}", shown.join(",\n  "))),
    )
}

/// The view over all tables.
pub fn versions(engine: Engine, lake: &Lake, plain: bool) -> Option<Statement> {
    let first = lake.tables.first()?;
    let everywhere = |column: &&Column| {
        let has = |table: &Table| table.columns.iter().any(|known| known.name == column.name && known.row.is_none());
        column.row.is_none() && readable(engine, column) && lake.tables.iter().all(has)
    };
    let record = first.columns.iter().filter(everywhere).filter_map(|column| {
        // What the types cannot hold is in `changes`.
        let name = column.name.strip_prefix("cdc_").filter(|name| *name != "exact")?;
        Some(format!("{} AS {}", engine.quote(&column.name), engine.quote(name)))
    });
    let mut shown: Vec<String> = record.collect();
    let partitions = lake.layout().map(|layout| partition_columns(engine, layout)).unwrap_or_default();
    shown.extend(partitions.iter().map(|name| engine.quote(name)));
    let select =
        |table: &Table| format!("SELECT {} FROM {}", shown.join(", "), view_name(engine, lake, &table.view(), plain));
    let selects: Vec<String> = lake.tables.iter().map(select).collect();
    let view = view_name(engine, lake, "versions", plain);
    Some(Statement::new("every version of every table", create_view(engine, &view, &selects.join("\nUNION ALL\n"))))
}

/// The table under a view, as a query names it.
fn base(engine: Engine, lake: &Lake, table: &Table, plain: bool) -> String {
    match engine {
        Engine::Redshift => engine.object(&aws::external_schema(lake), &table.base()),
        Engine::Trino => trino::object(lake, &table.base(), plain),
        _ => engine.object(&lake.schema(), &table.base()),
    }
}

fn view_name(engine: Engine, lake: &Lake, name: &str, plain: bool) -> String {
    match engine {
        Engine::Trino => trino::object(lake, name, plain),
        _ => engine.object(&lake.schema(), name),
    }
}

pub fn create_view(engine: Engine, view: &str, query: &str) -> String {
    match engine {
        Engine::Synapse => format!("CREATE OR ALTER VIEW {view} AS\n{query}"),
        // A view over an external table must look it up when it is asked.
        Engine::Redshift => format!("CREATE OR REPLACE VIEW {view} AS\n{query}\nWITH NO SCHEMA BINDING"),
        _ => format!("CREATE OR REPLACE VIEW {view} AS\n{query}"),
    }
}

/// Redshift reads a list in a file only joined to its own row.
fn readable(engine: Engine, column: &Column) -> bool {
    !(engine == Engine::Redshift && column.kind == Type::TextList)
}

/// Redshift has no partitions that come by themselves: there the times in the files are asked.
fn partition_columns(engine: Engine, layout: Layout) -> Vec<&'static str> {
    match engine {
        Engine::Redshift => Vec::new(),
        _ => layout.columns().into_iter().map(|(name, _)| name).collect(),
    }
}

fn joined_column(engine: Engine, column: &Joined<'_>) -> String {
    let name = engine.quote(column.name);
    if let [_] = column.forms.as_slice() {
        return name;
    }
    let form = |(form, row): &(&Column, &crate::lake::Row)| {
        let value = engine.column(&form.name);
        match column.kind {
            kind if kind == form.kind => value,
            Type::Text => text(engine, &value, form.kind, row.zone),
            kind => cast(engine, &value, &kind),
        }
    };
    let forms: Vec<String> = column.forms.iter().map(form).collect();
    format!("COALESCE({}) AS {name}", forms.join(", "))
}

/// `cdc_changes` with the whole row where there is no other side: `{"column": [null, v]}`, or `[v, null]`.
fn changes(engine: Engine, table: &Table, columns: &[Joined<'_>]) -> String {
    let members: Vec<String> = columns.iter().map(|column| member(engine, table, column)).collect();
    let members = after_two(engine, &concat(engine, &members));
    let whole = join(engine, &[&engine.literal("{"), &members, &engine.literal("}")]);
    format!(
        "CASE WHEN {} IS NULL THEN {} ELSE\n    {whole} END AS {}",
        engine.column("cdc_left"),
        engine.column("cdc_changes"),
        engine.quote("cdc_changes")
    )
}

/// `, "column": [null, v]`, or nothing where the version has no such column or does not know it.
fn member(engine: Engine, table: &Table, column: &Joined<'_>) -> String {
    let key = engine.literal(&format!(", {}: ", Value::from(column.source)));
    let mut forms: Vec<String> = column.forms.iter().map(|(form, row)| json(engine, form, row)).collect();
    let known: Vec<String> =
        column.forms.iter().map(|(form, _)| format!("{} IS NOT NULL", engine.column(&form.name))).collect();
    forms.push(engine.literal("null"));
    let value = format!("COALESCE({})", forms.join(", "));
    let member = join(engine, &[&key, &engine.column("cdc_left"), &value, &engine.column("cdc_right")]);
    let mut wanted = vec![format!("({} = 1 OR {})", engine.column("cdc_whole"), known.join(" OR "))];
    wanted.extend(in_shape(engine, table, column));
    format!("CASE WHEN {} THEN {member} ELSE '' END", wanted.join(" AND "))
}

/// Whether a version's shape has the column; `None` where all have. Shapes that are yet to come are taken to be as the last.
fn in_shape(engine: Engine, table: &Table, column: &Joined<'_>) -> Option<String> {
    let has = |version: &u32| column.forms.iter().any(|(_, row)| row.versions.contains(version));
    if table.versions.iter().all(has) {
        return None;
    }
    let version = engine.column("cdc_schema_version");
    let mut ranges = Vec::new();
    let mut rest = table.versions.as_slice();
    while let Some(start) = rest.iter().position(has) {
        let length = rest[start..].iter().take_while(|version| has(version)).count();
        let (first, last) = (rest[start], rest[start + length - 1]);
        rest = &rest[start + length..];
        ranges.push(match (rest.is_empty(), first == last) {
            (true, _) => format!("{version} >= {first}"),
            (false, true) => format!("{version} = {first}"),
            (false, false) => format!("{version} BETWEEN {first} AND {last}"),
        });
    }
    Some(if ranges.is_empty() { "1 = 0".to_owned() } else { format!("({})", ranges.join(" OR ")) })
}

/// The table, with what stands on either side of a value: `cdc_left` is null where `cdc_changes` stays as it is, `cdc_whole` is 0 where null
/// stands for a value that is not known.
fn with_sides(engine: Engine, base: &str) -> String {
    let (event, known) = (engine.quote("cdc_event"), engine.quote("cdc_before_known"));
    let changes = engine.quote("cdc_changes");
    let literal = |text: &str| engine.literal(text);
    let unknown = if engine == Engine::Synapse { format!("{known} = 0") } else { format!("NOT {known}") };
    format!(
        "(\n  SELECT *,\n    CASE WHEN {changes} IS NOT NULL THEN NULL WHEN {event} IN ('created', 'snapshot') THEN {} WHEN {event} = 'deleted' THEN {} END AS {},\n    \
         CASE WHEN {event} = 'deleted' THEN {} ELSE {} END AS {},\n    \
         CASE WHEN {event} = 'deleted' AND {unknown} THEN 0 ELSE 1 END AS {}\n  FROM {base}) AS {}",
        literal("[null, "),
        literal("["),
        engine.quote("cdc_left"),
        literal(", null]"),
        literal("]"),
        engine.quote("cdc_right"),
        engine.quote("cdc_whole"),
        engine.quote(SIDES),
    )
}
