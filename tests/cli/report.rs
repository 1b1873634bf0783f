use audit_keys::append_version;
use audit_testkit::shared;
use cdc_audit_tests::world::World;
use serde_json::{Value, json};

const RULES: &str =
    "[[tables]]\nname = \"*\"\n[[tables]]\nname = \"public.payments\"\nrequire_actor = true\nrequire_reason = true";

async fn world() -> World {
    protected("[protection]\ndefaults = false").await
}

async fn protected(protection: &str) -> World {
    let server = shared(15).await;
    let tables = "CREATE TABLE orders (id int PRIMARY KEY, state text); ALTER TABLE orders REPLICA IDENTITY FULL; \
                  CREATE TABLE payments (id int PRIMARY KEY, paid int)";
    let world = World::on(server).full(true).sql(tables).tables(RULES).protection(protection).build().await;
    server.execute(
        &world.database,
        "INSERT INTO orders SELECT n, 'open' FROM generate_series(1, 5) AS n; DELETE FROM orders WHERE id = 5; \
         BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{\"actor_id\": \"<ann>\", \"undo_of\": \"0001:0\"}'); \
         UPDATE orders SET state = 'paid' WHERE id < 4; INSERT INTO payments VALUES (1, 1); COMMIT; \
         INSERT INTO payments VALUES (2, 1), (3, 1)",
    );
    world.catch_up().await;
    world
}

/// The server counts in one store and the columns of files in the other: the numbers are the same, and those of the
/// versions.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_counts_the_same_in_hot_and_lake() {
    let world = world().await;
    let hot = world.hot().await;
    let day = hot
        .query_one("SELECT to_char(max(committed_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM cdc_audit.versions", &[]);
    let day: String = day.await.expect("a day").get(0);
    let mut reports = Vec::new();
    for sink in ["hot", "archive"] {
        let told = world.succeed(&["report", "--from", sink, "--json"]);
        let mut report: Value = serde_json::from_str(&told).expect("one line of JSON");
        assert_eq!((&report["head"]["sink"], report["head"]["position"].is_string()), (&json!(sink), true));
        for differs in ["head", "coverage", "since", "until", "period"] {
            report.as_object_mut().expect("an object").remove(differs);
        }
        reports.push(report);
    }
    assert_eq!(reports[0], reports[1]);
    let report = &reports[0];
    assert_eq!(report["total_versions"], 12);
    assert_eq!(report["changes_by_table"], json!({"public.orders": 9, "public.payments": 3}));
    assert_eq!(report["changes_by_event"], json!({"created": 8, "deleted": 1, "updated": 3}));
    assert_eq!(report["changes_by_actor"], json!({"<ann>": 4}));
    assert_eq!(report["changes_without_actor"], 8);
    assert_eq!(report["unattributed"], json!({"without_actor": 2, "without_reason": 3}));
    assert_eq!((&report["undone"], &report["gaps"]), (&json!(4), &json!([])));
    assert_eq!(report["changes_by_day"].as_object().expect("days").values().filter_map(Value::as_u64).sum::<u64>(), 12);
    assert!(report["changes_by_day"].get(&day).is_some(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_counts_what_was_asked_for() {
    let world = world().await;
    for sink in ["hot", "archive"] {
        let total = |arguments: &[&str]| {
            let told = world.succeed(&[&["report", "--from", sink, "--json"], arguments].concat());
            serde_json::from_str::<Value>(&told).expect("JSON")["total_versions"].clone()
        };
        assert_eq!(total(&["--table", "payments"]), 3);
        assert_eq!(total(&["--since", "2001-01-01", "--until", "2002-01-01"]), 0);
    }
    let told = world.succeed(&["report", "--table", "orders", "--key", "1", "--json"]);
    let mut row: Value = serde_json::from_str(&told).expect("JSON");
    for change in row["changes"].as_array_mut().expect("changes") {
        assert!(change.as_object_mut().expect("a change").remove("timestamp").is_some_and(|at| at.is_string()));
    }
    assert_eq!(row.as_object_mut().expect("an object").remove("coverage").expect("coverage")["complete"], true);
    let created = json!({"user_id": null, "user_name": null, "event": "created", "reason": null, "changes": {"id": [null, 1], "state": [null, "open"]}});
    let paid = json!({"user_id": "<ann>", "user_name": null, "event": "updated", "reason": null, "changes": {"state": ["open", "paid"]}});
    assert_eq!(row, json!({"record_id": "1", "changes": [created, paid]}));
    let refused = |arguments: &[&str]| {
        let output = world.command(&[&["report"], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["--since", "tomorrowish"]).contains("is not a time"));
    assert!(refused(&["--tz", "Mars/Base"]).contains("is not a time zone"));
    assert!(refused(&["--since", "2002-01-01", "--until", "2001-01-01"]).contains("ends before it begins"));
    assert!(refused(&["--table", "orders", "--table", "payments", "--key", "1"]).contains("give --table once"));
    assert!(refused(&["--table", "nothing"]).contains("tables with versions"));
}

/// Changes of the span are listed, however many came later.
#[tokio::test(flavor = "multi_thread")]
async fn the_report_of_a_row_counts_what_it_lists() {
    let world = world().await;
    let later = "DO $$ BEGIN FOR n IN 1..10050 LOOP UPDATE orders SET state = n::text WHERE id = 4; END LOOP; END $$";
    shared(15).await.execute(&world.database, later);
    world.catch_up().await;
    let hot = world.hot().await;
    let asked = "SELECT to_char(max(committed_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM cdc_audit.versions";
    let last: String = hot.query_one(asked, &[]).await.expect("a time").get(0);
    let of_row = ["report", "--table", "orders", "--key", "4", "--strict"];
    let told = world.succeed(&[&of_row[..], &["--json", "--until", &last]].concat());
    let row: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(row["changes"].as_array().expect("changes").len(), 1, "{row}");
    let output = world.command(&of_row);
    assert_eq!(output.status.code(), Some(9));
    assert!(String::from_utf8_lossy(&output.stderr).contains("only the newest 10000 changes of the span are listed"));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 10_002);
}

/// What an attacker can choose, such as the name of an actor, becomes no part of the page or the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_has_a_form_for_people_in_which_names_have_no_meaning() {
    let world = world().await;
    let page = world.succeed(&["report", "--format", "html"]);
    assert!(page.starts_with("<!doctype html>") && page.contains("&lt;ann&gt;") && !page.contains("<ann>"), "{page}");
    let markdown = world.succeed(&["report", "--format", "md"]);
    assert!(markdown.contains("| &lt;ann\\> | 4 |"), "{markdown}");
    let table = world.succeed(&["report"]);
    assert!(table.contains("shop · ") && table.contains("12 versions · 0 gaps"), "{table}");
    assert!(table.contains("| <ann>             | 4 ") && table.contains('▇'), "{table}");
}

/// What was lost is in the report of the span in which it was noticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_names_its_gaps_and_who_looked_at_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let keyring = folder.path().join("keyring");
    append_version(&keyring).expect("a master key");
    let keys = format!("[protection.keys.pii]\nmaster = {{ type = \"local\", file = \"{}\" }}", keyring.display());
    let world = protected(&format!("[protection]\ndefaults = false\n{keys}")).await;
    let hot = world.hot().await;
    hot.batch_execute(
        "INSERT INTO cdc_audit.access_log (os_user, requested_by, action, source, success) \
         VALUES ('root', 'ann', 'history', 'shop', true), ('root', 'ann', 'history', 'shop', true), ('bob', NULL, 'decrypt', 'shop', false), \
                ('bob', NULL, 'decrypt', 'other', true)",
    )
    .await
    .expect("entries");
    let report = || serde_json::from_str::<Value>(&world.succeed(&["report", "--json"])).expect("JSON");
    let looked =
        json!([{"user": "ann", "action": "history", "count": 2}, {"user": "bob", "action": "decrypt", "count": 1}]);
    assert_eq!(report()["sensitive_field_access"], looked);
    shared(15).await.execute(&world.database, &format!("SELECT pg_drop_replication_slot('{}')", world.slot));
    let until = world.wal_end().await;
    world.succeed(&["setup"]);
    world.succeed(&["run", "--accept-gap", "--until", &until]);
    shared(15).await.execute(&world.database, "INSERT INTO payments VALUES (4, 1)");
    world.catch_up().await;
    let report = report();
    let lost = report["gaps"][0]["lost"].as_array().unwrap_or_else(|| panic!("no gap: {report}"));
    assert!(lost.iter().any(|lost| lost["sink"] == "hot" && lost["from"].is_string()), "{report}");
    assert_eq!(report["total_versions"], 13);
}
