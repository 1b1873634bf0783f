use super::*;

const SECRET: &[u8] = b"a secret of the database's owner";

fn key(id: u32) -> ContextKey {
    let mut pad = [0x36; 64];
    pad.iter_mut().zip(SECRET).for_each(|(pad, byte)| *pad ^= byte);
    ContextKey::new(id, &pad).unwrap()
}

fn contexts() -> Contexts {
    Contexts::new(vec![Convention::Bemi, Convention::Sequin], vec![key(2), key(3)])
}

/// As `set_context` does it.
fn signed(text: &str, key: u32, xid: u32) -> Vec<u8> {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET).unwrap();
    mac.update(format!("{xid}:{text}").as_bytes());
    let hash = hex::encode(mac.finalize().into_bytes());
    format!("{}, \"signature\": \"{key}:{hash}\"}}", text.strip_suffix('}').unwrap()).into_bytes()
}

fn read(prefix: &str, content: &[u8], xid: u32) -> Option<Context> {
    match contexts().read(prefix, content, xid) {
        Said::Context(context) => context,
        other => panic!("{other:?}"),
    }
}

#[test]
fn fields_are_taken_out_and_the_rest_is_kept() {
    let context =
        Context::parse(br#"{"actor_id": 7, "actor": {"name": "Ann"}, "reason": "fix", "ticket": 12}"#).unwrap();
    assert_eq!(context.actor_id.as_deref(), Some("7"));
    assert_eq!(context.actor.as_deref(), Some(r#"{"name": "Ann"}"#));
    assert_eq!(context.reason.as_deref(), Some("fix"));
    assert!(context.json.contains("ticket"));
}

#[test]
fn odd_content_never_fails() {
    assert_eq!(Context::parse(b""), None);
    assert_eq!(Context::parse(b"{}"), None);
    assert_eq!(Context::parse(b"hello").unwrap().json, r#"{"text":"hello"}"#);
    assert_eq!(Context::parse(b"[1]").unwrap().json, r#"{"text":"[1]"}"#);
    assert!(Context::parse(b"\xff\x00").is_some());
    for odd in [&b"\"}"[..], b":\"}", br#"{"a": 1, "signature": "1:zz"}"#, br#", "signature": "99999999999:"}"#] {
        assert_eq!(read(CONTEXT_PREFIX, odd, 1).unwrap().verified, Some(false));
    }
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    assert!(read("_bemi", format!(r#"{{"a": {deep}}}"#).as_bytes(), 1).is_some());
}

#[test]
fn only_the_signature_of_its_own_transaction_verifies() {
    let text = r#"{"actor_id": 7, "session_user": "app"}"#;
    let context = read(CONTEXT_PREFIX, &signed(text, 3, 700), 700).unwrap();
    assert_eq!((context.json.as_str(), context.verified), (text, Some(true)));
    let verified = |content: &[u8], xid| read(CONTEXT_PREFIX, content, xid).unwrap().verified;
    assert_eq!(verified(&signed(text, 2, 700), 700), Some(true), "an older key");
    assert_eq!(verified(&signed(text, 1, 700), 700), Some(false), "a key that is gone");
    assert_eq!(verified(&signed(text, 3, 700), 701), Some(false), "another transaction");
    assert_eq!(verified(text.as_bytes(), 700), Some(false), "no signature");
    let forged = String::from_utf8(signed(text, 3, 700)).unwrap().replace("\"app\"", "\"dba\"");
    assert_eq!(verified(forged.as_bytes(), 700), Some(false), "another text");
    assert_eq!(read("_bemi", &signed(text, 3, 700), 700).unwrap().verified, Some(false), "another prefix");
    assert_eq!(contexts().read(CONTEXT_PREFIX, &signed(text, 4, 700), 700), Said::UnknownKey);
    assert_eq!(contexts().unverified(&signed(text, 4, 700)).unwrap().json, text);
    assert!(!format!("{:?}", contexts()).contains("secret"));
}

#[test]
fn other_tools_conventions_are_understood_where_they_are_asked_for() {
    let bemi = read("_bemi", br#"{"user_id": 7, "endpoint": "/a", "SQL": "UPDATE t SET secret = 1"}"#, 1).unwrap();
    assert_eq!(
        (bemi.actor_id.as_deref(), bemi.json.as_str()),
        (Some("7"), r#"{"actor_id":7,"endpoint":"/a","user_id":7}"#)
    );
    let sequin = read("sequin:transaction_annotations.set", br#"{"username": "ann", "actor_id": "9"}"#, 1).unwrap();
    assert_eq!((sequin.actor_id.as_deref(), sequin.verified), (Some("9"), Some(false)));
    assert_eq!(read("sequin:transaction_annotations.clear", b"", 1), None);
    let none = Contexts::new(Vec::new(), Vec::new());
    assert_eq!(none.read("_bemi", b"{\"user_id\": 7}", 1), Said::Nothing);
    assert_eq!(contexts().read("another", b"{\"user_id\": 7}", 1), Said::Nothing);
}

#[test]
fn what_is_missing_is_named() {
    let missing = Missing { actor: true, reason: true };
    assert_eq!(Context::flagged(None, missing).json, r#"{"missing": ["actor", "reason"]}"#);
    let context = Context::parse(br#"{"actor_id": 7, "missing": []}"#).unwrap();
    let flagged = Context::flagged(Some(&context), Missing { actor: false, reason: true });
    assert_eq!(flagged.json, r#"{"actor_id":7, "missing": ["reason"]}"#);
    assert_eq!((flagged.actor_id.as_deref(), flagged.verified), (Some("7"), Some(false)));
}

/// What is said of the field that an actor was taken from is said of the actor.
#[test]
fn the_actor_of_another_tool_is_protected_as_the_field_it_came_from() {
    use crate::method::{Method, Protect};
    use crate::protect::{MacKey, Policy};
    use crate::rules::{ProtectionRule, Rules};

    let policy = Policy { hash_key: Some(MacKey::new("k1", b"0123456789abcdef")), ..Policy::default() };
    let rule = |name: &str, method: Method| ProtectionRule {
        column: Some(name.to_owned()),
        type_name: None,
        content: None,
        method: Protect::from(method),
    };
    for (prefix, field) in [(BEMI_PREFIX, "user"), (BEMI_PREFIX, "userId"), (SEQUIN_SET_PREFIX, "user_id")] {
        for named in [field, "actor_id"] {
            for method in [Method::Hash, Method::Full, Method::Drop] {
                let by_context = Rules { context: [(named.to_owned(), method.into())].into(), ..Rules::default() };
                let by_rule = Rules { protection: vec![rule(named, method)], ..Rules::default() };
                for rules in [by_context, by_rule] {
                    let message = format!(r#"{{"{field}": "ann@example.com", "x": 1}}"#);
                    let contexts = Contexts::new(vec![Convention::Bemi, Convention::Sequin], Vec::new());
                    let Said::Context(Some(context)) = contexts.read(prefix, message.as_bytes(), 1) else {
                        panic!("{message}")
                    };
                    assert_eq!(context.actor_id.as_deref(), Some("ann@example.com"));
                    let left = policy.context(&rules.for_context(), context).expect("a context");
                    let shown = format!("{left:?}");
                    assert!(!shown.contains("ann@example.com"), "{prefix} {named} {method:?}: {shown}");
                    assert!(left.json.contains("\"x\""), "{shown}");
                    assert_eq!(left.actor_id.is_none(), method == Method::Drop, "{shown}");
                }
            }
        }
    }
}
