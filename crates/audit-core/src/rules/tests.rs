use super::*;
use crate::inside::Form;
use crate::shape::ShapeColumn;
use crate::value::Kind;

fn rule(name: &str) -> TableRule {
    TableRule { name: name.into(), ..TableRule::default() }
}

fn column(name: &str, type_name: &str) -> ShapeColumn {
    ShapeColumn {
        name: name.into(),
        type_oid: 25,
        typmod: -1,
        type_name: type_name.into(),
        holds: Vec::new(),
        kind: Kind::Text,
        attnum: None,
        in_identity: false,
    }
}

/// The rule that decides about a text column, and the methods.
fn decided(rules: &TableRules, name: &str, type_name: &str) -> String {
    match rules.decision(&column(name, type_name)) {
        Some(Decision { methods, by }) => {
            let methods: Vec<String> = methods.iter().map(|method| method.to_string()).collect();
            format!("{name}: {} by {by}", if methods.is_empty() { "as it is".into() } else { methods.join(" + ") })
        }
        None => format!("{name}: nobody"),
    }
}

#[test]
fn patterns_match_whole_names() {
    for (pattern, name, expected) in [
        ("public.*", "public.users", true),
        ("public.*", "publicx.users", false),
        ("*", "", true),
        ("a*b*c", "aXbYbZc", true),
        ("a*b*c", "aXbYbZ", false),
        ("?", "é", true),
        ("users", "users2", false),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}

#[test]
fn later_rules_add_to_and_override_earlier_ones() {
    let rules = Rules {
        tables: vec![
            TableRule {
                ignore: Some(vec!["search_vector".into()]),
                protect: [("email".to_string(), Method::Hash.into())].into(),
                ..rule("public.*")
            },
            TableRule {
                ignore: Some(vec!["cache_*".into()]),
                protect: [("note".to_string(), Method::Full.into())].into(),
                ..rule("public.users")
            },
        ],
        ..Rules::default()
    };
    let users = rules.for_table(&TableName::new("public", "users"));
    assert!(users.is_tracked("search_vector") && !users.is_tracked("cache_key"));
    assert_eq!(decided(&users, "email", "text"), "email: hash by tables[0].protect.email");
    assert_eq!(decided(&users, "note", "text"), "note: full by tables[1].protect.note");
    let other = rules.for_table(&TableName::new("public", "orders"));
    assert!(!other.is_tracked("search_vector"));
    assert_eq!(decided(&other, "note", "text"), "note: nobody");
}

/// The table's own rules come first, an exact name before a pattern, and a later rule before an earlier one; then come
/// general rules, then the default set.
#[test]
fn rules_decide_in_order() {
    let many = Protect::from(vec![Method::Partial.into(), Method::Encrypt.into()]);
    let rules = Rules {
        tables: vec![
            TableRule {
                protect: [("*phone*".to_string(), Method::Hash.into()), ("Note".to_string(), many)].into(),
                allow: Some(vec!["reset_token".into(), "open_*".into()]),
                ..rule("public.*")
            },
            TableRule {
                protect: [("*phone".to_string(), Method::Drop.into()), ("home_phone".to_string(), Method::Full.into())]
                    .into(),
                ..rule("public.users")
            },
        ],
        protection: vec![
            ProtectionRule {
                column: Some("*_Token".into()),
                type_name: None,
                content: None,
                method: Method::Drop.into(),
            },
            ProtectionRule {
                column: None,
                type_name: Some("INET".into()),
                content: None,
                method: Method::Partial.into(),
            },
            ProtectionRule {
                column: Some("at*".into()),
                type_name: Some("character varying".into()),
                content: None,
                method: Method::Hash.into(),
            },
        ],
        default_protection: true,
        ..Rules::default()
    };
    let users = rules.for_table(&TableName::new("public", "users"));
    let asked = [
        ("home_phone", "text"),
        ("work_phone", "text"),
        ("phone_book", "text"),
        ("Note", "text"),
        ("note", "text"),
        ("reset_token", "text"),
        ("open_token", "text"),
        ("API_token", "text"),
        ("Password_Digest", "text"),
        ("last_ip", "inet"),
        ("attic", "character varying(20)"),
        ("attic", "text"),
        // The catalog no longer knew the type: 869 is what is left of inet.
        ("last_ip", "869"),
        ("name", "text"),
    ];
    let shown: Vec<String> = asked.iter().map(|(name, type_name)| decided(&users, name, type_name)).collect();
    expect_test::expect![[r#"
        home_phone: full by tables[1].protect.home_phone
        work_phone: drop by tables[1].protect.*phone
        phone_book: hash by tables[0].protect.*phone*
        Note: partial + encrypt by tables[0].protect.Note
        note: partial + encrypt by tables[0].protect.Note
        reset_token: as it is by tables[0].allow: reset_token
        open_token: as it is by tables[0].allow: open_*
        API_token: drop by protection.rules[0]
        Password_Digest: full by default set: *password*
        last_ip: partial by protection.rules[1]
        attic: hash by protection.rules[2]
        attic: nobody
        last_ip: partial by protection.rules[1]
        name: nobody"#]]
    .assert_eq(&shown.join("\n"));
}

/// A domain, an array, a row or a range of a type contains values of it, and a modifier may be in the middle of a name.
#[test]
fn a_rule_for_a_type_means_every_type_that_holds_it() {
    let rules = |type_name: &str| {
        let rule = ProtectionRule {
            column: None,
            type_name: Some(type_name.to_owned()),
            content: None,
            method: Method::Full.into(),
        };
        Rules { protection: vec![rule], ..Rules::default() }.for_name("public.t".into())
    };
    for (pattern, type_name, holds, expected) in [
        ("timestamp with time zone", "timestamp(3) with time zone", &[][..], true),
        ("timestamp with time zone", "timestamp(3) with time zone[]", &[], true),
        ("timestamp with time zone", "timestamp(3) without time zone", &[], false),
        ("time without time zone", "time(0) without time zone", &[], true),
        ("interval*", "interval second(2)", &[], true),
        ("numeric", "numeric(10,2)", &[], true),
        ("inet", "inet[]", &[], true),
        ("inet[]", "inet[]", &[], true),
        ("inet", "public.address", &["inet"], true),
        ("inet", "public.address[]", &["public.address", "inet"], true),
        ("public.address", "public.address[]", &["public.address", "inet"], true),
        ("inet", "text", &[], false),
        ("inet", "cidr", &[], false),
    ] {
        let held = holds.iter().map(|name| name.to_string()).collect();
        let column = ShapeColumn { holds: held, ..column("x", type_name) };
        assert_eq!(rules(pattern).decision(&column).is_some(), expected, "{pattern} {type_name}");
    }
}

#[test]
fn the_default_names_mean_columns_in_every_style() {
    let rules = Rules { default_protection: true, ..Rules::default() }.for_name("public.t".into());
    for (name, expected) in
        [("apiKey", true), ("api-key", true), ("patientSSN", true), ("userPin", true), ("opinion", false)]
    {
        assert_eq!(rules.decision(&column(name, "text")).is_some(), expected, "{name}");
    }
}

/// Every type that contains text is searched, whatever its name is.
#[test]
fn every_type_that_holds_text_is_searched() {
    let rules = Rules { default_protection: true, ..Rules::default() }.for_name("public.t".into());
    let text = |kind: Kind| kind.array();
    for (type_oid, kind, expected) in [
        (25, Kind::Text, Some(Form::Text)),
        (1043, Kind::Text, Some(Form::Text)),
        (19, Kind::Text, Some(Form::Text)),
        (142, Kind::Text, Some(Form::Text)),
        (3614, Kind::Text, Some(Form::Text)),
        (16_500, Kind::Text, Some(Form::Parts)),
        (1009, text(Kind::Text), Some(Form::Parts)),
        (114, Kind::Json, Some(Form::Document)),
        (16_500, Kind::Jsonb, Some(Form::Document)),
        (3807, text(Kind::Jsonb), Some(Form::Documents)),
        (23, Kind::Int4, None),
        (1005, text(Kind::Int2), None),
    ] {
        let column = ShapeColumn { type_oid, kind, ..column("x", "some type") };
        assert_eq!(rules.inside(&column).map(|inside| inside.form), expected, "{column:?}");
    }
}
