use audit_testkit::{eventually, shared};
use cdc_audit_tests::world::World;

/// Returns for each context whether it is verified, in the order of the trail.
async fn verified(world: &World) -> Vec<Option<bool>> {
    world.check().await.hot.iter().map(|version| version.context_verified).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks_know_whether_a_context_came_through_the_function() {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").build().await;
    server.execute(
        &world.database,
        r#"INSERT INTO t VALUES (1);
           BEGIN; SELECT cdc_audit.set_context('{"actor_id": 7}'); INSERT INTO t VALUES (2); COMMIT;
           BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{"actor_id": 7}'); INSERT INTO t VALUES (3); COMMIT;
           BEGIN; SELECT pg_logical_emit_message(true, '_bemi', '{"user_id": 7, "SQL": "DELETE"}'); INSERT INTO t VALUES (4); COMMIT;
           BEGIN; SELECT pg_logical_emit_message(true, 'sequin:transaction_annotations.set', '{"actor_id": 7}'); INSERT INTO t VALUES (5);
           SELECT pg_logical_emit_message(true, 'sequin:transaction_annotations.clear', ''); INSERT INTO t VALUES (6); COMMIT;
           BEGIN; SELECT cdc_audit.set_context('{"actor_id": 7}'); SAVEPOINT s; SELECT cdc_audit.clear_context(); ROLLBACK TO s; INSERT INTO t VALUES (7);
           SELECT cdc_audit.clear_context(); INSERT INTO t VALUES (8); COMMIT;
           BEGIN; SELECT cdc_audit.set_context('{"actor_id": 7}'); INSERT INTO t VALUES (9); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'"#,
    );
    world.catch_up().await;
    let expected = [None, Some(true), Some(false), Some(false), Some(false), None, Some(true), None, Some(true)];
    assert_eq!(verified(&world).await, expected);
    let recorded = world.recorded().await;
    let actors: Vec<&str> = recorded.hot.iter().map(|version| version.actor_id.as_deref().unwrap_or("-")).collect();
    assert_eq!(actors, ["-", "7", "7", "7", "7", "-", "7", "-", "7"]);
    assert!(recorded.hot[3].context.as_ref().unwrap().get("SQL").is_none(), "a statement has values in it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_rotated_under_the_running_daemon_is_read() {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").build().await;
    let daemon = world.launch().start();
    let say = |id: i32| {
        let sql =
            format!("BEGIN; SELECT cdc_audit.set_context('{{\"actor_id\": 7}}'); INSERT INTO t VALUES ({id}); COMMIT");
        server.execute(&world.database, &sql);
    };
    let hot = world.hot_url.rsplit('/').next().unwrap().to_owned();
    let stored = |count: &str| {
        eventually("the version is stored", || {
            server.execute(&hot, "SELECT count(*) FROM cdc_audit.versions") == count
        });
    };
    say(1);
    stored("1");
    server.execute(&world.database, "SELECT cdc_audit.rotate_context_key()");
    say(2);
    // No session has this key, and reading it does not make it.
    server.execute(
        &world.database,
        &format!(
            "BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{{\"actor_id\": 8, \"signature\": \"99:{}\"}}'); INSERT INTO t VALUES (3); COMMIT",
            "0".repeat(64)
        ),
    );
    stored("3");
    drop(daemon);
    world.catch_up().await;
    assert_eq!(verified(&world).await, [Some(true), Some(true), Some(false)]);
}
