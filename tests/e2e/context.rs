use audit_testkit::shared;
use cdc_audit_tests::world::World;
use expect_test::expect;

async fn told(world: &World) -> String {
    let recorded = world.check().await;
    let line = |version: &cdc_audit_tests::trail::Version| {
        format!(
            "{} {}: actor {}, reason {}, source {}\n",
            version.event,
            version.key.as_deref().unwrap_or("-"),
            version.actor_id.as_deref().unwrap_or("-"),
            version.reason.as_deref().unwrap_or("-"),
            version.actor_source.as_deref().unwrap_or("-")
        )
    };
    recorded.hot.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_holds_for_the_changes_that_follow_it_in_its_transaction() {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").build().await;
    server.execute(
        &world.database,
        r#"
        BEGIN; INSERT INTO t VALUES (1);
        SELECT cdc_audit.set_context('{"actor_id": "ann", "reason": "first"}'); INSERT INTO t VALUES (2), (3);
        SELECT cdc_audit.set_context('{"actor_id": 7}'); INSERT INTO t VALUES (4);
        SAVEPOINT s; SELECT cdc_audit.set_context('{"actor_id": "lost"}'); INSERT INTO t VALUES (5); ROLLBACK TO s; INSERT INTO t VALUES (6);
        SELECT cdc_audit.set_context('{}'); INSERT INTO t VALUES (7); COMMIT;
        INSERT INTO t VALUES (8);
        SELECT pg_logical_emit_message(false, 'cdc-audit', '{"actor_id": "not of a transaction"}'); INSERT INTO t VALUES (9);
        BEGIN; SELECT pg_logical_emit_message(true, 'another', '{"actor_id": "of another program"}'); INSERT INTO t VALUES (10); COMMIT;
        BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', 'no JSON'); INSERT INTO t VALUES (11); COMMIT;
        BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{"actor_id": "u1", "actor": {"name": "Ann"}, "deep": [[1.50]]}'); INSERT INTO t VALUES (12); TRUNCATE t; COMMIT;
        "#,
    );
    world.catch_up().await;
    expect![[r#"
        created 1: actor -, reason -, source -
        created 2: actor ann, reason first, source context
        created 3: actor ann, reason first, source context
        created 4: actor 7, reason -, source context
        created 6: actor 7, reason -, source context
        created 7: actor -, reason -, source -
        created 8: actor -, reason -, source -
        created 9: actor -, reason -, source -
        created 10: actor -, reason -, source -
        created 11: actor -, reason -, source -
        created 12: actor u1, reason -, source context
        truncated -: actor u1, reason -, source context
    "#]]
    .assert_eq(&told(&world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_name_who_changed_a_row_where_no_context_does() {
    let server = shared(15).await;
    let world = World::on(server)
        .full(true)
        .tables("[[tables]]\nname = \"*\"\nignore_alone = []\nactor_column = \"updated_by\"\nreason_column = \"why\"\ntenant = \"tenant\"\ninclude = [\"owner\"]\nbaseline = false\n")
        .sql("CREATE TABLE t (id int PRIMARY KEY, v int, updated_by int, why text, tenant text, owner jsonb); ALTER TABLE t REPLICA IDENTITY FULL")
        .build()
        .await;
    server.execute(
        &world.database,
        "INSERT INTO t VALUES (1, 1, 7, 'made', 'acme', '{\"o\": 1}'); UPDATE t SET v = 2; UPDATE t SET v = 3, updated_by = 8, why = 'fix'; \
         BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{\"actor_id\": \"ctx\"}'); UPDATE t SET v = 4; COMMIT; DELETE FROM t",
    );
    world.catch_up().await;
    expect![[r#"
        created 1: actor 7, reason made, source row
        updated 1: actor 7, reason -, source row_unchanged
        updated 1: actor 8, reason fix, source row
        updated 1: actor ctx, reason -, source context
        deleted 1: actor -, reason -, source -
    "#]]
    .assert_eq(&told(&world).await);
}
