use audit_testkit::{ObjectKind, ObjectServer, Postgres, shared, unique};
use cdc_audit_tests::lake;
use cdc_audit_tests::world::World;

const TABLES: &str = "CREATE TABLE a (id int PRIMARY KEY, name text); ALTER TABLE a REPLICA IDENTITY FULL; \
                      CREATE TABLE b (id int PRIMARY KEY, name text); ALTER TABLE b REPLICA IDENTITY FULL; \
                      INSERT INTO a SELECT i, 'before' FROM generate_series(1, 20) AS i; \
                      INSERT INTO b SELECT i, 'before' FROM generate_series(1, 30) AS i";

fn change(server: &Postgres, world: &World) {
    let sql = "BEGIN; INSERT INTO a VALUES (100, 'x'); INSERT INTO b VALUES (100, 'x'); COMMIT; \
               UPDATE a SET name = 'y'; UPDATE b SET name = 'y'; DELETE FROM a WHERE id = 100; DELETE FROM b WHERE id = 100";
    server.execute(&world.database, sql);
}

/// Counts a table's rows that existed before, and its versions from the stream.
fn counts(lake: &std::path::Path, table: &str) -> (usize, usize) {
    let versions = lake::by_listing(lake);
    let snapshot = |event: &str| event == "snapshot";
    let of_table = || versions.iter().filter(|version| version.table == format!("public.{table}"));
    (
        of_table().filter(|version| snapshot(&version.event)).count(),
        of_table().filter(|version| !snapshot(&version.event)).count(),
    )
}

/// Each table goes to the lakes that its rule names, including rows that existed before. A lake that is added later,
/// and a table that is sent to a lake later, get their own baseline.
#[tokio::test(flavor = "multi_thread")]
async fn tables_go_to_the_lakes_that_their_rules_name() {
    let server = shared(15).await;
    let (s3, gcs) = (ObjectServer::shared(ObjectKind::S3).await, ObjectServer::shared(ObjectKind::Gcs).await);
    let (on_s3, on_gcs) = (unique("lake"), unique("lake"));
    let rule = |table: &str, sinks: &str| format!("[[tables]]\nname = \"public.{table}\"\nsinks = [{sinks}]\n");
    let second = |name: &str, keys: &str| {
        format!("[sinks.{name}]\ntype = \"lake\"\nfile_age = \"1 s\"\ndata_bytes = \"0 B\"\n{keys}\n")
    };
    let world = World::on(server)
        .sql(TABLES)
        .tables(&[rule("a", "'archive', 'cloud'"), rule("b", "'hot', 'archive'")].concat())
        .sections(&second("cloud", &s3.lake(&on_s3, s3.port())))
        // This is less than the number of rows in one batch that go to other sinks.
        .hot("batch_rows = 3")
        .baseline()
        .unwitnessed()
        .build()
        .await;
    let cloud = s3.folder(&on_s3);
    let both = |lake: &std::path::Path| (counts(lake, "a"), counts(lake, "b"));
    let mut daemon = world.launch().start();
    daemon
        .wait_for("rows that existed are read", |_| both(&world.lake) == ((20, 0), (30, 0)) && both(&cloud).0.0 == 20);
    assert!(daemon.stop().success(), "{}", daemon.output());
    change(server, &world);
    world.catch_up().await;
    assert_eq!(both(&world.lake), ((20, 23), (30, 33)));
    assert_eq!(both(&cloud), ((20, 23), (0, 0)));
    let hot = world.recorded().await.hot;
    assert!(hot.len() == 63 && hot.iter().all(|version| version.table == "public.b"), "{}", hot.len());

    // Another lake for both tables, and the first one for `b` too.
    world.edit_config("sinks = ['archive', 'cloud']", "sinks = ['archive', 'cloud', 'other']");
    world.edit_config("sinks = ['hot', 'archive']", "sinks = ['hot', 'archive', 'cloud', 'other']");
    let text = std::fs::read_to_string(&world.config).expect("a config file");
    let added = second("other", &gcs.lake(&on_gcs, gcs.port()));
    std::fs::write(&world.config, format!("{text}\n{added}")).expect("a config file");
    let other = gcs.folder(&on_gcs);
    let mut daemon = world.launch().start();
    daemon.wait_for("rows are read for who lacks them", |_| {
        both(&other) == ((20, 0), (30, 0)) && both(&cloud).1 == (30, 0)
    });
    assert!(daemon.stop().success(), "{}", daemon.output());
    change(server, &world);
    world.catch_up().await;
    assert_eq!(both(&world.lake), ((20, 26), (30, 36)), "nothing comes twice");
    assert_eq!(both(&cloud), ((20, 26), (30, 3)));
    assert_eq!(both(&other), ((20, 3), (30, 3)));
}

/// A rule that names a missing sink is refused before anything is changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_names_no_sink_is_refused() {
    let rule = "[[tables]]\nname = \"*\"\nsinks = [\"archiv\"]\n";
    let world = World::on(shared(15).await).tables(rule).not_set_up().unwitnessed().build().await;
    let said = String::from_utf8_lossy(&world.command(&["check"]).stderr).into_owned();
    assert!(said.contains("there is no sink \"archiv\"") && said.contains("the sinks are archive, hot"), "{said}");
}
