//! Changes that happen while chunks are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use audit_testkit::{Postgres, connect, eventually_async, shared_db};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::world::{Event, World, server, text};

/// Waits until a session's commit waits for a standby that will never come.
async fn hangs_in_commit(server: &Postgres, pid: i32) {
    let client = server.client("postgres").await;
    eventually_async("the commit waits for a standby", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
        client.query_one(sql, &[&pid]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
}

/// A commit that is in the WAL and in the stream, but that no reader sees.
struct Hanging {
    server: Postgres,
    pid: i32,
    commit: JoinHandle<Client>,
}

impl Hanging {
    /// Runs statements in a transaction whose commit then waits.
    async fn start(server: Postgres, statements: &str) -> Hanging {
        let client = server.client("postgres").await;
        client.batch_execute("SET synchronous_commit TO on").await.unwrap();
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let statements = format!("BEGIN; {statements}; COMMIT");
        let commit = tokio::spawn(async move {
            client.batch_execute(&statements).await.unwrap();
            client
        });
        hangs_in_commit(&server, pid).await;
        Hanging { server, pid, commit }
    }

    /// Lets the commit become visible: the server reports that it is committed here though not on the standby.
    async fn release(self) -> Postgres {
        let client = self.server.client("postgres").await;
        client.execute("SELECT pg_cancel_backend($1)", &[&self.pid]).await.unwrap();
        self.commit.await.unwrap();
        self.server
    }
}

/// A server whose commits all wait for a standby, except in sessions that set it otherwise.
async fn lonely_primary() -> Postgres {
    let server = server(&[("synchronous_standby_names", "nobody")]).await;
    server.execute("postgres", "ALTER SYSTEM SET synchronous_commit = local; SELECT pg_reload_conf()");
    let client = server.client("postgres").await;
    eventually_async("the setting is in force", async || {
        let client = server.client("postgres").await;
        client.query_one("SHOW synchronous_commit", &[]).await.unwrap().get::<_, String>(0) == "local"
    })
    .await;
    drop(client);
    server
}

const USERS: &str =
    "CREATE TABLE users (id int PRIMARY KEY, v text); INSERT INTO users SELECT i, 'old' FROM generate_series(1, 10) i;";

/// The stream has an update that no reader sees yet: a chunk that is read now would put the old row after it.
#[tokio::test]
async fn a_commit_in_the_stream_before_it_is_visible_is_waited_for() {
    let server = lonely_primary().await;
    let mut world = World::new(&server.url("postgres"), USERS, "FOR TABLE users").await;
    world.start().await;
    // The baseline begins while nobody writes; then the commit waits, before the first chunk is watched.
    let hanging =
        Hanging::start(server, "UPDATE users SET v = 'new' WHERE id = 3; DELETE FROM users WHERE id = 4").await;
    world.stream().await;
    assert_eq!(world.events("public.users").len(), 2);
    world
        .until("the runner waits, or has read what is old", |world| {
            !world.chunks.is_empty() || world.progress.report().rereads.contains_key("a commit was not visible yet")
        })
        .await;
    let server = hanging.release().await;
    world.finish().await;
    let rows = world.rows("SELECT id, v FROM users").await;
    world.assert_replayed("public.users", 1, &rows);
    assert!(!world.snapshots("public.users").contains(&text(&["3", "old"])));
    drop(server);
}

/// The same, but an earlier process received it from the stream, so its number is no longer known.
#[tokio::test]
async fn a_commit_delivered_to_an_earlier_process_is_waited_for() {
    let server = lonely_primary().await;
    let mut world = World::new(&server.url("postgres"), USERS, "FOR TABLE users").await;
    let hanging =
        Hanging::start(server, "UPDATE users SET v = 'new' WHERE id = 3; INSERT INTO users VALUES (11, 'new')").await;
    world.stream().await;
    assert_eq!(world.events("public.users").len(), 2);
    world.start().await;
    world
        .until("the runner waits, or has read what is old", |world| {
            let waits = |world: &World| {
                world.progress.report().open.iter().any(|table| table.phase == audit_capture::baseline::Phase::Waiting)
            };
            !world.chunks.is_empty() || waits(world)
        })
        .await;
    let server = hanging.release().await;
    world.finish().await;
    let rows = world.rows("SELECT id, v FROM users").await;
    world.assert_replayed("public.users", 1, &rows);
    drop(server);
}

/// What a transaction wrote before its table was published is not in the stream, and not visible until it ends.
#[tokio::test]
async fn a_transaction_that_wrote_before_its_table_was_published_is_waited_for() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE late (id int PRIMARY KEY);
                  CREATE TABLE late_log (v int); ALTER TABLE late_log REPLICA IDENTITY FULL;
                  INSERT INTO late VALUES (1); INSERT INTO late_log VALUES (1)";
    let mut world = World::new(&db.url, schema, "FOR TABLE users").await;
    world.start().await;
    world.finish().await;
    let writer = connect(&db.url).await;
    writer.batch_execute("BEGIN; INSERT INTO late VALUES (2); INSERT INTO late_log VALUES (2)").await.unwrap();
    world.execute("ALTER PUBLICATION cdc_audit ADD TABLE late, late_log").await;
    writer.batch_execute("INSERT INTO late VALUES (3); INSERT INTO late_log VALUES (3)").await.unwrap();
    world.hint.notify_one();
    world
        .until("the tables are found and wait", |world| {
            let report = world.progress.report();
            report.tables == 3 && report.open.len() == 2
        })
        .await;
    // A transaction that wrote elsewhere first and comes to the table later is completely in the stream.
    let other = connect(&db.url).await;
    other.batch_execute("BEGIN; INSERT INTO users VALUES (1)").await.unwrap();
    writer.batch_execute("COMMIT").await.unwrap();
    other.batch_execute("INSERT INTO late VALUES (4); COMMIT").await.unwrap();
    world.finish().await;
    world.assert_replayed("public.late", 1, &world.rows("SELECT id FROM late").await);
    assert!(world.snapshots("public.late").contains(&text(&["2"])));
    assert!(world.snapshots("public.late_log").contains(&text(&["2"])));
}

/// A snapshot that is older than the lock sees no rows of a table that was rewritten in between.
#[tokio::test]
async fn a_table_written_anew_while_its_lock_is_waited_for_loses_no_row() {
    let db = shared_db(15).await;
    let schema =
        "CREATE TABLE users (id int PRIMARY KEY, v int); INSERT INTO users SELECT i, i FROM generate_series(1, 250) i";
    let mut world = World::new(&db.url, schema, "FOR TABLE users").await;
    world.allow_change("public.users");
    world.start().await;
    world.until("the first chunk is there", |world| !world.chunks.is_empty()).await;
    let ddl = connect(&db.url).await;
    // The runner reads its next chunk only when it is told that the last one was delivered, which is after this lock.
    world.before_chunk = None;
    ddl.batch_execute("BEGIN; ALTER TABLE users ALTER v TYPE bigint").await.unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'users'::regclass";
    let begun = tokio::time::Instant::now();
    while world.number(waits).await == 0 {
        assert!(begun.elapsed() < audit_testkit::PATIENCE);
        world.step().await;
    }
    ddl.batch_execute("COMMIT").await.unwrap();
    world.finish().await;
    world.assert_replayed("public.users", 1, &world.rows("SELECT id, v FROM users").await);
}

/// Writes until it is told to stop.
async fn busy(url: &str, stop: Arc<AtomicBool>, statements: impl Fn(u32) -> String) -> u32 {
    let client = connect(url).await;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        client.batch_execute(&statements(count)).await.unwrap();
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trail_replayed_is_the_table_whatever_is_written_meanwhile() {
    let db = shared_db(15).await;
    let schema = "
        CREATE TABLE users (id int PRIMARY KEY, v text);
        INSERT INTO users SELECT i, 'old' || i FROM generate_series(1, 2000) i;
        CREATE TABLE whole (id int PRIMARY KEY, v text); ALTER TABLE whole REPLICA IDENTITY FULL;
        INSERT INTO whole SELECT i, 'old' || i FROM generate_series(1, 2000) i;
        CREATE TABLE log (v text, n int); ALTER TABLE log REPLICA IDENTITY FULL;
        INSERT INTO log SELECT 'old' || i, i FROM generate_series(1, 2000) i;";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = ["users", "whole", "log"]
        .into_iter()
        .enumerate()
        .map(|(seed, table)| {
            let (url, stop) = (db.url.clone(), stop.clone());
            tokio::spawn(async move {
                busy(&url, stop, |i| {
                    let at = (i * 7919 + seed as u32 * 31) % 2000;
                    let key = if table == "log" { "n" } else { "id" };
                    let insert = if table == "log" { format!("'new{i}', {}", 10_000 + i) } else { format!("{}, 'new{i}'", 10_000 + i) };
                    format!(
                        "BEGIN; UPDATE {table} SET v = v || '+' WHERE {key} BETWEEN {at} AND {at} + 3;
                         DELETE FROM {table} WHERE {key} = {at} + 5; INSERT INTO {table} VALUES ({insert});
                         SAVEPOINT s; UPDATE {table} SET v = 'never' WHERE {key} = {at} + 7; ROLLBACK TO s;
                         SAVEPOINT t; UPDATE {table} SET {key} = {key} + 100000 WHERE {key} = {at} + 9; RELEASE t; COMMIT"
                    )
                })
                .await
            })
        })
        .collect();
    world.start().await;
    world.finish().await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 10);
    }
    world.stream().await;
    for (table, key, columns) in [("users", 1, "id, v"), ("whole", 1, "id, v"), ("log", 0, "v, n")] {
        let rows = world.rows(&format!("SELECT {columns} FROM {table}")).await;
        world.assert_replayed(&format!("public.{table}"), key, &rows);
    }
    let first = |table: &str| world.events(table).iter().any(|event| matches!(event, Event::Updated(..)));
    assert!(first("public.users") && first("public.log"));
}

/// A truncate that is in the stream after the reading but before the watermark.
#[tokio::test]
async fn rows_truncated_while_their_chunk_is_read_do_not_come_after_it() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 150)";
    let mut world = World::new(&db.url, schema, "FOR TABLE users").await;
    world.start().await;
    world.until("the first chunk is there", |world| !world.chunks.is_empty()).await;
    world.execute("TRUNCATE users; INSERT INTO users VALUES (7), (180)").await;
    world.finish().await;
    world.assert_replayed("public.users", 1, &world.rows("SELECT id FROM users").await);
}
