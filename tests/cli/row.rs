use audit_testkit::shared;
use cdc_audit_tests::world::World;
use expect_test::expect;
use serde_json::{Value, json};

/// A table of which the server sends no old rows. Everything in it is committed by somebody, for some reason.
async fn world() -> World {
    let server = shared(15).await;
    let tables = "CREATE TABLE orders (id int PRIMARY KEY, state text, total numeric(10,2), note text, ssn text, photo text); \
        ALTER TABLE orders ALTER photo SET STORAGE EXTERNAL; \
        CREATE TABLE parts (id int, region text, qty int, PRIMARY KEY (id, region)) PARTITION BY LIST (region); \
        CREATE TABLE parts_n PARTITION OF parts FOR VALUES IN ('n'); CREATE TABLE parts_s PARTITION OF parts FOR VALUES IN ('s'); \
        CREATE TABLE places (id int PRIMARY KEY, region text, qty int)";
    let rules = "[[tables]]\nname = \"*\"\n[[tables]]\nname = \"public.orders\"\nprotect = { ssn = \"partial\" }";
    let world = World::on(server).full(false).sql(tables).tables(rules).build().await;
    let by = |actor: &str, reason: &str, sql: &str| {
        format!(
            "BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{{\"actor_id\": \"{actor}\", \"reason\": \"{reason}\"}}'); {sql}; COMMIT;"
        )
    };
    let photo = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 200) n)";
    for sql in [
        by("31", "web shop", &format!("INSERT INTO orders VALUES (7, 'open', 12.5, NULL, '123-45-6789', {photo})")),
        by("31", "bank transfer", "UPDATE orders SET state = 'paid' WHERE id = 7"),
        by("9", "touched", "UPDATE orders SET state = 'paid' WHERE id = 7"),
        by("formatter", "format", "UPDATE orders SET note = 'Late' WHERE id = 7"),
        by("31", "mistake", "INSERT INTO orders VALUES (8, 'draft', 1, NULL, NULL, NULL)"),
        by("32", "cleaned up", "DELETE FROM orders WHERE id = 8"),
        by("31", "again", "INSERT INTO orders VALUES (8, 'open', 2, NULL, NULL, NULL)"),
        by("9", "touched", "UPDATE orders SET state = 'open' WHERE id = 8"),
        by("31", "stock", "INSERT INTO places VALUES (1, 'n', 5)"),
        by("33", "reset", "TRUNCATE places"),
    ] {
        server.execute(&world.database, &sql);
    }
    world.catch_up().await;
    world
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The table of an answer, without its column `when` and the padding.
fn table(told: &str) -> String {
    let cells = |line: &str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" | ");
    told.lines().filter(|line| !line.starts_with("|-")).map(|line| cells(line).trim_end().to_owned() + "\n").collect()
}

/// The answer with the exit code, of a command that may not succeed.
fn ended(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = world.command(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_without_old_rows_says_what_changed() {
    let world = world().await;
    let from = |sink: &str, arguments: &[&str]| {
        let mut told =
            lines(&world.succeed(&[&["history", "orders", "7", "--json", "--from", sink], arguments].concat()));
        told.iter_mut().for_each(|record| drop(record.as_object_mut().expect("a record").remove("recorded_at")));
        told
    };
    let told = from("hot", &[]);
    assert_eq!(told, from("archive", &[]));
    let brief = |record: &Value| json!([record["version"], record["changes"], record["derived"], record["actor_id"]]);
    let brief: Vec<Value> = told[..3].iter().map(brief).collect();
    assert_eq!(
        brief,
        [
            json!([4, {"note": [null, "Late"]}, ["note"], "formatter"]),
            json!([3, null, [], "9"]),
            json!([2, {"state": ["open", "paid"]}, ["state"], "31"])
        ]
    );
    assert_eq!(told[2]["derived_from"], told[3]["position"]);
    assert_eq!((&told[2]["before_known"], &told[2]["seconds_since_previous"].is_i64()), (&json!(false), &true));
    // An equal mask proves nothing, so that an update that may have changed it is shown.
    assert_eq!(told[1]["unknown_why"], json!({"ssn": "protected"}));
    let nothing =
        |arguments: &[&str]| lines(&world.succeed(&[&["history", "orders", "8", "--json"], arguments].concat())).len();
    assert_eq!((nothing(&[]), nothing(&["--all"])), (3, 4), "an update that changed nothing");
    let shown = world.succeed(&["history", "orders", "7"]);
    assert!(shown.contains("~State changed from open to paid. Not known: ssn."), "{shown}");
    let fields = lines(&world.succeed(&["history", "orders", "7", "--field", "state", "--json"]));
    let sides: Vec<Value> =
        fields.iter().map(|field| json!([field["before"], field["after"], field["version"]])).collect();
    assert_eq!(sides, [json!(["open", "paid", 2]), json!([null, "open", 1])]);
    let to = world.succeed(&["history", "orders", "7", "--field", "state", "--to", "open,gone", "--json"]);
    assert_eq!(lines(&to).len(), 1);
    for (field, within, code) in [("state", "1d", 0), ("total", "2100-01-01", 8), ("ssn", "1d", 0)] {
        let (ended, ..) = ended(&world, &["history", "orders", "7", "--field", field, "--changed-within", within]);
        assert_eq!(ended, Some(code), "{field}");
    }
    let row: Value =
        serde_json::from_str(&world.succeed(&["history", "orders", "7", "--with-row"])).expect("an object");
    assert_eq!((&row["state"], row["audit_trail"].as_array().map(Vec::len)), (&json!("paid"), Some(4)));
    let diff = world.succeed(&["history", "orders", "7", "--diff"]);
    assert!(diff.contains("  - state  ~open\n  + state  paid\n"), "{diff}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_shown_as_it_was() {
    let world = world().await;
    for sink in ["hot", "archive"] {
        let show = |arguments: &[&str]| world.succeed(&[&["show", "orders", "7", "--from", sink], arguments].concat());
        assert_eq!(show(&["--as-of", "v1", "--field", "state"]), "open\n");
        assert_eq!(show(&["--field", "state"]), "paid\n");
        let row: Value = serde_json::from_str(&show(&["--json"])).expect("an object");
        assert_eq!((&row["exists"], &row["version"], &row["row"]["total"]), (&json!(true), &json!(4), &json!("12.50")));
        // A large value that was not sent again is carried on.
        assert_eq!(row["knowledge"], json!({"ssn": "protected:partial", "photo": "derived"}), "{sink}");
        assert!(row["row"]["photo"].as_str().is_some_and(|photo| photo.len() == 6400));
        let shown = table(&show(&["--as-of", "v1"]));
        assert!(shown.contains("state | open | 31, ") && shown.contains("note | ∅ | "), "{shown}");
        let absent = |table: &str, key: &str, as_of: &str| {
            let (code, told, _) = ended(&world, &["show", table, key, "--as-of", as_of, "--json", "--from", sink]);
            assert_eq!(code, Some(8), "{told}");
            let told: Value = serde_json::from_str(&told).expect("an object");
            json!([told["exists"], told["why"], told["by"]])
        };
        assert_eq!(absent("orders", "404", "now"), json!([false, "never_seen", null]));
        assert_eq!(absent("orders", "7", "2020-01-01"), json!([false, "not_yet", null]));
        assert_eq!(absent("places", "1", "now"), json!([false, "truncated", "33"]));
        // The key was used again, by another row.
        let deleted = lines(&world.succeed(&["history", "orders", "8", "--json"]))[1]["position"].clone();
        assert_eq!(absent("orders", "8", deleted.as_str().expect("a position")), json!([false, "deleted", "32"]));
    }
    let (code, _, said) = ended(&world, &["show", "places", "1"]);
    assert_eq!((code, said.contains("public.places 1 was removed by TRUNCATE: by 33, ")), (Some(8), true), "{said}");
    let (code, _, said) = ended(&world, &["show", "orders", "7", "--as-of", "v9"]);
    assert_eq!((code, said.contains("the row has no version 9: its newest is 4")), (Some(2), true), "{said}");
    let (code, _, said) = ended(&world, &["show", "orders", "7", "--field", "colour"]);
    assert_eq!((code, said.contains("its columns are id, state, total, note, ssn, photo")), (Some(2), true), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_points_are_compared_and_each_value_has_its_author() {
    let world = world().await;
    for sink in ["hot", "archive"] {
        let (code, told, _) = ended(&world, &["diff", "orders", "7", "v1", "--json", "--exit-code", "--from", sink]);
        let told: Value = serde_json::from_str(&told).expect("an object");
        assert_eq!(code, Some(10));
        assert_eq!(told["changes"], json!({"state": ["open", "paid"], "note": [null, "Late"]}));
        assert_eq!((&told["same"], &told["unknown"]), (&json!(["id", "total", "photo"]), &json!({"ssn": "protected"})));
        let shown = table(&world.succeed(&["diff", "orders", "7", "v1", "--from", sink]));
        assert!(shown.contains("state | open → paid | v2 31\n") && shown.contains("total | 12.50 (same)"), "{shown}");
        let blame = lines(&world.succeed(&["blame", "orders", "7", "--json", "--from", sink]));
        let by = |column: &str, blame: &[Value]| {
            let line = blame.iter().find(|line| line["column"] == column).expect("a line");
            json!([line["value"], line["version"], line["by"], line["reason"], line["before"], line["derived"]])
        };
        assert_eq!(by("state", &blame), json!(["paid", 2, "31", "bank transfer", "open", true]));
        assert_eq!(by("note", &blame), json!(["Late", 4, "formatter", "format", null, true]));
        assert_eq!(by("total", &blame), json!(["12.50", 1, "31", "web shop", null, false]));
        let through = world.succeed(&["blame", "orders", "7", "--json", "--ignore-reason", "^for", "--from", sink]);
        assert_eq!(by("note", &lines(&through)), json!(["Late", 1, "31", "web shop", null, false]));
    }
    expect![[r#"
        column | value | by | why | what it was
        state | paid | 31? | bank transfer | ~open
        note | Late | formatter? | format | ~∅
    "#]]
    .assert_eq(&blamed(&world.succeed(&["blame", "orders", "7"])));
    let (code, ..) = ended(&world, &["blame", "places", "1"]);
    assert_eq!(code, Some(8));
}

/// Some lines of a table of blame, without times.
fn blamed(told: &str) -> String {
    let without_times = |line: &str| {
        let cells: Vec<&str> = line.split(" | ").collect();
        [0, 1, 4, 5, 6].map(|at| cells.get(at).copied().unwrap_or_default()).join(" | ") + "\n"
    };
    let wanted = |line: &&str| ["column", "state", "note"].iter().any(|name| line.starts_with(name));
    table(told).lines().filter(wanted).map(without_times).collect()
}

/// PostgreSQL writes a deletion and an insertion.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_moves_to_another_partition_goes_on() {
    let server = shared(15).await;
    let tables = "CREATE TABLE stock (id int, region text, qty int) PARTITION BY LIST (region); \
        CREATE TABLE stock_n PARTITION OF stock FOR VALUES IN ('n'); CREATE TABLE stock_s PARTITION OF stock FOR VALUES IN ('s'); \
        ALTER TABLE stock REPLICA IDENTITY FULL; ALTER TABLE stock_n REPLICA IDENTITY FULL; ALTER TABLE stock_s REPLICA IDENTITY FULL";
    let rules = "[[tables]]\nname = \"*\"\nkey = [\"id\"]";
    let world = World::on(server).sql(tables).tables(rules).build().await;
    server.execute(
        &world.database,
        "INSERT INTO stock VALUES (1, 'n', 5); UPDATE stock SET region = 's' WHERE id = 1; UPDATE stock SET qty = 6 WHERE id = 1; \
         BEGIN; DELETE FROM stock WHERE id = 1; INSERT INTO stock VALUES (2, 'n', 1); INSERT INTO stock VALUES (1, 'n', 7); COMMIT",
    );
    world.catch_up().await;
    let told = lines(&world.succeed(&["history", "stock", "1", "--json"]));
    let brief: Vec<Value> =
        told.iter().map(|told| json!([told["row"], told["version"], told["event"], told["changes"]])).collect();
    assert_eq!(
        brief,
        [
            json!([2, 1, "created", {"id": [null, 1], "region": [null, "n"], "qty": [null, 7]}]),
            json!([1, 4, "deleted", {"id": [1, null], "region": ["s", null], "qty": [6, null]}]),
            json!([1, 3, "updated", {"qty": [5, 6]}]),
            json!([1, 2, "updated", {"region": ["n", "s"]}]),
            json!([1, 1, "created", {"id": [null, 1], "region": [null, "n"], "qty": [null, 5]}])
        ]
    );
}

/// A column that was renamed is the same one, and is shown under its newest name.
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_column_goes_on_under_its_newest_name() {
    let server = shared(15).await;
    let tables = "CREATE TABLE posts (id int PRIMARY KEY, headline text, text text)";
    let world = World::on(server).full(false).sql(tables).build().await;
    server.execute(&world.database, "INSERT INTO posts VALUES (1, 'x', 'a')");
    world.catch_up().await;
    server.execute(
        &world.database,
        "ALTER TABLE posts ADD teaser text DEFAULT 'new'; ALTER TABLE posts RENAME text TO body; UPDATE posts SET body = 'b' WHERE id = 1",
    );
    world.catch_up().await;
    for sink in ["hot", "archive"] {
        let history = |arguments: &[&str]| {
            lines(&world.succeed(&[&["history", "posts", "1", "--json", "--from", sink], arguments].concat()))
        };
        let told = history(&[]);
        assert_eq!(
            (&told[0]["changes"], &told[0]["unknown_why"]),
            (&json!({"body": ["a", "b"]}), &json!({"teaser": "shape"}))
        );
        assert_eq!(told[1]["after"], json!({"id": 1, "headline": "x", "body": "a"}));
        assert_eq!(history(&["--raw"])[1]["after"], json!({"id": 1, "headline": "x", "text": "a"}));
    }
}
