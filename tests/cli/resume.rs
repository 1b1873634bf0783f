use audit_testkit::shared;
use cdc_audit_tests::world::World;
use serde_json::Value;

/// One version that a sink refuses: given up for it, by name and position; the other sink has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_version_is_given_up_for_one_sink() {
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
    daemon.wait_for_line("the version is given up");
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
}
