use audit_testkit::shared;
use cdc_audit_tests::world::World;
use serde_json::{Value, json};

const RULES: &str = "[[tables]]\nname = \"*\"\n[[tables]]\nname = \"public.payments\"\nrequire_actor = true";

const ACTIVITY: &str = r#"
[activity.rules.busy]
find = "many_changes"
more_than = 3
[activity.rules.closed]
find = "final_state"
tables = ["public.*"]
column = "state"
states = ["completed"]
[activity.rules.who]
find = "unattributed"
what = "actor"
[activity.rules.clock]
find = "off_hours"
from = "00:00"
until = "23:59"
weekends = true
tables = ["public.payments"]
[activity.rules.purge]
find = "mass_delete"
more_than = 2
"#;

async fn world(activity: &str, full: bool) -> World {
    let tables = "CREATE TABLE orders (id int PRIMARY KEY, state text, total int); \
                  CREATE TABLE payments (id int PRIMARY KEY, paid int)";
    let identity = "; ALTER TABLE orders REPLICA IDENTITY FULL; ALTER TABLE payments REPLICA IDENTITY FULL";
    let tables = format!("{tables}{}", if full { identity } else { "" });
    World::on(shared(15).await).full(full).sql(&tables).tables(RULES).sections(activity).build().await
}

fn said(actor: &str, sql: &str) -> String {
    format!("BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{{\"actor_id\": \"{actor}\"}}'); {sql}; COMMIT;")
}

/// The findings as rule, row, actor and number.
fn findings(world: &World, arguments: &[&str]) -> Vec<Value> {
    let output = world.command(&[&["activity", "--json"], arguments].concat());
    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let found: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("a finding")).collect();
    assert_eq!(output.status.code(), Some(if found.is_empty() { 0 } else { 10 }), "{told}{warned}");
    found
        .iter()
        .map(|found| json!([found["rule"], found["table_name"], found["key"], found["actor_id"], found["count"]]))
        .collect()
}

/// The state before counts: the change that completed an order is none of a completed order. What the version itself
/// does not say is what the version before left.
#[tokio::test(flavor = "multi_thread")]
async fn rules_find_the_same_in_hot_and_lake_whether_old_rows_are_sent_or_not() {
    for full in [true, false] {
        let world = world(ACTIVITY, full).await;
        let completed = "UPDATE orders SET state = 'completed' WHERE id = 1";
        let changed = "UPDATE orders SET total = 9 WHERE id = 1; UPDATE orders SET total = 3 WHERE id = 2";
        let busy = "UPDATE orders SET total = total + 1 WHERE id = 3;".repeat(4);
        let sql = [
            said(
                "ann",
                "INSERT INTO orders VALUES (1, 'open', 1), (2, 'open', 1), (3, 'open', 1), (4, 'open', 1), (5, 'open', 1)",
            ),
            said("ann", completed),
            said("bob", changed),
            said("cem", &busy),
            said("dan", "DELETE FROM orders WHERE id > 2"),
            "INSERT INTO payments VALUES (1, 1), (2, 1);".to_owned(),
            said("ann", "INSERT INTO payments VALUES (3, 1); TRUNCATE payments"),
        ];
        shared(15).await.execute(&world.database, &sql.concat());
        world.catch_up().await;
        for sink in ["hot", "archive"] {
            let mut found = findings(&world, &["--from", sink]);
            found.sort_by_key(Value::to_string);
            assert_eq!(
                found,
                [
                    json!(["busy", "public.orders", "3", "cem", 4]),
                    json!(["clock", "public.payments", null, "ann", 2]),
                    json!(["clock", "public.payments", null, null, 2]),
                    json!(["closed", "public.orders", "1", "bob", 1]),
                    json!(["purge", "public.orders", null, "dan", 3]),
                    json!(["purge", "public.payments", null, "ann", 1]),
                    json!(["who", "public.payments", null, null, 2]),
                ],
                "{sink}, full: {full}"
            );
            assert_eq!(
                findings(&world, &["--from", sink, "--rule", "closed", "--table", "payments"]),
                Vec::<Value>::new()
            );
            assert_eq!(findings(&world, &["--from", sink, "--until", "2001-01-01"]), Vec::<Value>::new());
        }
    }
}

/// The versions before are looked up while hundreds of others are still to be read on the same session.
#[tokio::test(flavor = "multi_thread")]
async fn states_are_looked_up_while_versions_are_read() {
    let world = world(ACTIVITY, false).await;
    let insert = "ALTER TABLE orders ADD COLUMN pad text; INSERT INTO orders SELECT n, 'completed', 1, '' FROM generate_series(1, 600) AS n";
    shared(15).await.execute(&world.database, insert);
    world.catch_up().await;
    let hot = world.hot().await;
    let asked = "SELECT to_char(max(committed_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM cdc_audit.versions";
    let last: String = hot.query_one(asked, &[]).await.expect("a time").get(0);
    shared(15).await.execute(&world.database, "UPDATE orders SET total = 9, pad = repeat(md5(id::text), 300)");
    world.catch_up().await;
    let found = findings(&world, &["--rule", "closed", "--since", &last, "--from", "hot"]);
    assert_eq!(found.len(), 600, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rules_it_looks_for_what_needs_no_knowledge_of_the_application() {
    let world = world("", true).await;
    let many: String = (0..11).map(|n| format!("UPDATE orders SET total = {n} WHERE id = 1;")).collect();
    let sql = format!("INSERT INTO orders VALUES (1, 'open', -1); INSERT INTO payments VALUES (1, 1); {many}");
    shared(15).await.execute(&world.database, &sql);
    world.catch_up().await;
    let expected = [
        json!(["many-changes", "public.orders", "1", null, 12]),
        json!(["no-actor", "public.payments", null, null, 1]),
    ];
    assert_eq!(findings(&world, &[]), expected);
    let output = world.command(&["activity", "--explain"]);
    let (told, explained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        told.contains(
            "12 versions by nobody who is known in 0 min (more than 10 versions of one row by one actor within 1 h)"
        ),
        "{told}"
    );
    assert!(
        explained.contains("MEDIUM no-reason: versions without the reason that their table requires"),
        "{explained}"
    );
    assert!(explained.contains("2 findings in 13 versions"), "{explained}");
    let output = world.command(&["activity", "--rule", "closed"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("the rules are many-changes, mass-delete, no-actor, no-reason")
    );
}
