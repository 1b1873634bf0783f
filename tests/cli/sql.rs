use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use audit_testkit::install::{duckdb_delta, python};
use audit_testkit::shared;
use cdc_audit_tests::world::World;
use serde_json::{Value, json};

async fn world() -> World {
    let server = shared(15).await;
    let tables = "CREATE TABLE orders (id int PRIMARY KEY, state text, total numeric(10,2), key text, paid bool, at timestamptz); \
                  ALTER TABLE orders REPLICA IDENTITY FULL; CREATE SCHEMA crm; CREATE TABLE crm.orders (id int PRIMARY KEY); \
                  CREATE TABLE users (id int PRIMARY KEY, ssn int)";
    let rules = "[[tables]]\nname = \"*\"\n[[tables]]\nname = \"public.users\"\nprotect = { ssn = \"full\" }";
    let world = World::on(server).full(true).sql(tables).tables(rules).build().await;
    server.execute(
        &world.database,
        "INSERT INTO orders VALUES (1, 'open', 5, 'k', false, '2026-01-02 03:04:05+00'), (2, '=1+1', 7.25, NULL, NULL, NULL); \
         UPDATE orders SET state = 'paid', total = 6.5 WHERE id = 1; DELETE FROM orders WHERE id = 2; INSERT INTO users VALUES (1, 4711); \
         INSERT INTO crm.orders VALUES (1)",
    );
    world.catch_up().await;
    world
}

fn rows(told: &str) -> Vec<Value> {
    told.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_sees_each_value_before_and_after_in_its_type() {
    let world = world().await;
    let ask = |query: &str| rows(&world.succeed(&["sql", query, "--json"]));
    assert_eq!(
        ask(
            "SELECT key, event, old_state, new_state, old_total + 1 AS more, new_total FROM public_orders__versions ORDER BY position;"
        ),
        [
            json!({"key": "1", "event": "created", "old_state": null, "new_state": "open", "more": null, "new_total": "5.00"}),
            json!({"key": "2", "event": "created", "old_state": null, "new_state": "=1+1", "more": null, "new_total": "7.25"}),
            json!({"key": "1", "event": "updated", "old_state": "open", "new_state": "paid", "more": "6.00", "new_total": "6.50"}),
            json!({"key": "2", "event": "deleted", "old_state": "=1+1", "new_state": null, "more": "8.25", "new_total": null}),
        ]
    );
    // A column of the table does not hide the record's `old_key`, and a comment at the end hides nothing.
    let query = "WITH mine AS (SELECT * FROM public_orders__versions WHERE key = '1') SELECT old_key, new_key, old_key__2, new_paid, \
                 extract(year from new_at)::int AS y, new_id FROM mine LIMIT 1 -- the first";
    let expected =
        json!({"old_key": null, "new_key": "k", "old_key__2": null, "new_paid": false, "y": 2026, "new_id": 1});
    assert_eq!(ask(query), [expected]);
    assert_eq!(ask("select count(*) as n, count(changes) as c from versions"), [json!({"n": 6, "c": 6})]);
    // What is protected does not have the column's type, and makes no query fail.
    assert_eq!(
        ask("select new_ssn, changes->'ssn'->>1 as stored from users__versions"),
        [json!({"new_ssn": null, "stored": "[REDACTED]"})]
    );
    let csv = world.succeed(&[
        "sql",
        "select key, new_state from public_orders__versions where event = 'created' order by key",
        "--format",
        "csv",
    ]);
    assert_eq!(csv, "key,new_state\n1,open\n2,'=1+1\n");
    let schema = world.succeed(&["sql", "--schema"]);
    assert!(
        schema.contains("| public_orders__versions | old_total") && schema.contains("| crm_orders__versions"),
        "{schema}"
    );
}

/// ⚠ Whoever asks may write the text as he likes: nothing is written, and the transaction does not end.
#[tokio::test(flavor = "multi_thread")]
async fn sql_writes_nothing_whatever_is_asked() {
    let world = world().await;
    let refused = |query: &str| {
        let output = world.command(&["sql", query]);
        assert!(!output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let before = world.recorded().await.hot.len();
    for query in [
        "DELETE FROM cdc_audit.versions",
        "SELECT 1); DELETE FROM cdc_audit.versions; SELECT (1",
        "SELECT 1); COMMIT; DELETE FROM cdc_audit.versions; SELECT (1",
        "WITH gone AS (DELETE FROM cdc_audit.versions RETURNING 1) SELECT * FROM gone",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "CREATE TEMP TABLE t (a int)",
        "COPY (SELECT 1) TO '/tmp/x'",
    ] {
        refused(query);
    }
    // A function may write in spite of it: that is rolled back.
    world.succeed(&["sql", "SELECT lo_create(0)"]);
    let left = world.hot().await.query_one("SELECT count(*) FROM pg_largeobject_metadata", &[]).await.expect("a count");
    assert_eq!((world.recorded().await.hot.len(), left.get::<_, i64>(0)), (before, 0));
    let said = refused("SELECT new_stat FROM public_orders__versions");
    assert!(said.contains("column \"new_stat\" does not exist") && said.contains("new_state"), "{said}");
    let output = world.command(&["sql", "SELECT pg_sleep(600)", "--timeout", "10 ms"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("57014"), "{output:?}");
}

pub fn in_duckdb(world: &World, arguments: &[&str]) -> Output {
    let tools = world.path("tools");
    std::fs::create_dir_all(&tools).expect("a folder");
    let script = include_str!("duckdb.py").replace("FOLDER", &duckdb_delta().to_string_lossy());
    let program = tools.join("duckdb");
    std::fs::write(&program, format!("#!{}\n{script}", python().display())).expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("a program");
    let mut command = Command::new(audit_testkit::program());
    command.env("PATH", &tools).arg("sql").args(arguments).arg("--config").arg(&world.config);
    command.output().expect("the program runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_is_asked_by_duckdb_over_the_same_views() {
    let world = world().await;
    let query = "SELECT key, event, old_state, new_state FROM public_orders__versions ORDER BY position";
    let output = in_duckdb(&world, &[query, "--from", "archive", "--json"]);
    let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{said}");
    assert_eq!(
        rows(&told),
        [
            json!({"key": "1", "event": "created", "old_state": null, "new_state": "open"}),
            json!({"key": "2", "event": "created", "old_state": null, "new_state": "=1+1"}),
            json!({"key": "1", "event": "updated", "old_state": "open", "new_state": "paid"}),
            json!({"key": "2", "event": "deleted", "old_state": "=1+1", "new_state": null}),
        ]
    );
    let output = in_duckdb(&world, &["select count(*) as n from versions", "--from", "archive", "--json"]);
    assert_eq!(rows(&String::from_utf8_lossy(&output.stdout)), [json!({"n": 6})]);
    let csv = [
        "select new_state from public_orders__versions where key = '2' and event = 'created'",
        "--format",
        "csv",
        "--from",
        "archive",
    ];
    let output = in_duckdb(&world, &csv);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "new_state\n'=1+1\n");
    let (stolen, secret) = (world.path("stolen"), world.path("secret.csv"));
    std::fs::write(&secret, "secret\n4711\n").expect("a file");
    // ⚠ Nothing but the lake is read, and nothing is installed or set.
    for query in [
        format!("SELECT * FROM read_text('{}')", secret.display()),
        format!("SELECT * FROM '{}'", secret.display()),
        format!("SELECT * FROM glob('{}/*')", secret.parent().expect("a folder").display()),
        "SELECT current_setting('enable_external_access') OR NOT current_setting('lock_configuration') AS open FROM query('LOAD icu')".to_owned(),
        format!("COPY (SELECT 1) TO '{}'", stolen.display()),
        format!("SELECT 1'); COPY (SELECT 1) TO '{}'; SELECT ('", stolen.display()),
        format!("SELECT 1; COPY (SELECT 1) TO '{}'", stolen.display()),
        format!("SELECT 1;\n.shell touch {}\n", stolen.display()),
    ] {
        let output = in_duckdb(&world, &[&query, "--from", "archive"]);
        assert!(!output.status.success() && !stolen.exists(), "{query}: {}", String::from_utf8_lossy(&output.stdout));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("4711"), "{query}");
    }
    let output = in_duckdb(&world, &["--schema", "--from", "archive"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("users__versions,new_ssn"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_duckdb_it_says_what_to_install() {
    let world = world().await;
    let mut command = Command::new(audit_testkit::program());
    command.env("PATH", "/nowhere").args(["sql", "select 1", "--from", "archive", "--config"]).arg(&world.config);
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("install DuckDB"), "{said}");
}
