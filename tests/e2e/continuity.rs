use audit_testkit::{Postgres, Proxy, Shutdown, Traffic, eventually, eventually_async, shared};
use cdc_audit_tests::trail::{Version, lsn};
use cdc_audit_tests::world::{SOURCE, World};
use cdc_audit_tests::{hot, lake};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL;";

fn insert(server: &Postgres, world: &World, ids: std::ops::RangeInclusive<u32>) {
    let (from, to) = (ids.start(), ids.end());
    server.execute(&world.database, &format!("INSERT INTO t SELECT i, 'v' FROM generate_series({from}, {to}) AS i"));
}

/// Makes another server the source from now on.
fn move_to(world: &mut World, server: &Postgres) {
    let url = server.url(&world.database);
    world.edit_config(&world.url, &url);
    world.url = url;
}

/// Writes epoch, event and keys in the order of positions, with consecutive keys as a range: `0001:created 1..10`.
fn told(trail: &[Version]) -> Vec<String> {
    let mut runs: Vec<(String, u32, u32)> = Vec::new();
    for version in trail {
        let what = format!("{}:{}", &version.position[..4], version.event);
        let key = version.key.as_deref().map_or(0, |key| key.parse().expect("a number"));
        match runs.last_mut() {
            Some((last, _, to)) if *last == what && *to + 1 == key => *to = key,
            _ => runs.push((what, key, key)),
        }
    }
    runs.into_iter().map(|(what, from, to)| format!("{what} {from}..{to}")).collect()
}

const REPLACED: &str = "replaced the history that the sink has";
const NOT_SENT_AGAIN: &str = "goes on after it without sending that change again";

/// Returns the LSN before which everything was acknowledged, as far as the server remembers.
fn acknowledged(server: &Postgres, world: &World) -> u64 {
    let slot = format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'", world.slot);
    lsn(&server.execute(&world.database, &slot))
}

/// Checks that the daemon refuses to continue by itself, each time, and acknowledges nothing.
async fn refuses(server: &Postgres, world: &World, why: &str) {
    let stored = world.recorded().await.hot.len();
    let slot = acknowledged(server, world);
    for _ in 0..2 {
        let until = world.wal_end().await;
        let refused = world.command(&["run", "--until", &until]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(4), "{said}");
        assert!(said.contains(why) && said.contains("`cdc-audit run --accept-gap`"), "{said}");
        assert_eq!(world.recorded().await.hot.len(), stored, "nothing was written");
        assert_eq!(acknowledged(server, world), slot, "nothing was acknowledged");
    }
}

/// Checks that the daemon refuses to continue by itself. On request it records the gap in every sink, and misses
/// nothing that comes after it.
async fn goes_on_in_a_new_epoch(
    server: &Postgres,
    world: &World,
    why: &str,
    before: u32,
    since: std::ops::RangeInclusive<u32>,
) {
    refuses(server, world, why).await;
    // Servers before 17 may forget at a restart what was acknowledged last. On one timeline nothing shows that it is
    // not new.
    let first = world.recorded().await.hot.first().map(|version| version.commit_lsn);
    let again = acknowledged(server, world) <= first.expect("a version");

    let until = world.wal_end().await;
    world.succeed(&["run", "--accept-gap", "--until", &until]);
    insert(server, world, since.end() + 1..=since.end() + 1);
    world.catch_up().await;
    let recorded = world.recorded().await;
    assert_eq!(recorded.disagreements(), Vec::<String>::new());
    let (from, to) = (since.start(), since.end());
    let mut expected = vec![format!("0001:created 1..{before}"), "0002:gap 0..0".into()];
    expected.extend(again.then(|| "0002:created 1..10".into()));
    expected.push(format!("0002:created {from}..{}", to + 1));
    assert_eq!(told(&recorded.hot), expected);
    let gap = recorded.hot.iter().find(|version| version.event == "gap").expect("the gap");
    assert!(gap.commit_lsn % 8 == 7, "a place where no commit is: {}", gap.position);
}

/// ⚠ The WAL of a restored copy ends before what the sinks have: without a new epoch its commits would be skipped as
/// old.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_an_earlier_lsn_starts_a_new_epoch() {
    let (server, hot) = (Postgres::start(15), shared(15).await);
    let mut world = World::on(&server).hot_url(&hot.new_database().1).sql(TABLE).build().await;
    insert(&server, &world, 1..=10);
    world.catch_up().await;
    let copy = server.clone_stopped();
    insert(&server, &world, 11..=5000);
    world.catch_up().await;
    server.stop(Shutdown::Fast);

    let restored = copy.start();
    move_to(&mut world, &restored);
    insert(&restored, &world, 10_001..=10_005);
    goes_on_in_a_new_epoch(&restored, &world, REPLACED, 5000, 10_001..=10_005).await;
}

/// ⚠ After more was written than was lost, neither timeline nor WAL end shows it: only the change at the checkpoint
/// does, because it does not come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_put_back_and_written_to_starts_a_new_epoch() {
    let (server, hot) = (Postgres::start(15), shared(15).await);
    let mut world = World::on(&server).hot_url(&hot.new_database().1).sql(TABLE).build().await;
    insert(&server, &world, 1..=10);
    world.catch_up().await;
    let copy = server.clone_stopped();
    insert(&server, &world, 11..=5000);
    world.catch_up().await;
    let lost = lsn(&world.wal_end().await);
    server.stop(Shutdown::Fast);

    let restored = copy.start();
    move_to(&mut world, &restored);
    insert(&restored, &world, 10_001..=10_005);
    let filler =
        "SELECT count(pg_logical_emit_message(false, 'filler', repeat('x', 1000))) FROM generate_series(1, 1000)";
    while lsn(&world.wal_end().await) <= lost {
        restored.execute(&world.database, filler);
    }
    insert(&restored, &world, 10_006..=10_006);
    goes_on_in_a_new_epoch(&restored, &world, NOT_SENT_AGAIN, 5000, 10_001..=10_006).await;
}

/// ⚠ The command that the error prints works: it runs in another process, which meets the other change again.
#[tokio::test(flavor = "multi_thread")]
async fn another_change_at_the_checkpoint_can_be_passed() {
    let server = Postgres::start(15);
    let world = World::on(&server).sql(TABLE).build().await;
    world.catch_up().await;
    insert(&server, &world, 1..=3);
    // Versions that are stored but not acknowledged will be sent again.
    while world.recorded().await.hot.len() < 3 {
        let mut daemon = world.launch().environment("CDC_AUDIT_FAULTS", "hot::after_commit=kill").start();
        assert!(!daemon.wait().success());
    }
    let hot = world.hot().await;
    hot.batch_execute("UPDATE cdc_audit.checkpoints SET change_lsn = '0/1234'").await.expect("another change");

    refuses(&server, &world, "the server sends another one there").await;
    let until = world.wal_end().await;
    world.succeed(&["run", "--accept-gap", "--until", &until]);
    insert(&server, &world, 4..=4);
    world.catch_up().await;
    let hot = told(&world.recorded().await.hot);
    assert_eq!(hot, ["0001:created 1..3", "0002:gap 0..0", "0002:created 1..4"]);
}

/// ⚠ An address may lead to two servers while one takes over from the other: the daemon would judge one server by the
/// facts of the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_from_another_server_than_the_slot_is_not_followed() {
    let server = Postgres::start(15);
    let world = World::on(&server).hot_url(&shared(15).await.new_database().1).sql(TABLE).build().await;
    let other = server.clone_stopped().start();
    let proxy = Proxy::to(server.port());
    let mut first = world.launch().start();
    first.wait_for_line("streaming");
    world.edit_config(&world.url, &proxy.through(&world.url));
    let mut second = world.launch().start();
    // The daemon has asked the first server for the slot, and will ask the other one for the stream.
    second.wait_for_line("the slot is in use");
    proxy.redirect(other.port());
    second.wait_for_line("the source's address leads to two servers");
    second.kill();
    assert!(!second.output().contains("streaming"), "{}", second.output());
}

/// ⚠ `--accept-gap` is for a loss that its operator knows of, not for what is lost weeks later.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_not_accepted_ahead_of_time() {
    let server = Postgres::start(15);
    let proxy = Proxy::to(server.port());
    let world = World::on(&server).sql(TABLE).build().await;
    world.edit_config(&world.url, &proxy.through(&world.url));
    let mut daemon = world.launch().argument("--accept-gap").start();
    insert(&server, &world, 1..=10);
    let hot = world.hot().await;
    let rows = "SELECT count(*) FROM cdc_audit.versions";
    eventually_async("the rows are there", async || hot.query_one(rows, &[]).await.unwrap().get::<_, i64>(0) == 10)
        .await;
    proxy.set(Traffic::Refuse);
    proxy.cut();
    let slot = format!("'{}'", world.slot);
    let free = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = {slot} AND NOT active");
    eventually("the slot is free", || server.execute(&world.database, &free) == "1");
    server.execute(&world.database, &format!("SELECT pg_drop_replication_slot({slot})"));
    proxy.set(Traffic::Pass);
    assert_eq!(daemon.wait().code(), Some(4), "{}", daemon.output());
}

/// ⚠ The permission holds until each sink has stored the record, because a session may end before.
#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_gap_is_accepted_until_each_sink_has_it() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).pipeline("stop_timeout = \"1 s\"").build().await;
    insert(server, &world, 1..=3);
    world.catch_up().await;
    insert(server, &world, 4..=6);
    let slot = format!("'{}'", world.slot);
    server.execute(&world.database, &format!("SELECT pg_replication_slot_advance({slot}, pg_current_wal_lsn())"));
    let locking = world.hot().await;
    locking.batch_execute("BEGIN; LOCK TABLE cdc_audit.versions IN EXCLUSIVE MODE").await.unwrap();
    let gaps = |trail: &[Version]| trail.iter().filter(|version| version.event == "gap").count();
    // Killed before the hot table has the record: the same command may be given again.
    let mut daemon = world.launch().argument("--accept-gap").start();
    insert(server, &world, 7..=9);
    eventually_async("the lake has the record", async || world.recorded().await.by_log.len() == 7).await;
    daemon.kill();
    let mut daemon = world.launch().argument("--accept-gap").start();
    insert(server, &world, 10..=10);
    eventually_async("the lake goes on", async || world.recorded().await.by_log.len() == 8).await;
    let end = format!("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = {slot}");
    server.execute(&world.database, &end);
    daemon.wait_for_line("the session ended; another begins");
    locking.batch_execute("ROLLBACK").await.unwrap();
    eventually_async("the hot table has it too", async || world.recorded().await.hot.len() == 8).await;
    assert!(daemon.stop().success(), "{}", daemon.output());
    let recorded = world.recorded().await;
    assert_eq!((gaps(&recorded.hot), gaps(&recorded.by_log)), (1, 1));
    assert_eq!(told(&recorded.hot), told(&recorded.by_log));
}

/// ⚠ The WAL of a standby that took over without the last commits also needs a new epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_the_last_commits_starts_a_new_epoch() {
    let (server, hot) = (Postgres::start(15), shared(15).await);
    let mut world = World::on(&server).hot_url(&hot.new_database().1).sql(TABLE).build().await;
    insert(&server, &world, 1..=10);
    world.catch_up().await;
    let standby = server.standby(&[]).await;
    let now = world.wal_end().await;
    let has = format!("SELECT pg_last_wal_replay_lsn() >= '{now}'");
    eventually("the standby has the first rows", || standby.try_execute("postgres", &has).is_ok_and(|has| has == "t"));
    standby.stop(Shutdown::Fast);
    insert(&server, &world, 11..=5000);
    world.catch_up().await;
    server.kill9();

    standby.start_again();
    standby.promote();
    move_to(&mut world, &standby);
    standby
        .execute(&world.database, &format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", world.slot));
    insert(&standby, &world, 10_001..=10_005);
    goes_on_in_a_new_epoch(&standby, &world, REPLACED, 5000, 10_001..=10_005).await;
}

/// ⚠ Only the smallest position that every sink has stored is acknowledged: a sink that hangs keeps the slot from
/// advancing, also when the daemon stops.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_every_sink_has_stored_is_acknowledged() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).pipeline("stop_timeout = \"1 s\"").build().await;
    insert(server, &world, 1..=10);
    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    let client = world.hot().await;
    let rows = "SELECT count(*) FROM cdc_audit.versions";
    eventually_async("the first rows are there", async || {
        client.query_one(rows, &[]).await.unwrap().get::<_, i64>(0) == 10
    })
    .await;
    client.batch_execute("BEGIN; LOCK TABLE cdc_audit.versions IN ACCESS EXCLUSIVE MODE").await.unwrap();
    insert(server, &world, 11..=20);
    let now = lsn(&world.wal_end().await);
    // Write something after it, so that the lake's checkpoint is beyond it.
    insert(server, &world, 21..=21);
    eventually("the lake goes on alone", || lake::flushed(&world.lake) >= now);
    assert!(daemon.stop().success(), "{}", daemon.output());
    let acknowledged = acknowledged(server, &world);
    let stored = hot::flushed(&client, SOURCE).await;
    assert!(acknowledged <= stored, "{acknowledged:X} is acknowledged, the hot table has {stored:X}");
    client.batch_execute("ROLLBACK").await.unwrap();
    world.catch_up().await;
    assert_eq!(world.check().await.hot.len(), 21);
}

/// ⚠ The owner epoch rises only after START_REPLICATION has succeeded: if two daemons were started by mistake, the one
/// that waits does no harm.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_waits_for_the_slot_takes_no_sink() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).build().await;
    let mut first = world.launch().start();
    first.wait_for_line("streaming");
    let client = world.hot().await;
    let owner = async || {
        let sql = "SELECT owner_epoch FROM cdc_audit.checkpoints WHERE source = $1";
        client.query_one(sql, &[&SOURCE]).await.unwrap().get::<_, i64>(0)
    };
    let before = owner().await;
    let mut second = world.launch().start();
    second.wait_for_line("the slot is in use");
    assert_eq!(owner().await, before);
    insert(server, &world, 1..=10);
    let now = lsn(&world.wal_end().await);
    insert(server, &world, 11..=11);
    first.wait_for("the first goes on, in both sinks", |_| lake::flushed(&world.lake) >= now);
    second.kill();
    assert!(first.stop().success(), "{}", first.output());
    assert_eq!(owner().await, before);
    world.catch_up().await;
    assert_eq!(world.check().await.hot.len(), 11);
}

/// ⚠ `seq` counts what the server sends: a table that is left out from the middle of a half-written transaction on does
/// not renumber the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_config_in_the_middle_of_a_transaction_half_written_renumbers_nothing() {
    let server = shared(15).await;
    let world = World::on(server)
        .sql("CREATE TABLE kept (id int PRIMARY KEY); CREATE TABLE left_out (id int PRIMARY KEY)")
        .hot("batch_rows = 50")
        .build()
        .await;
    server.execute(
        &world.database,
        "DO $$ BEGIN FOR i IN 0..999 LOOP INSERT INTO left_out VALUES (i); INSERT INTO kept VALUES (i); END LOOP; END $$",
    );
    let mut daemon = world.launch().environment("CDC_AUDIT_FAULTS", "hot::after_commit=kill@6").start();
    assert!(!daemon.wait().success());
    let half = world.recorded().await.hot;
    assert!(!half.is_empty() && half.len() < 2000, "{} versions", half.len());
    let left_out = "[[tables]]\nname = \"public.left_out\"\ncapture = false\n\n[protection]\n";
    world.edit_config("[protection]\n", left_out);
    world.catch_up().await;

    let recorded = world.recorded().await;
    for (sink, trail) in [("hot", &recorded.hot), ("lake", &recorded.by_log), ("listing", &recorded.by_listing)] {
        assert_eq!(cdc_audit_tests::trail::flaws(trail), Vec::<String>::new(), "{sink}");
        let kept: Vec<(String, i64)> = trail
            .iter()
            .filter(|version| version.table == "public.kept")
            .map(|version| (version.key.clone().unwrap_or_default(), version.seq))
            .collect();
        let expected: Vec<(String, i64)> = (0..1000).map(|id| (id.to_string(), 2 * id + 1)).collect();
        assert_eq!(kept, expected, "{sink}");
    }
    let last = half.last().expect("a version").seq;
    let seen = recorded.hot.iter().filter(|version| version.table == "public.left_out");
    assert!(seen.clone().count() > 0 && seen.max_by_key(|v| v.seq).is_some_and(|v| v.seq <= last));
}

/// ⚠ The present catalog may be later than the WAL: a look-up counts only if its columns are the Relation's; otherwise
/// the last key stays valid.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_is_later_than_the_wal_does_not_count() {
    let server = shared(15).await;
    let table = "CREATE TABLE t (id int PRIMARY KEY, code int NOT NULL, v text); ALTER TABLE t REPLICA IDENTITY FULL;";
    let world = World::on(server).sql(table).build().await;
    server.execute(&world.database, "INSERT INTO t VALUES (1, 10, 'a')");
    world.catch_up().await;
    // No daemon reads the catalog while the table changes twice.
    server.execute(&world.database, "ALTER TABLE t ADD COLUMN w int; UPDATE t SET v = 'b'");
    server.execute(
        &world.database,
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (code), ADD COLUMN x int; INSERT INTO t VALUES (2, 20, 'c')",
    );
    world.catch_up().await;
    let recorded = world.recorded().await;
    assert_eq!(recorded.disagreements(), Vec::<String>::new());
    assert_eq!(told(&recorded.hot), ["0001:created 1..1", "0001:updated 1..1", "0001:created 20..20"]);
    let client = world.hot().await;
    let sql = "SELECT string_agg(shape ->> 'key_source', ' ' ORDER BY schema_version) FROM cdc_audit.shapes";
    let sources: String = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(sources, "catalog carried catalog");
}

/// ⚠ A whole row as key would overflow an index: versions of a table without a key have none, however wide its rows
/// are.
#[tokio::test(flavor = "multi_thread")]
async fn a_wide_table_without_a_key_has_none() {
    let server = shared(15).await;
    let table = "CREATE TABLE t (a text, b text); ALTER TABLE t REPLICA IDENTITY FULL;";
    let world = World::on(server).full(true).keep_rows().sql(table).build().await;
    let wide = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 400) AS j WHERE j <> i)";
    server.execute(
        &world.database,
        &format!(
            "INSERT INTO t SELECT 'x', {wide} FROM generate_series(1, 5) AS i; UPDATE t SET a = 'y'; DELETE FROM t"
        ),
    );
    world.catch_up().await;
    let recorded = world.check().await;
    assert_eq!(recorded.hot.len(), 15);
    assert!(recorded.hot.iter().chain(&recorded.by_log).all(|version| version.key.is_none()));
}
