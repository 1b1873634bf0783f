use audit_testkit::{Daemon, Postgres, shared};
use cdc_audit_tests::world::World;
use expect_test::expect;

use crate::said::{TABLE, insert, plain, refused};
use crate::source::keys;

/// Returns what `check` says about the slot, which cannot be used.
fn check_of_slot(world: &World) -> String {
    let output = world.command(&["check"]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    let failures = lines.windows(2).filter(|pair| pair[0].starts_with("fail"));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = failures.map(|pair| format!("{}\n  {}\n", words(pair[0]), words(pair[1]))).collect();
    plain(world, &shown)
}

/// Accepts the gap, continues, and compares: the loss is recorded once, in every sink, and nothing else is missing.
async fn goes_on_over_the_gap(server: &Postgres, world: &World) {
    let until = world.wal_end().await;
    world.succeed(&["run", "--accept-gap", "--until", &until]);
    insert(server, world, 300);
    world.catch_up().await;
    let recorded = world.recorded().await;
    assert_eq!(recorded.disagreements(), Vec::<String>::new());
    let (before, after) = ("1 2 3 4 5 6 7 8 9 10", "300 301 302 303 304 305 306 307 308 309");
    assert_eq!(keys(&recorded.hot), format!("{before} gap {after}"));
}

async fn ten_rows(server: &Postgres) -> World {
    let world = World::on(server).sql(TABLE).unwitnessed().build().await;
    insert(server, &world, 1);
    world.catch_up().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_slot_is_refused() {
    let server = shared(15).await;
    let world = ten_rows(server).await;
    server.execute(&world.database, &format!("SELECT pg_drop_replication_slot('{}')", world.slot));
    insert(server, &world, 100);
    expect![[r#"
        fail slot <slot> it does not exist: no WAL is kept for capture
          fix: run `cdc-audit setup`; if it existed before, `cdc-audit run --accept-gap` records what was lost
        fail slot <slot> sink archive has everything to <lsn>: what was changed since is lost
          fix: `cdc-audit run --accept-gap` makes the slot anew and records what is missing
        fail slot <slot> sink hot has everything to <lsn>: what was changed since is lost
          fix: `cdc-audit run --accept-gap` makes the slot anew and records what is missing
    "#]]
    .assert_eq(&check_of_slot(&world));
    expect![[r#"
        exit 4
        error: replication slot "<slot>" does not exist
          hint: run `cdc-audit setup` to create it. If it was there before, the changes since are lost: `cdc-audit run --accept-gap` creates it anew, goes on, and records a gap in every sink
    "#]].assert_eq(&refused(&world));
    // A slot that is made again by hand does not hide what is missing.
    server
        .execute(&world.database, &format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", world.slot));
    expect![[r#"
        exit 4
        error: replication slot "<slot>" does not continue what the sinks have: WAL was lost
          detail: sink archive has everything to <lsn>, the slot begins at <lsn>: the slot was moved or made anew by someone else; sink hot has everything to <lsn>, the slot begins at <lsn>: the slot was moved or made anew by someone else
          hint: undo what was done to the slot, the server or a checkpoint, if that is possible; else `cdc-audit run --accept-gap` goes on and records the gap in every sink; with --new-baseline it also reads every table anew
    "#]].assert_eq(&refused(&world));
    assert_eq!(world.recorded().await.hot.len(), 10);
    goes_on_over_the_gap(server, &world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_someone_else_moved_is_refused() {
    let server = shared(15).await;
    let world = ten_rows(server).await;
    insert(server, &world, 100);
    let advance = format!("SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())", world.slot);
    server.execute(&world.database, &advance);
    expect![[r#"
        fail slot <slot> sink archive has everything to <lsn>, the slot begins at <lsn>: the slot was moved or made anew by someone else
          fix: undo what was done, if that is possible; else `cdc-audit run --accept-gap` records what is missing
        fail slot <slot> sink hot has everything to <lsn>, the slot begins at <lsn>: the slot was moved or made anew by someone else
          fix: undo what was done, if that is possible; else `cdc-audit run --accept-gap` records what is missing
    "#]].assert_eq(&check_of_slot(&world));
    expect![[r#"
        exit 4
        error: replication slot "<slot>" does not continue what the sinks have: WAL was lost
          detail: sink archive has everything to <lsn>, the slot begins at <lsn>: the slot was moved or made anew by someone else; sink hot has everything to <lsn>, the slot begins at <lsn>: the slot was moved or made anew by someone else
          hint: undo what was done to the slot, the server or a checkpoint, if that is possible; else `cdc-audit run --accept-gap` goes on and records the gap in every sink; with --new-baseline it also reads every table anew
    "#]].assert_eq(&refused(&world));
    assert_eq!(world.recorded().await.hot.len(), 10);
    goes_on_over_the_gap(server, &world).await;
}

/// The server no longer keeps the slot's WAL, because `max_slot_wal_keep_size` was too small.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_lost_its_wal_is_refused() {
    let server = Postgres::builder(15)
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "32MB")
        .start();
    let world = ten_rows(&server).await;
    insert(&server, &world, 100);
    let lost = format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{}'", world.slot);
    for _ in 0..20 {
        server.execute(&world.database, "SELECT pg_switch_wal(); CHECKPOINT");
        server.execute(&world.database, "INSERT INTO t SELECT max(id) + 1000, 'v' FROM t");
        if server.execute(&world.database, &lost) == "lost" {
            break;
        }
    }
    expect![[r#"
        fail slot <slot> replication slot <slot> is lost (wal_removed)
          fix: changes were lost: `cdc-audit run --accept-gap` makes it anew, goes on, and records the stretch in every sink
    "#]].assert_eq(&check_of_slot(&world));
    expect![[r#"
        exit 4
        error: replication slot "<slot>" is lost (wal_removed): WAL from <lsn> to <lsn> was not captured
          hint: raise max_slot_wal_keep_size; then `cdc-audit run --accept-gap` makes the slot anew, goes on, and records a gap in every sink
    "#]].assert_eq(&refused(&world));
    assert_eq!(world.recorded().await.hot.len(), 10);
    goes_on_over_the_gap(&server, &world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_another_plugin_is_refused() {
    let server = shared(15).await;
    let world = ten_rows(server).await;
    let other = format!("{}_other", world.slot);
    server.execute(&world.database, &format!("SELECT pg_create_logical_replication_slot('{other}', 'test_decoding')"));
    let own = format!("slot = \"{}\"", world.slot);
    world.edit_config(&own, &format!("slot = \"{other}\""));
    let said = refused(&world);
    server.execute(&world.database, &format!("SELECT pg_drop_replication_slot('{other}')"));
    expect![[r#"
        exit 1
        error: replication slot "<slot>_other" is not a pgoutput slot
          hint: name another slot in [source], and run `cdc-audit setup`
    "#]]
    .assert_eq(&said);
    world.edit_config(&format!("slot = \"{other}\""), &own);
    insert(server, &world, 100);
    world.catch_up().await;
    assert_eq!(world.recorded().await.hot.len(), 20);
}

/// If two daemons are started by mistake, the second one waits, says for which one, and takes over after that has
/// ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_waits_and_changes_nothing() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).build().await;
    insert(server, &world, 1);
    let mut first = world.launch().start();
    first.wait_for_line("streaming");
    let port = audit_testkit::free_port();
    let config = world.path("second.toml");
    let text = std::fs::read_to_string(&world.config).expect("the config");
    std::fs::write(&config, text.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"))).expect("a config");
    let mut second = Daemon::start(&config);
    let line = second.wait_for_line("the slot is in use");
    assert!(line.contains("holder=") && line.contains("cdc-audit"), "{line}");
    // The operator asks the waiting daemon for its status.
    let status = audit_testkit::command(["status", "--config", config.to_str().expect("a plain name")]);
    let told = plain(&world, &String::from_utf8_lossy(&status.stdout));
    let line = "shop: waiting for the slot, which pid <number> (cdc-audit, 127.0.0.1) holds";
    assert_eq!(told.lines().next(), Some(line), "{told}");
    insert(server, &world, 100);
    assert!(first.stop().success(), "{}", first.output());
    second.wait_for_line("streaming");
    insert(server, &world, 200);
    assert!(second.stop().success(), "{}", second.output());
    world.catch_up().await;
    world.check().await;
}
