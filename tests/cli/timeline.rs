use audit_testkit::{Postgres, eventually, shared};
use cdc_audit_tests::world::{Builder, World};
use serde_json::Value;

const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY, state text); ALTER TABLE orders REPLICA IDENTITY FULL; \
                      INSERT INTO orders VALUES (1, 'old'), (2, 'old'), (3, 'old')";

/// Changes of two rows, one of which gets another key.
const EARLIER: &str = "UPDATE orders SET state = 'a' WHERE id = 1; UPDATE orders SET id = 20 WHERE id = 2";
const LATER: &str = "UPDATE orders SET state = 'b' WHERE id = 1; UPDATE orders SET id = 21 WHERE id = 20; DELETE FROM orders WHERE id = 21";

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Position and event of each version, newest first, without snapshot rows, whose positions depend on the sink.
fn places(world: &World, arguments: &[&str]) -> Vec<(String, String)> {
    let all = records(&world.succeed(&[&["history", "orders", "--json"], arguments].concat()));
    let text = |record: &Value, field: &str| record[field].as_str().expect("a text").to_owned();
    let places = all.iter().map(|record| (text(record, "position"), text(record, "event")));
    places.filter(|(_, event)| event != "snapshot").collect()
}

fn events(world: &World, arguments: &[&str]) -> Vec<String> {
    let all = records(&world.succeed(&[&["history", "orders", "--json"], arguments].concat()));
    all.iter().map(|record| record["event"].as_str().expect("an event").to_owned()).collect()
}

/// Exports, and returns position and event of each version of the table.
fn exported(world: &World, name: &str, arguments: &[&str]) -> Vec<(String, String)> {
    let folder = world.path(&format!("exported {name}"));
    world.succeed(&[&["export", "--to", folder.to_str().expect("a plain name")], arguments].concat());
    let lines = std::fs::read_to_string(folder.join("public.orders.jsonl")).expect("the table's file");
    let text = |record: &Value, field: &str| record[field].as_str().expect("a text").to_owned();
    records(&lines).iter().map(|record| (text(record, "position"), text(record, "event"))).collect()
}

const HOT: &str = "[sinks.hot]\ntype = \"hot\"";

/// Runs a daemon until a sink has the baseline.
fn read_baseline(world: &World, sink: &str) {
    let mut daemon = world.launch().start();
    let asked = ["history", "public.orders", "3", "--from", sink, "--json"];
    daemon.wait_for("the baseline", |_| !world.command(&asked).stdout.is_empty());
    assert!(daemon.stop().success(), "{}", daemon.output());
}

/// A world in which something was recorded.
async fn begun(server: &Postgres, builder: Builder<'_>) -> World {
    let world = builder.full(true).sql(TABLES).unwitnessed().build().await;
    server.execute(&world.database, EARLIER);
    world.catch_up().await;
    world
}

/// The lake has what was before hot began: each version comes once, also across a change of the key.
#[tokio::test(flavor = "multi_thread")]
async fn what_hot_does_not_have_yet_comes_from_the_lake() {
    let server = shared(15).await;
    let world = World::on(server).without_hot().baseline().full(true).sql(TABLES).unwitnessed().build().await;
    read_baseline(&world, "archive");
    server.execute(&world.database, EARLIER);
    world.catch_up().await;
    world.edit_config("[sinks.archive]", &format!("{HOT}\nurl = \"{}\"\n[sinks.archive]", world.hot_url));
    world.set_up();
    read_baseline(&world, "hot");
    server.execute(&world.database, LATER);
    world.catch_up().await;

    for key in ["1", "2", "20", "21"] {
        let (both, lake) = (places(&world, &[key]), places(&world, &[key, "--from", "archive"]));
        assert_eq!(both, lake, "{key}");
    }
    // A sink that is added gets a baseline of its own.
    assert_eq!(events(&world, &["1", "--from", "hot"]), ["updated", "snapshot"]);
    assert_eq!(events(&world, &["1"]), ["updated", "snapshot", "updated", "snapshot"]);
    assert_eq!(events(&world, &["1", "--limit", "3"]), ["updated", "snapshot", "updated"]);
    let changes = |mut all: Vec<(String, String)>| {
        all.retain(|(_, event)| event != "snapshot");
        all
    };
    let (both, lake) = (exported(&world, "both", &[]), exported(&world, "lake", &["--from", "archive"]));
    assert!(both.is_sorted(), "{both:?}");
    assert_eq!(changes(both), changes(lake));
}

/// Sinks may have the rows of one baseline at different positions, because a chunk is read again for a sink that did
/// not get it: the earlier one is shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_a_baseline_is_shown_once() {
    let server = shared(15).await;
    let world = World::on(server).baseline().full(true).sql(TABLES).unwitnessed().build().await;
    read_baseline(&world, "hot");
    world.catch_up().await;
    let later =
        "UPDATE cdc_audit.versions SET position = left(position, -1) || '9' WHERE event = 'snapshot' AND key <> '2'";
    world.hot().await.batch_execute(later).await.expect("the snapshot rows of hot are later");
    server.execute(&world.database, "UPDATE orders SET state = 'a'");
    world.catch_up().await;
    for key in ["1", "2", "3"] {
        let both = records(&world.succeed(&["history", "orders", key, "--json"]));
        let lake = records(&world.succeed(&["history", "orders", key, "--json", "--from", "archive"]));
        let places = |all: &[Value]| all.iter().map(|record| record["position"].clone()).collect::<Vec<_>>();
        assert_eq!(places(&both), places(&lake), "{key}");
        assert_eq!(events(&world, &[key, "--limit", "1"]), ["updated"], "{key}");
        assert_eq!(events(&world, &[key, "--limit", "2"]), ["updated", "snapshot"], "{key}");
    }
    assert_eq!(exported(&world, "both", &[]), exported(&world, "lake", &["--from", "archive"]));
}

/// A lake that was begun later adds nothing to what hot has.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_was_begun_later_changes_nothing() {
    let server = shared(15).await;
    let world = begun(server, World::on(server).without_lake()).await;
    let archive =
        format!("[sinks.archive]\ntype = \"lake\"\nurl = \"{}\"\nfile_age = \"1 s\"\n[pipeline]", world.lake.display());
    world.edit_config("[pipeline]", &archive);
    world.set_up();
    server.execute(&world.database, LATER);
    world.catch_up().await;
    for key in ["1", "2", "20", "21"] {
        let (both, hot) = (places(&world, &[key]), places(&world, &[key, "--from", "hot"]));
        assert_eq!(both, hot, "{key}");
        assert_ne!(both, places(&world, &[key, "--from", "archive"]), "{key}: the lake has not everything");
    }
    assert_eq!(exported(&world, "both", &[]), exported(&world, "hot", &["--from", "hot"]));
}

/// What hot cannot take for a while is read from the lake, which has it.
#[tokio::test(flavor = "multi_thread")]
async fn what_hot_is_behind_comes_from_the_lake() {
    let server = shared(15).await;
    let world = begun(server, World::on(server)).await;
    let hot = world.hot().await;
    hot.batch_execute("BEGIN; LOCK TABLE cdc_audit.versions IN SHARE MODE").await.expect("a lock");
    server.execute(&world.database, LATER);
    let daemon = world.launch().start();
    eventually("the lake has it", || places(&world, &["20", "--from", "archive"]).len() == 3);
    assert_eq!(places(&world, &["20", "--from", "hot"]).len(), 1);
    for key in ["1", "20"] {
        assert_eq!(places(&world, &[key]), places(&world, &[key, "--from", "archive"]), "{key}");
    }
    hot.batch_execute("COMMIT").await.expect("the end of the lock");
    drop(daemon);
}
