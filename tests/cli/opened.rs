use std::path::Path;

use audit_keys::append_version;
use audit_testkit::{connect, shared};
use cdc_audit_tests::world::World;
use serde_json::{Value, json};

const TABLES: &str = "CREATE TABLE claims (id int PRIMARY KEY, provider_id int, region text, diagnosis text, editor text, doc jsonb, custom jsonb); \
     ALTER TABLE claims REPLICA IDENTITY FULL";

const RULES: &str = r#"
[[tables]]
name = "public.claims"
baseline = false
bind = ["provider_id", "region"]
actor_column = "editor"
protect = { diagnosis = { method = "encrypt", key = "pii" }, editor = { method = "encrypt", key = "pii" }, "doc.patient.name" = { method = "token", key = "pii" }, "custom.phone" = [{ method = "token", key = "pii" }, { method = "encrypt", key = "pii" }] }
json = { custom = { label = "cf", separator = ":" } }

[[protection.rules]]
column = "ip"
method = { method = "token", key = "pii" }
"#;

const SECRETS: [&str; 7] = ["flu", "measles", "ann@", "Bea Doe", "555-0199", "192.0.2.7", "dr.cem"];

async fn world(keyring: &Path) -> World {
    append_version(keyring).unwrap();
    let tokens = "{ method = \"token\", key = \"pii\" }";
    let protection = format!(
        "[protection]\ndefaults = false\ncontext = {{ actor_id = {tokens}, name = {tokens} }}\n[protection.keys.pii]\n\
         master = {{ type = \"local\", file = \"{}\" }}\n",
        keyring.display()
    );
    World::on(shared(15).await).full(true).sql(TABLES).tables(RULES).protection(&protection).build().await
}

/// Ciphertexts that are bound to columns of their rows, tokens in documents and in the context of applications: all of
/// them open, in every sink, each value after an entry in the log. A value that was moved to another provider does not.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_keyed_opens_where_it_belongs_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder.path().join("keyring")).await;
    let server = shared(15).await;
    server.execute(
        &world.database,
        r#"BEGIN;
        SELECT cdc_audit.set_context('{"actor_id": "ann@example.com", "actor": {"name": "Bea Doe", "role": "nurse"}, "devices": [{"ip": "192.0.2.7"}]}');
        INSERT INTO claims VALUES (1, 3, 'north', 'flu', 'dr.cem', '{"patient": {"name": "Bea Doe"}}', '{"phone": "555-0199"}');
        COMMIT;
        UPDATE claims SET diagnosis = 'measles' WHERE id = 1;
        UPDATE claims SET provider_id = 4, region = NULL, doc = '{"patient": {"name": "Bea Doe", "age": 7}}', custom = '{"phone": "555-0199", "x": 1}' WHERE id = 1;
        UPDATE claims SET custom = '{"phone": "555-0199 ext", "x": 1}' WHERE id = 1;
        DELETE FROM claims WHERE id = 1"#,
    );
    world.catch_up().await;
    let store = connect(&world.hot_url).await;
    for sink in ["hot", "archive"] {
        let asked = ["history", "public.claims", "1", "--from", sink, "--json"];
        let stored = world.succeed(&asked);
        assert!(!SECRETS.iter().any(|secret| stored.contains(secret)), "{stored}");
        std::fs::write(world.path("versions.jsonl"), &stored).unwrap();
        let file = world.path("versions.jsonl");
        let of_lines = world.succeed(&["decrypt", file.to_str().unwrap(), "--purpose", "test"]);
        for shown in [world.succeed(&[&asked[..], &["--decrypt"]].concat()), of_lines] {
            assert!(!shown.contains("aes256gcm:") && !shown.contains("aes-siv:"), "{sink}: {shown}");
            let versions: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let of = |event: &str| versions.iter().find(|version| version["event"] == event).expect("a version");
            let created = of("created");
            assert_eq!(created["actor_id"], "ann@example.com");
            assert_eq!(created["actor"], json!({"name": "Bea Doe", "role": "nurse"}));
            assert_eq!(created["context"]["devices"], json!([{"ip": "192.0.2.7"}]));
            assert_eq!(created["changes"]["doc"][1]["patient"]["name"], "Bea Doe");
            assert_eq!(created["changes"]["cf:phone"], json!([null, "555-0199"]), "{sink}: {created}");
            assert_eq!(created["changes"]["cf:phone__encrypt"], json!([null, "555-0199"]), "{sink}: {created}");
            assert_eq!(of("updated")["actor_id"], "dr.cem");
            let diagnoses = versions
                .iter()
                .find(|version| !version["changes"]["diagnosis"][0].is_null() && version["event"] == "updated");
            assert_eq!(diagnoses.expect("an update")["changes"]["diagnosis"], json!(["flu", "measles"]), "{sink}");
            assert_eq!(of("deleted")["changes"]["diagnosis"], json!(["measles", null]), "{sink}");
        }
    }
    let logged = "SELECT string_agg(DISTINCT field, ' ' ORDER BY field) FROM cdc_audit.access_log WHERE action = 'history' AND success";
    let fields: String = store.query_one(logged, &[]).await.unwrap().get(0);
    for field in ["actor", "actor_id", "context", "diagnosis", "doc"] {
        assert!(fields.split(' ').any(|logged| logged == field), "{fields}");
    }
    // A value that was given to another provider in the trail does not open, and neither does one in another region.
    for tampered in [
        "included = jsonb_set(included, '{provider_id}', '9'), after = jsonb_set(after, '{provider_id}', '9')",
        "included = jsonb_set(included, '{region}', '\"south\"'), after = jsonb_set(after, '{region}', '\"south\"')",
    ] {
        let original = "SELECT included::text, after::text FROM cdc_audit.versions WHERE table_name = 'public.claims' AND event = 'created'";
        let row = store.query_one(original, &[]).await.unwrap();
        let (included, after): (String, String) = (row.get(0), row.get(1));
        let of_it = "WHERE table_name = 'public.claims' AND event = 'created'";
        store.batch_execute(&format!("UPDATE cdc_audit.versions SET {tampered} {of_it}")).await.unwrap();
        let output = world.command(&["history", "public.claims", "1", "--from", "hot", "--json", "--decrypt"]);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let created = shown.lines().find(|line| line.contains("\"created\"")).unwrap();
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(
            !created.contains("\"flu\"") && created.contains("aes256gcm:") && created.contains("Bea Doe"),
            "{created}"
        );
        let back = format!("UPDATE cdc_audit.versions SET included = $1::text::jsonb, after = $2::text::jsonb {of_it}");
        store.execute(&back, &[&included, &after]).await.unwrap();
    }
}

/// Anyone who sees a token may copy it into another column. There it does not open, because no rule makes tokens of its
/// domain for that column.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_only_where_a_rule_makes_tokens_of_its_domain() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = folder.path().join("keyring");
    append_version(&keyring).unwrap();
    let class = format!("[protection.keys.pii]\nmaster = {{ type = \"local\", file = \"{}\" }}\n", keyring.display());
    let rules = "[[tables]]\nname = \"public.people\"\n\
                 protect = { email = { method = \"token\", key = \"pii\", domain = \"mail\" } }\n";
    let server = shared(15).await;
    let tables = "CREATE TABLE people (id int PRIMARY KEY, email text, note text)";
    let world = World::on(server).sql(tables).tables(rules).protection(&class).build().await;
    server.execute(&world.database, "INSERT INTO people VALUES (1, 'ann@example.com', 'hello')");
    world.catch_up().await;
    let store = connect(&world.hot_url).await;
    let token = "SELECT after ->> 'email' FROM cdc_audit.versions WHERE key = '1'";
    let token: String = store.query_one(token, &[]).await.unwrap().get(0);
    server.execute(&world.database, &format!("INSERT INTO people VALUES (2, 'bea@example.com', 'see {token}')"));
    world.catch_up().await;
    let output = world.command(&["history", "public.people", "2", "--json", "--decrypt"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("bea@example.com") && shown.contains(&token) && !shown.contains("ann@"), "{shown}");
    assert_eq!(output.status.code(), Some(1), "{shown}");
}
