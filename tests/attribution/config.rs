use expect_test::expect;

/// Returns what `check` says about a configuration file with these sections.
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
events = ["update", "created"]
soft_delete = 7
key = "id"
where = true

[sinks.archive]
type = "lake"
url = "/nowhere"
"#;
    expect![[r#"
        error: <folder>/config.toml has 8 problems
          line 4, source.conventions[0]: unknown value
            hint: did you mean `bemi`?
          line 5, source.sesion_context: unknown key
            hint: did you mean `session_context`?
          line 9, tables[0].require_actor: expected true or false or a list, found a string
          line 10, tables[0].require_reason[0]: unknown value
            hint: did you mean `deleted`?
          line 11, tables[0].events[0]: unknown value
            hint: did you mean `updated`?
          line 12, tables[0].soft_delete: expected a string or a list, found an integer
          line 13, tables[0].key: expected a list, found a string
          line 14, tables[0].where: expected a string, found true or false
    "#]]
    .assert_eq(&said(text));
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
    expect![[r#"
        error: <folder>/config.toml has 6 problems
          line 6, source.session_context.tables: names no table
            hint: name some, or take the section out
          line 7, source.session_context.settings: "a reason" cannot be a field of the context
            hint: give a field like actor_id, reason, request_id, of letters, digits and `_`
          line 7, source.session_context.settings: "app.user'; --" is not the name of such a setting
            hint: an application's own have a dot: "app.current_user_id"
          line 7, source.session_context.settings: "current_user_id" is not the name of such a setting
            hint: an application's own have a dot: "app.current_user_id"
          line 11, tables[0].events: selects no event
            hint: say `capture = false` to leave tables out
          line 12, tables[0].key: names no column
            hint: name some, or take the key out
    "#]]
    .assert_eq(&said(text));
}
