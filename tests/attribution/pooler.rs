use audit_testkit::{PgBouncer, connect, shared};
use cdc_audit_tests::world::World;

/// Eight clients share two connections. Each transaction writes its actor into its row, so that the trail can be
/// compared with it.
#[tokio::test(flavor = "multi_thread")]
async fn no_context_leaks_from_one_transaction_to_another_behind_a_pooler() {
    let server = shared(15).await;
    let session_context =
        "[source.session_context]\ntables = [\"public.t\"]\nsettings = { \"app.actor\" = \"actor_id\" }\n";
    let world = World::on(server)
        .sql("CREATE TABLE t (id serial PRIMARY KEY, who text)")
        .sections(session_context)
        .without_lake()
        .build()
        .await;
    let pooler = PgBouncer::start(server, 2);
    let client = |number: usize| {
        let url = pooler.url(&world.database);
        async move {
            let client = connect(&url).await;
            for round in 0..25 {
                let who = format!("client {number} round {round}");
                let sql = match (number + round) % 5 {
                    0 => "BEGIN; INSERT INTO t (who) VALUES ('nobody'); COMMIT".to_owned(),
                    1 => format!("BEGIN; SET LOCAL app.actor = '{who}'; INSERT INTO t (who) VALUES ('{who}'); COMMIT"),
                    2 => format!(
                        "BEGIN; SELECT cdc_audit.set_context('{{\"actor_id\": \"lost\"}}'); INSERT INTO t (who) VALUES ('{who}'); ROLLBACK"
                    ),
                    3 => "INSERT INTO t (who) VALUES ('nobody')".to_owned(),
                    _ => format!(
                        "BEGIN; SELECT cdc_audit.set_context('{{\"actor_id\": \"{who}\"}}'); INSERT INTO t (who) VALUES ('{who}'); \
                         SELECT pg_sleep(0.001); UPDATE t SET who = who WHERE who = '{who}'; COMMIT"
                    ),
                };
                client.batch_execute(&sql).await.unwrap();
            }
        }
    };
    tokio::join!(client(0), client(1), client(2), client(3), client(4), client(5), client(6), client(7));
    world.catch_up().await;
    let trail = world.recorded().await.hot;
    let created: Vec<_> = trail.iter().filter(|version| version.event == "created").collect();
    assert_eq!(created.len(), 160, "8 clients, 25 rounds, a fifth of them rolled back");
    for version in &trail {
        let who = format!("{:?}", version.after.as_ref().unwrap()["who"]);
        match &version.actor_id {
            Some(actor) => {
                assert!(who.contains(&format!("\"{actor}\"")), "{who} by {actor}");
                assert_eq!(version.context_verified, Some(true));
            }
            None => {
                assert!(who.contains("\"nobody\""), "{who} by nobody");
                assert_eq!(version.context, None);
            }
        }
    }
}
