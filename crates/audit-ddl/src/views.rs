//! The views over the tables, which are the same in all engines.

use serde_json::Value;

use crate::Statement;
use crate::columns::{Form, Joined, joined, stored};
use crate::engine::{Engine, SIDES};
use crate::expression::{after_two, cast, concat, join, json, midnight, text};
use crate::lake::{Column, Lake, Layout, Table};
use crate::types::Type;
use crate::{aws, trino};

/// Makes a table's view: former types and former names are joined, and `cdc_changes` of created, snapshot and deleted is made from the
/// row. If that would be longer than the engine accepts as one statement, `cdc_changes` stays as it is.
pub fn of_table(engine: Engine, lake: &Lake, table: &Table, plain: bool) -> Vec<Statement> {
    let why = format!("{}: former types and names joined, changes of whole rows shown", table.shown());
    let whole = view(engine, lake, table, plain, true);
    let Some(longest) = engine.longest_statement().filter(|longest| whole.len() > *longest) else {
        return replaced(engine, &view_name(engine, lake, &table.view(), plain), why, whole);
    };
    let why = format!(
        "{}: former types and names joined. Changes of whole rows are not shown: with them the statement is longer than the {longest} bytes that {} takes",
        table.shown(),
        engine.name()
    );
    replaced(engine, &view_name(engine, lake, &table.view(), plain), why, view(engine, lake, table, plain, false))
}

fn view(engine: Engine, lake: &Lake, table: &Table, plain: bool, whole_rows: bool) -> String {
    let (columns, sides) = (joined(table), Sides::of(table));
    let made = whole_rows && !columns.is_empty();
    let record = table.columns.iter().filter(|column| column.row.is_none() && readable(engine, column));
    let mut shown: Vec<String> = record
        .map(|column| match column.name.as_str() {
            "cdc_changes" if made => changes(engine, table, &sides),
            name => engine.quote(name),
        })
        .collect();
    shown.extend(columns.iter().map(|column| joined_column(engine, table, column, plain)));
    shown.extend(partition_columns(engine, table.layout).iter().map(|name| engine.quote(name)));
    let base = base(engine, lake, table, plain);
    let from = match (made, columns.is_empty()) {
        (true, _) => sides.around(engine, &base),
        (false, true) => base,
        // Expressions name their columns by this alias.
        (false, false) => format!("{base} AS {}", engine.quote(SIDES)),
    };
    let view = view_name(engine, lake, &table.view(), plain);
    create_view(engine, &view, &format!("SELECT\n  {}\nFROM {from}", shown.join(",\n  ")))
}

/// Creates a view, and drops it first if the engine cannot replace a view by one with more columns.
fn replaced(engine: Engine, view: &str, why: String, create: String) -> Vec<Statement> {
    let drop = || {
        Statement::new("a view is replaced only by one with the same columns", format!("DROP VIEW IF EXISTS {view}"))
    };
    let dropped = (engine == Engine::Redshift).then(drop);
    dropped.into_iter().chain([Statement::new(why, create)]).collect()
}

/// States the purpose of describing a table's files, and what to do if there are none.
pub fn why_by_files(table: &Table) -> String {
    match table.listed {
        true => format!("{} by its files", table.shown()),
        false => format!("{} has no file in data/ yet: no rows until this is printed and run again", table.shown()),
    }
}

/// Selects the columns of a table without rows, because it has no file that could be read.
pub fn no_rows(engine: Engine, table: &Table) -> String {
    let null = |(name, kind): &(String, Type)| format!("{} AS {}", cast(engine, "NULL", kind), engine.quote(name));
    let columns: Vec<String> = table.all_columns().iter().map(null).collect();
    format!("SELECT {}\nWHERE 1 = 0", columns.join(", "))
}

const UNION: &str = "\nUNION ALL\n";

/// Makes the view over all tables, in parts if it would be longer than the engine accepts as one statement.
pub fn versions(engine: Engine, lake: &Lake, plain: bool) -> Vec<Statement> {
    let Some(first) = lake.tables.first() else { return Vec::new() };
    let everywhere = |column: &&Column| {
        let has = |table: &Table| table.columns.iter().any(|known| known.name == column.name && known.row.is_none());
        column.row.is_none() && readable(engine, column) && lake.tables.iter().all(has)
    };
    let record = first.columns.iter().filter(everywhere).filter_map(|column| {
        // `exact` is left out: values that the types cannot hold are in `changes`.
        let name = column.name.strip_prefix("cdc_").filter(|name| *name != "exact")?;
        Some((engine.quote(&column.name), engine.quote(name)))
    });
    let record: Vec<(String, String)> = record.collect();
    let partitions = lake.layout().map(|layout| partition_columns(engine, layout)).unwrap_or_default();
    let partitions: Vec<String> = partitions.iter().map(|name| engine.quote(name)).collect();
    let renamed = record.iter().map(|(column, name)| format!("{column} AS {name}"));
    let shown: Vec<String> = renamed.chain(partitions.clone()).collect();
    let select =
        |table: &Table| format!("SELECT {} FROM {}", shown.join(", "), view_name(engine, lake, &table.view(), plain));
    let selects: Vec<String> = lake.tables.iter().map(select).collect();
    let names: Vec<String> = record.into_iter().map(|(_, name)| name).chain(partitions).collect();
    let part = |at: usize| view_name(engine, lake, &format!("versions__{at}"), plain);
    let all = view_name(engine, lake, "versions", plain);
    let parts = parts(&selects, engine.longest_statement());
    if let [_] = parts.as_slice() {
        return replaced(engine, &all, "every version of every table".to_owned(), union(engine, &all, &selects));
    }
    let of_part = |(at, selects): (usize, &&[String])| {
        let why = "a part of the tables: in one statement they are more than the engine takes".to_owned();
        replaced(engine, &part(at), why, union(engine, &part(at), selects))
    };
    let mut made: Vec<Statement> = parts.iter().enumerate().flat_map(of_part).collect();
    let selects: Vec<String> =
        (0..parts.len()).map(|at| format!("SELECT {} FROM {}", names.join(", "), part(at))).collect();
    made.extend(replaced(engine, &all, "every version of every table".to_owned(), union(engine, &all, &selects)));
    made
}

fn union(engine: Engine, view: &str, selects: &[String]) -> String {
    create_view(engine, view, &selects.join(UNION))
}

/// Groups the selects so that each group fits into one statement, with a tenth of the length left for the rest of it.
fn parts(selects: &[String], longest: Option<usize>) -> Vec<&[String]> {
    let room = longest.map_or(usize::MAX, |longest| longest - longest / 10);
    let mut bytes = selects.first().map_or(0, String::len);
    let part = |_: &String, next: &String| {
        bytes += UNION.len() + next.len();
        let fits = bytes <= room;
        if !fits {
            bytes = next.len();
        }
        fits
    };
    selects.chunk_by(part).collect()
}

/// Names the table under a view as a query does.
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
        // A view over an external table must look the table up when it is queried.
        Engine::Redshift => format!("CREATE OR REPLACE VIEW {view} AS\n{query}\nWITH NO SCHEMA BINDING"),
        _ => format!("CREATE OR REPLACE VIEW {view} AS\n{query}"),
    }
}

/// Tells whether the engine reads a column as it is. Redshift reads a list in a file only joined to its own row.
fn readable(engine: Engine, column: &Column) -> bool {
    !(engine == Engine::Redshift && column.kind == Type::TextList)
}

/// Lists the partition columns. Redshift does not find new partitions by itself, so queries use the times in the files.
fn partition_columns(engine: Engine, layout: Layout) -> Vec<&'static str> {
    match engine {
        Engine::Redshift => Vec::new(),
        _ => layout.columns().into_iter().map(|(name, _)| name).collect(),
    }
}

fn joined_column(engine: Engine, table: &Table, column: &Joined<'_>, plain: bool) -> String {
    let name = engine.quote(&column.name);
    let form = |form: &Form<'_>| {
        let value = engine.column(&form.column.name);
        let value = match column.kind {
            kind if kind == form.column.kind => value,
            Type::Text => text(engine, &value, form.column.kind, form.row.zone),
            Type::Timestamp => midnight(engine, &value, plain),
            kind => cast(engine, &value, &kind),
        };
        let only = form.versions.and_then(|versions| in_versions(engine, table, |version| versions.contains(version)));
        only.map_or(value.clone(), |only| format!("CASE WHEN {only} THEN {value} END"))
    };
    let forms: Vec<String> = column.forms.iter().map(form).collect();
    match (column.forms.as_slice(), forms.as_slice()) {
        ([only], [_]) if only.column.name == column.name && only.versions.is_none() => name,
        (_, [one]) => format!("{one} AS {name}"),
        _ => format!("COALESCE({}) AS {name}", forms.join(", ")),
    }
}

/// Writes `cdc_changes` with the whole row if a version has only one side: `{"column": [null, v]}`, or `[v, null]`. Columns
/// have the names that they had then, as in the changes of the other versions.
fn changes(engine: Engine, table: &Table, sides: &Sides) -> String {
    let members: Vec<String> = stored(table).iter().map(|column| member(engine, table, column, sides)).collect();
    let members = after_two(engine, &concat(engine, &members));
    let whole = join(engine, &[&engine.literal("{"), &members, &engine.literal("}")]);
    format!(
        "CASE WHEN {} IS NULL THEN {} ELSE\n    {whole} END AS {}",
        engine.column(&sides.left),
        engine.column("cdc_changes"),
        engine.quote("cdc_changes")
    )
}

/// Writes `, "column": [null, v]`, or nothing if the version does not have the column or does not know its value.
fn member(engine: Engine, table: &Table, column: &Joined<'_>, sides: &Sides) -> String {
    let key = engine.literal(&format!(", {}: ", Value::from(column.source)));
    let mut forms: Vec<String> = column.forms.iter().map(|form| json(engine, form.column, form.row)).collect();
    let known: Vec<String> =
        column.forms.iter().map(|form| format!("{} IS NOT NULL", engine.column(&form.column.name))).collect();
    forms.push(engine.literal("null"));
    let value = format!("COALESCE({})", forms.join(", "));
    let member = join(engine, &[&key, &engine.column(&sides.left), &value, &engine.column(&sides.right)]);
    let mut wanted = vec![format!("({} = 1 OR {})", engine.column(&sides.whole), known.join(" OR "))];
    let has = |version: &u32| column.forms.iter().any(|form| form.row.versions.contains(version));
    wanted.extend(in_versions(engine, table, has));
    format!("CASE WHEN {} THEN {member} ELSE '' END", wanted.join(" AND "))
}

/// Writes a condition that a version is in a shape that has something. `None` if all shapes have it. Later shapes are
/// assumed to be like the last one.
pub fn in_versions(engine: Engine, table: &Table, has: impl Fn(&u32) -> bool) -> Option<String> {
    if table.versions.iter().all(&has) {
        return None;
    }
    let version = engine.column("cdc_schema_version");
    let mut ranges = Vec::new();
    let mut rest = table.versions.as_slice();
    while let Some(start) = rest.iter().position(&has) {
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

/// Names of columns with the texts on either side of a value. `left` is null if `cdc_changes` stays as it is, `whole`
/// is 0 if null means a value that is not known. The table itself has no column with any of these names.
struct Sides {
    left: String,
    right: String,
    whole: String,
}

impl Sides {
    fn of(table: &Table) -> Sides {
        let free = |name: &str| {
            let mut name = name.to_owned();
            while table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(&name)) {
                name.push('_');
            }
            name
        };
        Sides { left: free("cdc_left"), right: free("cdc_right"), whole: free("cdc_whole") }
    }

    /// Selects the table with these columns added.
    fn around(&self, engine: Engine, base: &str) -> String {
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
            engine.quote(&self.left),
            literal(", null]"),
            literal("]"),
            engine.quote(&self.right),
            engine.quote(&self.whole),
            engine.quote(SIDES),
        )
    }
}
