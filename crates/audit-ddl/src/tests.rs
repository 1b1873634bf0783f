#![allow(clippy::unwrap_used)]

use expect_test::expect_file;

use crate::{Column, Engine, Lake, Layout, Place, Row, Table, Type, script, statements};

/// Names and types of the record's columns that matter here.
const RECORD: [(&str, Type); 10] = [
    ("cdc_source", Type::Text),
    ("cdc_position", Type::Text),
    ("cdc_table_name", Type::Text),
    ("cdc_key", Type::Text),
    ("cdc_event", Type::Text),
    ("cdc_changes", Type::Text),
    ("cdc_changed", Type::TextList),
    ("cdc_before_known", Type::Bool),
    ("cdc_committed_at", Type::Timestamp),
    ("cdc_schema_version", Type::Int32),
];

fn record() -> Vec<Column> {
    let exact = ("cdc_exact", Type::Text);
    let own = |(name, kind): (&str, Type)| Column { name: name.to_owned(), kind, row: None };
    RECORD.into_iter().chain([exact]).map(own).collect()
}

fn row(name: &str, source: &str, kind: Type, versions: &[u32]) -> Column {
    let row = Row { source: source.to_owned(), json: false, zone: false, versions: versions.to_vec() };
    Column { name: name.to_owned(), kind, row: Some(row) }
}

/// A table with a column of each type, one whose type has changed, and one that came and went; and a table without columns.
fn lake(place: &str, layout: Layout) -> Lake {
    let mut columns = record();
    columns.extend([
        row("id", "id", Type::Int64, &[1, 2, 3]),
        row("paid", "paid", Type::Bool, &[1, 2, 3]),
        row("share", "share", Type::Float64, &[1, 2, 3]),
        row("price", "price", Type::Decimal(10, 2), &[1, 2, 3]),
        row("photo", "photo", Type::Binary, &[1, 2, 3]),
        row("due", "due", Type::Date, &[1, 2, 3]),
        row("at", "at", Type::Timestamp, &[1, 2, 3]),
        row("it_s__", "it's \"ü\"", Type::Text, &[2]),
        row("doc", "doc", Type::Text, &[1, 2, 3]),
        row("price__2", "price", Type::Text, &[1, 2, 3]),
        row("count", "count", Type::Int16, &[2, 3]),
        row("count__2", "count", Type::Int32, &[2, 3]),
    ]);
    columns.iter_mut().for_each(|column| {
        if let Some(row) = &mut column.row {
            row.json = column.name == "doc";
            row.zone = column.name == "at";
        }
    });
    let table = |schema: &str, table: &str, folder: &str, columns, versions| Table {
        schema: schema.to_owned(),
        table: table.to_owned(),
        folder: folder.to_owned(),
        layout,
        first_year: 2026,
        listed: true,
        columns,
        versions,
    };
    Lake {
        source: "shop".to_owned(),
        sink: None,
        tenant: None,
        place: Place::of(place, None, Some("acme")).unwrap(),
        tables: vec![
            table("public", "items", "public.items", columns, vec![1, 2, 3]),
            table("Odd Schema", "a.b", "Odd-20Schema.-22a.b-22", record(), vec![1]),
        ],
        whole: true,
    }
}

fn place(engine: Engine) -> &'static str {
    match engine {
        Engine::Bigquery => "gs://acme-audit/shop",
        Engine::Synapse | Engine::Databricks => "abfss://audit@acme.dfs.core.windows.net/shop",
        Engine::Duckdb | Engine::Clickhouse | Engine::Spark => "/var/lib/cdc-audit/lake",
        _ => "s3://acme-audit/shop",
    }
}

/// What each engine is told, whole: a change of it is to be seen.
#[test]
fn each_engine_is_told_the_same_in_its_own_words() {
    for engine in Engine::ALL {
        for (way, plain) in [("log", false), ("plain", true)] {
            let told = script(engine, &statements(engine, &lake(place(engine), Layout::DAYS), plain).unwrap());
            expect_file![format!("golden/{}-{way}.sql", engine.word())].assert_eq(&told);
        }
    }
}

#[test]
fn a_lake_of_hours_and_dates_is_told_by_its_own_partitions() {
    let hours = Layout::of(&["date", "hour"]).unwrap();
    let mut told = String::new();
    for engine in [Engine::Athena, Engine::Bigquery, Engine::Synapse, Engine::Trino, Engine::Duckdb] {
        let statements = statements(engine, &lake(place(engine), hours), true).unwrap();
        let base = statements.iter().find(|statement| statement.why.starts_with("public.items by its files")).unwrap();
        let kept = ["partition", "PARTITION", "projection", "template", "filepath", "hive_types", "date"];
        let lines = base.sql.lines().filter(|line| kept.iter().any(|word| line.contains(word)));
        told.push_str(&format!("-- {}\n{}\n", engine.name(), lines.collect::<Vec<_>>().join("\n")));
    }
    expect_file!["golden/hours.sql"].assert_eq(&told);
    assert_eq!(Layout::of(&["region"]), None);
}

#[test]
fn a_table_of_many_columns_stays_within_what_engines_take() {
    let mut lake = lake("/lake", Layout::DAYS);
    let table = &mut lake.tables[0];
    table.columns = record();
    table.columns.extend((0..1600).map(|at| row(&format!("c{at}"), &format!("c{at}"), Type::Int32, &[1, 2, 3])));
    let view = statements(Engine::Duckdb, &lake, true).unwrap();
    let view = view.iter().find(|statement| statement.why.starts_with("public.items: former")).unwrap();
    let arguments = |concat: &str| concat.matches("CASE WHEN (").count();
    assert!(view.sql.split("concat(").all(|concat| arguments(concat) <= 50));
}

#[test]
fn one_table_alone_has_no_view_over_all() {
    let mut lake = lake("/lake", Layout::DAYS);
    lake.tables.truncate(1);
    lake.whole = false;
    let told = script(Engine::Duckdb, &statements(Engine::Duckdb, &lake, true).unwrap());
    assert!(told.contains("\"shop\".\"public_items\"") && !told.contains("\"versions\""), "{told}");
}

/// Engines end a comment at whichever line break they know.
#[test]
fn a_name_never_leaves_its_comment() {
    for line_break in ["\n", "\r", "\u{85}", "\u{2028}"] {
        let why = format!("table x{line_break}DROP TABLE y;{line_break}--");
        for engine in Engine::ALL {
            let told = script(engine, &[crate::Statement::new(why.as_str(), "SELECT 1")]);
            let lines = told.split(['\n', '\r', '\u{85}', '\u{2028}']);
            let outside = lines.filter(|line| line.contains("DROP") && !line.starts_with(['-', '#']));
            assert_eq!(outside.collect::<Vec<_>>(), [""; 0], "{}: {told:?}", engine.name());
        }
    }
}
