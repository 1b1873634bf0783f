use expect_test::expect;

/// What `check` says of a config file with these sections.
fn said(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let output = audit_testkit::command(["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).unwrap().replace(folder.path().to_str().unwrap(), "<folder>")
}

#[test]
fn mistakes_in_words_are_named_with_place_and_hint() {
    let text = r#"[source]
name = "shop"
url = "postgres://a@127.0.0.1/shop"
conventions = ["bemmi"]
sesion_context = { tables = ["public.*"] }

[[tables]]
name = "public.*"
require_actor = "yes"
require_reason = ["delete"]
require_reasons = true
events = ["update", "created"]
soft_delete = 7
key = "id"
where = true

[sinks.archive]
type = "lake"
url = "/nowhere"
"#;
    expect![[r#""#]].assert_eq(&said(text));
}

#[test]
fn mistakes_in_meaning_are_named_with_place_and_hint() {
    let text = r#"[source]
name = "shop"
url = "postgres://a@127.0.0.1/shop"

[source.session_context]
tables = []
settings = { "current_user_id" = "actor_id", "app.user'; --" = "reason", "app.reason" = "a reason" }

[[tables]]
name = "public.*"
events = []
key = []

[sinks.archive]
type = "lake"
url = "/nowhere"
"#;
    expect![[r#""#]].assert_eq(&said(text));
}
