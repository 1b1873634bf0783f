use audit_testkit::shared;
use cdc_audit_tests::world::World;
use serde_json::Value;

const RULES: &str = r#"
[[tables]]
name = "*"
ignore_alone = []
baseline = false

[[tables]]
name = "public.strict"
require_actor = true
require_reason = ["deleted"]

[[tables]]
name = "public.columns"
actor_column = "by"
reason_column = "why"
require_actor = ["updated", "deleted"]
require_reason = true
"#;

/// Such versions are flagged in both sinks, counted by table, and listed from each sink.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_table_requires_and_nobody_said_is_flagged_counted_and_listed() {
    let server = shared(15).await;
    let world = World::on(server)
        .tables(RULES)
        .full(true)
        .sql("CREATE TABLE strict (id int PRIMARY KEY); ALTER TABLE strict REPLICA IDENTITY FULL; CREATE TABLE free (id int PRIMARY KEY); \
              CREATE TABLE columns (id int PRIMARY KEY, v int, by text, why text); ALTER TABLE columns REPLICA IDENTITY FULL; \
              ALTER TABLE free REPLICA IDENTITY FULL")
        .build()
        .await;
    assert_eq!(world.command(&["check", "--attribution"]).status.code(), Some(2), "nothing to look at yet");
    server.execute(
        &world.database,
        r#"INSERT INTO strict VALUES (1), (2); INSERT INTO free VALUES (1);
           BEGIN; SELECT cdc_audit.set_context('{"actor_id": "ann", "missing": ["nothing"]}'); INSERT INTO strict VALUES (3); DELETE FROM strict WHERE id = 3; INSERT INTO strict VALUES (4); COMMIT;
           BEGIN; SELECT cdc_audit.set_context('{"request_id": "r1"}'); DELETE FROM strict WHERE id = 1; COMMIT;
           INSERT INTO columns VALUES (1, 1, NULL, 'made'); UPDATE columns SET v = 2, by = 'bob', why = 'fix'; UPDATE columns SET v = 3; DELETE FROM columns"#,
    );
    world.catch_up().await;
    let recorded = world.check().await;
    let flags: Vec<String> = recorded
        .hot
        .iter()
        .map(|version| {
            let missing = version.context.as_ref().map_or(&Value::Null, |context| &context["missing"]);
            format!("{} {} {} {missing}", version.table, version.key.as_deref().unwrap(), version.event)
        })
        .collect();
    assert_eq!(
        flags,
        [
            r#"public.strict 1 created ["actor"]"#,
            r#"public.strict 2 created ["actor"]"#,
            "public.free 1 created null",
            "public.strict 3 created null",
            r#"public.strict 3 deleted ["reason"]"#,
            "public.strict 4 created null",
            r#"public.strict 1 deleted ["actor","reason"]"#,
            // A row's reason counts only if its actor counts too.
            r#"public.columns 1 created ["reason"]"#,
            "public.columns 1 updated null",
            // The column still names the person who changed the row before; nothing says why it was changed again.
            r#"public.columns 1 updated ["reason"]"#,
            r#"public.columns 1 deleted ["actor","reason"]"#,
        ]
    );
    for sink in ["hot", "archive"] {
        let output = world.command(&["check", "--attribution", "--from", sink]);
        assert_eq!(output.status.code(), Some(3));
        let listed: Vec<Value> =
            String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let listed: Vec<String> = listed
            .iter()
            .map(|version| {
                format!("{} {} {} {}", version["table_name"], version["key"], version["event"], version["missing"])
            })
            .collect();
        assert_eq!(
            listed,
            [
                r#""public.columns" "1" "created" ["reason"]"#,
                r#""public.columns" "1" "updated" ["reason"]"#,
                r#""public.columns" "1" "deleted" ["actor","reason"]"#,
                r#""public.strict" "1" "created" ["actor"]"#,
                r#""public.strict" "2" "created" ["actor"]"#,
                r#""public.strict" "3" "deleted" ["reason"]"#,
                r#""public.strict" "1" "deleted" ["actor","reason"]"#,
            ],
            "{sink}"
        );
    }
    let later = world.command(&["check", "--attribution", "--since", "2999-01-01"]);
    assert_eq!(later.status.code(), Some(0));
    // Who may ask is decided by the role of the one who asks, not by the daemon's.
    let role = audit_testkit::unique("reader");
    server.execute(&world.database, &format!("CREATE ROLE {role} LOGIN"));
    let url = world.hot_url.replacen("postgres@", &format!("{role}@"), 1);
    let asked = ["check", "--attribution", "--as", &url];
    assert_ne!(world.command(&asked).status.code(), Some(3), "it may not read yet");
    world.succeed(&["setup", "--reader", &role]);
    assert_eq!(world.command(&asked).status.code(), Some(3));
}
