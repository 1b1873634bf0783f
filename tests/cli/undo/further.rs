//! Undo from a lake alone, under row security, and of encrypted columns.

use super::*;

/// A lake is enough: the versions come from it, and those of the undo are in it.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_is_made_from_a_lake_alone() {
    let server = shared(15).await;
    let world = World::on(server).full(true).without_hot().unwitnessed().tables(RULES).sql(TABLES).build().await;
    let desk = desk_of(server, world);
    desk.sql(
        "INSERT INTO orders VALUES (1, 'open', 12.50, 'a'); BEGIN; UPDATE orders SET state = 'paid'; \
         INSERT INTO lines VALUES (1, 1, 'a', 'NaN'); COMMIT",
    )
    .await;
    let xid = desk.versions("orders", "1", 2)[0]["xid"].to_string();
    desk.versions("lines", "1,1", 1);
    let done = desk.succeed(&["undo", &format!("xid:{xid}"), "--from", "archive", "--yes", "--json"]);
    let done: Value = serde_json::from_str(&done).expect("JSON");
    assert_eq!(done["versions"].as_array().map(Vec::len), Some(2), "{done}");
    assert_eq!(desk.ask(ORDER).await, "open|12.50|a");
    assert_eq!(desk.ask("SELECT count(*)::text FROM lines").await, "0");
}

/// A row that row security hides from who undoes it is in the way, and is not written.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_row_security_hides_is_a_conflict() {
    let desk = desk().await;
    desk.sql(
        "INSERT INTO orders VALUES (1, 'open', 1, NULL), (2, 'open', 1, NULL); UPDATE orders SET state = 'paid'; \
         ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY second ON orders USING (id = 2)",
    )
    .await;
    let xid = format!("xid:{}", desk.versions("orders", "1", 2)[0]["xid"]);
    let said = desk.refused(11, &["undo", &xid, "--yes"]);
    assert!(said.contains("public.orders 1: the row is not there any more, or row security hides it"), "{said}");
    desk.refused(11, &["undo", &xid, "--yes", "--force"]);
    let all = "SELECT string_agg(state, ',' ORDER BY id) FROM orders";
    assert_eq!(desk.ask(all).await, "paid,paid");
    desk.succeed(&["undo", &xid, "--yes", "--keep-later"]);
    assert_eq!(desk.ask(all).await, "paid,open");
}

/// Ciphertexts are neither written nor shown, and the other columns are put back.
#[tokio::test(flavor = "multi_thread")]
async fn encrypted_columns_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let keyring = folder.path().join("keyring");
    audit_keys::append_version(&keyring).expect("a key");
    let server = shared(15).await;
    let keys = format!(
        "[protection]\ndefaults = false\n[protection.keys.pii]\nmaster = {{ type = \"local\", file = \"{}\" }}\n",
        keyring.display()
    );
    let rules = "[[tables]]\nname = \"*\"\nignore_alone = []\nbaseline = false\n[[tables]]\nname = \"public.orders\"\n\
        protect = { note = { method = \"encrypt\", key = \"pii\" } }\n";
    let world = World::on(server).full(true).without_lake().unwitnessed().tables(rules).sql(TABLES).protection(&keys);
    let desk = desk_of(server, world.build().await);
    desk.sql("INSERT INTO orders VALUES (1, 'open', 1, 'quiet'); UPDATE orders SET state = 'paid', note = 'loud'")
        .await;
    desk.versions("orders", "1", 2);
    let said = desk.succeed(&["undo", "orders", "1", "v2", "--yes"]);
    assert!(said.contains("left alone: public.orders.note (encrypt)"), "{said}");
    assert!(!said.contains("aes256gcm") && !said.contains("quiet") && !said.contains("loud"), "{said}");
    assert_eq!(desk.ask(ORDER).await, "open|1.00|loud");
}
