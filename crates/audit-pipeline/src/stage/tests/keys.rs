//! What a stage does without a key, and with it.

use audit_cipher::{Form, KeyId, Kind, SecretKey};
use audit_core::method::{Method, MethodRule};
use audit_core::rules::ProtectionRule;

use super::*;

const SCRIPT: &str = "begin 1000
     insert 5 1 geheim
     update 5 1 geheim | 1 geheimer
     commit";

fn encrypting(method: Method) -> (Stage, Arc<Sealer>) {
    let sealer = sealer();
    let methods = vec![MethodRule { key: Some("pii".into()), ..MethodRule::from(method) }];
    let mut config = config(Rules {
        tables: vec![TableRule { protect: [("note".to_string(), methods.into())].into(), ..rule("public.users") }],
        ..Rules::default()
    });
    config.policy.sealer = Some(Arc::clone(&sealer));
    let mut stage = Stage::new(config);
    feed(&mut stage, "relation 5 users full id:20 note:25").unwrap();
    (stage, sealer)
}

/// A change that needs a key leaves nothing behind, and comes again with the same position, counted once.
#[test]
fn a_change_waits_for_its_key_and_is_counted_once() {
    for method in [Method::Encrypt, Method::Token] {
        let (mut stage, sealer) = encrypting(method);
        let class = sealer.class("pii").unwrap();
        let mut commit = 0;
        let mut give = |stage: &mut Stage, line: &str| {
            let data = message(line.trim(), &mut commit);
            let mut tries = 0;
            let before = stage.progress();
            loop {
                match stage.message(&data, Lsn(500)) {
                    Ok(None) => return tries,
                    Ok(Some(relation)) => stage.describe(&relation, Some(&catalog(&relation))).unwrap(),
                    Err(error) => {
                        assert!(error.wanted().is_some(), "{error:?}");
                        // A batch that is handed on meanwhile does not include the change, in its progress or its
                        // content.
                        let batch = stage.take_batch();
                        assert_eq!((batch.progress, batch.len()), (before, 0));
                        assert!(!format!("{error:?} {error}").contains("geheim"));
                        tries += 1;
                        if tries == 3 {
                            let key = SecretKey::generate();
                            sealer.install_data(class, KeyId::generate(Kind::Data), &key);
                            sealer.install_tokens(class, KeyId::generate(Kind::Tokens), &key);
                        }
                    }
                }
            }
        };
        let tries: Vec<u32> = SCRIPT.lines().map(|line| give(&mut stage, line)).collect();
        assert_eq!(tries, [0, 3, 0, 0]);
        let counts = stage.take_counts();
        assert_eq!((counts.changes, counts.versions, counts.transactions), (2, 2, 1));
        let batch = stage.take_batch();
        let positions: Vec<u32> = batch.versions().map(|version| version.position().seq).collect();
        assert_eq!(positions, [0, 1]);
        assert!(!format!("{}{batch:?}", show(&batch)).contains("geheim"));
    }
}

/// What is stored names its key, and opens with the place that the record states.
#[test]
fn a_value_is_bound_to_the_place_that_its_record_names() {
    let (mut stage, sealer) = encrypting(Method::Encrypt);
    let key = SecretKey::generate();
    sealer.install_data(sealer.class("pii").unwrap(), KeyId::generate(Kind::Data), &key);
    feed(&mut stage, SCRIPT).unwrap();
    let batch = stage.take_batch();
    for (version, expected) in batch.versions().zip(["geheim", "geheimer"]) {
        let shown = show(&batch);
        let row = audit_cipher::Row {
            source: "shop",
            table: &version.table().name,
            key: version.key(),
            xid: version.transaction().xid,
            lsn: version.lsn().0,
            seq: u64::from(version.position().seq),
        };
        let mut aad = audit_cipher::Aad::new();
        aad.row(&row, std::iter::empty());
        let forms = shown.split(|c: char| c == '"' || c.is_whitespace()).filter_map(|text| Form::parse(text).ok());
        let opened: Vec<_> =
            forms.filter_map(|form| audit_cipher::open(&form, &key, aad.column("note")).ok()).collect();
        assert!(opened.iter().any(|plain| plain.as_str() == expected), "{expected} not in {shown}");
    }
}

/// A general rule for a column's name applies to fields of contexts too.
fn by_name(method: Method) -> (Stage, Arc<Sealer>) {
    let (_, sealer) = encrypting(method);
    let method = vec![MethodRule { key: Some("pii".into()), ..MethodRule::from(method) }].into();
    let rule = ProtectionRule { column: Some("*phone".into()), type_name: None, content: None, method };
    let mut config = config(Rules { protection: vec![rule], ..Rules::default() });
    config.policy.sealer = Some(Arc::clone(&sealer));
    let key = audit_core::context::ContextKey::new(1, &[7; 64]).unwrap();
    config.contexts = Contexts::new(Vec::new(), ContextKeys { keys: vec![key], as_of: Lsn::ZERO });
    let mut stage = Stage::new(config);
    feed(&mut stage, "relation 5 users full id:20 note:25\nbegin 1000").unwrap();
    (stage, sealer)
}

fn said(stage: &mut Stage) -> String {
    feed(stage, "insert 5 1 x").unwrap();
    let batch = stage.take_batch();
    batch.versions().next().unwrap().context().unwrap().json.clone()
}

/// ⚠ What an application sends never stops the trail: a context has no row that an encrypted value could be bound to,
/// so the value is hidden.
#[test]
fn what_cannot_be_encrypted_in_a_context_is_hidden() {
    let (mut stage, _) = by_name(Method::Encrypt);
    feed(&mut stage, r#"context {"actor_id": "7", "phone": "geheim"}"#).unwrap();
    assert_eq!(said(&mut stage), r#"{"actor_id": "7", "phone": "[REDACTED]"}"#);
}

/// A context that waits for a newer key of its signature may also need a key for a value; then it continues to wait.
#[test]
fn a_context_waits_for_both_its_keys() {
    let (mut stage, sealer) = by_name(Method::Token);
    let signed = format!(r#"context {{"phone": "geheim", "signature": "2:{}"}}"#, "0".repeat(64));
    feed(&mut stage, &signed).unwrap();
    stage.context_keys(ContextKeys::default());
    let error = stage.unread_context().unwrap_err();
    assert!(error.wanted().is_some() && stage.wants_context_keys(), "{error:?}");
    let class = sealer.class("pii").unwrap();
    sealer.install_tokens(class, KeyId::generate(Kind::Tokens), &SecretKey::generate());
    stage.unread_context().unwrap();
    let said = said(&mut stage);
    assert!(!stage.wants_context_keys() && said.contains("aes-siv:") && !said.contains("geheim"), "{said}");
}
