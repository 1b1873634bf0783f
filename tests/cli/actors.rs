use audit_testkit::shared;
use cdc_audit_tests::world::World;
use serde_json::Value;

/// An application with users, one of whom changes an order and says another name than he has today.
async fn world(actors: &str) -> World {
    let server = shared(15).await;
    let tables = "CREATE TABLE orders (id int PRIMARY KEY, state text); ALTER TABLE orders REPLICA IDENTITY FULL; \
                  CREATE TABLE users (id int PRIMARY KEY, full_name text, secret text); \
                  INSERT INTO users VALUES (31, 'Ann', 'x'), (32, E'Bob\\n\\x1b[31m', 'x')";
    let rules = "[[tables]]\nname = 'public.orders'\ncapture = true\n[[tables]]\nname = 'public.users'\ncapture = false\n\
                 protect = { secret = 'full' }\n";
    let world = World::on(server).sql(tables).tables(rules).sections(actors).unwitnessed().build().await;
    let context = |actor: &str| format!("SELECT pg_logical_emit_message(true, 'cdc-audit', '{actor}')");
    server.execute(
        &world.database,
        &format!(
            "BEGIN; {}; INSERT INTO orders VALUES (1, 'open'); COMMIT; BEGIN; {}; UPDATE orders SET state = 'paid'; COMMIT; \
             BEGIN; {}; UPDATE orders SET state = 'late'; COMMIT",
            context(r#"{"actor_id": "31"}"#),
            context(r#"{"actor_id": "32", "actor": {"name": "Robert"}}"#),
            context(r#"{"actor_id": "job-9"}"#)
        ),
    );
    world.catch_up().await;
    world
}

const TABLE: &str = "[actors]\ntable = 'public.users'\nname = 'full_name'\n";

#[tokio::test(flavor = "multi_thread")]
async fn actors_are_shown_with_the_name_of_today_beside_what_was_said_then() {
    let world = world(TABLE).await;
    let told = world.succeed(&["search", "orders"]);
    assert!(told.contains("| 31 Ann? ") && told.contains("| job-9? "), "{told}");
    assert!(
        told.contains(r"| 32 Robert (Bob\n\u{1b}[31m)? ") || told.contains(r"32 Robert (Bob\n\x1b[31m)?"),
        "{told}"
    );
    let names = |words: &[&str]| {
        let told = world.succeed(words);
        let name = |line: &str| serde_json::from_str::<Value>(line).unwrap()["actor_name"].clone();
        told.lines().map(name).collect::<Vec<_>>()
    };
    for command in [&["search", "orders", "--json"][..], &["history", "orders", "1", "--json"]] {
        let names = names(command);
        assert!(names[0].is_null() && names[1].as_str().unwrap().starts_with("Bob") && names[2] == "Ann", "{names:?}");
    }
    assert!(names(&["search", "orders", "--json", "--raw"]).iter().all(Value::is_null));
    for command in
        [&["history", "orders", "1"][..], &["report"], &["tx", "last", "--table", "orders"], &["blame", "orders", "1"]]
    {
        let told = world.succeed(command);
        let is_there = told.contains("31 Ann") || told.contains("job-9");
        assert!(is_there, "{command:?}: {told}");
    }
    // A filter looks at ids alone, and the record that is stored has no name of today.
    assert_eq!(names(&["search", "orders", "actor~ann", "--json"]).len(), 0);
    assert_eq!(names(&["search", "orders", "actor:31", "--json"]), ["Ann"]);
    assert!(!world.succeed(&["search", "orders", "--raw", "--json"]).contains("Ann"));
}

/// ⚠ A table of users that is gone, or must not be read, makes no answer fail and shows nothing that is protected.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_read_are_a_warning() {
    for (actors, why) in [
        ("[actors]\ntable = 'public.nobody'\n", "there is no column name in public.nobody"),
        ("[actors]\ntable = 'public.users'\nname = 'secret'\n", "the column secret of public.users is protected"),
        ("[actors]\nquery = 'DELETE FROM users RETURNING id, full_name'\n", "syntax error"),
        (
            "[actors]\nquery = 'SELECT id, full_name FROM users'\nconnection = { url = 'postgres://nobody@localhost:1/x' }\n",
            "warning",
        ),
    ] {
        let world = world(actors).await;
        let output = world.command(&["search", "orders"]);
        let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && told.contains("| 31? "), "{told}{said}");
        assert!(said.contains("names of actors are not shown") && said.contains(why), "{said}");
    }
}

/// Every command that shows times takes the configured zone.
#[tokio::test(flavor = "multi_thread")]
async fn times_are_shown_in_the_configured_zone_by_every_command() {
    let world = world("[display]\ntime_zone = '+03:00'\n").await;
    let when = |words: &[&str]| {
        let output = world.command(words);
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let at = told.match_indices(':').find_map(|(at, _)| {
            told.get(at.checked_sub(13)?..at + 6).filter(|text| text.starts_with("20")).map(str::to_owned)
        });
        at.unwrap_or_else(|| panic!("no time in {told}"))
    };
    let one = when(&["search", "orders", "event:created"]);
    assert_eq!(when(&["search", "orders", "event:created", "--tz", "+03:00"]), one);
    assert_eq!(when(&["schema", "orders"]), one);
    assert_eq!(when(&["show", "orders", "1", "--as-of", "v1"]), one);
    assert_ne!(when(&["show", "orders", "1", "--as-of", "v1", "--tz", "UTC"]), one);
    let report = world.succeed(&["report", "--json"]);
    assert!(report.contains("\"timezone\":\"+03:00\""), "{report}");
}
