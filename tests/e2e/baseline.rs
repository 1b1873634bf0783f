use std::time::{Duration, Instant};

use audit_testkit::{Daemon, eventually, shared};
use cdc_audit_tests::majors;
use cdc_audit_tests::trail::{Row, Version};
use cdc_audit_tests::world::World;

fn wait_until_complete(daemon: &mut Daemon, table: &str) {
    let says = |line: &str| line.contains("baseline complete") && line.contains(table);
    daemon.wait_for(&format!("the baseline of {table}"), |daemon| daemon.output().lines().any(says));
}

/// The publication is read every 30 s, and whenever the stream shows a table for the first time.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_joins_is_read_once_the_stream_shows_it() {
    let server = shared(15).await;
    let world = World::on(server)
        .baseline()
        .sql("CREATE TABLE joined_0 (id int PRIMARY KEY)")
        .publication("FOR TABLE joined_0")
        .build()
        .await;
    let mut daemon = world.launch().start();
    wait_until_complete(&mut daemon, "joined_0");
    let mut waits = Vec::new();
    for number in 1..=3 {
        let table = format!("joined_{number}");
        server.execute(
            &world.database,
            &format!(
                "CREATE TABLE {table} (id int PRIMARY KEY); INSERT INTO {table} VALUES (1); \
                 ALTER PUBLICATION {} ADD TABLE {table}; INSERT INTO {table} VALUES (2)",
                world.slot
            ),
        );
        let joined = Instant::now();
        wait_until_complete(&mut daemon, &table);
        waits.push(joined.elapsed());
    }
    // By chance the read that happens every 30 s may be in time for one of them, but not for the next one too.
    assert!(waits.iter().filter(|wait| **wait < Duration::from_secs(15)).count() > 1, "{waits:?}");
    assert!(daemon.stop().success(), "{}", daemon.output());
    let recorded = world.recorded().await;
    let wrong: Vec<String> = recorded.disagreements().into_iter().chain(recorded.snapshots_twice()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let first = |version: &&Version| version.event == "snapshot" && version.key.as_deref() == Some("1");
    assert_eq!(recorded.hot.iter().filter(first).count(), 3);
}

/// Lost changes stay lost, but the rows as they are after them are recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_may_be_followed_by_a_new_baseline() {
    for major in majors() {
        let server = shared(major).await;
        let world = World::on(server)
            .baseline()
            .sql(
                "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL; \
                 CREATE TABLE heap (line text); ALTER TABLE heap REPLICA IDENTITY FULL; \
                 INSERT INTO t SELECT i, 'old' FROM generate_series(1, 500) AS i; INSERT INTO heap VALUES ('same'), ('same')",
            )
            .build()
            .await;
        read_baselines(&world, &[]);
        assert_eq!(snapshots(&world, 1).await.len(), 502);

        let drop = format!("SELECT pg_drop_replication_slot('{}')", world.slot);
        eventually("the slot is dropped", || server.try_execute(&world.database, &drop).is_ok());
        server.execute(
            &world.database,
            "UPDATE t SET v = 'new' WHERE id <= 300; DELETE FROM t WHERE id > 400; INSERT INTO t VALUES (1000, 'new'); \
             UPDATE heap SET line = 'other'",
        );
        let mut refused = world.launch().start();
        assert!(!refused.wait().success() && refused.output().contains("--accept-gap"), "{}", refused.output());
        read_baselines(&world, &["--accept-gap", "--new-baseline"]);

        let mut rows: Vec<Row> = world.tables().await.into_values().flat_map(|table| table.rows).collect();
        rows.sort();
        assert_eq!(snapshots(&world, 2).await, rows);
        let recorded = world.recorded().await;
        let wrong: Vec<String> = recorded.disagreements().into_iter().chain(recorded.snapshots_twice()).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        for trail in [&recorded.hot, &recorded.by_log] {
            assert_eq!(trail.iter().filter(|version| version.event == "gap").count(), 1);
        }
        if major >= 17 {
            let sql = "SELECT failover FROM pg_replication_slots WHERE slot_name = $1";
            let slot = world.client().await.query_one(sql, &[&world.slot]).await.expect("the slot made anew");
            assert!(slot.get::<_, bool>(0), "the slot would not survive a failover");
        }

        // The baseline was requested only once.
        world.catch_up().await;
        assert_eq!(snapshots(&world, 3).await, Vec::<Row>::new());
    }
}

fn read_baselines(world: &World, arguments: &[&str]) {
    let launch = arguments.iter().fold(world.launch(), |launch, argument| launch.argument(argument));
    let mut daemon = launch.start();
    wait_until_complete(&mut daemon, "public.t");
    wait_until_complete(&mut daemon, "public.heap");
    assert!(daemon.stop().success(), "{}", daemon.output());
}

/// Returns the rows of the baseline with this number, in order. Both sinks have the same.
async fn snapshots(world: &World, baseline: i32) -> Vec<Row> {
    let recorded = world.recorded().await;
    let rows = |trail: &[Version]| {
        let of_baseline = trail.iter().filter(|version| version.baseline == Some(baseline));
        let mut rows: Vec<Row> = of_baseline.map(|version| version.after.clone().unwrap_or_default()).collect();
        rows.sort();
        rows
    };
    assert_eq!(rows(&recorded.hot), rows(&recorded.by_log));
    rows(&recorded.hot)
}

/// A migration that makes and fills a table while changes are captured is recorded once.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_stream_has_whole_gets_no_baseline() {
    let server = shared(15).await;
    let world = World::on(server)
        .baseline()
        .sql("CREATE TABLE first (id int PRIMARY KEY)")
        .publication("FOR ALL TABLES")
        .build()
        .await;
    let mut daemon = world.launch().start();
    wait_until_complete(&mut daemon, "public.first");
    let sql = "CREATE TABLE keyed (id int PRIMARY KEY, v text); INSERT INTO keyed SELECT g, 'x' FROM generate_series(1, 500) g; \
               CREATE TABLE heap AS SELECT g FROM generate_series(1, 50) g";
    server.execute(&world.database, sql);
    server.execute(
        &world.database,
        "CREATE TABLE old (id int); INSERT INTO old VALUES (1); ALTER TABLE old RENAME TO last",
    );
    wait_until_complete(&mut daemon, "public.last");
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    let recorded = world.recorded().await;
    for trail in [&recorded.hot, &recorded.by_log] {
        let count = |table: &str, event: &str| {
            trail.iter().filter(|version| version.item_type == table && version.event == event).count()
        };
        let counts = ["keyed", "heap", "last"].map(|table| (count(table, "created"), count(table, "snapshot")));
        assert_eq!(counts, [(500, 0), (50, 0), (0, 1)]);
    }
}

/// A locked table is captured and read after the lock is released; everything else continues, and the daemon can be
/// stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_one_table_holds_up_neither_the_others_nor_a_stop() {
    for major in majors() {
        let server = shared(major).await;
        let world = World::on(server)
            .baseline()
            .sql(
                "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); \
                 CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); \
                 CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); \
                 ALTER TABLE p REPLICA IDENTITY FULL; CREATE TABLE q (id int PRIMARY KEY)",
            )
            .build()
            .await;
        let locker = world.client().await;
        locker.batch_execute("BEGIN; LOCK TABLE p1 IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
        let mut daemon = world.launch().start();
        wait_until_complete(&mut daemon, "public.q");
        // The shape of p is read from the catalog while one of its partitions is locked.
        server.execute(&world.database, "INSERT INTO p VALUES (11); INSERT INTO q VALUES (1)");
        let hot = world.hot().await;
        audit_testkit::eventually_async("both rows are there", async || {
            let sql = "SELECT count(*) FROM cdc_audit.versions WHERE event = 'created'";
            hot.query_one(sql, &[]).await.expect("a count").get::<_, i64>(0) == 2
        })
        .await;
        assert!(daemon.stop().success(), "{}", daemon.output());
        // Stop the daemon in the middle of its start.
        let mut daemon = world.launch().start();
        daemon.wait_for_line("streaming");
        assert!(daemon.stop().success(), "{}", daemon.output());
        locker.batch_execute("ROLLBACK").await.expect("no lock");
        let mut daemon = world.launch().start();
        wait_until_complete(&mut daemon, "public.p");
        assert!(daemon.stop().success(), "{}", daemon.output());
    }
}

/// The daemon itself reports a table that is not captured, not only `check`; and there is a command that reads the rows
/// that were missed.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_publication_leaves_out_is_said_and_read_by_hand() {
    let server = shared(15).await;
    let world =
        World::on(server).baseline().sql("CREATE TABLE kept (id int PRIMARY KEY, v text)").listening().build().await;
    server.execute(&world.database, "CREATE TABLE left_out (id int PRIMARY KEY)");
    let mut daemon = world.launch().start();
    daemon.wait_for("the hole is said", |daemon| {
        let said = "tables that the rules take are not published: their changes are not captured";
        daemon.output().lines().any(|line| line.contains(said) && line.contains("public.left_out"))
    });
    wait_until_complete(&mut daemon, "public.kept");
    let sql = format!("ALTER PUBLICATION {} SET (publish = 'insert')", world.slot);
    server.execute(&world.database, &sql);
    server.execute(&world.database, "INSERT INTO kept VALUES (1, 'a'); UPDATE kept SET v = 'b'");
    assert!(daemon.stop().success(), "{}", daemon.output());

    let mut daemon = world.launch().start();
    daemon.wait_for_line("the publication does not publish update, delete, truncate: such changes are not captured");
    let status: serde_json::Value = serde_json::from_str(&world.succeed(&["status", "--json"])).expect("JSON");
    assert_eq!(status["uncaptured"]["tables"], serde_json::json!(["public.left_out"]));
    assert_eq!(status["uncaptured"]["operations"], serde_json::json!(["update", "delete", "truncate"]));
    assert!(
        world.succeed(&["status"]).contains("not captured, for the publication does not have them: public.left_out")
    );
    assert_eq!(world.succeed(&["baseline", "kept"]).trim(), "baseline 2 of public.kept is asked for");
    wait_until_complete(&mut daemon, "public.kept");
    let refused = world.command(&["baseline", "left_out"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(daemon.stop().success(), "{}", daemon.output());
    let recorded = world.recorded().await;
    let last = recorded.hot.iter().rfind(|version| version.event == "snapshot").expect("a snapshot");
    assert_eq!((last.baseline, last.after.as_ref().map(|row| row["v"].as_deref())), (Some(2), Some(Some("b"))));
}
