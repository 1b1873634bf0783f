//! Tables without a key.

use std::path::Path;
use std::process::Command;

use audit_testkit::{Shutdown, connect, install, shared_db};

use super::world::{Values, World, server, text};

fn sorted(mut rows: Vec<Values>) -> Vec<Values> {
    rows.sort();
    rows
}

#[tokio::test]
async fn equal_rows_and_rows_of_nothing_are_all_there() {
    let db = shared_db(15).await;
    let schema = "
        CREATE TABLE equal (v text); ALTER TABLE equal REPLICA IDENTITY FULL;
        INSERT INTO equal SELECT 'same' FROM generate_series(1, 1000); INSERT INTO equal VALUES (NULL), ('');
        CREATE TABLE nothing (); ALTER TABLE nothing REPLICA IDENTITY FULL;
        INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
        CREATE TABLE empty (v int); CREATE TABLE gaps (v int, filler text);
        INSERT INTO gaps SELECT i, repeat('x', 500) FROM generate_series(1, 600) i; DELETE FROM gaps WHERE v % 7 < 5;";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.start().await;
    world.finish().await;
    for table in ["equal", "nothing", "empty", "gaps"] {
        let rows = world.rows(&format!("SELECT * FROM {table}")).await;
        assert_eq!(sorted(world.snapshots(&format!("public.{table}"))).len(), rows.len(), "{table}");
        world.assert_replayed(&format!("public.{table}"), 0, &rows);
    }
    assert!(world.taken("public.equal", "hot").len() > 2);
    assert_eq!(world.taken("public.empty", "hot"), ["1.1!"]);
}

/// Rows that are inserted between the slot's creation and the daemon's start come through the stream.
#[tokio::test]
async fn rows_that_the_stream_has_are_not_read_as_well() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE log (v int); ALTER TABLE log REPLICA IDENTITY FULL; INSERT INTO log VALUES (1), (2)";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    let open = connect(&db.url).await;
    open.batch_execute("BEGIN; SAVEPOINT a; INSERT INTO log VALUES (6)").await.unwrap();
    world.execute("INSERT INTO log VALUES (3); UPDATE log SET v = 20 WHERE v = 2").await;
    world.execute("BEGIN; SAVEPOINT s; INSERT INTO log VALUES (4); RELEASE s; COMMIT").await;
    world.start().await;
    world.execute("INSERT INTO log VALUES (5)").await;
    open.batch_execute("COMMIT").await.unwrap();
    world.finish().await;
    world.execute("INSERT INTO log VALUES (7)").await;
    world.stream().await;
    assert_eq!(world.snapshots("public.log"), [text(&["1"])]);
    world.assert_replayed("public.log", 0, &world.rows("SELECT v FROM log").await);
}

#[tokio::test]
async fn every_transaction_below_the_mark_is_waited_for() {
    // Transaction numbers belong to a whole cluster.
    let server = server(&[]).await;
    let url = server.url("postgres");
    let schema = "CREATE TABLE log (v int); ALTER TABLE log REPLICA IDENTITY FULL; INSERT INTO log VALUES (1), (1);
                  CREATE TABLE other (v int PRIMARY KEY); CREATE TABLE users (id int PRIMARY KEY)";
    let mut world = World::new(&url, schema, "FOR ALL TABLES").await;
    // It has a number, but has not touched the table yet.
    let open = connect(&url).await;
    open.batch_execute("BEGIN; INSERT INTO other VALUES (1)").await.unwrap();
    // One more transaction, later, which ends: the mark is above both.
    world.execute("INSERT INTO other VALUES (2)").await;
    world.start().await;
    let log = |world: &World| {
        let report = world.progress.report();
        report.open.iter().find(|table| &*table.table == "public.log").map(|table| table.phase)
    };
    world
        .until("the table waits, or is read, and another is complete", |world| {
            let waits = log(world) == Some(audit_capture::baseline::Phase::Waiting);
            !world.taken("public.users", "hot").is_empty() && (waits || !world.taken("public.log", "hot").is_empty())
        })
        .await;
    assert_eq!(world.taken("public.log", "hot"), [""; 0]);
    open.batch_execute("INSERT INTO log VALUES (1); COMMIT").await.unwrap();
    world.finish().await;
    world.assert_replayed("public.log", 0, &world.rows("SELECT v FROM log").await);
}

/// Runs a program as the user that owns the server, if that is another one.
fn as_server_user(program: &Path, arguments: &[&str]) {
    let script = r#"if [ "$(id -u)" = 0 ]; then exec runuser -u postgres -- "$@"; else exec "$@"; fi"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(program).args(arguments).current_dir("/");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Numbers of transactions wrap around, and a row keeps its number: a frozen row may have a larger number than any new
/// row.
#[tokio::test]
async fn frozen_rows_of_an_earlier_round_are_not_taken_for_new_ones() {
    let server = server(&[]).await;
    server.execute("postgres", "VACUUM (FREEZE)");
    server.execute("template1", "VACUUM (FREEZE)");
    server.stop(Shutdown::Fast);
    let data = server.data_dir();
    let segment = data.join("pg_xact/0FFF");
    let zeros = format!("head -c 262144 /dev/zero > {}", segment.display());
    as_server_user(Path::new("sh"), &["-c", &zeros]);
    let bin = install::postgres_bin(15).unwrap();
    as_server_user(&bin.join("pg_resetwal"), &["-x", "4294967000", "-D", data.to_str().unwrap()]);
    server.start_again();

    let schema = "CREATE TABLE log (v int); ALTER TABLE log REPLICA IDENTITY FULL; INSERT INTO log SELECT generate_series(1, 500);
                  CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 150)";
    let mut world = World::new(&server.url("postgres"), schema, "FOR ALL TABLES").await;
    world.execute("DO $$ BEGIN FOR i IN 1..400 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$").await;
    world.execute("VACUUM (FREEZE) log").await;
    let old = world.number("SELECT min(xmin::text::bigint) FROM log").await;
    let new = world.number("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint % 4294967296").await;
    assert!(old > 4_294_967_000 && new < 1000, "{old} {new}");
    world.execute("INSERT INTO log VALUES (501)").await;
    world.start().await;
    world.execute("INSERT INTO log VALUES (502); UPDATE users SET id = 1000 WHERE id = 7").await;
    world.finish().await;
    assert_eq!(world.snapshots("public.log").len(), 500);
    world.assert_replayed("public.log", 0, &world.rows("SELECT v FROM log").await);
    world.assert_replayed("public.users", 1, &world.rows("SELECT id FROM users").await);
}

#[tokio::test]
async fn a_table_whose_file_is_another_is_read_anew() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE log (v int, filler text); ALTER TABLE log REPLICA IDENTITY FULL;
                  INSERT INTO log SELECT i, repeat('x', 100) FROM generate_series(1, 1000) i;
                  CREATE TABLE short (v int); ALTER TABLE short REPLICA IDENTITY FULL;
                  INSERT INTO short SELECT generate_series(1, 1000)";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.config.parallel = 1;
    world.before_chunk = Some((2, "DELETE FROM log WHERE v <= 500; ".to_owned()));
    world.start().await;
    world.until("a chunk is there", |world| world.taken("public.log", "hot").len() == 2).await;
    // The rows move to the front: by place, those that have not been read yet would be missed.
    world.execute("VACUUM FULL log").await;
    world.until("the table is begun anew", |world| world.taken("public.log", "hot").contains(&"2.1".to_owned())).await;
    world.finish().await;
    let taken = world.taken("public.log", "hot");
    assert!(
        taken.starts_with(&["1.1".to_owned(), "1.2".to_owned()]) && taken.last().unwrap().starts_with("2."),
        "{taken:?}"
    );
    let second: Vec<_> = world
        .events("public.log")
        .iter()
        .filter_map(|event| match event {
            super::world::Event::Snapshot(mark, row) if mark.baseline == 2 => Some(row.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(sorted(second), world.rows("SELECT v, filler FROM log").await);
}

/// A truncated table has another file too. Rows that were inserted after the truncate came through the stream, and are
/// not read as well.
#[tokio::test]
async fn a_table_truncated_in_the_middle_of_its_baseline_repeats_nothing() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE log (v int); ALTER TABLE log REPLICA IDENTITY FULL; INSERT INTO log SELECT generate_series(1, 1000)";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.start().await;
    world.until("a chunk is there", |world| !world.chunks.is_empty()).await;
    world.execute("TRUNCATE log; INSERT INTO log VALUES (1), (2), (5000)").await;
    world.finish().await;
    world.assert_replayed("public.log", 0, &world.rows("SELECT v FROM log").await);
}

#[tokio::test]
async fn partitions_are_read_one_by_one() {
    let db = shared_db(15).await;
    let schema = "
        CREATE TABLE events (v text, at int) PARTITION BY RANGE (at); ALTER TABLE events REPLICA IDENTITY FULL;
        CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100);
        CREATE TABLE events_2 (junk int, at int, v text); ALTER TABLE events_2 DROP COLUMN junk;
        ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM (100) TO (200);
        CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (200) TO (300) PARTITION BY LIST (v);
        CREATE TABLE events_3_a PARTITION OF events_3 DEFAULT;
        ALTER TABLE events_1 REPLICA IDENTITY FULL; ALTER TABLE events_2 REPLICA IDENTITY FULL;
        ALTER TABLE events_3_a REPLICA IDENTITY FULL;
        INSERT INTO events SELECT 'v' || i, i % 300 FROM generate_series(1, 900) i;";
    let publication = "FOR TABLE events WHERE (at <> 7) WITH (publish_via_partition_root = true)";
    let mut world = World::new(&db.url, schema, publication).await;
    world.start().await;
    world.until("a chunk is there", |world| !world.chunks.is_empty()).await;
    world
        .execute("UPDATE events SET at = at + 150 WHERE at BETWEEN 40 AND 60; DELETE FROM events WHERE at = 299")
        .await;
    world.finish().await;
    world.assert_replayed("public.events", 0, &world.rows("SELECT v, at FROM events WHERE at <> 7").await);
    assert!(world.taken("public.events", "hot").len() >= 3);
}
