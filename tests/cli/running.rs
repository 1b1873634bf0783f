use audit_testkit::{eventually, shared};
use cdc_audit_tests::world::World;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_tells_where_it_stands() {
    let server = shared(15).await;
    let strict = "[[tables]]\nname = \"*\"\nbaseline = false\nstrict = true\nallow = [\"id\"]\n";
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY, surprise text)").tables(strict);
    let world = world.listening().build().await;
    let absent = world.command(&["status", "--json"]);
    assert_eq!(absent.status.code(), Some(3));
    let told: Value = serde_json::from_slice(&absent.stdout).expect("JSON");
    assert_eq!(
        (&told["phase"], &told["slot"]["name"]),
        (&Value::from("not_running"), &Value::from(world.slot.as_str()))
    );

    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    server.execute(&world.database, "INSERT INTO t SELECT generate_series(1, 50)");
    let mut status = Value::Null;
    eventually("both sinks have the rows", || {
        status = serde_json::from_str(&world.succeed(&["status", "--json"])).expect("JSON");
        let sinks = status["sinks"].as_array().expect("sinks");
        sinks.len() == 2 && sinks.iter().all(|sink| sink["versions"] == 50 && sink["failing"] == false)
    });
    assert_eq!(status["source"], "shop");
    assert_eq!(status["tables"]["public.t"]["versions"], 50);
    let told = world.succeed(&["status"]);
    assert!(told.starts_with("shop: streaming, epoch 1\n"), "{told}");
    for line in
        [format!("slot {}: ", world.slot), "| hot ".to_owned(), "| archive ".to_owned(), "| public.t ".to_owned()]
    {
        assert!(told.lines().any(|told| told.starts_with(&line)), "no {line} in\n{told}");
    }
    assert!(world.get("/healthz").0.contains("200"));
    eventually("it is ready", || world.get("/readyz").0.contains("200"));
    let (_, metrics) = world.get("/metrics");
    assert!(metrics.lines().any(|line| line.starts_with("cdc_audit_")), "{metrics}");
    assert!(metrics.contains("cdc_audit_table_withheld_columns{table=\"public.t\"} 1"), "{metrics}");
    assert!(world.get("/nothing").0.contains("404"));
    assert!(daemon.stop().success(), "{}", daemon.output());
    assert!(daemon.stderr().contains("stopped at="), "it says where it stopped: {}", daemon.stderr());
    assert_eq!(world.command(&["status"]).status.code(), Some(3));
}

/// Nothing that the daemon prints at its most detailed log level contains a value of a row.
#[tokio::test(flavor = "multi_thread")]
async fn logs_hold_no_values() {
    let server = shared(15).await;
    let world = World::on(server)
        .full(true)
        .sql("CREATE TABLE t (id text PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL")
        .build()
        .await;
    server.execute(
        &world.database,
        "INSERT INTO t VALUES ('key-7351', 'value-7351'); UPDATE t SET v = 'other-7351'; DELETE FROM t",
    );
    let until = world.wal_end().await;
    let config = std::fs::read_to_string(&world.config).expect("the config");
    std::fs::write(&world.config, config + "[log]\nlevel = \"trace,tokio_postgres=trace\"\n").expect("the config");
    let mut daemon = world.launch().argument("--until").argument(&until).start();
    assert!(daemon.wait().success(), "{}", daemon.output());
    assert!(daemon.output().contains("DEBUG"), "it was talkative");
    let told: Vec<String> = daemon.output().lines().filter(|line| line.contains("7351")).map(str::to_owned).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    world.check().await;
}
