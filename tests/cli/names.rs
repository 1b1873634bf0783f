use audit_testkit::shared;
use cdc_audit_tests::world::World;
use serde_json::{Value, json};

use crate::sql::in_duckdb;

fn lines(told: &str) -> Vec<Value> {
    told.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Notes whose column `text` was renamed to `body`, and got a new column `text` then; another table was made again with
/// other names.
async fn world(rest: &str) -> World {
    let server = shared(15).await;
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, title text, text text); ALTER TABLE notes REPLICA IDENTITY FULL; \
                  CREATE TABLE pages (id int PRIMARY KEY, content text); ALTER TABLE pages REPLICA IDENTITY FULL";
    let rules = "[[tables]]\nname = 'public.*'\n[[tables]]\nname = 'public.pages'\n\
                 [[tables.renames]]\nfrom = 'content'\nto = 'body'\n";
    let world = World::on(server).sql(tables).tables(rules).sections(rest).unwitnessed().build().await;
    let phases = [
        "INSERT INTO notes VALUES (1, 'T', 'one'); UPDATE notes SET text = 'two' WHERE id = 1; \
         INSERT INTO pages VALUES (1, 'one'); UPDATE pages SET content = 'two' WHERE id = 1",
        "ALTER TABLE notes RENAME COLUMN text TO body; ALTER TABLE pages DROP COLUMN content; \
         UPDATE notes SET body = 'three' WHERE id = 1; \
         ALTER TABLE pages ADD COLUMN body text; UPDATE pages SET body = 'three' WHERE id = 1",
        "ALTER TABLE notes ADD COLUMN text text; ALTER TABLE notes ALTER COLUMN title TYPE varchar(20); \
         UPDATE notes SET text = 'new' WHERE id = 1",
        "ALTER TABLE notes DROP COLUMN text; ALTER TABLE notes ADD COLUMN text text; \
         UPDATE notes SET text = 'newest' WHERE id = 1",
    ];
    for phase in phases {
        server.execute(&world.database, phase);
        world.catch_up().await;
    }
    world
}

/// The changes of the versions that are found, newest first.
fn found(world: &World, words: &[&str]) -> Vec<Value> {
    let told = ["hot", "archive"].map(|from| {
        let all = lines(&world.succeed(&[&["search", "--json", "--from", from], words].concat()));
        all.into_iter().map(|record| record["changes"].clone()).collect::<Vec<_>>()
    });
    assert_eq!(told[0], told[1], "{words:?}: hot and lake");
    let [hot, _] = told;
    hot
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_shown_and_found_under_their_newest_names() {
    let world = world("").await;
    let [two, three] = [json!({"body": ["one", "two"]}), json!({"body": ["two", "three"]})];
    let newest = json!({"text": [null, "newest"]});
    let before = json!({"text (dropped)": [null, "new"]});

    assert_eq!(found(&world, &["notes", "body:->", "event:updated"]), [three.clone(), two.clone()]);
    assert_eq!(found(&world, &["notes", "body:one->two"]), std::slice::from_ref(&two));
    // The name `text` is another column's now, and was that of a column that was dropped.
    assert_eq!(found(&world, &["notes", "text:", "event:updated"]), std::slice::from_ref(&newest));
    assert_eq!(found(&world, &["notes", "\"text (dropped)\":", "event:updated"]), std::slice::from_ref(&before));
    assert_eq!(found(&world, &["notes", "--field", "text (dropped)", "event:updated"]), [before]);
    // A declared rename.
    assert_eq!(found(&world, &["pages", "content:", "event:updated"]), [json!({"body": [null, "three"]}), two.clone()]);
    assert_eq!(found(&world, &["pages", "body:", "--raw", "event:updated"])[1], json!({"content": ["one", "two"]}));

    let history = |more: &[&str]| lines(&world.succeed(&[&["history", "notes", "1", "--json"], more].concat()));
    let changes: Vec<Value> = history(&[]).iter().map(|told| told["changes"].clone()).collect();
    assert_eq!((&changes[0], &changes[2], &changes[3]), (&newest, &three, &two));
    assert_eq!(history(&["--raw"])[3]["changes"], json!({"text": ["one", "two"]}));
    let fields: Vec<Value> = history(&["--field", "body"]).iter().map(|entry| entry["after"].clone()).collect();
    assert_eq!(fields, ["three", "two", "one"]);
    let pages = lines(&world.succeed(&["history", "pages", "1", "--field", "content", "--json"]));
    assert_eq!(pages.iter().map(|entry| entry["after"].clone()).collect::<Vec<_>>(), ["three", "two", "one"]);

    let groups = world.succeed(&["search", "notes", "event:updated", "--group-by", "field", "--json"]);
    let mut groups = lines(&groups);
    groups.sort_by_key(|group| group["field"].to_string());
    let counted = |field: &str, count: u32| json!({"field": field, "count": count});
    assert_eq!(groups, [counted("body", 2), counted("text (dropped)", 1), counted("text", 1)]);
    let position = history(&[])[3]["position"].as_str().unwrap().to_owned();
    let tx =
        |more: &[&str]| lines(&world.succeed(&[&["tx", &position, "--json"], more].concat()))[0]["versions"][0].clone();
    assert_eq!((tx(&[])["changes"].clone(), tx(&["--raw"])["changes"].clone()), (two, json!({"text": ["one", "two"]})));
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_lists_shapes_with_what_changed() {
    let world = world("").await;
    let shapes = lines(&world.succeed(&["schema", "notes", "--json"]));
    let changes: Vec<&Value> = shapes.iter().map(|shape| &shape["changes"]).collect();
    let renamed = json!([{"change": "renamed", "from": "text", "to": "body", "declared": false}]);
    let (added, dropped) =
        (json!({"change": "added", "column": "text", "type": "text"}), json!({"change": "dropped", "column": "text"}));
    let retyped = json!({"change": "retyped", "column": "title", "from": "text", "to": "character varying(20)"});
    assert_eq!(changes, [&json!([]), &renamed, &json!([retyped, added]), &json!([dropped, added])]);
    let names = |shape: &Value| {
        shape["columns"].as_array().unwrap().iter().map(|column| column["now"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&shapes[0]), ["id", "title", "body"]);
    assert!(shapes.iter().all(|shape| shape["committed_at"].as_str().is_some_and(|at| at.starts_with("20"))));
    let told = world.succeed(&["schema", "pages"]);
    assert!(told.contains("content → body (declared)"), "{told}");

    world.edit_config("[[tables.renames]]", "protect = { body = 'partial' }\n[[tables.renames]]");
    shared(15).await.execute(&world.database, "UPDATE pages SET body = 'four' WHERE id = 1");
    world.catch_up().await;
    let told = world.succeed(&["schema", "pages", "--from", "archive"]);
    assert!(told.contains("body protected: none → partial"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_join_former_names() {
    let world = world("").await;
    let query = "select new_body, new_text, old_body from notes__versions order by position";
    let expected = [
        json!({"new_body": "one", "new_text": null, "old_body": null}),
        json!({"new_body": "two", "new_text": null, "old_body": "one"}),
        json!({"new_body": "three", "new_text": null, "old_body": "two"}),
        json!({"new_body": "three", "new_text": null, "old_body": "three"}),
        json!({"new_body": "three", "new_text": "newest", "old_body": "three"}),
    ];
    // In hot an update has only what changed.
    let changed = "select coalesce(new_body, new_text) as new from notes__versions order by position";
    let hot = lines(&world.succeed(&["sql", changed, "--json"]));
    let new = |value: &str| json!({"new": value});
    assert_eq!(hot, [new("one"), new("two"), new("three"), json!({"new": null}), new("newest")]);
    let ask = |query: &str| {
        let output = in_duckdb(&world, &[query, "--json", "--from", "archive"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        lines(&String::from_utf8_lossy(&output.stdout))
    };
    assert_eq!(ask(query), expected);
    let now = ask("select body, text from public_notes order by cdc_position desc limit 1");
    assert_eq!(now, [json!({"body": "three", "text": "newest"})]);
}
