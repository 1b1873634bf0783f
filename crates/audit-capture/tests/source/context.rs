//! What `cdc_audit.set_context` writes into the WAL, as it appears in the stream.

use audit_capture::config::{SessionContext, SourceConfig};
use audit_core::context::{CONTEXT_PREFIX, Context, Contexts, Said};
use audit_core::position::Lsn;
use audit_core::rules::Rules;
use audit_pgoutput::{Message, Scratch, decode};
use audit_testkit::{Database, Postgres, connect, shared_db, unique};
use serde_json::{Value, json};

use crate::{majors, open, set_up, source, url_as};

/// The contexts in the stream, oldest first, read with the current keys; `None` for one that clears.
async fn written(url: &str, slot: &str) -> Vec<Option<Context>> {
    let client = open(url).await;
    let keys = audit_capture::context_keys::read(&client).await.unwrap();
    let contexts = Contexts::new(Vec::new(), keys);
    let said = |(xid, content): &(u32, Vec<u8>)| match contexts.read(CONTEXT_PREFIX, content, *xid, Lsn::ZERO) {
        Said::Context(context) => context,
        other => panic!("{other:?}"),
    };
    messages(url, slot).await.iter().map(said).collect()
}

/// The messages in the stream, each with the id of its transaction.
async fn messages(url: &str, slot: &str) -> Vec<(u32, Vec<u8>)> {
    let sql = "SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1', \
               'publication_names', 'cdc_audit', 'messages', 'true')";
    let (mut messages, mut current) = (Vec::new(), 0);
    for row in open(url).await.query(sql, &[&slot]).await.unwrap() {
        let mut scratch = Scratch::default();
        match decode(row.get(0), &mut scratch).unwrap() {
            Message::Begin { xid, .. } => current = xid,
            Message::Logical { prefix, content, transactional } => {
                assert_eq!((prefix, transactional), (CONTEXT_PREFIX, true));
                messages.push((current, content.to_vec()));
            }
            _ => {}
        }
    }
    messages
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
        assert_eq!(context.verified, Some(true), "{major}");
        let expected = json!({
            "actor_id": 7, "actor": {"name": "Ann"}, "reason": "fix",
            "session_user": role, "application_name": "web", "client_addr": "127.0.0.1",
        });
        assert_eq!(json(&contexts[0]), expected);
        // It signs for every caller, and no caller can see the keys.
        for sql in ["SELECT * FROM cdc_audit.context_keys", "SELECT cdc_audit.rotate_context_key()"] {
            let refused = app.batch_execute(sql).await.unwrap_err();
            assert_eq!(refused.code().unwrap().code(), "42501", "{sql}");
        }
        db.execute(&format!("DROP ROLE {role}"));
    }
}

#[tokio::test]
async fn a_message_that_is_not_of_set_context_in_this_transaction_is_not_verified() {
    let db = shared_db(15).await;
    let slot = prepared(&db).await;
    let client = open(&db.url).await;
    // Inside a savepoint the transaction's id is the same.
    client
        .batch_execute(r#"BEGIN; SAVEPOINT s; SELECT cdc_audit.set_context('{"actor_id": 7}'); RELEASE s; COMMIT"#)
        .await
        .unwrap();
    let sql = "SELECT content FROM (SELECT data AS content FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, \
               'proto_version', '1', 'publication_names', 'cdc_audit', 'messages', 'true')) m WHERE get_byte(content, 0) = ascii('M')";
    let row = client.query_one(sql, &[&slot]).await.unwrap();
    let mut scratch = Scratch::default();
    let Message::Logical { content, .. } = decode(row.get(0), &mut scratch).unwrap() else { panic!() };
    let emit = "SELECT pg_logical_emit_message(true, 'cdc-audit', $1::bytea)";
    client.execute(emit, &[&content]).await.unwrap();
    client.execute(emit, &[&br#"{"actor_id": 7, "session_user": "dba"}"#.as_slice()]).await.unwrap();
    let contexts = written(&db.url, &slot).await;
    let verified: Vec<Option<bool>> = contexts.iter().map(|context| context.as_ref().unwrap().verified).collect();
    assert_eq!(verified, [Some(true), Some(false), Some(false)]);
    assert_eq!(contexts[0].as_ref().unwrap().json, contexts[1].as_ref().unwrap().json);
}

#[tokio::test]
async fn a_key_that_is_rotated_stays_valid_for_what_it_signed() {
    let db = shared_db(15).await;
    let slot = prepared(&db).await;
    let say = || db.execute("SELECT cdc_audit.set_context('{\"actor_id\": 7}')");
    for _ in 0..3 {
        say();
        db.execute("SELECT cdc_audit.rotate_context_key()");
    }
    say();
    let contexts = written(&db.url, &slot).await;
    let verified: Vec<Option<bool>> = contexts.iter().map(|context| context.as_ref().unwrap().verified).collect();
    assert_eq!(verified, [Some(false), Some(true), Some(true), Some(true)], "the last three");
}

#[tokio::test]
async fn settings_of_the_session_say_it_where_that_was_asked_for() {
    for major in majors() {
        let db = shared_db(major).await;
        db.execute("CREATE TABLE t (id int); CREATE TABLE other (id int); ALTER TABLE t REPLICA IDENTITY FULL");
        let settings = [("app.current_user_id", "actor_id"), ("app.why", "reason")];
        let asked = SessionContext {
            tables: vec!["public.t".to_owned()],
            settings: settings.map(|(setting, field)| (setting.to_owned(), field.to_owned())).into(),
        };
        let source = SourceConfig { session_context: Some(asked), ..source(&db.url) };
        set_up(&source, &Rules::default(), None).await;
        let again = set_up(&source, &Rules::default(), None).await;
        assert_eq!(crate::statements(&again), [""; 0]);
        let app = connect(&db.url).await;
        app.batch_execute("SET app.current_user_id = '7'; INSERT INTO other VALUES (1); INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        app.batch_execute(
            "BEGIN; INSERT INTO t VALUES (2); INSERT INTO t VALUES (3); SAVEPOINT s; SET LOCAL app.why = 'x'; UPDATE t SET id = 4;
             ROLLBACK TO s; DELETE FROM t; SET LOCAL app.current_user_id = ''; TRUNCATE t; COMMIT",
        )
        .await
        .unwrap();
        app.batch_execute(
            r#"BEGIN; SELECT cdc_audit.set_context('{"actor_id": "said"}'); INSERT INTO t VALUES (5); COMMIT;
               BEGIN; SET LOCAL app.why = 'y'; INSERT INTO t VALUES (6); COMMIT; RESET app.current_user_id; INSERT INTO t VALUES (7)"#,
        )
        .await
        .unwrap();
        let told: Vec<String> = written(&db.url, &source.slot)
            .await
            .into_iter()
            .map(|context| match context {
                Some(Context { actor_id, reason, verified, .. }) => format!("{actor_id:?} {reason:?} {verified:?}"),
                None => "cleared".to_owned(),
            })
            .collect();
        let expected = [
            r#"Some("7") None Some(true)"#,
            r#"Some("7") None Some(true)"#,
            "cleared",
            r#"Some("said") None Some(true)"#,
            r#"Some("7") Some("y") Some(true)"#,
        ];
        assert_eq!(told, expected, "{major}");
        // Without the section in the configuration, the trigger is dropped and the table is as before.
        let source = SourceConfig { session_context: None, ..source };
        let plan = set_up(&source, &Rules::default(), None).await;
        assert!(crate::statements(&plan).contains(&"DROP TRIGGER cdc_audit_context ON public.t"), "{:?}", plan.steps);
        assert_eq!(db.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"), "0");
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
        // As text it would be larger than the server can hold; and with one more byte it would be larger than a jsonb
        // can be.
        "jsonb_build_array(repeat(chr(1), 200000000))",
        "to_jsonb(repeat('x', 268435440))",
        "jsonb_build_object('actor_id', 7, 'blob', repeat('x', 268435400))",
    ] {
        client.batch_execute(&format!("SELECT cdc_audit.set_context({said})")).await.unwrap();
    }
    let contexts = written(&db.url, &slot).await;
    for context in &contexts {
        assert!(context.as_ref().unwrap().json.len() <= 16384);
        assert_eq!(context.as_ref().unwrap().verified, Some(true));
        let json = json(context);
        assert_eq!((&json["truncated"], &json["session_user"]), (&json!(true), &json!("postgres")));
    }
    for context in &contexts[..3] {
        assert_eq!(context.as_ref().unwrap().actor_id.as_deref(), Some("7"));
    }
    assert!(contexts[0].as_ref().unwrap().reason.as_deref().unwrap().starts_with("é\"é\""));
    assert!(json(&contexts[1]).as_object().unwrap().len() > 50);
    assert!(json(&contexts[3])["text"].as_str().unwrap().starts_with("ttt"));
    assert_eq!(db.server.log().matches("WARNING:  the audit context has").count(), 7);
}

/// The message's bytes are not converted on the way out, so they must be UTF-8 when they are written.
#[tokio::test]
async fn a_database_in_another_encoding_says_who_too() {
    let server = Postgres::start(15);
    for (encoding, zoe) in [("LATIN1", "'Zo' || chr(235)"), ("WIN1251", "'Zoe' || chr(152)")] {
        let name = encoding.to_lowercase();
        server.execute(
            "postgres",
            &format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"),
        );
        let source = source(&server.url(&name));
        set_up(&source, &Rules::default(), None).await;
        let client = open(&server.url(&name)).await;
        let sql = format!("SELECT cdc_audit.set_context(jsonb_build_object('actor_id', {zoe}))");
        client.batch_execute(&sql).await.unwrap();
        let contexts = written(&server.url(&name), &source.slot).await;
        let context = contexts[0].as_ref().unwrap();
        match encoding {
            // A character that does not exist in UTF-8.
            "WIN1251" => assert_eq!(json(&contexts[0]), json!({"truncated": true})),
            _ => assert_eq!(context.actor_id.as_deref(), Some("Zoë"), "{encoding}"),
        }
        assert_eq!(context.verified, Some(true), "{encoding}");
    }
}
