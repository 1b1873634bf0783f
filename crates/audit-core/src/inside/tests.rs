use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::mac::MacKey;

fn policy() -> Policy {
    Policy { hash_key: Some(MacKey::new("k1", b"0123456789abcdef")), ..Policy::default() }
}

fn left(inside: &Inside, text: &str) -> String {
    let mut out = String::new();
    policy()
        .inside(At { table: "public.t", column: "doc", bound: crate::protect::Bound::NOWHERE }, inside, text, &mut out)
        .unwrap();
    out
}

fn methods(methods: &[Method]) -> Vec<MethodRule> {
    methods.iter().map(|method| MethodRule::from(*method)).collect()
}

fn path(keys: &[&str], method: Method) -> PathRule {
    PathRule { keys: keys.iter().map(|key| key.to_string()).collect(), methods: methods(&[method]) }
}

fn rules() -> Inside {
    let full = methods(&[Method::Full]);
    let (hash, both) = (methods(&[Method::Hash]), methods(&[Method::Partial, Method::Hash]));
    Inside {
        json: true,
        paths: vec![path(&["db", "user"], Method::Partial), path(&["db", "*", "host"], Method::Drop)],
        names: Arc::new(Names::new([
            ("open_*", &[][..]),
            ("mail", &hash),
            ("phone", &both),
            ("*_token", &full),
            ("*password*", &full),
        ])),
        content: vec![(Content::Card, Method::Partial.into())],
    }
}

/// What tells most names quickly from those that rules name must agree with the rules.
#[test]
fn a_name_is_found_however_it_is_written() {
    let hash = methods(&[Method::Hash]);
    let names = Names::new([("*pass?word*", &hash[..]), ("ssn", &hash), ("?card", &hash), ("*\u{212a}ey", &hash)]);
    for name in ["MyPass_Word1", "pass-word", "SSN", "\u{17f}sn", "xCARD", "api_key", "API\u{212a}EY"] {
        assert!(names.find(name).is_some(), "{name}");
    }
    for name in ["password", "ssns", "card", "xxcard", "kez", ""] {
        assert!(names.find(name).is_none(), "{name}");
    }
    let all_ascii = Names::new([("*pass?word*", &hash[..]), ("ssn", &hash), ("?card", &hash)]);
    assert!(all_ascii.parts.is_some() && names.parts.is_none());
    for name in ["MyPass_Word1", "SSN", "\u{17f}sn", "xCARD"] {
        assert!(all_ascii.find(name).is_some(), "{name}");
    }
    assert!(Names::new([("*", &hash[..])]).find("anything").is_some());
}

#[test]
fn members_are_protected_at_any_depth_and_the_rest_stays_as_it_is() {
    let rules = rules();
    for (text, expected) in [
        (r#"{"a": 1, "b": [true, null, {"c": "x\"y"}]}"#, r#"{"a": 1, "b": [true, null, {"c": "x\"y"}]}"#),
        (
            r#"{"Password": "geheim", "n": [{"api_token": {"x": [1]}}]}"#,
            r#"{"Password": "[REDACTED]", "n": [{"api_token": "[REDACTED]"}]}"#,
        ),
        (r#"{ "p\u0061ssword" :null }"#, r#"{ "p\u0061ssword" :"[REDACTED]" }"#),
        (r#"{"mail": null, "open_token": "seen"}"#, r#"{"mail": null, "open_token": "seen"}"#),
        (r#"{"db": {"user": "ann@example.com"}}"#, r#"{"db": {"user": "a***@example.com"}}"#),
        (
            r#"{"db": [{"user": "ann@example.com"}], "user": "ann@example.com"}"#,
            r#"{"db": [{"user": "a***@example.com"}], "user": "ann@example.com"}"#,
        ),
        (
            r#"{"db": {"x": {"host": 1}, "y": {"a": 1, "host": {"b": 2}}, "z": {"host": 1, "c": 3}}}"#,
            r#"{"db": {"x": {}, "y": {"a": 1}, "z": {"c": 3}}}"#,
        ),
        (
            r#"{"note": "card 4532 0151 1283 0366\n", "n": 4532015112830366}"#,
            r#"{"note": "card ****0366\n", "n": "****0366"}"#,
        ),
        (r#"["\u0034532015112830366"]"#, r#"["****0366"]"#),
        (r#""4532015112830366""#, r#""****0366""#),
        ("null", "null"),
        ("{}", "{}"),
    ] {
        assert_eq!(left(&rules, text), expected, "{text}");
    }
    let phone = left(&rules, r#"{"phone": "5551234567", "z": {"mail": "x"}}"#);
    let hash = MacKey::new("k1", b"0123456789abcdef");
    let expected = format!(
        r#"{{"phone": "***-***-4567", "phone__hash": "{}", "z": {{"mail": "{}"}}}}"#,
        hash.hash("public.t", "doc.phone", b"5551234567"),
        hash.hash("public.t", "doc.z.mail", b"x"),
    );
    assert_eq!(phone, expected);
}

/// What cannot be walked could hide anything.
#[test]
fn a_document_that_is_no_json_is_hidden_whole() {
    for text in [r#"{"password": "geheim"#, r#"{"password" "geheim"}"#, "}", r#"{"a": 1]"#.trim_end_matches(']')] {
        let count = text.chars().count();
        assert_eq!(left(&rules(), text), format!("\"[REDACTED:{count}chars]\""), "{text}");
    }
}

#[test]
fn content_is_replaced_in_place() {
    let text = Inside {
        content: vec![(Content::Card, Method::Partial.into()), (Content::Email, Method::Full.into())],
        ..Inside::default()
    };
    let told = "Ann <ann@example.com> paid with 4532015112830366, bea@example.org with 5555 5555 5555 4444.";
    assert_eq!(left(&text, told), "Ann <[REDACTED]> paid with ****0366, [REDACTED] with ****4444.");
    assert_eq!(left(&text, "nothing"), "nothing");
}

#[test]
fn depth_is_no_obstacle() {
    let deep = format!("{}{{\"password\": \"geheim\"}}{}", "[".repeat(50_000), "]".repeat(50_000));
    assert_eq!(left(&rules(), &deep), deep.replace("\"geheim\"", "\"[REDACTED]\""));
}

proptest! {
    #[test]
    fn any_text_can_be_walked(text in "[\\PC{}\\[\\]\",:\\\\ ]{0,40}", secret in "[a-z]{12}") {
        left(&rules(), &text);
        let member = format!(r#"{{"x": [{{"y": {}, "the_password": "{secret}"}}]}}"#, serde_json::Value::from(text));
        let shown = left(&rules(), &member);
        prop_assert!(!shown.contains(&secret));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok(), "{}", shown);
    }
}
