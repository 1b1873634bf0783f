use std::collections::BTreeMap;
use std::time::Duration;

use audit_testkit::{Postgres, shared};
use cdc_audit_tests::world::World;
use serde_json::{Value, json};
use tokio_postgres::{Client, SimpleQueryMessage};

/// `orders` without whole old rows and with a large value, `items` with them, a table without a key, and one that is
/// protected.
const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY, state text, total numeric(10,2), photo text); \
    ALTER TABLE orders ALTER photo SET STORAGE EXTERNAL; \
    CREATE TABLE items (id int PRIMARY KEY, qty int, done boolean); ALTER TABLE items REPLICA IDENTITY FULL; \
    CREATE TABLE loose (n int); ALTER TABLE loose REPLICA IDENTITY FULL; \
    CREATE TABLE people (id int PRIMARY KEY, ssn text, email text)";

const RULES: &str = "[[tables]]\nname = \"*\"\n[[tables]]\nname = \"public.people\"\nprotect = { ssn = \"partial\" }";

/// What happens, each a transaction: rows come, change, get other keys, go, come again, and are truncated.
const STEPS: [&str; 6] = [
    "INSERT INTO orders SELECT n, 'open', n * 1.5, repeat(md5(n::text), 200) FROM generate_series(1, 30) n; \
     INSERT INTO items SELECT n, n, false FROM generate_series(1, 10) n; \
     INSERT INTO people VALUES (1, '123-45-6789', NULL)",
    "UPDATE orders SET state = 'paid' WHERE id % 3 = 0; UPDATE items SET qty = NULL WHERE id = 4; \
     UPDATE items SET done = true WHERE id IN (4, 5); INSERT INTO loose VALUES (1)",
    "UPDATE orders SET id = id + 100 WHERE id <= 5; DELETE FROM orders WHERE id = 9; \
     INSERT INTO orders VALUES (9, 'again', NULL, NULL), (1, 'new', 1, '')",
    "UPDATE orders SET id = 200 WHERE id = 101; UPDATE orders SET id = 101, state = 'moved' WHERE id = 102; TRUNCATE items; \
     INSERT INTO items VALUES (4, 44, false)",
    "UPDATE orders SET state = 'x' WHERE id = 200; UPDATE orders SET state = 'y' WHERE id = 200; DELETE FROM orders WHERE id = 30",
    "DELETE FROM orders WHERE id > 100; UPDATE items SET id = 5 WHERE id = 4; UPDATE people SET email = 'a@b.c'",
];

type Rows = BTreeMap<String, BTreeMap<String, Option<String>>>;

/// The rows of a table by key, each value as text.
async fn live(client: &Client, table: &str) -> Rows {
    let mut rows = Rows::new();
    let answer = client.simple_query(&format!("SELECT * FROM {table}")).await.expect("the rows");
    for message in answer {
        if let SimpleQueryMessage::Row(row) = message {
            let value = |at: usize| (row.columns()[at].name().to_owned(), row.get(at).map(str::to_owned));
            let values: BTreeMap<String, Option<String>> = (0..row.len()).map(value).collect();
            rows.insert(values["id"].clone().expect("a key"), values);
        }
    }
    rows
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The same of an answer in JSON.
fn told(answer: &str) -> Rows {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(is) => Some(if *is { "t" } else { "f" }.to_owned()),
        other => Some(other.to_string()),
    };
    let row = |line: Value| {
        let values = line["row"].as_object().expect("a row").iter();
        (
            line["key"].as_str().expect("a key").to_owned(),
            values.map(|(name, value)| (name.clone(), text(value))).collect(),
        )
    };
    lines(answer).into_iter().map(row).collect()
}

/// A moment, and what the two tables had then.
struct Moment {
    at: String,
    orders: Rows,
    items: Rows,
}

/// Each step in a transaction of its own, in which the tables are copied.
async fn history(world: &World) -> Vec<Moment> {
    let mut client = world.client().await;
    let mut moments = Vec::new();
    for step in STEPS {
        let transaction = client.transaction().await.expect("a transaction");
        transaction.batch_execute(step).await.unwrap_or_else(|error| panic!("{error}: {step}"));
        let (orders, items) = (live(transaction.client(), "orders").await, live(transaction.client(), "items").await);
        transaction.commit().await.expect("a commit");
        let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        let at = client.query_one(now, &[]).await.expect("the time").get(0);
        moments.push(Moment { at, orders, items });
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    moments
}

async fn world(server: &Postgres) -> World {
    World::on(server).full(false).sql(TABLES).tables(RULES).unwitnessed().build().await
}

fn ended(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = world.command(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_those_that_the_table_had() {
    let world = world(shared(15).await).await;
    let moments = history(&world).await;
    world.catch_up().await;
    for Moment { at, orders, items } in &moments {
        let ask =
            |table: &str, arguments: &[&str]| world.succeed(&[&["as-of", at, table, "--json"], arguments].concat());
        for (table, live) in [("orders", orders), ("items", items)] {
            let answer = ask(table, &[]);
            assert_eq!(told(&answer), *live, "{table} {at}");
            assert_eq!(ask(table, &["--from", "hot"]), answer, "{table} {at}");
            assert_eq!(ask(table, &["--from", "archive"]), answer, "{table} {at}");
            // What does not fit is read in further passes.
            assert_eq!(ask(table, &["--memory", "30 kB"]), answer, "{table} {at}");
        }
    }
    // A position and a transaction name the same states.
    let all = lines(&world.succeed(&["search", "orders", "key:200", "--json"]));
    let moved = all.last().expect("the change of the key");
    let (position, xid) = (moved["position"].as_str().expect("a position"), moved["xid"].to_string());
    let before = told(&world.succeed(&["as-of", &format!("before xid:{xid}"), "orders", "--json"]));
    assert_eq!(before, moments[2].orders);
    let within = told(&world.succeed(&["as-of", position, "orders", "--json"]));
    assert!(within.contains_key("200") && within["102"]["state"].as_deref() == Some("open"), "{within:?}");
    assert_eq!(told(&world.succeed(&["as-of", "now", "orders", "--json"])), moments[5].orders);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_database_is_written_at_one_position() {
    let world = world(shared(15).await).await;
    let moments = history(&world).await;
    world.catch_up().await;
    let at = moments[3].at.as_str();
    let folder = |name: &str| world.path(name).display().to_string();
    let read = |name: &str, file: &str| std::fs::read_to_string(world.path(name).join(file)).expect("a file");
    world.succeed(&["as-of", at, "--to", &folder("jsonl")]);
    assert_eq!(told(&read("jsonl", "public.orders.jsonl")), moments[3].orders);
    assert_eq!(told(&read("jsonl", "public.items.jsonl")), moments[3].items);
    let manifest: Value = serde_json::from_str(&read("jsonl", "manifest.json")).expect("a manifest");
    let rows = moments[3].orders.len() + moments[3].items.len() + 1;
    assert_eq!((&manifest["rows"], manifest["files"].as_array().map(Vec::len)), (&json!(rows), Some(3)));
    let left_out = manifest["left_out"][0].as_str().expect("a table without a key");
    assert!(left_out.starts_with("public.loose has versions without a key"), "{left_out}");
    for sink in ["hot", "archive"] {
        world.succeed(&["as-of", at, "--from", sink, "--to", &folder(sink)]);
        for file in ["public.orders.jsonl", "public.items.jsonl", "public.people.jsonl"] {
            assert_eq!(read(sink, file), read("jsonl", file), "{sink} {file}");
        }
    }
    let (code, _, said) = ended(&world, &["as-of", at, "--to", &folder("jsonl")]);
    assert!(code == Some(1) && said.contains("is not empty"), "{said}");
    let (code, _, said) = ended(&world, &["as-of", at, "loose"]);
    assert!(code == Some(1) && said.contains("give the table a primary key"), "{said}");

    world.succeed(&["as-of", at, "items", "people", "--to", &folder("csv"), "--format", "csv"]);
    assert_eq!(read("csv", "public.items.csv"), "id,qty,done,cdc_audit_key,cdc_audit_unknown\n4,44,false,4,\n");
    world.succeed(&["as-of", at, "orders", "--to", &folder("parquet"), "--format", "parquet"]);
    let file = std::fs::read(world.path("parquet").join("public.orders.parquet")).expect("a file");
    assert!(file.starts_with(b"PAR1") && file.ends_with(b"PAR1"));
}

/// ⚠ What is not known is not NULL, and no filter takes it for a value.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_said() {
    let server = shared(15).await;
    let before = "INSERT INTO orders VALUES (1, 'open', 1, repeat('x', 9000)), (2, 'open', NULL, NULL)";
    let world =
        World::on(server).full(false).sql(&format!("{TABLES}; {before}")).tables(RULES).unwitnessed().build().await;
    server.execute(&world.database, "UPDATE orders SET state = 'paid' WHERE id = 1; INSERT INTO orders VALUES (3)");
    server.execute(&world.database, "INSERT INTO people VALUES (1, '123-45-6789', NULL)");
    world.catch_up().await;
    let rows = lines(&world.succeed(&["as-of", "now", "orders", "--json"]));
    assert_eq!(rows.len(), 2, "a row that no version names is not there");
    assert_eq!(rows[0]["row"], json!({"id": 1, "state": "paid", "total": "1.00"}));
    assert_eq!(rows[0]["knowledge"], json!({"photo": "unknown:toast"}));
    assert_eq!(rows[1]["row"], json!({"id": 3, "state": null, "total": null, "photo": null}));
    let (_, shown, said) = ended(&world, &["as-of", "now", "orders"]);
    assert!(shown.contains("?  large value, unchanged and not sent") && shown.contains("∅"), "{shown}");
    assert!(said.contains("1 rows have values that are not known") && said.contains("complete"), "{said}");
    let csv = world.succeed(&["as-of", "now", "orders", "--csv"]);
    let expected = "id,state,total,photo,cdc_audit_key,cdc_audit_unknown\n\
        1,paid,1.00,?,1,\"{\"\"photo\"\":\"\"toast\"\"}\"\n3,,,,3,\n";
    assert_eq!(csv, expected);

    let keys = |arguments: &[&str]| {
        let (code, told, said) = ended(&world, &[&["as-of", "now", "orders", "--json"], arguments].concat());
        assert_eq!(code, Some(0), "{said}");
        let keys: Vec<Value> = lines(&told).iter().map(|row| row["key"].clone()).collect();
        (json!(keys), said.contains("1 rows could not be told"))
    };
    assert_eq!(keys(&["--where", "state:paid"]), (json!(["1"]), false));
    assert_eq!(keys(&["--where", "state:null"]), (json!(["3"]), false));
    assert_eq!(keys(&["--where", "photo:null"]), (json!(["3"]), true));
    assert_eq!(keys(&["--where", "total>=1", "--where", "-key:7"]), (json!(["1"]), false));
    assert_eq!(keys(&["--limit", "1"]), (json!(["1"]), false));
    let protected = lines(&world.succeed(&["as-of", "now", "people", "--json"]));
    assert_eq!(protected[0]["knowledge"], json!({"ssn": "protected:partial"}));
    assert!(!protected[0].to_string().contains("123-45"), "protected values are as they are stored");
    for (arguments, code, what) in [
        (&["now", "orders", "--where", "state:->paid"][..], 2, "as-of shows rows"),
        (&["now", "people", "--where", "ssn~123"], 2, "protected with `partial`"),
        (&["v3", "orders"], 2, "v3 is a version of one row"),
        (&["before xid:4294967290", "orders"], 8, "has no versions in what is read"),
        (&["now", "orders", "people", "--csv"], 2, "--csv shows one table"),
        (&["now", "nothing"], 2, "there are no versions of nothing"),
        (&["0001:ffffffff00000000:0000000000", "orders", "--strict"], 9, "no sink has reached"),
    ] {
        let (ended, _, said) = ended(&world, &[&["as-of"], arguments].concat());
        assert!(ended == Some(code) && said.contains(what), "{arguments:?}: {ended:?} {said}");
    }
}

/// ⚠ Commit times are not in the order of commits: the state is one that existed, and the answer says what is odd.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_went_back_is_said() {
    let server = shared(15).await;
    let world = World::on(server).without_lake().full(false).sql(TABLES).tables(RULES).unwitnessed().build().await;
    for id in 1..=3 {
        server.execute(&world.database, &format!("INSERT INTO orders VALUES ({id}, 'open')"));
    }
    world.catch_up().await;
    let hot = world.hot().await;
    let day = "SELECT to_char(min(committed_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM cdc_audit.versions";
    let day: String = hot.query_one(day, &[]).await.expect("a day").get(0);
    let back = format!(
        "UPDATE cdc_audit.versions SET committed_at = timestamptz '{day} 12:00:00Z' + interval '10 s' \
         * (CASE key WHEN '1' THEN 0 WHEN '2' THEN 2 ELSE 1 END) WHERE table_name = 'public.orders'"
    );
    hot.batch_execute(&back).await.expect("other times");
    let at = |time: &str| format!("{day}T12:00:{time}Z");
    let ask = |time: &str| {
        let (_, told, said) = ended(&world, &["as-of", &at(time), "orders", "--json"]);
        (lines(&told).len(), said.contains("The source's clock went back"))
    };
    assert_eq!(ask("05"), (1, false));
    // Row 3 was inserted after row 2, whatever the clock said.
    assert_eq!(ask("15"), (1, true));
    assert_eq!(ask("25"), (3, false));
    // The same state is shown of one row, although its own versions say nothing of row 2.
    let (code, _, said) = ended(&world, &["show", "orders", "3", "--as-of", &at("15")]);
    assert!(code == Some(8) && said.contains("was not there yet") && said.contains("clock went back"), "{said}");
}
