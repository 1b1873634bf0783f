//! What protection leaves, and what is made of it.

use audit_core::protect::MacKey;
use audit_core::rules::Method;
use audit_core::stored::{json, summary};

use super::*;

/// ⚠ Key, actor, reason, tenant, included columns and summary are made of what protection left.
#[test]
fn whatever_is_derived_from_values_is_derived_after_protection() {
    let columns = ["id", "editor", "why", "tenant", "owner"];
    let mut config = config(Rules {
        tables: vec![TableRule {
            protect: columns.map(|column| (column.to_string(), Method::Hash)).into(),
            actor_column: Some("editor".into()),
            reason_column: Some("why".into()),
            tenant: Some("tenant".into()),
            include: Some(vec!["owner".into()]),
            ..rule("public.users")
        }],
        ..Rules::default()
    });
    config.policy.hash_key = Some(MacKey::new("k1", b"0123456789abcdef"));
    config.policy.row_key = Some(MacKey::new("row", b"fedcba9876543210"));
    let mut stage = Stage::new(config);
    feed(
        &mut stage,
        "relation 5 users full id:25 editor:25 why:25 tenant:25 owner:25
         begin 1000
         insert 5 raw-id raw-editor raw-why raw-tenant raw-owner
         update 5 raw-id raw-editor raw-why raw-tenant raw-owner | raw-id2 raw-editor2 raw-why2 raw-tenant2 raw-owner2
         delete 5 raw-id2 raw-editor2 raw-why2 raw-tenant2 raw-owner2
         commit",
    )
    .unwrap();
    let batch = stage.take_batch();
    let shown = show(&batch);
    assert!(!shown.contains("raw"), "{shown}");
    for v in batch.versions() {
        let mut changes = Vec::new();
        write_changes(&mut changes, &v);
        let changes = (!changes.is_empty()).then(|| json(String::from_utf8(changes).unwrap()));
        let told = summary(v.event().name(), changes.as_deref(), v.before_known());
        let derived = [v.key(), v.old_key(), v.actor_id(), v.reason(), v.tenant(), Some(told.as_str())];
        assert!(derived.iter().flatten().all(|text| !text.contains("raw")), "{derived:?}");
    }
    let created = batch.versions().next().unwrap();
    assert!(created.key().unwrap().starts_with("hmac-sha256:row:"));
    for derived in [created.actor_id(), created.reason(), created.tenant()] {
        assert!(derived.unwrap().starts_with("hmac-sha256:k1:"), "{derived:?}");
    }
}

#[test]
fn protected_values_are_seen_to_change_and_never_shown() {
    let mut config = config(Rules {
        tables: vec![TableRule {
            protect: [("email".to_string(), Method::Hash), ("pin_code".to_string(), Method::Drop)].into(),
            include: Some(vec!["email".into()]),
            ..rule("public.users")
        }],
        protection: Vec::new(),
        default_protection: true,
    });
    config.policy.hash_key = Some(MacKey::new("k1", b"0123456789abcdef"));
    let mut stage = Stage::new(config);
    feed(
        &mut stage,
        "relation 5 users full id:20 email:25 password:25 pin_code:25
         begin 1000
         insert 5 1 ann@x secret 1234
         update 5 1 ann@x secret 1234 | 1 ann@x geheim 1234
         update 5 1 ann@x geheim 1234 | 1 NULL NULL 1234
         update 5 1 NULL NULL 1234 | 1 NULL NULL 5678
         commit",
    )
    .unwrap();
    let shown = show(&stage.take_batch());
    for secret in ["ann@x", "secret", "geheim", "1234"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines[0].contains(r#""email": "hmac-sha256:k1:"#) && lines[0].contains(r#""password": "[REDACTED]""#),
        "{shown}"
    );
    assert!(lines[1].contains(r#"{"password": ["[REDACTED]", "[REDACTED]"]}"#), "{shown}");
    assert!(lines[2].contains(r#""password": ["[REDACTED]", "[REDACTED]"]"#), "NULL is hidden too: {shown}");
    assert!(lines[2].contains(r#"", null]"#), "a hash keeps NULL: {shown}");
    assert_eq!(lines.len(), 3, "a dropped column makes no version: {shown}");
}

#[test]
fn a_protected_key_column_is_usable_stable_and_never_raw() {
    let rules = || Rules {
        tables: vec![TableRule { protect: [("id".to_string(), Method::Full)].into(), ..rule("public.users") }],
        ..Rules::default()
    };
    let script = "relation 5 users full id:25 name:25
         begin 1000
         insert 5 raw-key-1 Ann
         update 5 raw-key-1 Ann | raw-key-1 Bea
         commit";
    check_with(
        config(rules()),
        script,
        expect![[r#"
            error: table public.users: column id is part of the key and protected with `full`, but there is no row key to make it usable
        "#]],
    );
    // The key of `hash` may be rotated; a row keeps its key.
    let under = |hash_key: &str| {
        let mut with_key = config(rules());
        with_key.policy.row_key = Some(MacKey::new("row", b"0123456789abcdef"));
        with_key.policy.hash_key = Some(MacKey::new(hash_key, hash_key.as_bytes()));
        let mut stage = Stage::new(with_key);
        feed(&mut stage, script).unwrap();
        let batch = stage.take_batch();
        assert!(!show(&batch).contains("raw-key"));
        batch.versions().map(|v| v.key().unwrap().to_owned()).collect::<Vec<String>>()
    };
    let keys = under("2026");
    assert!(keys[0].starts_with("hmac-sha256:row:") && keys[0] == keys[1], "{keys:?}");
    assert_eq!(keys, under("2027"));
}
