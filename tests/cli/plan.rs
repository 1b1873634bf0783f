use std::path::Path;

use audit_testkit::shared;
use cdc_audit_tests::world::World;
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

fn protection(folder: &Path) -> String {
    let key = folder.join("hash");
    audit_testkit::write_secret(&key, "0123456789abcdef0123456789abcdef");
    format!(
        "[protection]\nhash_key = {{ file = \"{}\" }}\n[[protection.rules]]\ntype = \"inet\"\nmethod = \"partial\"\n",
        key.display()
    )
}

/// A plan shows for each column how it is stored, an example value that went through the daemon's own code, and the
/// rule that decides it; and it shows what has changed since.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_what_would_be_stored_and_what_changed() {
    let server = shared(15).await;
    let folder = tempfile::tempdir().expect("a folder");
    let protection = protection(folder.path());
    let world = World::on(server).sql(SHOP).tables(RULES).protection(&protection).unwitnessed().build().await;
    let saved = world.path("plan.json");
    let saved = saved.to_str().expect("a plain name");
    let plan = |arguments: &[&str]| {
        let output = world.command(&[&["plan"], arguments].concat());
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, shown) = plan(&["--table", "public.people", "--save", saved, "--json"]);
    assert_eq!(code, Some(0), "{shown}");
    let report = json(&shown);
    let searched = "as it is, without members of documents that rules name, card numbers (partial)";
    for (column, stored, rule, sample) in [
        ("id", "as it is", "", "42"),
        ("email", "hash", "tables[0].protect.email", "hmac-sha256:"),
        ("ssn", "partial + hash", "tables[0].protect.ssn", "***-**-9999"),
        ("home_phone", "partial (pattern {2}…{-2})", "tables[0].protect.home_phone", "+1…67"),
        ("nick", searched, "", "made up"),
        ("note", searched, "", "paid with ****0366"),
        (
            "doc",
            "as it is, without members that rules name, card numbers (partial)",
            "",
            "\"password\": \"[REDACTED]\"",
        ),
        ("last_ip", "partial", "protection.rules[0]", "[REDACTED:9chars]"),
        ("password_digest", "full", "default set: *password*", "[REDACTED]"),
        ("search", "absent: not tracked", "`only` or `ignore`", ""),
        ("reset_token", "as it is", "tables[0].allow: reset_token", "made up"),
    ] {
        let columns = report["tables"][0]["columns"].as_array().expect("columns");
        let planned = columns.iter().find(|planned| planned["column"] == column).expect(column);
        assert_eq!(
            (planned["stored"].as_str(), planned["rule"].as_str().unwrap_or_default()),
            (Some(stored), rule),
            "{column}"
        );
        let shown = planned["samples"][column].as_str().unwrap_or_default();
        assert!(shown.contains(sample), "{column}: {shown}");
    }
    assert!(plan(&["--table", "public.people"]).1.contains("ssn__hash: hmac-sha256:"), "beside the column");
    assert_eq!(plan(&["--table", "public.people", "--since", saved]).0, Some(0));

    let (code, shown) = plan(&["--json"]);
    assert_eq!(code, Some(7), "a column of a strict table is undecided");
    let report = json(&shown);
    let strictly = report["tables"].as_array().expect("tables").iter().find(|t| t["table"] == "public.strictly");
    let surprise = strictly.expect("the table")["columns"].as_array().expect("columns").last().expect("a column");
    assert_eq!((&surprise["column"], &surprise["undecided"]), (&"surprise".into(), &true.into()));

    server.execute(&world.database, "ALTER TABLE people ADD api_key text, ALTER nick TYPE text, DROP note");
    let (code, shown) = plan(&["--table", "public.people", "--since", saved]);
    assert_eq!(code, Some(6), "{shown}");
    let changes: Vec<&str> = shown.lines().filter(|line| line.starts_with("changed")).collect();
    assert_eq!(
        changes,
        [
            "changed: public.people.nick: as it is, without members of documents that rules name, card numbers (partial) (character varying(20)) → as it is, without members of documents that rules name, card numbers (partial) (text)",
            "changed: public.people.note: as it is, without members of documents that rules name, card numbers (partial) (text) → not there",
            "changed: public.people.api_key: not there → full (text)",
        ]
    );
}

/// Ciphertexts and tokens are shown with invented keys, and say so; no key service is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_what_encryption_would_leave() {
    let rules = "[[tables]]\nname = \"public.people\"\nsubject = \"id\"\nprotect = { ssn = [\"partial\", \"encrypt\"], email = \"token\" }\n";
    let keys = "[protection.keys.default]\nmaster = { type = \"local\", file = \"/nowhere/keyring\" }\n";
    let world = World::on(shared(15).await).sql(SHOP).tables(rules).sections(keys).not_set_up().unwitnessed();
    let world = world.publication("FOR TABLE people").build().await;
    let report = json(&world.succeed(&["plan", "--json"]));
    let samples = |column: &str| {
        let columns = report["tables"][0]["columns"].as_array().expect("columns");
        columns.iter().find(|planned| planned["column"] == column).expect(column)["samples"].clone()
    };
    let starts =
        |sample: &Value, with: &str| assert!(sample.as_str().is_some_and(|text| text.starts_with(with)), "{sample}");
    assert_eq!(samples("ssn")["ssn"], "***-**-9999");
    starts(&samples("ssn")["ssn__encrypt"], "aes256gcm:s0000000000000000:");
    starts(&samples("email")["email"], "aes-siv:t0000000000000000:");
    assert_eq!(samples("note")["note"], "paid with 4532 0151 1283 0366");
    assert!(world.succeed(&["plan"]).contains("ssn__encrypt: aes256gcm:s0000000000000000:"), "cut short for people");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON: {error}: {text}"))
}

/// For a name that does not exist, `check` suggests the one that was probably meant.
#[tokio::test(flavor = "multi_thread")]
async fn check_names_columns_that_no_table_has() {
    let server = shared(15).await;
    let rules = "[[tables]]\nname = \"public.people\"\nignore = [\"serach\", \"tmp_*\"]\nprotect = { emial = \"full\" }\nsoft_delete = \"nikc\"\njson = { note = {}, doc = {} }\n\
                 [[tables]]\nname = \"public.pepole\"\nonly = [\"id\"]\n";
    let world = World::on(server).sql(SHOP).tables(rules).unwitnessed().build().await;
    let output = world.command(&["check"]);
    assert_eq!(output.status.code(), Some(3));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = shown.lines().collect();
    for (message, fix) in [
        ("no column of public.people is called serach", "did you mean search?"),
        ("no column of public.people is called tmp_*", ""),
        ("no column of public.people is called emial", "did you mean email?"),
        ("no column of public.people is called nikc", "did you mean nick?"),
        ("column note is text, no document", "take it out of `json`"),
        ("no published table is called public.pepole", "did you mean public.people?"),
    ] {
        let at =
            lines.iter().position(|line| line.contains(message)).unwrap_or_else(|| panic!("no {message} in\n{shown}"));
        assert!(lines[at + 1].contains(fix), "{shown}");
    }
}
