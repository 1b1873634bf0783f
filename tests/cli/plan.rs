use audit_testkit::shared;
use cdc_audit_tests::world::World;
use expect_test::expect;
use serde_json::Value;

const SHOP: &str = "
    CREATE TABLE people (id int PRIMARY KEY, email text, ssn text, home_phone text, nick varchar(20), note text, doc jsonb, last_ip inet,
        password_digest text, search tsvector, reset_token text);
    CREATE TABLE strictly (id int PRIMARY KEY, name text, surprise text);";

const RULES: &str = r#"
[[tables]]
name = "public.people"
protect = { email = "hash", ssn = ["partial", "hash"], home_phone = { method = "partial", pattern = "{2}…{-2}" }, "doc.pin" = "full" }
ignore = ["search"]
allow = ["reset_token"]

[[tables]]
name = "public.strictly"
strict = true
allow = ["id", "name"]
"#;

fn sections(world: &World) -> String {
    let key = world.path("hash");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef").expect("a key");
    format!(
        "[protection]\nhash_key = {{ file = \"{}\" }}\n[[protection.rules]]\ntype = \"inet\"\nmethod = \"partial\"\n",
        key.display()
    )
}

/// Column by column: stored how, a made-up value through the daemon's own code, and who says so; and what changed since.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_what_would_be_stored_and_what_changed() {
    let server = shared(15).await;
    let world = World::on(server).sql(SHOP).tables(RULES).unwitnessed().build().await;
    world.edit_config("[protection]\ndefaults = false", &sections(&world));
    let saved = world.path("plan.json");
    let saved = saved.to_str().expect("a plain name");
    let plan = |arguments: &[&str]| {
        let output = world.command(&[&["plan"], arguments].concat());
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, shown) = plan(&["--table", "public.people", "--save", saved]);
    // Hashes of made-up values under a made-up key.
    let shown: String = shown.split_inclusive(['|', '\n']).map(shortened).collect();
    expect![[r#""#]].assert_eq(&shown);
    assert_eq!(code, Some(0));
    assert_eq!(plan(&["--table", "public.people", "--since", saved]).0, Some(0));

    let (code, shown) = plan(&["--json"]);
    assert_eq!(code, Some(7), "a column of a strict table is undecided");
    let report: Value = serde_json::from_str(&shown).expect("JSON");
    let strictly = report["tables"].as_array().expect("tables").iter().find(|t| t["table"] == "public.strictly");
    let surprise = strictly.expect("the table")["columns"].as_array().expect("columns").last().expect("a column");
    assert_eq!((&surprise["column"], &surprise["undecided"]), (&"surprise".into(), &true.into()));

    server.execute(&world.database, "ALTER TABLE people ADD api_key text, ALTER nick TYPE text, DROP note");
    let (code, shown) = plan(&["--table", "public.people", "--since", saved]);
    assert_eq!(code, Some(6), "{shown}");
    let changes: String =
        shown.lines().filter(|line| line.starts_with("changed")).map(|line| format!("{line}\n")).collect();
    expect![[r#""#]].assert_eq(&changes);
}

/// A cell of the table without the hex digits of a hash, or the room that they took.
fn shortened(cell: &str) -> String {
    let words: Vec<String> = cell
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(|word| match word.rsplit_once(':') {
            Some((head, hex)) if head.contains("hmac-sha256") => format!("{head}:{} hex", hex.trim().len()),
            _ => word.to_owned(),
        })
        .collect();
    words.join(" ")
}

/// Names that nothing has are named with the one that was probably meant.
#[tokio::test(flavor = "multi_thread")]
async fn check_names_columns_that_no_table_has() {
    let server = shared(15).await;
    let rules = "[[tables]]\nname = \"public.people\"\nignore = [\"serach\", \"tmp_*\"]\nprotect = { emial = \"full\" }\n\
                 [[tables]]\nname = \"public.pepole\"\nonly = [\"id\"]\n";
    let world = World::on(server).sql(SHOP).tables(rules).unwitnessed().build().await;
    let output = world.command(&["check"]);
    assert_eq!(output.status.code(), Some(3));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = shown.lines().collect();
    let of_rules =
        lines.windows(2).filter(|pair| pair[0].contains("tables[")).map(|pair| format!("{}\n{}\n", pair[0], pair[1]));
    expect![[r#""#]].assert_eq(&of_rules.collect::<String>());
}
