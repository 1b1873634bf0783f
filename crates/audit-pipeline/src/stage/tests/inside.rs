//! What is protected inside values and contexts, and columns that wait for a decision.

use audit_core::method::Method;
use audit_core::protect::MacKey;

use super::*;

fn detecting() -> Rules {
    Rules { default_protection: true, ..Rules::default() }
}

fn with_keys(rules: Rules) -> StageConfig {
    let mut config = config(rules);
    config.policy.hash_key = Some(MacKey::new("k1", b"0123456789abcdef"));
    config.policy.row_key = Some(MacKey::new("row", b"fedcba9876543210"));
    config
}

/// A card number in a column that no rule decides about is masked in place; a change of it is still seen.
#[test]
fn cards_in_free_text_and_documents_are_masked_in_place() {
    check_with(
        with_keys(detecting()),
        r#"relation 5 notes full id:20 body:25 doc:3802 n:20
         begin 1000
         insert 5 1 paid:4532015112830366! {"p":{"card":"4532-0151-1283-0366","api_token":"geheim"}} 4532015112830366
         update 5 1 paid:4532015112830366! {} 7 | 1 paid:4111111111110366! {} 7
         update 5 1 4532015112830366 {} 7 | 1 5425233430100366 {} 7
         commit"#,
        expect![[r#"
            1000.0 created notes 1 {"id": 1, "body": "paid:****0366!", "doc": {"p":{"card":"****0366","api_token":"[REDACTED]"}}, "n": 4532015112830366}
            1000.1 updated notes 1 {"body": ["paid:****0366!", "paid:4111111111110366!"]}
            1000.2 updated notes 1 {"body": ["****0366", "5425233430100366"]}
        "#]],
    );
}

/// ⚠ A text key in which a card number is found is never stored raw, like a protected one.
#[test]
fn content_that_is_found_in_a_key_makes_it_a_protected_one() {
    let script = "relation 5 payments full pan_ref:25 amount:23
         begin 1000
         insert 5 4532015112830366 7
         update 5 4532015112830366 7 | 4532015112830366 8
         insert 5 order-12 9
         commit";
    let mut stage = Stage::new(with_keys(detecting()));
    feed(&mut stage, script).unwrap();
    let batch = stage.take_batch();
    assert!(!show(&batch).contains("453201511"), "{}", show(&batch));
    let keys: Vec<&str> = batch.versions().map(|v| v.key().unwrap()).collect();
    assert!(keys[0].starts_with("hmac-sha256:row:") && keys[0] == keys[1] && keys[2] == "order-12", "{keys:?}");
    let mut without = Stage::new(config(detecting()));
    feed(&mut without, script).unwrap();
    assert_eq!(without.take_batch().versions().next().unwrap().key(), Some("****0366"));
}

/// ⚠ Protection applies to what the application sends, before anything is derived from it.
#[test]
fn a_context_is_protected_like_a_row() {
    let rules = Rules {
        context: [("ip".to_string(), Method::Hash.into()), ("email".to_string(), Method::Partial.into())].into(),
        ..detecting()
    };
    let mut stage = Stage::new(with_keys(rules));
    feed(
        &mut stage,
        r#"relation 5 users full id:20
         begin 1000
         context {"actor_id": "7", "actor": {"name": "Ann", "email": "ann@example.com", "session_token": "geheim"}, "reason": "call 4532 0151 1283 0366", "ip": "10.0.0.7"}
         insert 5 1
         context {"actor": {"email": "bea@example.com"}}
         insert 5 2
         context {}
         insert 5 3
         commit"#,
    )
    .unwrap();
    let batch = stage.take_batch();
    let versions: Vec<_> = batch.versions().collect();
    let said = versions[0].context().unwrap();
    for secret in ["ann@", "geheim", "4532", "10.0.0.7"] {
        assert!(!said.json.contains(secret), "{}", said.json);
    }
    assert_eq!(versions[0].actor_id(), Some("7"));
    assert_eq!(
        versions[0].actor(),
        Some(r#"{"name": "Ann", "email": "a***@example.com", "session_token": "[REDACTED]"}"#)
    );
    assert_eq!(versions[0].reason(), Some("call ****0366"));
    assert!(said.json.contains(r#""ip": "hmac-sha256:k1:"#), "{}", said.json);
    assert_eq!(versions[1].actor(), Some(r#"{"email": "b***@example.com"}"#));
    assert!(versions[2].context().is_none());
}

fn strict() -> Rules {
    let rule = TableRule {
        strict: Some(true),
        allow: Some(vec!["id".into(), "name".into(), "doc".into()]),
        ..rule("public.users")
    };
    Rules { tables: vec![rule], ..detecting() }
}

/// A column that appears in a strict table waits until someone has decided; one that a rule matches is protected at
/// once.
#[test]
fn a_new_column_of_a_strict_table_is_withheld() {
    check_with(
        with_keys(strict()),
        "relation 5 users full id:20 name:25
         begin 1000
         insert 5 1 Ann
         commit
         relation 5 users full id:20 name:25 nick:25 api_token:25
         begin 2000
         insert 5 2 Bea geheim1 geheim2
         update 5 2 Bea geheim1 geheim2 | 2 Bea geheim3 geheim2
         commit",
        expect![[r#"
            1000.0 created users 1 {"id": 1, "name": "Ann"}
            2000.0 created users 2 {"id": 2, "name": "Bea", "api_token": "[REDACTED]"} v2
        "#]],
    );
}

#[test]
fn a_key_that_no_rule_decides_about_stops_a_strict_table() {
    check_with(
        with_keys(strict()),
        "relation 5 users full code:25 name:25
         begin 1000
         insert 5 1 Ann",
        expect![[r#"
            error: table public.users is strict, and no rule decides about column code, which is part of its key
        "#]],
    );
}
