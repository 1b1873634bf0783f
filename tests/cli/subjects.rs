use std::path::Path;

use audit_keys::append_version;
use audit_testkit::{connect, eventually_async, shared};
use cdc_audit_tests::world::World;
use serde_json::{Value, json};

const TABLES: &str = "CREATE TABLE customers (id int PRIMARY KEY, ssn text); CREATE TABLE orders (id int PRIMARY KEY, customer_id int, note text); \
     ALTER TABLE customers REPLICA IDENTITY FULL; ALTER TABLE orders REPLICA IDENTITY FULL; \
     INSERT INTO customers SELECT n, 'number ' || n || '.' FROM generate_series(1, 40) AS n";

const RULES: &str = r#"
[[tables]]
name = "public.customers"
subject = "id"
protect = { ssn = { method = "encrypt", key = "pii" } }

[[tables]]
name = "public.orders"
subject = "customer_id"
protect = { note = ["partial", { method = "encrypt", key = "pii" }] }
"#;

/// Makes a world in which fewer keys are kept in memory than one chunk of the baseline needs.
async fn world(keyring: &Path) -> World {
    let class = format!("master = {{ type = \"local\", file = \"{}\" }}\nsubjects_max = 3\n", keyring.display());
    let sections = format!("[protection.keys.pii]\n{class}");
    World::on(shared(15).await).full(true).sql(TABLES).tables(RULES).sections(&sections).baseline().build().await
}

/// Of two people one is erased: none of her values can be read in any sink, and all of his can.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_erased_everywhere_and_the_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keyring");
    append_version(&file).unwrap();
    let world = world(&file).await;
    let server = shared(15).await;
    let store = connect(&world.hot_url).await;
    let mut daemon = world.launch().start();
    let snapshots = "SELECT count(*) FROM cdc_audit.versions WHERE event = 'snapshot'";
    eventually_async("the baseline is there", async || {
        store.query_one(snapshots, &[]).await.unwrap().get::<_, i64>(0) == 40
    })
    .await;
    assert!(daemon.stop().success(), "{}", daemon.output());
    server.execute(
        &world.database,
        "INSERT INTO orders VALUES (1, 1, 'for a birthday'), (2, 2, 'for the garden'), (3, NULL, 'for nobody yet'); \
         UPDATE orders SET note = 'for a funeral' WHERE id = 1; UPDATE orders SET customer_id = 2 WHERE id = 1",
    );
    world.catch_up().await;
    let count = "SELECT count(*) FROM cdc_audit.subject_keys";
    assert_eq!(store.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 40);
    let decrypted = |table: &str, key: &str, sink: &str| -> Vec<Value> {
        let shown = world.succeed(&["history", table, key, "--from", sink, "--json", "--decrypt"]);
        assert!(!shown.contains("aes256gcm:"), "{shown}");
        shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for sink in ["hot", "archive"] {
        assert_eq!(decrypted("public.customers", "1", sink)[0]["after"]["ssn"], "number 1.", "{sink}");
    }
    let destroy = |id: &str| {
        world.command(&["keys", "destroy", "--class", "pii", "--subject", id, "--purpose", "letter 7", "--yes"])
    };
    let bytes = "SELECT encode(wrapped, 'hex') FROM cdc_audit.subject_keys WHERE wrapped IS NOT NULL";
    let before: Vec<String> = store.query(bytes, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    // A transaction of somebody else that has a number is open meanwhile. PostgreSQL would keep a removed row for it.
    let open = connect(&world.hot_url).await;
    open.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let destroyed = destroy("1");
    let said = String::from_utf8_lossy(&destroyed.stdout).into_owned();
    assert!(destroyed.status.success() && said.starts_with("1 key of that data subject destroyed"), "{said}");
    // The key's bytes are removed from the table's file too.
    store.batch_execute("CHECKPOINT").await.unwrap();
    let file = "SELECT encode(pg_read_binary_file(pg_relation_filepath('cdc_audit.subject_keys')), 'hex')";
    let file: String = store.query_one(file, &[]).await.unwrap().get(0);
    assert_eq!(before.iter().filter(|key| file.contains(*key)).count(), before.len() - 1);
    open.batch_execute("ROLLBACK").await.unwrap();
    // For an unknown id the command does not succeed.
    let unknown = destroy("4712");
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("no key of this subject is known; a tombstone was written"), "{said}");
    assert_eq!(
        (unknown.status.code(), destroy("1").status.code(), destroy("4712").status.code()),
        (Some(8), Some(0), Some(0))
    );
    let log = "SELECT count(*), count(*) FILTER (WHERE purpose = 'letter 7' AND os_user <> '' AND db_user <> '' AND key_id <> '') \
               FROM cdc_audit.access_log WHERE action = 'destroy'";
    let log = store.query_one(log, &[]).await.unwrap();
    assert_eq!((log.get::<_, i64>(0), log.get::<_, i64>(1)), (2, 2), "one key, and one tombstone");
    // Her later values are not recorded either: a second run finds the tombstone.
    server.execute(&world.database, "UPDATE customers SET ssn = 'number 1 again' WHERE id IN (1, 2)");
    world.catch_up().await;
    for sink in ["hot", "archive"] {
        let of = |versions: &[Value], event: &str| {
            let found = versions.iter().find(|version| version["event"] == event);
            found.unwrap_or_else(|| panic!("{event} in {sink}: {versions:?}")).clone()
        };
        let hers = decrypted("public.customers", "1", sink);
        assert!(hers.iter().all(|version| !version.to_string().contains("number 1")), "{sink}: {hers:?}");
        assert_eq!(of(&hers, "snapshot")["after"]["ssn"], "[ERASED]", "{sink}");
        assert_eq!(of(&hers, "updated")["changes"]["ssn"], json!(["[ERASED]", "[ERASED]"]), "{sink}");
        let his = decrypted("public.customers", "2", sink);
        assert_eq!(of(&his, "updated")["changes"]["ssn"], json!(["number 2.", "number 1 again"]), "{sink}");
        // In the row that changed its owner, her values are erased, and his are not. Values without an owner are
        // encrypted under the class's key.
        let orders = decrypted("public.orders", "1", sink);
        assert_eq!(of(&orders, "created")["after"]["note__encrypt"], "[ERASED]", "{sink}");
        let shown = json!(orders).to_string();
        assert!(!shown.contains("birthday"), "{sink}: {shown}");
        let nobodys = decrypted("public.orders", "3", sink);
        assert_eq!(of(&nobodys, "created")["after"]["note__encrypt"], "for nobody yet", "{sink}");
    }
    // Without keys, the stored text shows the erasure too. Each attempt to open an erased value is in the log.
    assert!(world.succeed(&["history", "public.customers", "1", "--json"]).contains("[ERASED]"));
    let failed = "SELECT count(*) FROM cdc_audit.access_log WHERE NOT success AND key = '1' AND field = 'ssn'";
    assert!(store.query_one(failed, &[]).await.unwrap().get::<_, i64>(0) >= 2);
}

/// `check` reports a person's column that no table has, and a token that would remain after the person's key is
/// destroyed.
#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_would_not_be_erased() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keyring");
    append_version(&file).unwrap();
    let sections = format!("[protection.keys.pii]\nmaster = {{ type = \"local\", file = \"{}\" }}\n", file.display());
    let rules = RULES
        .replace("subject = \"id\"", "subject = \"idd\"")
        .replace("\"partial\"", "{ method = \"token\", key = \"pii\" }");
    let world = World::on(shared(15).await)
        .full(true)
        .sql(TABLES)
        .tables(&rules)
        .sections(&sections)
        .unwitnessed()
        .build()
        .await;
    let shown = world.command(&["check", "--json"]);
    assert_eq!(shown.status.code(), Some(3));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("there is no column idd") && shown.contains("did you mean `id`?"), "{shown}");
    assert!(shown.contains("outlive its destruction: note"), "{shown}");
    let plan = world.succeed(&["plan", "--table", "public.orders"]);
    assert!(plan.contains("encrypt (key pii) under the key of its customer_id"), "{plan}");
}
