use audit_testkit::{PgBouncer, Postgres, Shutdown, eventually_async, shared};
use cdc_audit_tests::world::World;
use expect_test::expect;

use crate::said::{TABLE, failing, failure, insert, recovers, refused, refused_command};
use crate::source::database_in;

async fn world(server: &Postgres) -> World {
    let world = World::on(server).sql(TABLE).build().await;
    insert(server, &world, 1);
    world.catch_up().await;
    insert(server, &world, 100);
    world
}

/// For each change to the tables by hand: the statement, the error, and the statement that repairs it.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_altered_by_hand_are_refused() {
    let server = shared(15).await;
    let world = world(server).await;
    let hot = world.hot().await;
    for (damage, repair, said) in [
        (
            "ALTER TABLE cdc_audit.versions ADD COLUMN mine int NOT NULL DEFAULT 1; \
             ALTER TABLE cdc_audit.versions ALTER COLUMN mine DROP DEFAULT",
            "ALTER TABLE cdc_audit.versions DROP COLUMN mine",
            expect![[r#"
                exit 1
                error: sink hot failed
                  detail: cdc_audit.versions is not as `setup` made it: column mine is unknown, and not null without a default
                  hint: run `cdc-audit setup`, which adds what earlier releases did not make; if that does not help, undo what was altered by hand; nothing was written to the table since
            "#]],
        ),
        (
            "ALTER TABLE cdc_audit.versions RENAME COLUMN reason TO why",
            "ALTER TABLE cdc_audit.versions RENAME COLUMN why TO reason",
            expect![[r#"
                exit 1
                error: sink hot failed
                  detail: cdc_audit.versions is not as `setup` made it: it has no column reason (text)
                  hint: run `cdc-audit setup`, which adds what earlier releases did not make; if that does not help, undo what was altered by hand; nothing was written to the table since
            "#]],
        ),
        (
            "ALTER TABLE cdc_audit.checkpoints ALTER COLUMN timeline TYPE numeric",
            "ALTER TABLE cdc_audit.checkpoints ALTER COLUMN timeline TYPE bigint",
            expect![[r#"
                exit 1
                error: sink hot failed
                  detail: cdc_audit.checkpoints is not as `setup` made it: column timeline is numeric, not bigint
                  hint: run `cdc-audit setup`, which adds what earlier releases did not make; if that does not help, undo what was altered by hand; nothing was written to the table since
            "#]],
        ),
        (
            "ALTER TABLE cdc_audit.versions RENAME TO moved",
            "ALTER TABLE cdc_audit.moved RENAME TO versions",
            expect![[r#"
                exit 1
                error: sink hot failed
                  detail: the hot database has no table cdc_audit.versions
                  hint: run `cdc-audit setup`: it makes the tables and prints the grants
            "#]],
        ),
        (
            "ALTER TABLE cdc_audit.checkpoints RENAME TO moved",
            "ALTER TABLE cdc_audit.moved RENAME TO checkpoints",
            expect![[r#"
                exit 1
                error: sink hot failed
                  detail: the hot database has no table cdc_audit.checkpoints
                  hint: run `cdc-audit setup`: it makes the tables and prints the grants
            "#]],
        ),
        (
            "CREATE TABLE kept AS SELECT * FROM cdc_audit.checkpoints; DELETE FROM cdc_audit.checkpoints",
            "INSERT INTO cdc_audit.checkpoints SELECT * FROM kept; DROP TABLE kept",
            expect![[r#"
                exit 1
                error: sink hot failed
                  detail: the hot database has no checkpoint for source shop and sink hot
                  hint: run `cdc-audit setup`, which makes the row; if there was one, restore it instead: with an empty one the sink begins anew
            "#]],
        ),
        (
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
             CREATE TRIGGER swallow BEFORE INSERT ON cdc_audit.versions FOR EACH ROW EXECUTE FUNCTION swallow()",
            "DROP TRIGGER swallow ON cdc_audit.versions",
            expect![[r#"
                exit 1
                error: sink hot failed
                  detail: the hot database took 0 rows of 10
                  hint: a trigger on cdc_audit.versions drops rows: remove it; nothing was committed
            "#]],
        ),
        (
            "ALTER FUNCTION cdc_audit.ensure_partition RENAME TO moved",
            "ALTER FUNCTION cdc_audit.moved RENAME TO ensure_partition",
            expect![[r#"
                exit 1
                error: sink hot failed
                  detail: role postgres lacks EXECUTE on function cdc_audit.ensure_partition
                  hint: grant what `cdc-audit setup --dry-run` prints
            "#]],
        ),
        (
            "ALTER TABLE cdc_audit.versions RENAME TO moved; CREATE TABLE cdc_audit.versions AS SELECT * FROM cdc_audit.moved",
            "DROP TABLE cdc_audit.versions; ALTER TABLE cdc_audit.moved RENAME TO versions",
            expect![[r#"
                exit 1
                error: sink hot failed
                  detail: cdc_audit.versions is not partitioned as `setup` made it
                  hint: run `cdc-audit setup`: it makes the tables and prints the grants
            "#]],
        ),
    ] {
        hot.batch_execute(damage).await.expect(damage);
        said.assert_eq(&refused(&world));
        hot.batch_execute(repair).await.expect(repair);
    }
    world.catch_up().await;
    world.check().await;
}

/// A checkpoint that was moved back would write everything twice; one that was moved ahead would lose what is between.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_was_moved_by_hand_is_refused() {
    let server = shared(15).await;
    let world = world(server).await;
    let hot = world.hot().await;
    hot.batch_execute("CREATE TABLE kept AS SELECT * FROM cdc_audit.checkpoints").await.expect("a copy");
    for (damage, said) in [
        (
            "flushed_lsn = flushed_lsn - 100000, position = '0001:0000000000001000:0000000000'",
            expect![[r#"
            exit 4
            error: replication slot "<slot>" does not continue what the sinks have: WAL was lost
              detail: sink hot has everything to <lsn>, the slot begins at <lsn>: the slot was moved or made anew by someone else
              hint: undo what was done to the slot, the server or a checkpoint, if that is possible; else `cdc-audit run --accept-gap` goes on and records the gap in every sink; with --new-baseline it also reads every table anew
        "#]],
        ),
        (
            "flushed_lsn = flushed_lsn + 100000000",
            expect![[r#"
            exit 4
            error: replication slot "<slot>" does not continue what the sinks have: WAL was lost
              detail: sink archive has everything to <lsn>, the slot begins at <lsn>: a restored backup, or a failover that lost commits, replaced the history that the sink has; sink hot has everything to <lsn>, the slot begins at <lsn>: a restored backup, or a failover that lost commits, replaced the history that the sink has
              hint: undo what was done to the slot, the server or a checkpoint, if that is possible; else `cdc-audit run --accept-gap` goes on and records the gap in every sink; with --new-baseline it also reads every table anew
        "#]],
        ),
        (
            "system_id = 7",
            expect![[r#"
            exit 4
            error: replication slot "<slot>" does not continue what the sinks have: WAL was lost
              detail: sink archive has everything to <lsn>, the slot begins at <lsn>: another cluster answers at this address; sink hot has everything to <lsn>, the slot begins at <lsn>: another cluster answers at this address
              hint: undo what was done to the slot, the server or a checkpoint, if that is possible; else `cdc-audit run --accept-gap` goes on and records the gap in every sink; with --new-baseline it also reads every table anew
        "#]],
        ),
        (
            "position = 'nonsense'",
            expect![[r#"
            exit 1
            error: sink hot failed
              detail: the sink's checkpoint was altered by hand
              hint: restore the row in cdc_audit.checkpoints
        "#]],
        ),
    ] {
        hot.batch_execute(&format!("UPDATE cdc_audit.checkpoints SET {damage}")).await.expect(damage);
        said.assert_eq(&refused(&world));
        let repair = "UPDATE cdc_audit.checkpoints c SET position = k.position, change_lsn = k.change_lsn, \
                      flushed_lsn = k.flushed_lsn, system_id = k.system_id FROM kept k";
        hot.batch_execute(repair).await.expect(repair);
    }
    world.catch_up().await;
    world.check().await;
}

/// A value that the database refuses stops this sink, but not the other one, until a person decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_refused_waits_for_a_decision() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).listening().build().await;
    let hot = world.hot().await;
    let rule = "ALTER TABLE cdc_audit.versions ADD CONSTRAINT mine CHECK (key <> '105')";
    hot.batch_execute(rule).await.expect("a constraint");
    insert(server, &world, 100);
    let (mut daemon, said) = failing(&world, "hot");
    expect![[r#"
        the hot database refuses the version of public.t at <position>: an error whose text may quote a value (SQLSTATE <number>)
          hint: `cdc-audit resume --sink hot --quarantine <position>` leaves an `error` record in its place
    "#]].assert_eq(&said);
    hot.batch_execute("ALTER TABLE cdc_audit.versions DROP CONSTRAINT mine").await.expect("none");
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    world.check().await;
}

/// The daemon ends, as it does for every error that it cannot repair; the lake has what it was given.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_was_taken_away_is_refused() {
    let server = Postgres::start(15);
    server.execute("postgres", "CREATE ROLE writer LOGIN");
    let (_, hot_url) = server.new_database();
    let through = hot_url.replace("postgres@", "writer@");
    let world = World::on(&server).hot_url(&hot_url).hot_through(&through).sql(TABLE).not_set_up().build().await;
    world.succeed(&["setup", "--sink-as", &format!("hot={hot_url}"), "--owner", "postgres"]);
    insert(&server, &world, 1);
    world.catch_up().await;
    let hot = world.hot().await;
    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    hot.batch_execute("REVOKE INSERT ON cdc_audit.versions FROM writer").await.expect("a right taken away");
    insert(&server, &world, 100);
    assert_eq!(daemon.wait().code(), Some(1));
    let end = daemon.stderr();
    let at = end.find("error: ").expect("an error");
    expect![[r#"
        error: sink hot failed
          detail: writing versions failed in the hot database: permission denied for table versions (SQLSTATE 42501)
          hint: grant the daemon's role what `cdc-audit setup --dry-run` prints
    "#]]
    .assert_eq(&end[at..]);
    // `check` reports the same error at the next start.
    expect![[r#"
        exit 1
        error: sink hot failed
          detail: role writer lacks INSERT on cdc_audit.versions
          hint: grant what `cdc-audit setup --dry-run` prints
    "#]]
    .assert_eq(&refused(&world));
    hot.batch_execute("GRANT INSERT ON cdc_audit.versions TO writer").await.expect("a right given back");
    world.catch_up().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_database_that_is_not_set_up_is_refused() {
    let server = shared(15).await;
    let world = world(server).await;
    let (_, empty) = server.new_database();
    let own = world.hot_url.clone();
    world.edit_config(&own, &empty);
    let said = refused(&world).replace(empty.rsplit('/').next().unwrap_or_default(), "<empty>");
    expect![[r#"
        exit 1
        error: sink hot failed
          detail: the hot database has no table cdc_audit.versions
          hint: run `cdc-audit setup`: it makes the tables and prints the grants
    "#]]
    .assert_eq(&said);
    world.edit_config(&empty, &own);
    world.catch_up().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_server_that_is_down_is_waited_for() {
    let (server, other) = (Postgres::start(15), Postgres::start(15));
    let (_, hot_url) = other.new_database();
    let world = World::on(&server).hot_url(&hot_url).sql(TABLE).listening().build().await;
    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    other.stop(Shutdown::Fast);
    insert(&server, &world, 1);
    let said = failure(&world, &mut daemon, "hot").replace(&other.port().to_string(), "<port>");
    // The open session ends, or a new one is refused, whichever comes first.
    let ended = "making a partition failed in the hot database: connection closed\n  \
                 hint: the connection was lost: check that the hot database's server runs; versions wait meanwhile";
    let refused = "the hot database gives no session: cannot reach postgres@127.0.0.1:<port>/<hot>: Connection refused \
                   (os error 111)\n  hint: check host and port, that the server runs, and that no firewall lies between";
    assert!([ended, refused].contains(&said.trim_end()), "{said}");
    // The lake does not wait.
    audit_testkit::eventually("the lake goes on", || cdc_audit_tests::lake::by_log(&world.lake).len() == 10);
    other.start_again();
    recovers(&world);
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    world.check().await;
}

/// A daemon whose memory is full because a sink stores nothing stops after `stop_timeout`; what it held is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_full_behind_a_sink_can_be_stopped() {
    let server = shared(15).await;
    let settings = "memory_limit = \"128 MiB\"\nstop_timeout = \"1 s\"";
    let world =
        World::on(server).sql("CREATE TABLE wide (id int PRIMARY KEY, v text)").pipeline(settings).build().await;
    let hot = world.hot().await;
    hot.batch_execute("BEGIN; LOCK TABLE cdc_audit.versions IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
    let client = world.client().await;
    let rows = "INSERT INTO wide SELECT i, repeat('x' || i, 200) FROM generate_series(1, 150000) AS i";
    client.batch_execute(rows).await.expect("rows");
    let mut daemon = world.launch().start();
    let sent = async || {
        let sql = "SELECT coalesce(max(sent_lsn - '0/0'), 0)::text FROM pg_stat_replication r
                   JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = $1";
        let row = client.query_one(sql, &[&world.slot]).await.expect("the senders");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        row.get::<_, String>(0)
    };
    eventually_async("the daemon takes nothing more", async || {
        let before = sent().await;
        before != "0" && before == sent().await && sent().await == before
    })
    .await;
    assert!(daemon.stop().success(), "{}", daemon.output());
    assert!(daemon.stderr().contains("stopping took too long"), "{}", daemon.output());
    hot.batch_execute("ROLLBACK").await.expect("the lock ends");
    world.catch_up().await;
    world.check().await;
}

/// In a database with another encoding, the first character that it does not have would stop the sink, so the encoding
/// is refused by name.
#[tokio::test(flavor = "multi_thread")]
async fn a_hot_database_in_another_encoding_is_refused() {
    let server = shared(15).await;
    for encoding in ["LATIN1", "WIN1252", "SQL_ASCII"] {
        let (_, url) = database_in(server, encoding);
        let world = World::on(server).hot_url(&url).sql(TABLE).not_set_up().unwitnessed().build().await;
        let said = refused_command(&world, &["setup"]);
        assert!(said.contains(&format!("the hot database's encoding is {encoding}, and has to be UTF8")), "{said}");
        assert!(said.contains("hint: make a database with ENCODING 'UTF8' for it"), "{said}");
        // The database is set up, as if this had been done before.
        world.edit_config(&url, &server.new_database().1);
        world.set_up();
        let hot = std::fs::read_to_string(&world.config).unwrap();
        let hot =
            hot.lines().skip_while(|line| *line != "[sinks.hot]").find_map(|line| line.strip_prefix("url = ")).unwrap();
        world.edit_config(hot.trim_matches('"'), &url);
        let ran = refused(&world);
        assert!(ran.contains(&format!("the hot database's encoding is {encoding}, and has to be UTF8")), "{ran}");
        let checked = world.command(&["check"]);
        let found = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(found.contains(&format!("the hot database's encoding is {encoding}")), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_front_of_the_hot_database_is_refused() {
    let server = shared(15).await;
    let pooler = PgBouncer::start(server, 2);
    let world = World::on(server).sql(TABLE).build().await;
    let (database, direct) = (world.hot_url.rsplit('/').next().unwrap(), world.hot_url.clone());
    world.edit_config(&direct, &pooler.url(database));
    let said = refused(&world);
    assert!(
        said.contains("is a connection pooler: it gives a session to another client after each transaction"),
        "{said}"
    );
    assert!(said.contains("hint: name the host and port of PostgreSQL itself in the url"), "{said}");
    let checked = world.command(&["check"]);
    let found = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(3), "{found}");
    assert!(found.contains("is a connection pooler"), "{found}");
    world.edit_config(&pooler.url(database), &direct);
    insert(server, &world, 1);
    world.catch_up().await;
    world.check().await;
}
