use audit_testkit::{Postgres, Shutdown, shared};
use cdc_audit_tests::world::World;
use expect_test::expect;

use crate::said::{TABLE, insert, refused, refused_command};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused() {
    let server = Postgres::builder(15)
        .access("host all daemon 127.0.0.1/32 scram-sha-256")
        .access("host replication daemon 127.0.0.1/32 scram-sha-256")
        .start();
    server.execute("postgres", "CREATE ROLE daemon LOGIN SUPERUSER REPLICATION PASSWORD 'right'");
    let (name, url) = server.new_database();
    let through = url.replace("postgres@", "daemon@");
    let world = World::on(&server).source(&name, &url).source_through(&through).sql(TABLE).not_set_up().build().await;
    let password = world.path("password");
    world.edit_config("publication = ", &format!("password_file = \"{}\"\npublication = ", password.display()));
    audit_testkit::write_secret(&password, "right\n");
    world.set_up();
    insert(&server, &world, 1);
    world.catch_up().await;
    insert(&server, &world, 100);
    audit_testkit::write_secret(&password, "wrong-one\n");
    let said = refused(&world);
    expect![[r#"
        exit 1
        error: daemon@127.0.0.1:<port>/<source> refused the session
          detail: password authentication failed for user "daemon" (SQLSTATE 28P01)
          hint: the password came from the file <folder>/password: compare it with that of role daemon
    "#]]
    .assert_eq(&said);
    assert!(!said.contains("wrong-one"));
    assert_eq!(refused_command(&world, &["setup"]), said);
    std::fs::remove_file(&password).expect("no password");
    expect![[r#"
        exit 1
        error: cannot use password_file <folder>/password
          detail: No such file or directory (os error 2)
          hint: the file must exist and be readable by the daemon's user
    "#]]
    .assert_eq(&refused(&world));
    audit_testkit::write_secret(&password, "right\n");
    world.catch_up().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_publication_is_refused() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).build().await;
    insert(server, &world, 1);
    world.catch_up().await;
    server.execute(&world.database, &format!("DROP PUBLICATION {}", world.slot));
    expect![[r#"
        exit 1
        error: publication "<slot>" does not exist: nothing can be captured
          hint: run `cdc-audit setup` to create it, and soon: what is changed before cannot be captured
    "#]]
    .assert_eq(&refused(&world));
    world.set_up();
    insert(server, &world, 100);
    world.catch_up().await;
    world.check().await;
}

/// PostgreSQL up to 17 can never decode what was changed while the publication did not exist: the operator is told, and told what it costs.
#[tokio::test(flavor = "multi_thread")]
async fn changes_made_while_there_was_no_publication_are_refused() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).unwitnessed().build().await;
    insert(server, &world, 1);
    world.catch_up().await;
    server.execute(&world.database, &format!("DROP PUBLICATION {}", world.slot));
    insert(server, &world, 100);
    world.set_up();
    insert(server, &world, 200);
    expect![[r#"
        exit 1
        error: the stream cannot be followed
          detail: the server ended the stream
          detail: publication "<slot>" does not exist (SQLSTATE <number>)
          hint: these changes were made while there was no publication, and PostgreSQL cannot decode them: drop the slot (pg_drop_replication_slot), then `cdc-audit run --accept-gap` makes it anew, goes on, and records a gap in every sink
    "#]].assert_eq(&refused(&world));
    assert_eq!(world.recorded().await.hot.len(), 10);
    server.execute(&world.database, &format!("SELECT pg_drop_replication_slot('{}')", world.slot));
    let until = world.wal_end().await;
    world.succeed(&["run", "--accept-gap", "--until", &until]);
    insert(server, &world, 300);
    world.catch_up().await;
    let recorded = world.recorded().await;
    assert_eq!(recorded.disagreements(), Vec::<String>::new());
    let expected: Vec<String> = (1..=10)
        .map(|id| id.to_string())
        .chain(["gap".to_owned()])
        .chain((300..=309).map(|id| id.to_string()))
        .collect();
    assert_eq!(keys(&recorded.hot), expected.join(" "));
}

/// Keys in the order of the trail; of a version without one, its event.
pub fn keys(trail: &[cdc_audit_tests::trail::Version]) -> String {
    let shown = trail.iter().map(|version| version.key.clone().unwrap_or_else(|| version.event.clone()));
    shown.collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_wal_level_is_refused() {
    let server = Postgres::builder(15).setting("wal_level", "replica").start();
    let world = World::on(&server).sql(TABLE).not_set_up().unwitnessed().build().await;
    expect![[r#"
        exit 1
        error: wal_level is replica, and changes can only be decoded from logical
          hint: run ALTER SYSTEM SET wal_level = logical, then restart the server
    "#]]
    .assert_eq(&refused_command(&world, &["setup"]));
    expect![[r#"
        exit 1
        error: publication "<slot>" does not exist: nothing can be captured
          hint: run `cdc-audit setup` to create it, and soon: what is changed before cannot be captured
    "#]]
    .assert_eq(&refused(&world));
    let nothing = "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc_audit'";
    assert_eq!(server.execute(&world.database, nothing), "0");
    assert!(!world.lake.exists());
    server.configure(&[("wal_level", "logical")]);
    server.restart(Shutdown::Fast);
    world.set_up();
    insert(&server, &world, 1);
    world.catch_up().await;
    let recorded = world.recorded().await;
    assert_eq!((recorded.hot.len(), recorded.disagreements()), (10, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_waited_for() {
    let server = Postgres::start(15);
    let world = World::on(&server).sql(TABLE).listening().build().await;
    insert(&server, &world, 1);
    server.stop(Shutdown::Fast);
    let mut daemon = world.launch().start();
    daemon.wait_for_line("the session ended; another begins");
    let output = world.command(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(status["phase"], "retrying");
    let hint = status["last_error"]["hint"].as_str().unwrap_or_default();
    assert_eq!(hint, "check host and port, that the server runs, and that no firewall lies between");
    server.start_again();
    daemon.wait_for_line("streaming");
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    world.check().await;
}
