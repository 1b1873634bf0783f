//! What protection leaves, and what is derived from it.

use audit_core::method::{Method, MethodRule, Protect};
use audit_core::protect::MacKey;
use audit_core::record::changed_columns;
use audit_core::stored::{json, summary};

use super::*;

/// ⚠ Key, actor, reason, tenant, included columns and summary are derived from what protection left.
#[test]
fn whatever_is_derived_from_values_is_derived_after_protection() {
    let columns = ["id", "editor", "why", "tenant", "owner"];
    let mut config = config(Rules {
        tables: vec![TableRule {
            protect: columns.map(|column| (column.to_string(), Method::Hash.into())).into(),
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
            protect: [("email".to_string(), Method::Hash.into()), ("pin_code".to_string(), Method::Drop.into())].into(),
            include: Some(vec!["email".into()]),
            ..rule("public.users")
        }],
        default_protection: true,
        ..Rules::default()
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
        tables: vec![TableRule { protect: [("id".to_string(), Method::Full.into())].into(), ..rule("public.users") }],
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
            error: table public.users: column id is part of the key and protected with `full`, but there is no row key under which `key` could hold it
        "#]],
    );
    // The key of `hash` may be rotated; a row still keeps its key.
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

fn several(methods: &[Method]) -> Protect {
    methods.iter().map(|method| MethodRule::from(*method)).collect::<Vec<_>>().into()
}

/// The first method's output is in the column, the others' output in columns beside it, on both sides and wherever
/// there are values; the summary mentions the column once.
#[test]
fn several_methods_stand_side_by_side() {
    let phone = MethodRule { domain: Some("phone".into()), ..Method::Hash.into() };
    let mut config = config(Rules {
        tables: vec![TableRule {
            protect: [
                ("ssn".to_string(), several(&[Method::Partial, Method::Hash])),
                ("mobile".to_string(), vec![phone.clone()].into()),
                ("home".to_string(), vec![MethodRule::from(Method::Partial), phone].into()),
            ]
            .into(),
            include: Some(vec!["ssn".into()]),
            ..rule("public.users")
        }],
        ..Rules::default()
    });
    config.policy.hash_key = Some(MacKey::new("k1", b"0123456789abcdef"));
    let mut stage = Stage::new(config);
    feed(
        &mut stage,
        "relation 5 users full id:20 ssn:25 mobile:25 home:25
         begin 1000
         insert 5 1 123-45-6789 5551234567 5551234567
         update 5 1 123-45-6789 5551234567 5551234567 | 1 123-45-6780 5551234567 NULL
         commit",
    )
    .unwrap();
    let batch = stage.take_batch();
    let shown = show(&batch);
    assert!(!shown.contains("123-45") && !shown.contains("555"), "{shown}");
    let versions: Vec<_> = batch.versions().collect();
    let names: Vec<&str> = versions[0].table().columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "ssn", "ssn__hash", "mobile", "home", "home__hash"]);
    let value = |name: &str| {
        let mut values = versions[0].after().unwrap().iter();
        values.find(|(column, _)| column.name == name).unwrap().1.text().unwrap()
    };
    assert_eq!((value("ssn"), value("home")), ("***-**-6789", "***-***-4567"));
    assert!(value("ssn__hash").starts_with("hmac-sha256:k1:"));
    assert_eq!(value("mobile"), value("home__hash"), "one domain");
    assert_ne!(value("mobile"), MacKey::new("k1", b"0123456789abcdef").hash("public.users", "mobile", b"5551234567"));
    let mut changes = Vec::new();
    write_changes(&mut changes, &versions[1]);
    let changes = String::from_utf8(changes).unwrap();
    for part in [r#""ssn": ["***-**-6789", "***-**-6780"]"#, r#""ssn__hash": ["hmac-"#, r#""home__hash": ["hmac-"#] {
        assert!(changes.contains(part), "{changes}");
    }
    assert_eq!(
        summary("updated", Some(&json(changes)), true),
        "Ssn changed from ***-**-6789 to ***-**-6780 and home cleared (was ***-***-4567)."
    );
    let changed: Vec<&str> = changed_columns(&versions[1]).unwrap().collect();
    assert_eq!(changed, ["ssn", "home"]);
    let mut included = Vec::new();
    write_included(&mut included, &versions[1]);
    assert_eq!(String::from_utf8(included).unwrap(), r#"{"ssn": "***-**-6780"}"#);
}

#[test]
fn a_companion_that_the_table_has_itself_is_refused() {
    let rules = Rules {
        tables: vec![TableRule {
            protect: [("ssn".to_string(), several(&[Method::Partial, Method::Hash]))].into(),
            ..rule("public.users")
        }],
        ..Rules::default()
    };
    check_with(
        config(rules),
        "relation 5 users full id:20 ssn:25 ssn__hash:25
         begin 1000
         truncate 5",
        expect![[r#"
            error: table public.users: column ssn has several methods of protection, and what one of them leaves belongs into ssn__hash, which the table has itself
        "#]],
    );
}

/// A method whose keys are missing writes nothing, above all no clear text.
#[test]
fn a_method_without_its_keys_writes_nothing() {
    for method in [Method::Encrypt, Method::Token, Method::Hash] {
        let rules = Rules {
            tables: vec![TableRule { protect: [("note".to_string(), method.into())].into(), ..rule("public.users") }],
            ..Rules::default()
        };
        let mut stage = Stage::new(config(rules));
        let script = "relation 5 users full id:20 note:25
             begin 1000
             insert 5 1 geheim";
        let error = feed(&mut stage, script).unwrap_err();
        let batch = stage.take_batch();
        assert!(batch.is_empty() && !format!("{error:?} {batch:?}").contains("geheim"), "{method:?}");
    }
}

/// A column that appears while the stream runs is protected from its first change.
#[test]
fn a_new_column_that_a_rule_matches_is_protected_from_its_first_change() {
    let mut stage = Stage::new(config(Rules { default_protection: true, ..Rules::default() }));
    feed(
        &mut stage,
        "relation 5 users full id:20 name:25
         begin 1000
         insert 5 1 Ann
         commit
         relation 5 users full id:20 name:25 api_token:25
         begin 2000
         update 5 1 Ann NULL | 1 Ann geheim
         commit",
    )
    .unwrap();
    let shown = show(&stage.take_batch());
    assert!(!shown.contains("geheim") && shown.contains(r#""api_token": ["[REDACTED]", "[REDACTED]"]"#), "{shown}");
}
