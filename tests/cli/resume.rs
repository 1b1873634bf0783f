use audit_testkit::shared;
use cdc_audit_tests::world::World;
use serde_json::Value;

/// A version that a sink refuses is quarantined for that sink, by name and position; the other sink has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_version_is_quarantined_for_one_sink() {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").listening().build().await;
    let rule = "ALTER TABLE cdc_audit.versions ADD CONSTRAINT mine CHECK (after ->> 'id' <> '5')";
    world.hot().await.batch_execute(rule).await.expect("a constraint");
    let mut daemon = world.launch().start();
    server.execute(&world.database, "INSERT INTO t SELECT generate_series(1, 9)");
    let line = daemon.wait_for_line("the sink refuses a version and waits");
    let command = line.split("cdc-audit resume ").nth(1).expect("the log names the command");
    let words: Vec<&str> = command.split_whitespace().take(4).collect();
    let ["--sink", "hot", "--quarantine", position] = words.as_slice() else { panic!("{words:?}") };

    let wrong = world.command(&["resume", "--sink", "nothing", "--quarantine", position]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("hint: the sinks are archive, hot; `all` means every one"));
    let malformed = world.command(&["resume", "--sink", "hot", "--quarantine", "5"]);
    assert_eq!(malformed.status.code(), Some(2));

    world.succeed(&["resume", "--sink", "hot", "--quarantine", position, "--note", "ticket 4711"]);
    daemon.wait_for_line("the version is quarantined");
    audit_testkit::eventually("the sink goes on", || {
        let status: Value = serde_json::from_str(&world.succeed(&["status", "--json"])).expect("JSON");
        status["sinks"].as_array().is_some_and(|sinks| sinks.iter().all(|sink| sink["failing"] == false))
    });
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    let recorded = world.recorded().await;
    let events = |trail: &[cdc_audit_tests::trail::Version]| -> Vec<String> {
        trail.iter().map(|version| format!("{} {}", version.event, version.key.clone().unwrap_or_default())).collect()
    };
    let mut expected: Vec<String> = (1..=9).map(|id| format!("created {id}")).collect();
    assert_eq!(events(&recorded.by_log), expected);
    let hot = events(&recorded.hot);
    expected[4] = hot[4].clone();
    assert_eq!(hot, expected);
    assert!(hot[4].starts_with("error"), "{hot:?}");
    assert_eq!(recorded.hot[4].position, *position);
    let said = "SELECT key, context ->> 'event', context -> 'quarantined' ->> 'note', context -> 'quarantined' ->> 'db_user', \
                length(context -> 'quarantined' ->> 'os_user') > 0 FROM cdc_audit.versions WHERE event = 'error'";
    let row = world.hot().await.query_one(said, &[]).await.expect("the record");
    let text = |at: usize| row.get::<_, Option<String>>(at).unwrap_or_default();
    assert_eq!(
        (text(0), text(1), text(2), text(3)),
        ("5".into(), "created".into(), "ticket 4711".into(), "postgres".into())
    );
    assert!(row.get::<_, bool>(4));
}

/// A sink that refuses the key too gets a record without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_sink_refuses_is_left_out_too() {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").listening().build().await;
    let rule = "ALTER TABLE cdc_audit.versions ADD CONSTRAINT mine CHECK (key <> '5')";
    world.hot().await.batch_execute(rule).await.expect("a constraint");
    let mut daemon = world.launch().start();
    server.execute(&world.database, "INSERT INTO t SELECT generate_series(1, 9)");
    let line = daemon.wait_for_line("the sink refuses a version and waits");
    let position =
        line.split("--quarantine ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a position");
    world.succeed(&["resume", "--sink", "hot", "--quarantine", position]);
    daemon.wait_for_line("names neither");
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    let sql = "SELECT count(*), count(*) FILTER (WHERE event = 'error' AND key IS NULL) FROM cdc_audit.versions";
    let row = world.hot().await.query_one(sql, &[]).await.expect("the versions");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (9, 1));
}

/// A person who knows the daemon's password and the future position of a change cannot hide it: a change that the sink
/// accepts is written.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_sink_takes_is_written_whatever_was_quarantined() {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").build().await;
    server.execute(&world.database, "INSERT INTO t VALUES (1), (2), (3)");
    // This is what that person's own slot would show.
    let peek = format!(
        "SELECT encode(substring(data FROM 2 FOR 8), 'hex') FROM pg_logical_slot_peek_binary_changes('{slot}', NULL, NULL, \
         'proto_version', '1', 'publication_names', '{slot}') WHERE get_byte(data, 0) = ascii('B') ORDER BY lsn DESC LIMIT 1",
        slot = world.slot
    );
    let commit = server.execute(&world.database, &peek);
    for sink in ["hot", "archive", "all"] {
        for seq in 0..3 {
            world.succeed(&["resume", "--sink", sink, "--quarantine", &format!("0001:{commit}:{seq:010}")]);
        }
    }
    world.catch_up().await;
    let recorded = world.check().await;
    for trail in [&recorded.hot, &recorded.by_log] {
        let seen: Vec<String> = trail.iter().map(|version| version.position.clone()).collect();
        let expected: Vec<String> = (0..3).map(|seq| format!("0001:{commit}:{seq:010}")).collect();
        assert_eq!(seen, expected, "the positions were guessed rightly");
        assert!(trail.iter().all(|version| version.event == "created"), "{trail:?}");
    }
}

/// What a role lacks is a statement that can be run as it is printed, and then it may quarantine, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_is_told_the_grant() {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").build().await;
    let role = audit_testkit::unique("On Call");
    server.execute(&world.database, &format!("CREATE ROLE \"{role}\" LOGIN"));
    let url = format!("host=127.0.0.1 port={} dbname={} user='{role}'", server.port(), world.database);
    let position = "0001:0000000016b37430:0000000002";
    let resume = ["resume", "--sink", "hot", "--quarantine", position, "--as", &url];
    let output = world.command(&resume);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    let grants =
        said.split("as the owner of schema cdc_audit run ").nth(1).unwrap_or_else(|| panic!("no GRANT in {said}"));
    server.execute(&world.database, grants.trim());
    world.succeed(&resume);
    let sql = format!("SELECT db_user FROM cdc_audit.quarantine WHERE db_user = '{role}'");
    assert_eq!(server.execute(&world.database, &sql), role);
}
