use std::path::Path;
use std::process::Command;

use audit_testkit::{Daemon, Postgres, eventually, eventually_async, shared};
use cdc_audit_tests::trail::{Version, lsn};
use cdc_audit_tests::world::World;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY)";

async fn world(server: &Postgres) -> World {
    World::on(server).hot_url(&server.new_database().1).sql(TABLE).build().await
}

/// Inserts rows and waits until they are stored in every sink and acknowledged.
async fn insert(server: &Postgres, world: &World, ids: std::ops::RangeInclusive<u32>) {
    let (from, to) = (ids.start(), ids.end());
    server.execute(&world.database, &format!("INSERT INTO t SELECT generate_series({from}, {to})"));
    let hot = world.hot().await;
    let stored = format!("SELECT max(commit_lsn)::text FROM cdc_audit.versions WHERE key = '{to}'");
    let mut commit = None;
    eventually_async("the rows are stored", async || {
        commit = hot.query_one(&stored, &[]).await.unwrap().get::<_, Option<String>>(0);
        commit.is_some()
    })
    .await;
    let commit = lsn(&commit.unwrap());
    let slot = format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'", world.slot);
    eventually("they are acknowledged", || lsn(&server.execute(&world.database, &slot)) > commit);
}

fn told(trail: &[Version]) -> Vec<String> {
    trail.iter().map(|version| version.key.clone().unwrap_or_else(|| version.event.clone())).collect()
}

/// Checks that later rows are not stored as if nothing were missing.
async fn names_the_gap(server: &Postgres, world: &World, daemon: &mut Daemon, sink: &str) {
    server.execute(&world.database, "INSERT INTO t VALUES (21)");
    says(daemon, "went back to an earlier state than this process has stored");
    accepts_the_gap(world, daemon, sink).await;
}

fn says(daemon: &mut Daemon, text: &str) {
    assert_eq!(daemon.wait().code(), Some(4), "{}", daemon.output());
    assert!(daemon.output().contains(text), "{text}: {}", daemon.output());
}

async fn accepts_the_gap(world: &World, daemon: &mut Daemon, sink: &str) {
    says(daemon, &format!("sink {sink} has everything to"));
    let until = world.wal_end().await;
    world.succeed(&["run", "--accept-gap", "--until", &until]);
}

/// ⚠ While the daemon runs, the hot database's standby may take over without the last transactions, or the database may
/// be restored.
#[tokio::test(flavor = "multi_thread")]
async fn a_hot_database_that_goes_back_is_not_written_on() {
    let server = shared(15).await;
    let world = world(server).await;
    let name = world.hot_url.rsplit('/').next().unwrap().split('?').next().unwrap();
    let copy = audit_testkit::unique("copy");
    let mut daemon = world.launch().start();
    insert(server, &world, 1..=5).await;
    let sql = |sql: String| server.execute("postgres", &sql);
    daemon.sigstop();
    let sessions = format!("FROM pg_stat_activity WHERE datname = '{name}'");
    sql(format!("SELECT pg_terminate_backend(pid) {sessions}"));
    eventually("sessions end", || sql(format!("SELECT count(*) {sessions}")) == "0");
    sql(format!("CREATE DATABASE {copy} TEMPLATE {name}"));
    daemon.sigcont();
    insert(server, &world, 11..=15).await;
    daemon.sigstop();
    sql(format!("DROP DATABASE {name} WITH (FORCE)"));
    sql(format!("ALTER DATABASE {copy} RENAME TO {name}"));
    daemon.sigcont();

    names_the_gap(server, &world, &mut daemon, "hot").await;
    assert_eq!(told(&world.recorded().await.hot), ["1", "2", "3", "4", "5", "gap", "21"]);
}

fn copy_folder(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success(), "{} cannot be copied", from.display());
}

/// ⚠ The same may happen to a lake: earlier versions of a bucket or a folder may be restored.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_goes_back_is_not_written_on() {
    let server = shared(15).await;
    let world = world(server).await;
    let copy = world.path("copy");
    let mut daemon = world.launch().start();
    insert(server, &world, 1..=1).await;
    daemon.sigstop();
    copy_folder(&world.lake, &copy);
    daemon.sigcont();
    insert(server, &world, 2..=2).await;
    daemon.sigstop();
    std::fs::remove_dir_all(&world.lake).unwrap();
    copy_folder(&copy, &world.lake);
    daemon.sigcont();

    names_the_gap(server, &world, &mut daemon, "archive").await;
    assert_eq!(told(&world.recorded().await.by_log), ["1", "gap", "21"]);
}

/// ⚠ The lake's own checkpoint is whole then: the next start must not go on as if nothing were missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_a_lake_that_goes_back_alone_is_a_gap_until_it_is_accepted() {
    let server = shared(15).await;
    let world = world(server).await;
    let (table, copy) = (world.lake.join("public.t"), world.path("copy"));
    let mut daemon = world.launch().start();
    insert(server, &world, 1..=1).await;
    daemon.sigstop();
    copy_folder(&table, &copy);
    daemon.sigcont();
    insert(server, &world, 2..=2).await;
    daemon.sigstop();
    std::fs::remove_dir_all(&table).unwrap();
    copy_folder(&copy, &table);
    daemon.sigcont();
    server.execute(&world.database, "INSERT INTO t VALUES (21)");
    says(&mut daemon, "a table of the lake went back to an earlier state");

    let mut again = world.launch().start();
    accepts_the_gap(&world, &mut again, "archive").await;
    assert_eq!(told(&world.recorded().await.by_log), ["1", "gap", "21"]);
}

/// ⚠ An empty place counts as a new sink, in which nothing is missing, but not if this process has stored there before.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_is_emptied_does_not_count_as_new() {
    let server = shared(15).await;
    let world = world(server).await;
    let mut daemon = world.launch().start();
    insert(server, &world, 1..=1).await;
    daemon.sigstop();
    // The folder itself stays, because without it nothing can be written, and the daemon would wait.
    for entry in std::fs::read_dir(&world.lake).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    daemon.sigcont();
    server.execute(&world.database, "INSERT INTO t VALUES (2)");
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.output());
    assert!(daemon.output().contains("the sink's place is empty"), "{}", daemon.output());
}
