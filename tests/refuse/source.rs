use audit_testkit::{PgBouncer, Postgres, Shutdown, eventually, shared, unique};
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

/// PostgreSQL up to 17 can never decode changes that were made while the publication did not exist: the error says so,
/// and what is lost.
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

/// Lists keys in the order of the trail, and the event of a version without a key.
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

/// Any value in a database without an encoding may end the stream, so the encoding is refused by name before anything
/// is captured.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_an_encoding_is_refused() {
    let server = shared(15).await;
    let (name, url) = database_in(server, "SQL_ASCII");
    let world = World::on(server).source(&name, &url).sql(TABLE).not_set_up().unwitnessed().build().await;
    let said = "
        error: the database's encoding is SQL_ASCII: it may hold bytes that are no text in any encoding
          hint: make a database with ENCODING 'UTF8', copy the data there (pg_dump, pg_restore), and capture that one
    ";
    let said = format!("exit 1{}", said.replace("\n        ", "\n").trim_end_matches(' '));
    assert_eq!(refused(&world), said);
    assert_eq!(refused_command(&world, &["setup"]), said);
    let checked = world.command(&["check"]);
    assert!(String::from_utf8_lossy(&checked.stdout).contains("fail  server       server_encoding"), "{checked:?}");
}

/// Makes a database with this encoding.
pub fn database_in(server: &Postgres, encoding: &str) -> (String, String) {
    let name = unique("encoded");
    let options = format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    server.execute("postgres", &format!("CREATE DATABASE {name} {options}"));
    let url = server.url(&name);
    (name, url)
}

/// A pool that shares sessions between transactions does not accept a stream, and breaks what our sessions rely on.
/// `run` and `check` say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_front_of_the_source_is_refused() {
    let server = shared(15).await;
    let pooler = PgBouncer::start(server, 2);
    let (name, url) = server.new_database();
    let world = World::on(server).source(&name, &url).sql(TABLE).build().await;
    world.edit_config(&url, &pooler.url(&name));
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
    world.edit_config(&pooler.url(&name), &url);
    insert(server, &world, 1);
    world.catch_up().await;
    world.check().await;
}

/// `check` opens the same connections as `run`, so it finds a replication connection that is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_replication_connection_that_is_not_let_in_is_found() {
    let server = Postgres::builder(15).start();
    let (name, url) = server.new_database();
    server.execute("postgres", "CREATE ROLE daemon LOGIN SUPERUSER REPLICATION");
    let through = url.replace("postgres@", "daemon@");
    let world = World::on(&server).source(&name, &url).source_through(&through).sql(TABLE).build().await;
    let checked = world.command(&["check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // Ordinary sessions are still accepted, but there is no walsender for the stream.
    server.configure(&[("max_wal_senders", "0")]);
    server.restart(Shutdown::Fast);
    let checked = world.command(&["check"]);
    let found = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(found.contains("fail  server       replication connection"), "{found}");
    assert!(!checked.status.success());
}

/// A walsender whose name matches counts as a synchronous standby: the application would wait for the slowest sink.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_commits_wait_for_the_daemon_is_found() {
    let server = Postgres::start(15);
    let (name, url) = server.new_database();
    let (_, hot) = shared(15).await.new_database();
    let world = World::on(&server).source(&name, &url).hot_url(&hot).sql(TABLE).listening().build().await;
    insert(&server, &world, 1);
    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    let is_told = |wanted: bool| {
        let status: serde_json::Value = serde_json::from_slice(&world.command(&["status", "--json"]).stdout).unwrap();
        status["synchronous_standby"] == wanted
    };
    eventually("it knows that nobody waits", || is_told(false));
    let standbys = |names: &str| {
        // Neither of these statements makes a commit that would wait.
        server.execute("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        server.execute("postgres", "SELECT pg_reload_conf()");
    };
    for names in ["*", "FIRST 1 (*)", "ANY 1 (s1, \"CDC-audit\")"] {
        standbys(names);
        eventually("it knows that they wait", || is_told(true));
        daemon.wait_for_line("takes this daemon for a synchronous standby");
        assert!(world.succeed(&["status"]).contains("COMMITs of the source wait for this daemon"));
        let checked = world.command(&["check"]);
        let found = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert_eq!(checked.status.code(), Some(3), "{found}");
        let line = found.lines().find(|line| line.contains("synchronous_standby_names")).expect("a finding");
        assert!(line.starts_with("fail"), "{line}");
        standbys("s1");
        eventually("it knows that they do not wait any more", || is_told(false));
    }
    standbys("");
    assert!(daemon.stop().success(), "{}", daemon.output());
    let checked = world.command(&["check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
