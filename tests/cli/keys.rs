use std::collections::BTreeMap;
use std::path::Path;

use audit_cipher::{Aad, Failure, Row};
use audit_connect::PgEndpoint;
use audit_keys::{KeyClass, Keyring, LocalMaster, Master, append_version};
use audit_testkit::{connect, shared};
use cdc_audit_tests::world::World;
use serde_json::{Value, json};

/// A world with a class of keys `pii` under a local keyring, and the keyring with which a daemon would encrypt.
struct Ground {
    world: World,
    keyring: Keyring,
    _folder: tempfile::TempDir,
}

impl Ground {
    async fn new() -> Ground {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keyring");
        append_version(&file).unwrap();
        let sections =
            format!("[protection.keys.pii]\nmaster = {{ type = \"local\", file = \"{}\" }}\n", file.display());
        let server = shared(15).await;
        let world = World::on(server).full(true).sections(&sections).build().await;
        let classes = BTreeMap::from([("pii".to_owned(), KeyClass::new(Master::Local(LocalMaster { file })))]);
        let store = PgEndpoint::new(&world.hot_url);
        let keyring = Keyring::new("shop", &classes, store, "test").unwrap();
        Ground { world, keyring, _folder: folder }
    }

    async fn encrypt(&self, column: &str, plain: &str) -> String {
        let row = Row { source: "shop", table: "public.users", key: Some("7"), xid: 9, lsn: 0x1_0000_00a0, seq: 0 };
        let mut aad = Aad::new();
        aad.row(&row, std::iter::empty());
        let class = self.keyring.sealer().class("pii").unwrap();
        let mut out = String::new();
        match self.keyring.sealer().encrypt(class, aad.column(column), plain.as_bytes(), &mut out) {
            Err(Failure::Wanted(wanted)) => self.keyring.provide(&[wanted]).await.unwrap(),
            result => return result.map(|()| out).unwrap(),
        }
        self.keyring.sealer().encrypt(class, aad.column(column), plain.as_bytes(), &mut out).unwrap();
        out
    }

    fn file(&self, name: &str, lines: &[String]) -> String {
        let path = self.world.path(name);
        std::fs::write(&path, lines.join("\n")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn log(&self) -> Vec<(String, Option<String>, String, bool)> {
        let client = connect(&self.world.hot_url).await;
        let statement = "SELECT action, purpose, field, success FROM cdc_audit.access_log ORDER BY id";
        let rows = client.query(statement, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
    }
}

/// Writes a version as `history --json` prints it.
fn version(key: &str, changes: &str) -> String {
    let fields =
        "\"source\":\"shop\",\"position\":\"0001:0000000100000100:0000000000\",\"table_name\":\"public.users\"";
    format!(
        "{{{fields},\"key\":\"{key}\",\"event\":\"updated\",\"changes\":{changes},\"xid\":9,\"lsn\":\"1/A0\",\"seq\":0}}"
    )
}

fn said(output: &std::process::Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_shown_in_plain_to_those_who_may_and_logged_first() {
    let ground = Ground::new().await;
    let (ssn, note) =
        (ground.encrypt("ssn", "123-45-6789").await, ground.encrypt("note", "say \"hi\"\n\u{1F44B}").await);
    let changes = format!(
        r#"{{"ssn":[null,"{ssn}"],"note":["{note}","before {note}, after"],"price":[1.10,99999999999999999999.10]}}"#
    );
    let plain = changes.replace(&ssn, "123-45-6789").replace(&note, "say \\\"hi\\\"\\n\u{1F44B}");
    let file = ground.file("versions.jsonl", &[version("7", &changes), String::new(), version("7", "{}")]);
    let shown = ground.world.succeed(&["decrypt", &file, "--purpose", "claim 4711", "--on-behalf-of", "dpo"]);
    assert_eq!(shown, format!("{}\n{}\n", version("7", &plain), version("7", "{}")));
    let why = Some("claim 4711".to_owned());
    let entry =
        |field: &str, why: &Option<String>, success| ("decrypt".to_owned(), why.clone(), field.to_owned(), success);
    assert_eq!(ground.log().await, [entry("note", &why, true), entry("ssn", &why, true)]);

    // A value that was moved to another row does not open, the attempt is logged, and the exit code says so.
    let moved = ground.file("moved.jsonl", &[version("8", &format!(r#"{{"ssn":[null,"{ssn}"]}}"#))]);
    let (code, shown, error) = said(&ground.world.command(&["decrypt", &moved]));
    assert_eq!((code, shown.contains(&ssn), shown.contains("123-45")), (Some(1), true, false), "{error}");
    assert!(error.contains("1 of 1 values were not opened"), "{error}");
    assert_eq!(ground.log().await.last(), Some(&entry("ssn", &None, false)));

    // Without an entry in the log no value is shown.
    let client = connect(&ground.world.hot_url).await;
    client.batch_execute("ALTER TABLE cdc_audit.access_log RENAME TO gone").await.unwrap();
    let (code, shown, error) = said(&ground.world.command(&["decrypt", &file]));
    assert_eq!((code, shown.as_str()), (Some(1), ""), "{error}");
    assert!(error.contains("writing the access log failed") && !error.contains("123-45"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_wants_a_purpose_and_has_a_limit() {
    let ground = Ground::new().await;
    let mut lines = Vec::new();
    for n in 0..101 {
        let value = ground.encrypt("ssn", &format!("number {n}")).await;
        lines.push(version("7", &format!(r#"{{"ssn":[null,"{value}"]}}"#)));
    }
    let file = ground.file("many.jsonl", &lines);
    let (code, shown, error) = said(&ground.world.command(&["decrypt", &file]));
    assert_eq!((code, shown.lines().count()), (Some(2), 100), "{error}");
    assert!(error.contains("not opened without a purpose"), "{error}");
    assert_eq!(ground.world.succeed(&["decrypt", &file, "--purpose", "test"]).lines().count(), 101);
    let (code, shown, error) = said(&ground.world.command(&["decrypt", &file, "--purpose", "test", "--limit", "5"]));
    assert_eq!((code, shown.lines().count()), (Some(2), 5), "{error}");
    assert_eq!(ground.log().await.len(), 100 + 101 + 5);
    let bad = ground.file("bad.jsonl", &["no json".to_owned()]);
    assert_eq!(said(&ground.world.command(&["decrypt", &bad])).0, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_rotated_rewrapped_exported_and_destroyed() {
    let ground = Ground::new().await;
    let world = &ground.world;
    assert!(world.succeed(&["keys", "list"]).contains("no keys yet"));
    let value = ground.encrypt("ssn", "123-45-6789").await;
    let listed = || -> Vec<Value> {
        world.succeed(&["keys", "list", "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let key = listed()[0]["key"].as_str().unwrap().to_owned();
    assert!(value.contains(&key));
    assert!(world.succeed(&["keys", "list"]).contains(&key));
    assert!(world.succeed(&["keys", "rotate", "--class", "pii"]).starts_with("1 data keys"));
    assert!(listed()[0]["retired_at"].is_string());
    let keyring = ground._folder.path().join("keyring");
    world.succeed(&["keys", "master", keyring.to_str().unwrap()]);
    assert!(world.succeed(&["keys", "rewrap", "--class", "pii"]).starts_with("1 keys"));
    assert_eq!(listed()[0]["master"], "local v2");
    let exported: Value = serde_json::from_str(&world.succeed(&["keys", "export"])).unwrap();
    assert!(exported["wrapped"].is_string() && exported["key"] == key.as_str());
    let (code, _, error) = said(&world.command(&["keys", "destroy", "--key", &key]));
    assert_eq!(code, Some(2), "{error}");
    let store = connect(&world.hot_url).await;
    let wrapped = "SELECT wrapped FROM cdc_audit.data_keys WHERE wrapped IS NOT NULL";
    let wrapped: String = store.query_one(wrapped, &[]).await.unwrap().get(0);
    assert!(world.succeed(&["keys", "destroy", "--key", &key, "--yes"]).contains("is destroyed"));
    // The file of the table has no trace of it, and the column is what it was.
    store.batch_execute("CHECKPOINT").await.unwrap();
    let file = "SELECT encode(pg_read_binary_file(pg_relation_filepath('cdc_audit.data_keys')), 'escape')";
    let file: String = store.query_one(file, &[]).await.unwrap().get(0);
    assert!(file.contains(&key) && !file.contains(&wrapped));
    let column = "SELECT format_type(atttypid, atttypmod), attcollation = '\"C\"'::regcollation FROM pg_attribute \
        WHERE attrelid = 'cdc_audit.data_keys'::regclass AND attname = 'wrapped'";
    let column = store.query_one(column, &[]).await.unwrap();
    assert_eq!((column.get(0), column.get(1)), ("text", true));
    let file = ground.file("version.jsonl", &[version("7", &format!(r#"{{"ssn":[null,"{value}"]}}"#))]);
    let (code, _, error) = said(&world.command(&["decrypt", &file]));
    assert!(code == Some(1) && error.contains("was destroyed"), "{error}");
    for wrong in [&["keys", "rotate", "--class", "none"][..], &["keys", "destroy", "--key", "no", "--yes"]] {
        assert!(!world.command(wrong).status.success());
    }
    assert!(Path::new(&keyring).exists());
}

/// A daemon that could encrypt nothing is not ready, and `check` says why.
#[tokio::test(flavor = "multi_thread")]
async fn check_tries_each_class() {
    let ground = Ground::new().await;
    let (_, shown, _) = said(&ground.world.command(&["check", "--json"]));
    assert!(shown.contains("keys of class pii") && shown.contains("can be made, wrapped and stored"), "{shown}");
    std::fs::remove_file(ground._folder.path().join("keyring")).unwrap();
    let (code, shown, _) = said(&ground.world.command(&["check", "--json"]));
    assert_eq!(code, Some(3));
    assert!(shown.contains("cannot be read"), "{shown}");
}

/// Tables whose values a daemon encrypts: a mask next to a ciphertext, tokens that join, and a document.
const TABLES: &str = "CREATE TABLE users (id int PRIMARY KEY, ssn text, email text, doc jsonb); ALTER TABLE users REPLICA IDENTITY FULL; \
     CREATE TABLE mails (id int PRIMARY KEY, address text)";

const RULES: &str = "[[tables]]\nname = \"*\"\nbaseline = false\n[[tables]]\nname = \"public.users\"\n[tables.protect]\nssn = [\"partial\", { method = \"encrypt\", key = \"pii\" }]\n\
     email = { method = \"token\", key = \"pii\", domain = \"mail\" }\ndoc = { method = \"encrypt\", key = \"pii\" }\n\
     [[tables]]\nname = \"public.mails\"\nprotect = { address = { method = \"token\", key = \"pii\", domain = \"mail\" } }\n";

async fn daemon_world(keyring: &Path) -> World {
    let sections =
        format!("[protection.keys.pii]\nmaster = {{ type = \"local\", file = \"{}\" }}\n", keyring.display());
    World::on(shared(15).await).full(true).sql(TABLES).tables(RULES).sections(&sections).listening().build().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_encrypts_is_shown_again_from_every_sink() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keyring");
    append_version(&file).unwrap();
    let world = daemon_world(&file).await;
    let server = shared(15).await;
    let change = "INSERT INTO users VALUES (1, '111-11-1111', 'ann@example.com', '{\"a\": 1}'); UPDATE users SET ssn = '222-22-2222', doc = '{\"b\": [73510.10, \"x\"]}' WHERE id = 1; \
         INSERT INTO users VALUES (2, '333-33-3333', 'bea@example.com', NULL); INSERT INTO mails VALUES (1, 'bea@example.com')";
    server.execute(&world.database, change);
    world.catch_up().await;
    // A second run encrypts under another data key.
    server.execute(
        &world.database,
        "UPDATE users SET email = 'cem@example.com' WHERE id = 2; DELETE FROM users WHERE id = 1",
    );
    world.catch_up().await;
    for sink in ["hot", "archive"] {
        let secrets = ["111-11-1111", "222-22-2222", "333-33-3333", "@example.com", "73510.10"];
        let asked = |key| ["history", "public.users", key, "--from", sink, "--json"];
        for key in ["1", "2"] {
            let stored = world.succeed(&asked(key));
            assert!(stored.contains("aes256gcm:") && stored.contains("aes-siv:"), "{stored}");
            assert!(!secrets.iter().any(|secret| stored.contains(secret)), "{stored}");
        }
        let plain = world.succeed(&[&asked("1")[..], &["--decrypt"]].concat());
        assert!(!plain.contains("aes256gcm:") && !plain.contains("aes-siv:"), "{plain}");
        let versions: Vec<Value> = plain.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |event: &str| versions.iter().find(|version| version["event"] == event).expect("a version");
        let changes = &of("updated")["changes"];
        assert_eq!(changes["ssn"], json!(["***-**-1111", "***-**-2222"]), "{sink}");
        assert_eq!(changes["ssn__encrypt"], json!(["111-11-1111", "222-22-2222"]), "{sink}");
        assert_eq!(changes["doc"], json!([r#"{"a": 1}"#, r#"{"b": [73510.10, "x"]}"#]), "{sink}");
        assert_eq!(of("deleted")["changes"]["email"], json!(["ann@example.com", null]), "{sink}");
        let stored = ["1", "2"].map(|key| world.succeed(&asked(key))).concat();
        std::fs::write(world.path("versions.jsonl"), stored).unwrap();
        let file = world.path("versions.jsonl");
        let plain = world.succeed(&["decrypt", file.to_str().unwrap(), "--purpose", "test"]);
        assert!(!plain.contains("aes256gcm:") && !plain.contains("aes-siv:"), "{plain}");
        assert!(plain.contains("333-33-3333") && plain.contains("cem@example.com"), "{plain}");
    }
    let client = connect(&world.hot_url).await;
    let logged =
        "SELECT count(*) FROM cdc_audit.access_log WHERE action = 'history' AND field = 'ssn__encrypt' AND success";
    assert!(client.query_one(logged, &[]).await.unwrap().get::<_, i64>(0) > 0);
    // The same address has the same token in both tables.
    let joined = "SELECT count(*) FROM cdc_audit.versions u JOIN cdc_audit.versions m ON m.after->>'address' = u.after->>'email' \
         WHERE u.table_name = 'public.users' AND m.table_name = 'public.mails'";
    assert_eq!(client.query_one(joined, &[]).await.unwrap().get::<_, i64>(0), 1);
    let keys = "SELECT count(*) FILTER (WHERE kind = 'data'), count(*) FILTER (WHERE kind = 'tokens') FROM cdc_audit.data_keys";
    let row = client.query_one(keys, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 1));
    // A value that was moved from one row to another in the hot table does not open in the other row.
    let move_it = "UPDATE cdc_audit.versions SET after = jsonb_set(after, '{doc}', (SELECT before->'doc' FROM cdc_audit.versions \
         WHERE key = '1' AND event = 'deleted')) WHERE key = '2' AND event = 'created' AND table_name = 'public.users'";
    assert_eq!(client.execute(move_it, &[]).await.unwrap(), 1);
    let (code, shown, error) =
        said(&world.command(&["history", "public.users", "2", "--from", "hot", "--json", "--decrypt"]));
    assert_eq!(code, Some(1), "{error}");
    assert!(shown.contains("333-33-3333") && !shown.contains("73510.10"), "{shown}");
}

/// While a key service is unavailable, the daemon waits and says so, writes nothing in plain text and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_waits_for_its_keys_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keyring");
    let world = daemon_world(&file).await;
    let server = shared(15).await;
    server.execute(&world.database, "INSERT INTO users VALUES (2, '333-33-3333', 'bea@example.com', NULL)");
    let mut daemon = world.launch().start();
    let status = || -> Value { serde_json::from_str(&world.succeed(&["status", "--json"])).unwrap() };
    daemon.wait_for("it waits for a key", |_| {
        let output = world.command(&["status", "--json"]);
        serde_json::from_slice::<Value>(&output.stdout).is_ok_and(|told| told["phase"] == "waiting_for_key")
    });
    let told = status();
    assert_eq!(told["class"], "pii");
    assert!(told["last_error"]["message"].as_str().unwrap().contains("keyring"), "{told}");
    assert!(world.succeed(&["status"]).contains("waiting for a key of class pii"));
    let client = connect(&world.hot_url).await;
    let users = "SELECT count(*) FROM cdc_audit.versions WHERE table_name = 'public.users'";
    assert_eq!(client.query_one(users, &[]).await.unwrap().get::<_, i64>(0), 0);
    // It stops on request although it waits.
    assert!(daemon.stop().success(), "{}", daemon.output());
    assert!(!daemon.output().contains("333-33-3333"));
    let mut daemon = world.launch().start();
    daemon.wait_for("it waits again", |_| {
        let output = world.command(&["status", "--json"]);
        serde_json::from_slice::<Value>(&output.stdout).is_ok_and(|told| told["phase"] == "waiting_for_key")
    });
    append_version(&file).unwrap();
    audit_testkit::eventually_async("the rows are there", async || {
        client.query_one(users, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    assert_eq!(status()["phase"], "streaming");
    assert!(daemon.stop().success(), "{}", daemon.output());
}
