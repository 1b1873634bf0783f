use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::inside::{Names, PathRule};
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
        form: Form::Document,
        paths: vec![path(&["db", "user"], Method::Partial), path(&["db", "*", "host"], Method::Drop)],
        names: Arc::new(Names::new(
            [("open_*", &[][..]), ("mail", &hash), ("phone", &both)],
            [("*_token", &full[..]), ("*password*", &full)],
        )),
        content: vec![(Content::Card, Method::Partial.into())],
    }
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
        (r#"[-4532015112830366, 4532015112830366.5]"#, r#"["-****0366", 4532015112830366.5]"#),
        ("null", "null"),
        ("{}", "{}"),
        // Names that are sensitive content themselves.
        (r#"{"4532 0151 1283 0366": 1, "a": 2}"#, r#"{"****0366": 1, "a": 2}"#),
        (r#"{"4532015112830366 password": 1}"#, r#"{"****0366 password": "[REDACTED]"}"#),
        // Documents in strings, at any depth.
        (
            r#"{"body": "{\"apiToken\": \"geheim\", \"a\": 1}"}"#,
            r#"{"body": "{\"apiToken\": \"[REDACTED]\", \"a\": 1}"}"#,
        ),
        (r#"{"db": "{\"x\": \"{\\\"host\\\": 1, \\\"b\\\": 2}\"}"}"#, r#"{"db": "{\"x\": \"{\\\"b\\\": 2}\"}"}"#),
        (r#"["\"4532015112830366\"", "[draft] \"x\""]"#, r#"["\"****0366\"", "[draft] \"x\""]"#),
        (r#"["{\"the_password\": \"geh"]"#, r#"["[REDACTED:21chars]"]"#),
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

/// What cannot be read could hide anything.
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

fn of_form(form: Form) -> Inside {
    Inside { form, paths: vec![path(&["db", "user"], Method::Partial), path(&["drop_me"], Method::Drop)], ..rules() }
}

/// An outbox keeps documents in a text column, and a log of requests truncates them.
#[test]
fn documents_in_text_are_protected_as_documents() {
    for (text, expected) in [
        (r#"{"Password": "geheim", "a": 1}"#, r#"{"Password": "[REDACTED]", "a": 1}"#),
        (" [{\"x_token\": 1}]\n", " [{\"x_token\": \"[REDACTED]\"}]\n"),
        ("{\"password\": 1}\n{\"password\": 2}\n", "{\"password\": \"[REDACTED]\"}\n{\"password\": \"[REDACTED]\"}\n"),
        (r#""{\"password\": 1}""#, r#""{\"password\": \"[REDACTED]\"}""#),
        (r#"{"db": {"user": "ann@example.com"}}"#, r#"{"db": {"user": "a***@example.com"}}"#),
        (r#"{"password": "geh"#, "[REDACTED:17chars]"),
        // These are no documents.
        ("{draft} [2] \"password\": 4532015112830366", "{draft} [2] \"password\": ****0366"),
        ("[x] paid with 4532 0151 1283 0366", "[x] paid with ****0366"),
        ("\"quoted\" and not closed\"", "\"quoted\" and not closed\""),
        ("{", "{"),
        ("[12, 13", "[12, 13"),
        ("", ""),
    ] {
        assert_eq!(left(&of_form(Form::Text), text), expected, "{text}");
    }
    let deep = format!("{}{{\"password\": \"geheim\"}}{}", "[".repeat(500), "]".repeat(500));
    assert!(!left(&of_form(Form::Text), &deep).contains("geheim"));
}

#[test]
fn parts_of_arrays_rows_and_hstores_are_protected() {
    for (text, expected) in [
        ("{4532015112830366,b,NULL}", r#"{"****0366",b,NULL}"#),
        (r#"{"paid with 4532 0151 1283 0366","c \"d\""}"#, r#"{"paid with ****0366","c \"d\""}"#),
        (r#"{"{\"password\": \"geheim\"}",x}"#, r#"{"{\"password\": \"[REDACTED]\"}",x}"#),
        (r#"(1,"{""password"": ""geheim""}",)"#, r#"(1,"{\"password\": \"[REDACTED]\"}",)"#),
        (r#"{"(1,\"card 4532015112830366\")"}"#, r#"{"(1,\"card ****0366\")"}"#),
        (r#""password"=>"geheim", "a"=>NULL, "b"=>"1""#, r#""password"=>"[REDACTED]", "a"=>NULL, "b"=>"1""#),
        (r#""userPassword"=>NULL, "drop_me"=>"geheim""#, r#""userPassword"=>"[REDACTED]""#),
        (r#""phone"=>NULL, "mail"=>NULL"#, r#""phone"=>NULL, "phone__hash"=>NULL, "mail"=>NULL"#),
        (r#""4532015112830366"=>"4532015112830366""#, r#""****0366"=>"****0366""#),
        (r#""a"=>"{\"password\": 1}""#, r#""a"=>"{\"password\": \"[REDACTED]\"}""#),
        (r#"{"\"password\"=>\"geheim\""}"#, r#"{"\"password\"=>\"[REDACTED]\""}"#),
        // Other types of the database's own, and domains over text.
        ("paid with (4532 0151 1283 0366)", "paid with (****0366)"),
        ("[4532015112830366,5555555555554444)", "[****0366,****4444)"),
        ("happy", "happy"),
        (r#"{"a","b c"}"#, r#"{"a","b c"}"#),
    ] {
        assert_eq!(left(&of_form(Form::Parts), text), expected, "{text}");
    }
}

#[test]
fn documents_in_arrays_are_protected() {
    for (text, expected) in [
        (
            r#"{"{\"password\": \"geheim\"}",NULL,"{\"a\": 1}"}"#,
            r#"{"{\"password\": \"[REDACTED]\"}",NULL,"{\"a\": 1}"}"#,
        ),
        ("{4532015112830366,1,true}", r#"{"\"****0366\"",1,true}"#),
        ("{{1},{2}}", "{{1},{2}}"),
        ("no array", "no array"),
    ] {
        assert_eq!(left(&of_form(Form::Documents), text), expected, "{text}");
    }
}

/// Nested quotation is hidden before it is too deep to be read, and never left as it is.
#[test]
fn depth_of_quotation_has_a_bound() {
    let mut text = r#"{"password": "geheim"}"#.to_owned();
    for _ in 0..12 {
        text = serde_json::json!([text]).to_string();
        let shown = left(&rules(), &text);
        assert!(!shown.contains("geheim"), "{shown}");
        assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok(), "{shown}");
    }
}

/// The time for a text with many matches grows in proportion to the text.
#[test]
fn each_kind_of_content_is_searched_once() {
    let all = [Content::Card, Content::Email, Content::Ssn, Content::Phone, Content::Iban];
    let rules: Vec<(Content, MethodRule)> = all.into_iter().map(|content| (content, Method::Partial.into())).collect();
    let text = "a@b.example 123-45-6789 4532 0151 1283 0366, ".repeat(3);
    let (mut found, mut at, mut kinds) = (Found::new(&rules), 0, Vec::new());
    while let Some((place, content, _)) = found.next(&text, at) {
        at = place.end;
        kinds.push(content);
    }
    assert_eq!(kinds, [Content::Email, Content::Ssn, Content::Card].repeat(3));
    // A kind of content that does not occur was searched for once.
    assert_eq!(found.next[Content::Iban as usize], None);
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
