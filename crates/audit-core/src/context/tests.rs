use super::*;

const SECRET: &[u8] = b"a secret of the database's owner";

fn key(id: u32) -> ContextKey {
    let mut pad = [0x36; 64];
    pad.iter_mut().zip(SECRET).for_each(|(pad, byte)| *pad ^= byte);
    ContextKey::new(id, &pad).unwrap()
}

fn contexts() -> Contexts {
    let known = ContextKeys { keys: vec![key(2), key(3)], as_of: Lsn(0x100) };
    Contexts::new(vec![Convention::Bemi, Convention::Sequin], known)
}

/// Signs a message as `set_context` does.
fn signed(text: &str, key: u32, xid: u32) -> Vec<u8> {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET).unwrap();
    mac.update(format!("{xid}:{text}").as_bytes());
    let hash = hex::encode(mac.finalize().into_bytes());
    format!("{}, \"signature\": \"{key}:{hash}\"}}", text.strip_suffix('}').unwrap()).into_bytes()
}

fn read(prefix: &str, content: &[u8], xid: u32) -> Option<Context> {
    match contexts().read(prefix, content, xid, Lsn(0x50)) {
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
    assert_eq!(contexts().read(CONTEXT_PREFIX, &signed(text, 4, 700), 700, Lsn(0x100)), Said::UnknownKey);
    assert_eq!(verified(&signed(text, 4, 700), 700), Some(false), "a key that nobody had when this was written");
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
    let none = Contexts::new(Vec::new(), ContextKeys::default());
    assert_eq!(none.read("_bemi", b"{\"user_id\": 7}", 1, Lsn::ZERO), Said::Nothing);
    assert_eq!(contexts().read("another", b"{\"user_id\": 7}", 1, Lsn::ZERO), Said::Nothing);
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

/// The protection of the field that an actor was taken from applies to the actor, too.
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
                    let contexts = Contexts::new(vec![Convention::Bemi, Convention::Sequin], ContextKeys::default());
                    let Said::Context(Some(context)) = contexts.read(prefix, message.as_bytes(), 1, Lsn::ZERO) else {
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

#[test]
fn a_context_without_fields_is_flagged_as_valid_json() {
    for left in ["{}", "{ }", r#"{"a": "}"}"#, r#"{"a": {}}"#] {
        let context = Context { json: left.to_string(), ..Context::default() };
        let flagged = Context::flagged(Some(&context), Missing { actor: true, reason: false });
        let json: serde_json::Value = serde_json::from_str(&flagged.json).unwrap();
        assert_eq!(json["missing"], serde_json::json!(["actor"]), "{}", flagged.json);
    }
}

#[test]
fn a_large_context_is_cut_to_fields_that_fit() {
    let long = "x".repeat(BYTES_MAX + 1);
    let whole = format!(r#"{{"note": "{long}", "ticket": 12, "truncated": 1, "actor_id": "ann", "reason": "fix"}}"#);
    let context = read(CONTEXT_PREFIX, whole.as_bytes(), 1).unwrap();
    assert_eq!(context.json, r#"{"actor_id": "ann", "reason": "fix", "ticket": 12, "truncated": true}"#);
    assert_eq!((context.actor_id.as_deref(), context.verified), (Some("ann"), Some(false)));
    let context = read(CONTEXT_PREFIX, &signed(&whole, 3, 700), 700).unwrap();
    assert_eq!((context.actor_id.as_deref(), context.verified), (Some("ann"), Some(true)));

    let many: String = (0..BYTES_MAX).map(|n| format!(r#""f{n}": {n}, "#)).collect();
    for content in
        [format!("{{{many}"), long.clone(), format!("\"{long}\""), "[".repeat(BYTES_MAX + 1), "{\"".repeat(BYTES_MAX)]
    {
        let context = read(CONTEXT_PREFIX, content.as_bytes(), 1).unwrap();
        let json: serde_json::Value = serde_json::from_str(&context.json).unwrap();
        assert!(context.json.len() <= BYTES_MAX && json["truncated"] == true, "{json}");
    }
}

#[test]
fn another_tools_statement_does_not_cost_the_actor() {
    let (statement, bemi) = ("x".repeat(2 * BYTES_MAX), r#"{"user_id":7,"SQL":""#.to_string());
    let whole = read("_bemi", format!("{bemi}{statement}\"}}").as_bytes(), 1).unwrap();
    assert_eq!((whole.actor_id.as_deref(), whole.json.as_str()), (Some("7"), r#"{"actor_id":7,"user_id":7}"#));
    let beginning = read("_bemi", format!("{bemi}{statement}").as_bytes(), 1).unwrap();
    assert_eq!(beginning.json, r#"{"actor_id":7,"truncated":true,"user_id":7}"#);
}

proptest::proptest! {
    #[test]
    fn what_is_cut_is_json_of_the_size_that_was_asked_for(content: Vec<u8>, fields: std::collections::BTreeMap<String, String>, at: usize) {
        let json = serde_json::to_string(&fields).unwrap();
        let at = json.floor_char_boundary(at % (json.len() + 1));
        for content in [&content[..], json.as_bytes(), &json.as_bytes()[..at]] {
            let cut = fields::cut(content, 4096);
            proptest::prop_assert!(serde_json::from_str::<serde_json::Value>(&cut).is_ok() && cut.len() <= 4096, "{}", cut);
        }
    }
}
