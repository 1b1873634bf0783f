use audit_testkit::shared;
use cdc_audit_tests::trail::Version;
use cdc_audit_tests::world::World;
use expect_test::expect;

const RULES: &str = r#"
[[tables]]
name = "public.notes"
soft_delete = "discarded_at"
item_type = "Note"

[[tables]]
name = "public.log"
events = ["created", "deleted"]
key = ["code"]

[[tables]]
name = "public.posts"
where = "status <> 'draft'"
"#;

fn told(trail: &[Version]) -> String {
    let line = |version: &Version| {
        let (table, event, key) = (&version.item_type, &version.event, version.key.as_deref().unwrap_or("-"));
        format!("{table} {key} {event} {:?}\n", version.changed)
    };
    trail.iter().map(line).collect()
}

/// This is the same in every sink, and in what the commands print.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_tracked_is_what_the_rules_say() {
    let server = shared(15).await;
    let world = World::on(server)
        .tables(RULES)
        .sql("CREATE TABLE notes (id int PRIMARY KEY, text text, discarded_at timestamptz); ALTER TABLE notes REPLICA IDENTITY FULL; \
              CREATE TABLE log (code text, v int); ALTER TABLE log REPLICA IDENTITY FULL; \
              CREATE TABLE posts (id int PRIMARY KEY, status text); ALTER TABLE posts REPLICA IDENTITY FULL; \
              INSERT INTO posts VALUES (1, 'draft'), (2, 'live')")
        .unwitnessed()
        .build()
        .await;
    server.execute(
        &world.database,
        "INSERT INTO notes VALUES (1, 'a', NULL); UPDATE notes SET discarded_at = '2026-01-01'; UPDATE notes SET discarded_at = NULL, text = 'b'; \
         INSERT INTO log VALUES ('x', 1); UPDATE log SET v = 2; DELETE FROM log; TRUNCATE log; \
         INSERT INTO posts VALUES (3, 'draft'), (4, 'live'); UPDATE posts SET status = 'live' WHERE id = 3; UPDATE posts SET status = 'gone' WHERE id = 3; \
         UPDATE posts SET status = 'draft' WHERE id = 4; UPDATE posts SET status = 'draft' WHERE id = 1; DELETE FROM posts WHERE id = 1",
    );
    world.catch_up().await;
    let recorded = world.recorded().await;
    assert_eq!(recorded.disagreements(), [""; 0]);
    let mut hot = recorded.hot;
    hot.retain(|version| version.event != "snapshot");
    expect![[r#"
        Note 1 created None
        Note 1 discarded Some(["discarded_at"])
        Note 1 restored Some(["text", "discarded_at"])
        log x created None
        log x deleted None
        posts 4 created None
        posts 3 created None
        posts 3 updated Some(["status"])
        posts 4 deleted None
    "#]]
    .assert_eq(&told(&hot));
    for sink in ["hot", "archive"] {
        let history = world.succeed(&["history", "public.notes", "1", "--from", sink]);
        assert!(history.contains("discarded") && history.contains("Discarded at set to 2026-01-01"), "{history}");
        assert!(history.contains("restored") && history.contains("Text changed from a to b"), "{history}");
    }
    // A baseline reads the rows that are captured.
    let snapshots = recorded.by_log.iter().filter(|version| version.event == "snapshot");
    let snapshots: Vec<_> = snapshots.map(|version| (version.item_type.as_str(), version.key.as_deref())).collect();
    assert!(!snapshots.contains(&("posts", Some("1"))), "{snapshots:?}");
}
