use audit_connect::PgEndpoint;
use audit_core::position::{Micros, Position};
use audit_history::question::point::Point;
use audit_history::{Store, Timeline};
use audit_hot::HotReader;
use audit_lake::{LakeConfig, LakeReader};
use audit_testkit::{Postgres, eventually, shared};
use cdc_audit_tests::world::{Builder, World};
use serde_json::{Value, json};

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

/// The pages of an answer, each pinned by the head of the first one, are the answer: versions that come meanwhile shift
/// none of them.
#[tokio::test(flavor = "multi_thread")]
async fn pages_are_not_shifted_by_new_versions() {
    let server = shared(15).await;
    let world = begun(server, World::on(server)).await;
    let change =
        |state: &str| server.execute(&world.database, &format!("UPDATE orders SET state = '{state}' WHERE id = 1"));
    for state in ["b", "c", "d", "e"] {
        change(state);
    }
    world.catch_up().await;
    let whole = places(&world, &["1"]);
    let (mut paged, mut next, mut head) = (Vec::new(), Value::Null, Value::Null);
    loop {
        let mut arguments = vec!["history", "orders", "1", "--page", "--limit", "2"];
        if let (Some(next), Some(head)) = (next.as_str(), head.as_str()) {
            arguments.extend(["--before", next, "--head", head]);
        }
        let page: Value = serde_json::from_str(&world.succeed(&arguments)).expect("one object");
        let text = |record: &Value, field: &str| record[field].as_str().expect("a text").to_owned();
        let items = page["items"].as_array().expect("items");
        paged.extend(items.iter().map(|record| (text(record, "position"), text(record, "event"))));
        assert_eq!(page["coverage"]["complete"], true, "{page}");
        assert!(head.is_null() || head == page["head"], "{page}");
        (next, head) = (page["next"].clone(), page["head"].clone());
        if next.is_null() {
            break;
        }
        change("later");
        world.catch_up().await;
    }
    assert_eq!((paged.len(), paged), (5, whole.clone()));
    assert!(places(&world, &["1"]).len() > whole.len(), "there are newer ones now");
}

/// What an answer lacks is said, and with `--strict` it is an error.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_what_it_lacks() {
    let server = shared(15).await;
    let world = begun(server, World::on(server)).await;
    let strict = |arguments: &[&str]| {
        let output = world.command(&[&["history", "orders", "1", "--strict"], arguments].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = strict(&[]);
    assert!(code == Some(0) && said.contains("from hot + archive") && said.contains("complete"), "{said}");
    let (code, said) = strict(&["--head", "0001:ffffffff00000000:0000000000"]);
    assert!(code == Some(9) && said.contains("no sink has reached 0001:ffffffff00000000"), "{said}");

    // As after the beginning of hot was raised, and the lake has not what was before.
    let hot = world.hot().await;
    let began = |at: &str| format!("UPDATE cdc_audit.checkpoints SET began = {at}");
    hot.batch_execute(&began("'0001:ffffffff00000000:0000000000'")).await.expect("another beginning");
    let (code, said) = strict(&[]);
    assert!(code == Some(9) && said.contains("incomplete: no sink has what lies between"), "{said}");
    hot.batch_execute(&began("NULL")).await.expect("no beginning");
    assert_eq!(strict(&[]).0, Some(0));

    server.execute(&world.database, &format!("SELECT pg_drop_replication_slot('{}')", world.slot));
    let until = world.wal_end().await;
    world.set_up();
    world.succeed(&["run", "--accept-gap", "--until", &until]);
    let (code, said) = strict(&[]);
    assert!(code == Some(9) && said.contains("incomplete: changes were lost in a gap"), "{said}");
    let page: Value = serde_json::from_str(&world.succeed(&["history", "orders", "1", "--page"])).expect("one object");
    assert_eq!(page["coverage"]["gaps"].as_array().map(Vec::len), Some(1), "{page}");
}

/// A time stands for a prefix of the order of positions: a commit with a later time hides those that come after it, even
/// if their own times are earlier. The same in hot, in the lake, and in both.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_a_prefix_of_whole_transactions() {
    let server = shared(15).await;
    let world = World::on(server).full(true).sql(TABLES).unwitnessed().build().await;
    server.execute(&world.database, "UPDATE orders SET state = 'a'");
    server.execute(&world.database, "UPDATE orders SET state = 'b'");
    world.catch_up().await;
    let client = world.hot().await;
    let asked = "SELECT position, (extract(epoch FROM committed_at) * 1000000)::bigint FROM cdc_audit.versions ORDER BY position";
    let rows = client.query(asked, &[]).await.expect("the versions");
    let places: Vec<(Position, Micros)> =
        rows.iter().map(|row| (row.get::<_, &str>(0).parse().expect("a position"), Micros(row.get(1)))).collect();
    let (first, second) = (places[0], places[3]);
    let endpoint = PgEndpoint::new(&world.hot_url);
    let hot = async || ("hot".to_owned(), Store::Hot(HotReader::connect(&endpoint).await.expect("a reader")));
    let archive: LakeConfig = serde_json::from_value(json!({ "url": world.lake })).expect("a lake's section");
    let lake = || ("archive".to_owned(), Store::Lake(LakeReader::open(&archive).expect("a reader")));
    for stores in [vec![hot().await], vec![lake()], vec![hot().await, lake()]] {
        let timeline = Timeline::open("shop", stores).await.expect("a look");
        let at = async |point: Point| timeline.resolve("shop", &point).await.expect("a position");
        let (now, begins) = (at(Point::Now).await, |place: (Position, Micros)| Some(Position { seq: 0, ..place.0 }));
        assert!(now > Some(places[5].0), "{now:?}");
        assert_eq!(at(Point::Time(second.1)).await, now, "at or before");
        assert_eq!(at(Point::Time(Micros(second.1.0 - 1))).await, begins(second));
        assert_eq!(at(Point::Time(Micros(first.1.0 - 1))).await, begins(first));
        assert_eq!(at(Point::At(first.0)).await, Some(first.0.next()));
    }
    let later = "UPDATE cdc_audit.versions SET committed_at = committed_at + interval '1 minute' WHERE position < $1";
    client.execute(later, &[&second.0.to_string()]).await.expect("the first commit has the later time");
    let timeline = Timeline::open("shop", vec![hot().await]).await.expect("a look");
    let found = timeline.resolve("shop", &Point::Time(second.1)).await.expect("a position");
    assert_eq!(found, Some(Position { seq: 0, ..first.0 }), "the second commit is not in it");
}

/// A partition cannot be dropped from under a question, because its tables are locked first.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_keeps_its_partitions() {
    let server = shared(15).await;
    let world = begun(server, World::on(server).without_lake()).await;
    let endpoint = PgEndpoint::new(&world.hot_url);
    let hot = Store::Hot(HotReader::connect(&endpoint).await.expect("a reader"));
    let timeline = Timeline::open("shop", vec![("hot".to_owned(), hot)]).await.expect("a look");
    let client = world.hot().await;
    let asked = "SELECT tableoid::regclass::text FROM cdc_audit.versions LIMIT 1";
    let partition: String = client.query_one(asked, &[]).await.expect("a version").get(0);
    client.batch_execute("SET lock_timeout = '500ms'").await.expect("a setting");
    let drop = format!("DROP TABLE {partition}");
    let error = client.batch_execute(&drop).await.expect_err("the partition is being read");
    assert_eq!(error.code().map(|code| code.code()), Some("55P03"), "{error}");
    let found = timeline.history("shop", "public.orders", "1", 10).await.expect("a trail");
    assert_eq!(found.len(), 1);
    std::mem::drop(timeline);
    client.batch_execute("SET lock_timeout = '60s'").await.expect("a setting");
    client.batch_execute(&drop).await.expect("nobody reads it");
}
