use audit_testkit::install::{delta_jars, duckdb_delta, trino};
use audit_testkit::thorough;
use cdc_audit_tests::world::World;
use expect_test::expect;
use serde_json::{Map, Value, json};

use crate::{DUCKDB_DELTA, LISTED, READ, SPARK, run, world};

const STATEMENTS: &str = include_str!("statements.py");
const TRINO: &str = include_str!("trino.py");
const PARSE: &str = include_str!("parse.py");

/// Returns the statements that `cdc-audit ddl` prints for an engine, as a list for each way.
fn told(world: &World, engine: &str) -> Value {
    let way = |more: &[&str]| -> Value {
        let arguments: Vec<&str> = ["ddl", engine, "--json"].iter().chain(more).copied().collect();
        let statements: Vec<Value> = serde_json::from_str(&world.succeed(&arguments)).expect("JSON");
        statements.iter().map(|statement| statement["sql"].clone()).collect()
    };
    json!({ "log": way(&[]), "plain": way(&["--plain"]) })
}

/// Runs the statements in the engines that are available here: the views show every version as the hot table does, also
/// after the tables changed and the statements were made again.
#[tokio::test(flavor = "multi_thread")]
async fn the_statements_make_the_lake_queryable() {
    let large: &[&str] = if thorough() { &["spark", "trino"] } else { &[] };
    let asked = ask(LISTED, large).await;
    let [statements, exported] = [&asked.statements, &asked.exported];
    expect![[r#"
        duckdb plain: 199 versions, 199 expected
          due: 0 different []
          id INTEGER
          name VARCHAR
          price VARCHAR
          at TIMESTAMP WITH TIME ZONE
          due TIMESTAMP WITH TIME ZONE
          tags VARCHAR
          doc VARCHAR
          year__2 INTEGER
          stock DECIMAL(30,3)
          colour VARCHAR
          year INTEGER
          month INTEGER
          day INTEGER
        clickhouse log: 199 versions, 199 expected
          due: 0 different []
        clickhouse plain: 199 versions, 199 expected
          due: 0 different []
          id Nullable(Int32)
          name Nullable(String)
          price Nullable(String)
          at Nullable(DateTime64(6, 'UTC'))
          due Nullable(DateTime64(6, 'UTC'))
          tags Nullable(String)
          doc Nullable(String)
          year__2 Nullable(Int32)
          stock Nullable(Decimal(30, 3))
          colour Nullable(String)
          year Nullable(Int32)
          month Nullable(Int32)
          day Nullable(Int32)
        duckdb_with_delta log: 199 versions, 199 expected
          due: 0 different []
          id INTEGER
          name VARCHAR
          price VARCHAR
          at TIMESTAMP WITH TIME ZONE
          due TIMESTAMP WITH TIME ZONE
          tags VARCHAR
          doc VARCHAR
          year__2 INTEGER
          stock DECIMAL(30,3)
          colour VARCHAR
          year INTEGER
          month INTEGER
          day INTEGER
    "#]]
    .assert_eq(&asked.shown);
    if thorough() {
        let jars = delta_jars().expect("`cargo xtask test --all` installs them");
        let jars = jars.to_string_lossy();
        let shown = run(&[READ, SPARK, STATEMENTS, "check(spark_runs)\n"], &[statements, exported, &jars]);
        expect![[r#"
            spark log: 199 versions, 199 expected
              due: 0 different []
            spark plain: 199 versions, 199 expected
              due: 0 different []
              id int
              name string
              price string
              at timestamp
              due timestamp
              tags string
              doc string
              year__2 int
              stock decimal(30,3)
              colour string
              year int
              month int
              day int
        "#]]
        .assert_eq(&shown);
        let folder = trino().expect("`cargo xtask test --all` installs it");
        let script = [READ, STATEMENTS, TRINO, "try:\n    check(trino_runs)\nfinally:\n    trino.stop()\n"];
        let shown = run(&script, &[statements, exported, &folder.to_string_lossy()]);
        expect![[r#"
            trino log: 199 versions, 199 expected
            trino plain: 199 versions, 199 expected
              id integer
              name varchar
              price varchar
              at timestamp(6)
              due timestamp(6)
              tags varchar
              doc varchar
              year__2 integer
              stock decimal(30,3)
              colour varchar
              year integer
              month integer
              day integer
        "#]]
        .assert_eq(&shown);
    }
}

/// The same is true of a lake with other partitions.
#[tokio::test(flavor = "multi_thread")]
async fn the_statements_know_other_partitions() {
    for by in ["date", "hour"] {
        let Asked { shown, _world, .. } = ask(&format!("{LISTED}\npartition_by = \"{by}\""), &[]).await;
        let compared: Vec<&str> = shown.lines().filter(|line| !line.starts_with("  ")).collect();
        let all = |way: &&str| way.ends_with(": 199 versions, 199 expected");
        assert!(compared.len() == 4 && compared.iter().all(all) && !shown.contains("  0001:"), "{shown}");
        assert_eq!(shown.matches("  due: 0 different []").count(), 4, "{shown}");
        let last = if by == "date" { "  date DATE" } else { "  hour INTEGER" };
        assert_eq!(shown.lines().last(), Some(last), "{shown}");
    }
}

struct Asked {
    /// The output of the engines here.
    shown: String,
    /// Paths of the statements and of an export of the hot table.
    statements: String,
    exported: String,
    /// Kept because dropping it removes its folder.
    _world: World,
}

/// Makes a lake and the statements for it, before and after its tables changed, and runs them in DuckDB and ClickHouse.
async fn ask(lake: &str, large: &[&str]) -> Asked {
    let world = world(lake).await;
    let engines = [&["duckdb", "clickhouse"], large].concat();
    let all = |world: &World| -> Map<String, Value> {
        engines.iter().map(|engine| ((*engine).to_owned(), told(world, engine))).collect()
    };
    let before = all(&world);
    let sql = "ALTER TABLE items ADD COLUMN colour text; INSERT INTO items (id, colour) VALUES (1000, 'blue'); \
               CREATE TABLE public.later (id int PRIMARY KEY); DELETE FROM items WHERE id = 1000";
    audit_testkit::shared(15).await.execute(&world.database, sql);
    world.catch_up().await;
    let after = all(&world);
    let exported = world.path("export");
    world.succeed(&["export", "--from", "hot", "--to", exported.to_str().expect("a plain path")]);
    let asked = world.path("statements.json");
    std::fs::write(&asked, json!([before, after]).to_string()).expect("a file");

    let [statements, exported] = [asked, exported].map(|path| path.to_string_lossy().into_owned());
    let here = "check(duckdb_runs, ['plain'])\ncheck(clickhouse_runs)\n";
    let mut shown = run(&[READ, STATEMENTS, here], &[&statements, &exported]);
    let duckdb = duckdb_delta().to_string_lossy().into_owned();
    let script = [DUCKDB_DELTA, READ, STATEMENTS, "check(duckdb_with_delta_runs, ['log'])\n"];
    shown.push_str(&run(&script, &[&statements, &exported, &duckdb]));
    Asked { shown, statements, exported, _world: world }
}

/// The refusal says what is not possible, and what to do instead.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_refused_a_store_that_it_does_not_read() {
    let server = audit_testkit::shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").unwitnessed().build().await;
    let said = |arguments: &[&str]| {
        let output = world.command(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    server.execute(&world.database, "INSERT INTO t VALUES (1)");
    world.catch_up().await;
    assert!(said(&["ddl", "athena"]).contains("Athena does not read a local folder\n  hint: it reads S3"));
    assert!(said(&["ddl", "duckdb", "--table", "public.u"]).contains("tables with versions: public.t"));
    assert!(said(&["ddl", "duckdb", "--sink", "cold"]).contains("the lakes are archive"));
    assert!(said(&["ddl", "duckdb", "--sink", "hot"]).contains("there is no lake hot"));
}

/// Parses all engines' statements with a parser of their dialects. Statements of which it knows only the first word are
/// listed here.
#[test]
fn the_statements_of_every_engine_are_parsed() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/audit-ddl/src/golden");
    expect![[r#"
        athena log: 8 parsed
        athena plain: 8 parsed
        bigquery log: 4 parsed
          by its first words: CREATE OR REPLACE EXTERNAL TABLE `shop`.
          by its first words: CREATE OR REPLACE EXTERNAL TABLE `shop`.
        bigquery plain: 4 parsed
          by its first words: CREATE OR REPLACE EXTERNAL TABLE `shop`.
          by its first words: CREATE OR REPLACE EXTERNAL TABLE `shop`.
        clickhouse log: 6 parsed
        clickhouse plain: 6 parsed
        databricks log: 8 parsed
        databricks plain: 6 parsed
        duckdb log: 7 parsed
          by its first words: LOAD delta
        duckdb plain: 6 parsed
        glue log: 5 definitions
        glue plain: 5 definitions
        redshift log: 11 parsed
          by its first words: CREATE EXTERNAL SCHEMA IF NOT EXISTS "sh
        redshift plain: 15 parsed
          by its first words: CREATE EXTERNAL SCHEMA IF NOT EXISTS "sh
        snowflake log: 6 parsed
          by its first words: CREATE CATALOG INTEGRATION IF NOT EXISTS
        snowflake plain: 11 parsed
          by its first words: ALTER STAGE "shop"."lake" SET URL = 's3:
          by its first words: ALTER EXTERNAL TABLE "shop"."lake__publi
          by its first words: ALTER EXTERNAL TABLE "shop"."lake__odd_s
        spark log: 8 parsed
        spark plain: 9 parsed
        synapse log: 8 parsed
        synapse plain: 8 parsed
        trino log: 6 parsed
          by its first words: CALL "delta".system.register_table(schem
          by its first words: CALL "delta".system.register_table(schem
        trino plain: 8 parsed
    "#]]
    .assert_eq(&run(&[PARSE], &[golden]));
}
