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
    let row =
        Row { source: source.to_owned(), json: false, zone: false, versions: versions.to_vec(), names: Vec::new() };
    Column { name: name.to_owned(), kind, row: Some(row) }
}

/// A lake with a table that has a column of each type, one whose type changed, one that was added and dropped, and one
/// that was renamed; and
/// with a table without columns.
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
        row("text", "text", Type::Text, &[1, 2, 3]),
        row("body", "body", Type::Text, &[2, 3]),
    ]);
    // `text` was renamed to `body`, and another column has its name since.
    columns.iter_mut().filter(|column| column.name == "text").filter_map(|column| column.row.as_mut()).for_each(
        |row| {
            row.names = vec![("body".to_owned(), vec![1]), ("text".to_owned(), vec![2, 3])];
        },
    );
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

/// Compares the whole script of each engine, so that every change of one is visible.
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

/// A statement that is too long for an engine is split, or says what it leaves out.
#[test]
fn no_statement_is_longer_than_the_engine_takes() {
    let mut lake = lake("s3://acme-audit/shop", Layout::DAYS);
    let mut wide = lake.tables[0].clone();
    (wide.table, wide.folder) = ("wide".to_owned(), "public.wide".to_owned());
    wide.columns = record();
    wide.columns.extend((0..1600).map(|at| row(&format!("column_{at}"), &format!("column_{at}"), Type::Int32, &[1])));
    lake.tables.push(wide);
    let narrow = lake.tables[1].clone();
    lake.tables.extend((0..2000).map(|at| Table { table: format!("t{at}"), ..narrow.clone() }));
    for (engine, longest) in [(Engine::Athena, 262_144), (Engine::Trino, 1_000_000)] {
        let told = statements(engine, &lake, false).unwrap();
        let longest_told = told.iter().map(|statement| statement.sql.len()).max();
        assert!(longest_told.is_some_and(|bytes| bytes <= longest), "{engine:?}: {longest_told:?}");
        let all: Vec<&str> =
            told.iter().filter(|told| told.sql.contains("versions")).map(|told| told.sql.as_str()).collect();
        let (last, parts) = all.split_last().unwrap();
        assert!(last.matches("UNION ALL").count() + 1 == parts.len() || parts.is_empty());
        let tables: usize = all.iter().map(|sql| sql.matches("AS \"position\"").count()).sum();
        assert_eq!(tables, lake.tables.len(), "each table stands in one of them");
    }
    let told = statements(Engine::Athena, &lake, false).unwrap();
    let wide = told.iter().find(|told| told.why.starts_with("public.wide: former")).unwrap();
    assert!(wide.why.contains("Changes of whole rows are not shown") && wide.why.contains("262144"), "{}", wide.why);
    assert!(wide.sql.contains("\"column_1599\"") && !wide.sql.contains("cdc_left"));
}

#[test]
fn columns_of_the_source_are_never_taken_for_the_views_own() {
    let mut lake = lake("/lake", Layout::DAYS);
    lake.tables[0].columns.extend([
        row("cdc_left", "cdc_left", Type::Text, &[1]),
        row("CDC_Right", "CDC_Right", Type::Text, &[1]),
        row("cdc_whole", "cdc_whole", Type::Int32, &[1]),
        row("cdc_whole_", "cdc_whole_", Type::Int32, &[1]),
    ]);
    let told = statements(Engine::Duckdb, &lake, true).unwrap();
    let view = told.iter().find(|told| told.why.starts_with("public.items: former")).unwrap();
    for side in ["cdc_left_", "cdc_right_", "cdc_whole__"] {
        assert!(view.sql.contains(&format!("END AS \"{side}\"")), "{}", view.sql);
    }
    assert!(view.sql.contains("  \"cdc_left\",\n") && view.sql.contains("WHEN \"cdc_left_\" IS NULL"));
}

/// Statements that are run again point at the lake's present place, and never at another lake's objects.
#[test]
fn nothing_keeps_an_old_place() {
    for engine in Engine::ALL {
        for plain in [false, true] {
            let told = statements(engine, &lake(place(engine), Layout::DAYS), plain).unwrap();
            let keeps = |sql: &str| sql.contains("IF NOT EXISTS") && (sql.contains("LOCATION") || sql.contains("URL"));
            for (at, statement) in told.iter().enumerate().filter(|(_, told)| keeps(&told.sql)) {
                let next = told.get(at + 1).map_or("", |told| told.sql.as_str());
                assert!(next.starts_with("ALTER STAGE"), "{engine:?}: {}", statement.sql);
            }
            let calls = told.iter().enumerate().filter(|(_, told)| told.sql.contains("register_table"));
            for (at, _) in calls {
                assert!(told[at - 1].sql.starts_with("DROP TABLE IF EXISTS"));
            }
        }
        let mut two = [lake(place(engine), Layout::DAYS), lake(place(engine), Layout::DAYS)];
        two[0].sink = Some("archive".to_owned());
        two[1].sink = Some("cold".to_owned());
        let [one, other] = two.map(|lake| script(engine, &statements(engine, &lake, false).unwrap()));
        assert!(one.contains("shop__archive") && other.contains("shop__cold") && !other.contains("archive"));
    }
}

#[test]
fn a_table_without_a_file_has_a_view_without_rows() {
    let mut lake = lake("/lake", Layout::DAYS);
    lake.tables.truncate(1);
    lake.tables[0].listed = false;
    let told = statements(Engine::Duckdb, &lake, true).unwrap();
    assert!(told[1].why.contains("has no file in data/ yet") && told[1].sql.ends_with("WHERE 1 = 0"), "{told:?}");
}

#[test]
fn one_table_alone_has_no_view_over_all() {
    let mut lake = lake("/lake", Layout::DAYS);
    lake.tables.truncate(1);
    lake.whole = false;
    let told = script(Engine::Duckdb, &statements(Engine::Duckdb, &lake, true).unwrap());
    assert!(told.contains("\"shop\".\"public_items\"") && !told.contains("\"versions\""), "{told}");
}

/// A comment ends at any line break that the engine knows.
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
