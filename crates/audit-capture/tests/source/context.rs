//! What `cdc_audit.set_context` writes into the WAL, as the stream shows it.

use audit_core::context::{CONTEXT_PREFIX, Context};
use audit_core::rules::Rules;
use audit_pgoutput::{Message, Scratch, decode};
use audit_testkit::{Database, Postgres, shared_db, unique};
use serde_json::{Value, json};

use crate::{majors, open, set_up, source, url_as};

/// The contexts in the stream, oldest first; `None` for one that clears.
async fn written(url: &str, slot: &str) -> Vec<Option<Context>> {
    let sql = "SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1', \
               'publication_names', 'cdc_audit', 'messages', 'true')";
    let mut contexts = Vec::new();
    for row in open(url).await.query(sql, &[&slot]).await.unwrap() {
        let mut scratch = Scratch::default();
        if let Message::Logical { prefix, content, transactional } = decode(row.get(0), &mut scratch).unwrap() {
            assert_eq!((prefix, transactional), (CONTEXT_PREFIX, true));
            contexts.push(Context::parse(content));
        }
    }
    contexts
}

async fn prepared(db: &Database) -> String {
    let source = source(&db.url);
    set_up(&source, &Rules::default(), None).await;
    source.slot
}

fn json(context: &Option<Context>) -> Value {
    serde_json::from_str(&context.as_ref().unwrap().json).unwrap()
}

#[tokio::test]
async fn the_context_carries_what_was_said_and_what_the_server_knows() {
    for major in majors() {
        let db = shared_db(major).await;
        let slot = prepared(&db).await;
        let role = unique("app");
        db.execute(&format!("CREATE ROLE {role} LOGIN"));
        let app = open(&format!("{}?application_name=web", url_as(&role, &db.url))).await;
        let said = r#"{"actor_id": 7, "actor": {"name": "Ann"}, "reason": "fix", "session_user": "root"}"#;
        let sql = format!("SELECT cdc_audit.set_context('{said}')");
        app.batch_execute(&sql).await.unwrap();
        let contexts = written(&db.url, &slot).await;
        let [Some(context)] = contexts.as_slice() else { panic!("{contexts:?}") };
        assert_eq!((context.actor_id.as_deref(), context.reason.as_deref()), (Some("7"), Some("fix")));
        let expected = json!({
            "actor_id": 7, "actor": {"name": "Ann"}, "reason": "fix",
            "session_user": role, "application_name": "web", "client_addr": "127.0.0.1",
        });
        assert_eq!(json(&contexts[0]), expected);
        db.execute(&format!("DROP ROLE {role}"));
    }
}

#[tokio::test]
async fn it_is_cleared_and_odd_content_is_kept() {
    let db = shared_db(15).await;
    let slot = prepared(&db).await;
    for said in ["NULL", "'{}'", "'null'", "'\"hello\"'", "'[1, 2]'", "'{\"a\": null}'"] {
        db.execute(&format!("SELECT cdc_audit.set_context({said})"));
    }
    let contexts = written(&db.url, &slot).await;
    assert_eq!(contexts[..3], [None, None, None]);
    assert_eq!(json(&contexts[3])["text"], "hello");
    assert_eq!(json(&contexts[4])["text"], json!([1, 2]));
    assert_eq!(json(&contexts[5])["a"], Value::Null);
}

#[tokio::test]
async fn it_does_nothing_where_nothing_can_be_written() {
    let db = shared_db(15).await;
    let slot = prepared(&db).await;
    db.execute("BEGIN READ ONLY; SELECT cdc_audit.set_context('{\"actor_id\": 1}'); COMMIT");
    assert_eq!(written(&db.url, &slot).await, []);
    let standby = db.server.standby(&[]).await;
    audit_testkit::eventually("the standby follows", || {
        standby.try_execute(&db.name, "SELECT cdc_audit.set_context('{\"actor_id\": 1}')").is_ok()
    });
}

#[tokio::test]
async fn too_large_a_context_is_cut_with_a_warning_and_never_fails() {
    let db = shared_db(15).await;
    let slot = prepared(&db).await;
    let client = open(&db.url).await;
    for said in [
        "jsonb_build_object('actor_id', 7, 'reason', repeat('é\"', 100000), 'blob', jsonb_build_array(repeat('x', 90000)))",
        "(SELECT jsonb_object_agg('k' || i, repeat('y', 200)) FROM generate_series(1, 5000) i) || '{\"actor_id\": 7}'",
        "jsonb_build_object(repeat('k', 60000), 1, 'actor_id', 7, 'session_user', repeat('z', 20000))",
        "to_jsonb(repeat('t', 50000))",
    ] {
        client.batch_execute(&format!("SELECT cdc_audit.set_context({said})")).await.unwrap();
    }
    let contexts = written(&db.url, &slot).await;
    for context in &contexts {
        assert!(context.as_ref().unwrap().json.len() <= 16384);
        let json = json(context);
        assert_eq!((&json["truncated"], &json["session_user"]), (&json!(true), &json!("postgres")));
    }
    for context in &contexts[..3] {
        assert_eq!(context.as_ref().unwrap().actor_id.as_deref(), Some("7"));
    }
    assert!(contexts[0].as_ref().unwrap().reason.as_deref().unwrap().starts_with("é\"é\""));
    assert!(json(&contexts[1]).as_object().unwrap().len() > 50);
    assert!(json(&contexts[3])["text"].as_str().unwrap().starts_with("ttt"));
    assert_eq!(db.server.log().matches("WARNING:  the audit context has").count(), 4);
}

/// The message's bytes are not converted on the way out: they must be UTF-8 when they go in.
#[tokio::test]
async fn a_database_in_another_encoding_says_who_too() {
    let server = Postgres::start(15);
    server.execute("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let source = source(&server.url("latin"));
    set_up(&source, &Rules::default(), None).await;
    let client = open(&server.url("latin")).await;
    client.execute("SELECT cdc_audit.set_context(jsonb_build_object('actor_id', 'Zoë'))", &[]).await.unwrap();
    let contexts = written(&server.url("latin"), &source.slot).await;
    assert_eq!(contexts[0].as_ref().unwrap().actor_id.as_deref(), Some("Zoë"));
}
