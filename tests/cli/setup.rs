use std::process::{Command, Stdio};

use audit_testkit::{Postgres, program, shared};
use cdc_audit_tests::world::World;
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON: {error}: {text}"))
}

/// Counts everything that setup may make: publication, slot, schema in the source, schema in the hot database.
async fn objects(server: &Postgres, world: &World) -> String {
    let sql = format!(
        "SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'), \
         (SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc_audit')",
        world.slot
    );
    let hot = "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc_audit'";
    let hot: i64 = world.hot().await.query_one(hot, &[]).await.expect("the hot database").get(0);
    format!("{}|{hot}", server.execute(&world.database, &sql))
}

/// Lists the statements of an SQL script, without its comments.
fn statements(script: &str) -> Vec<String> {
    let code: String = script.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect();
    code.split(";\n\n").map(|statement| statement.trim().to_owned()).filter(|statement| !statement.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_can_be_tried_repeated_and_taken_back() {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").not_set_up().unwitnessed().build().await;
    let planned = world.succeed(&["setup", "--dry-run"]);
    assert_eq!(objects(server, &world).await, "0|0|0|0", "a dry run changes nothing");
    for statement in
        ["CREATE PUBLICATION", "pg_create_logical_replication_slot", "CREATE TABLE IF NOT EXISTS cdc_audit.versions"]
    {
        assert!(planned.contains(statement), "no {statement} in\n{planned}");
    }
    assert_eq!(world.command(&["check"]).status.code(), Some(3), "not ready");
    // What it prints is what it runs.
    let printed = world.succeed(&["setup"]);
    assert_eq!(statements(&printed), statements(&planned));
    assert_eq!(objects(server, &world).await, "1|1|1|1");
    let again = json(&world.succeed(&["setup", "--json"]));
    let on_source = |step: &&Value| step["on"].as_str().is_some_and(|on| on.starts_with("source"));
    let steps = again["steps"].as_array().expect("steps");
    let made: Vec<&Value> = steps.iter().filter(on_source).filter(|step| step["step"] == "run").collect();
    assert!(
        made.iter().all(|step| !step["sql"].as_str().is_some_and(|sql| sql.contains("CREATE PUBLICATION"))),
        "{made:?}"
    );
    assert_eq!(objects(server, &world).await, "1|1|1|1");
    world.succeed(&["check"]);
    server.execute(&world.database, "INSERT INTO t VALUES (1)");
    world.catch_up().await;
    // A second setup does not change an existing trail.
    world.set_up();
    assert_eq!(world.recorded().await.hot.len(), 1);
    world.succeed(&["teardown", "--keep-history", "--yes"]);
    assert_eq!(objects(server, &world).await.split('|').nth(1), Some("0"), "the slot is gone");
    assert_eq!(world.recorded().await.hot.len(), 1, "the history is not");
    world.succeed(&["teardown", "--yes"]);
    assert_eq!(objects(server, &world).await, "0|0|0|0");
}

/// Running the script of a dry run by hand is a complete setup.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_script_is_a_setup() {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").not_set_up().unwitnessed().build().await;
    let script = world.succeed(&["setup", "--dry-run"]);
    let places: Vec<&str> = script.split("\n-- hot ").collect();
    let [source, hot] = places.as_slice() else { panic!("two databases in\n{script}") };
    server.execute(&world.database, source);
    server.execute(world.hot_url.rsplit('/').next().expect("a name"), &format!("-- hot {hot}"));
    world.succeed(&["check"]);
    server.execute(&world.database, "INSERT INTO t VALUES (1)");
    world.catch_up().await;
    assert_eq!(world.recorded().await.hot.len(), 1);
}

/// `teardown` asks a person for the source's name; without a person it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn teardown_asks() {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").unwitnessed().build().await;
    let nobody = world.command(&["teardown"]);
    assert_eq!(nobody.status.code(), Some(2));
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(
        said.contains("there is nobody to ask") && said.contains("hint: run it on a terminal, or with --yes"),
        "{said}"
    );
    assert_eq!(objects(server, &world).await, "1|1|1|1");
    assert!(!on_a_terminal(&world, "yes").0);
    assert_eq!(objects(server, &world).await, "1|1|1|1");
    let (done, said) = on_a_terminal(&world, "shop");
    assert!(done && said.contains("Type the source's name (shop) to go on"), "{said}");
    assert_eq!(objects(server, &world).await, "0|0|0|0");
}

/// Runs `teardown` on a terminal, where a person types an answer.
fn on_a_terminal(world: &World, answer: &str) -> (bool, String) {
    let typed = format!("'{}' teardown --config '{}'", program().display(), world.config.display());
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &typed, "/dev/null"]);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script runs");
    let mut stdin = child.stdin.take().expect("a terminal");
    std::io::Write::write_all(&mut stdin, format!("{answer}\n").as_bytes()).expect("an answer");
    let output = child.wait_with_output().expect("teardown ends");
    drop(stdin);
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `check` prints one line for each finding and one for each fix, without colours, and JSON only on request. The exit
/// code says whether `run` would start.
#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_to_mend() {
    let server = shared(15).await;
    let tables = "CREATE TABLE good (id int PRIMARY KEY); ALTER TABLE good REPLICA IDENTITY FULL; \
                  CREATE TABLE plain (id int PRIMARY KEY, v text); CREATE TABLE heap (a int)";
    let world = World::on(server).sql(tables).unwitnessed().build().await;
    let well = world.succeed(&["check"]);
    assert!(well.is_ascii() || !well.contains('\u{1b}'), "no colours in a pipe");
    for (state, subject, fix) in [
        ("ok", "wal_level", None),
        ("ok", "clock", None),
        ("ok", "hot", None),
        ("ok", "archive", None),
        ("warn", "public.plain", Some("cdc-audit setup --replica-identity full --table public.plain")),
        ("warn", "public.heap", Some("cdc-audit setup --replica-identity full --table public.heap")),
    ] {
        let mut lines = well.lines().skip_while(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            !(words.first() == Some(&state) && words.get(2) == Some(&subject))
        });
        assert!(lines.next().is_some(), "no {state} {subject} in\n{well}");
        if let Some(fix) = fix {
            let told = lines.next().unwrap_or_default();
            assert!(told.starts_with("      fix: ") && told.contains(fix), "{told} after {subject}");
        }
    }
    assert!(
        well.lines().last().is_some_and(|line| line.starts_with("`cdc-audit run` would start: 0 failures")),
        "{well}"
    );

    server.execute(&world.database, &format!("SELECT pg_drop_replication_slot('{}')", world.slot));
    std::fs::write(&world.lake, "no folder").expect_err("the probe made the lake's folder");
    let ill = world.command(&["check", "--json"]);
    assert_eq!(ill.status.code(), Some(3));
    let told = json(&String::from_utf8_lossy(&ill.stdout));
    assert_eq!(told["would_start"], false);
    let findings = told["findings"].as_array().expect("findings");
    let failures: Vec<&Value> = findings.iter().filter(|finding| finding["state"] == "fail").collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!((&failures[0]["area"], &failures[0]["subject"]), (&"slot".into(), &world.slot.as_str().into()));
    assert!(failures.iter().all(|finding| finding["fix"].as_str().is_some_and(|fix| !fix.is_empty())));
}

/// A table is altered only on request, and never so that PostgreSQL would refuse the application's statements.
#[tokio::test(flavor = "multi_thread")]
async fn replica_identity_is_changed_only_when_told() {
    let server = shared(15).await;
    let tables = "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE heap (a int); CREATE TABLE listed (id int PRIMARY KEY, v int)";
    let world = World::on(server).sql(tables).not_set_up().unwitnessed().build().await;
    let identities = "SELECT string_agg(relname || ' ' || relreplident::text, ', ' ORDER BY relname) FROM pg_class WHERE relname IN ('t', 'heap')";
    world.set_up();
    assert_eq!(server.execute(&world.database, identities), "heap d, t d");
    // The table is not published, because PostgreSQL would refuse the application's updates.
    server.execute(&world.database, "INSERT INTO heap VALUES (1); UPDATE heap SET a = 2");
    world.succeed(&["setup", "--replica-identity", "full", "--table", "public.heap"]);
    assert_eq!(server.execute(&world.database, identities), "heap f, t d");
    server.execute(&world.database, "UPDATE heap SET a = 3");
    world.catch_up().await;
    assert_eq!(world.recorded().await.hot.len(), 1);
    // Under FULL, PostgreSQL refuses UPDATEs of a table that any publication has with a column list.
    let other = audit_testkit::unique("other");
    server.execute(&world.database, &format!("CREATE PUBLICATION {other} FOR TABLE listed (id)"));
    let refused = world.command(&["setup", "--replica-identity", "full", "--table", "public.listed"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("public.listed") && said.contains("hint: "), "{said}");
    server.execute(&world.database, "INSERT INTO listed VALUES (1, 1); UPDATE listed SET v = 2");
    let listed = "SELECT relreplident FROM pg_class WHERE relname = 'listed'";
    assert_eq!(server.execute(&world.database, listed), "d");
}
