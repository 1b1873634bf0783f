//! Problems that a person has to act on, and problems that pass by themselves.

use audit_capture::baseline::Phase;
use audit_testkit::{connect, shared_db};

use super::world::World;

fn url_as(role: &str, url: &str) -> String {
    url.replace("postgres@", &format!("{role}@"))
}

/// Under a policy a role reads fewer rows, without an error, unless it requires all rows or none.
#[tokio::test]
async fn tables_that_may_not_be_read_are_named_and_the_others_go_on() {
    let db = shared_db(15).await;
    let role = audit_testkit::unique("reader");
    let schema = format!(
        "CREATE TABLE secret (id int PRIMARY KEY); INSERT INTO secret VALUES (1);
         CREATE TABLE own (id int PRIMARY KEY, owner text); INSERT INTO own VALUES (1, 'a'), (2, 'b');
         ALTER TABLE own ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON own USING (owner = current_user);
         CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1);
         CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA cdc_audit TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cdc_audit TO {role}; GRANT SELECT ON users, own TO {role}"
    );
    let mut world = World::new(&db.url, &schema, "FOR ALL TABLES").await;
    world.start_as(&url_as(&role, &db.url)).await;
    world
        .until("two tables have failed and one is complete", |world| {
            let report = world.progress.report();
            report.tables_done == 1 && report.open.iter().filter(|table| table.phase == Phase::Failed).count() == 2
        })
        .await;
    let report = world.progress.report();
    let failure = |table: &str| report.open.iter().find(|open| &*open.table == table).unwrap().failure.clone().unwrap();
    let denied = failure("public.secret");
    assert!(denied.message.starts_with("the daemon's role may not read \"public\".\"secret\": "), "{denied:?}");
    assert!(denied.hint.unwrap().starts_with("GRANT SELECT ON \"public\".\"secret\"") && !denied.passing);
    let hidden = failure("public.own");
    assert!(hidden.message.starts_with("row-level security would hide rows of \"public\".\"own\""), "{hidden:?}");
    assert!(hidden.hint.unwrap().contains("BYPASSRLS"));
    assert_eq!(world.trail.keys().collect::<Vec<_>>(), ["public.users"]);

    world.execute(&format!("GRANT SELECT ON secret TO {role}; ALTER TABLE own DISABLE ROW LEVEL SECURITY")).await;
    world.hint.notify_one();
    world.finish().await;
    assert_eq!(world.snapshots("public.own").len(), 2);
    world.stop();
    world.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_source_that_was_not_set_up_is_named() {
    let db = shared_db(15).await;
    let mut world = World::new(&db.url, "CREATE TABLE users (id int PRIMARY KEY)", "FOR ALL TABLES").await;
    world.execute("ALTER TABLE cdc_audit.chunks RENAME TO elsewhere").await;
    world.start().await;
    let failure = world.progress.report().failure.unwrap();
    assert!(failure.hint.unwrap().contains("cdc-audit setup") && !failure.passing);
    world.execute("ALTER TABLE cdc_audit.elsewhere RENAME TO chunks").await;
    world.hint.notify_one();
    world.finish().await;
    assert_eq!(world.progress.report().failure, None);
}

#[tokio::test]
async fn a_table_that_is_dropped_meanwhile_is_skipped() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone SELECT generate_series(1, 500);
                  CREATE TABLE moved (id int PRIMARY KEY); INSERT INTO moved SELECT generate_series(1, 500);
                  CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 500)";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.config.parallel = 3;
    world.start().await;
    world.until("all are being read", |world| world.trail.len() == 3).await;
    world.execute("DROP TABLE gone; ALTER TABLE moved RENAME TO here").await;
    world
        .until("the others are complete", |world| {
            let report = world.progress.report();
            report.tables == 2 && report.tables_done == 2
        })
        .await;
    world.assert_replayed("public.users", 1, &world.rows("SELECT id FROM users").await);
    world.assert_replayed("public.here", 1, &world.rows("SELECT id FROM here").await);
}

#[tokio::test]
async fn lost_sessions_are_opened_again() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 2000);
                  CREATE TABLE log (v int); ALTER TABLE log REPLICA IDENTITY FULL; INSERT INTO log SELECT generate_series(1, 2000)";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.start().await;
    let killer = connect(&db.url).await;
    for chunks in [2, 5, 9] {
        world.until("more chunks are there", |world| world.chunks.len() >= chunks).await;
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE application_name = 'cdc-audit baseline' AND datname = current_database()";
        killer.batch_execute(kill).await.unwrap();
    }
    world.finish().await;
    let mut users = world.snapshots("public.users");
    users.sort();
    assert_eq!(users, world.rows("SELECT id FROM users").await);
    world.assert_replayed("public.log", 0, &world.rows("SELECT v FROM log").await);
}

#[tokio::test]
async fn a_locked_table_holds_up_no_other() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE keyed (id int PRIMARY KEY) PARTITION BY RANGE (id);
                  CREATE TABLE keyed_1 PARTITION OF keyed FOR VALUES FROM (0) TO (100); INSERT INTO keyed VALUES (1);
                  CREATE TABLE heap (v int) PARTITION BY RANGE (v);
                  CREATE TABLE heap_1 PARTITION OF heap FOR VALUES FROM (0) TO (100); INSERT INTO heap VALUES (1);
                  CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1)";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES WITH (publish_via_partition_root)").await;
    let locker = connect(&db.url).await;
    locker.batch_execute("BEGIN; LOCK TABLE keyed_1, heap_1 IN ACCESS EXCLUSIVE MODE").await.unwrap();
    world.start().await;
    world
        .until("one table is complete, the others wait", |world| {
            let report = world.progress.report();
            report.tables_done == 1 && report.open.len() == 2
        })
        .await;
    locker.batch_execute("ROLLBACK").await.unwrap();
    world.hint.notify_one();
    world.finish().await;
    assert_eq!((world.snapshots("public.keyed").len(), world.snapshots("public.heap").len()), (1, 1));
}

#[tokio::test]
async fn a_row_that_does_not_fit_into_memory_is_refused_by_name() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE keyed (id int PRIMARY KEY, doc jsonb, more bytea);
                  INSERT INTO keyed SELECT g, NULL, NULL FROM generate_series(1, 250) g;
                  UPDATE keyed SET more = convert_to(repeat('x', 600000), 'UTF8') WHERE id = 201;
                  CREATE TABLE heap (v text); INSERT INTO heap SELECT repeat('y', 2000000);
                  CREATE TABLE users (id int PRIMARY KEY, v text); INSERT INTO users VALUES (1, repeat('z', 900000))";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.row_max = 1_000_000;
    world.start().await;
    world
        .until("two are refused", |world| {
            let report = world.progress.report();
            report.tables_done == 1 && report.open.iter().filter(|table| table.failure.is_some()).count() == 2
        })
        .await;
    let failures: Vec<_> = world.progress.report().open.into_iter().filter_map(|table| table.failure).collect();
    let messages: Vec<&str> = failures.iter().map(|failure| failure.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "chunk 1 of \"public\".\"heap\" has a row of 2000000 bytes, and the memory limit allows 1000000 for one row",
            "chunk 3 of \"public\".\"keyed\" has a row of 1200002 bytes, and the memory limit allows 1000000 for one row",
        ]
    );
    assert!(failures.iter().all(|failure| !failure.passing));
    let hint = failures[0].hint.clone().unwrap();
    assert!(hint.starts_with("raise pipeline.memory_limit to at least 72 MiB"), "{hint}");
    world.stop();
    world.row_max = 3_000_000;
    world.start().await;
    world.finish().await;
    assert_eq!(world.snapshots("public.heap").len(), 1);
}

/// An attempt whose answer was lost has stored other bounds: no sink may be given a chunk that ends elsewhere.
#[tokio::test]
async fn bounds_that_are_stored_meanwhile_are_gone_by() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 150)";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.start().await;
    // Meanwhile the runner waits for an answer to its watch.
    let begun = "SELECT count(*) FROM cdc_audit.chunks WHERE kind = 'key'";
    while world.number(begun).await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world
        .execute(
            "INSERT INTO cdc_audit.chunks (source, table_name, baseline, chunk, kind, upper, last, rows)
             VALUES ('shop', 'public.users', 1, 1, 'key', '{7}', false, 7)",
        )
        .await;
    world.finish().await;
    let sizes: Vec<usize> = world.chunks.iter().map(|(_, rows, _)| *rows).collect();
    assert_eq!(sizes, [7, 100, 43]);
}
