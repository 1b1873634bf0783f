use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use audit_testkit::shared;
use cdc_audit_tests::world::World;
use expect_test::expect;
use serde_json::{Value, json};

async fn world() -> World {
    let server = shared(15).await;
    let tables = "CREATE TABLE orders (id int PRIMARY KEY, state text, total numeric(10,2)); ALTER TABLE orders REPLICA IDENTITY FULL; \
                  CREATE TABLE parts (a int, b text, v int, PRIMARY KEY (b, a)); ALTER TABLE parts REPLICA IDENTITY FULL";
    let world = World::on(server).full(true).sql(tables).build().await;
    server.execute(
        &world.database,
        "INSERT INTO orders VALUES (1, 'draft', 5), (2, 'draft', 7); UPDATE orders SET state = 'paid' WHERE id = 1; UPDATE orders SET id = 10 WHERE id = 1; \
         BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{\"actor_id\": \"ann\", \"reason\": \"typo\"}'); UPDATE orders SET total = 6 WHERE id = 10; COMMIT; \
         INSERT INTO parts VALUES (1, 'x \"y\"', 0); UPDATE parts SET v = 1; DELETE FROM orders WHERE id = 10; TRUNCATE parts",
    );
    world.catch_up().await;
    world
}

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The trail of a row across the change of its key, newest version first, is the same from both sinks, except for the
/// time of recording.
#[tokio::test(flavor = "multi_thread")]
async fn history_is_the_same_from_hot_and_lake() {
    let world = world().await;
    for (table, key, events) in [
        ("public.orders", "10", vec!["deleted", "updated", "updated", "updated", "created"]),
        ("public.orders", "1", vec!["deleted", "updated", "updated", "updated", "created"]),
        ("public.orders", "2", vec!["created"]),
        ("public.parts", r#"["x \"y\"", 1]"#, vec!["updated", "created"]),
        ("public.orders", "404", vec![]),
    ] {
        let mut told = Vec::new();
        for sink in ["hot", "archive"] {
            let mut found = records(&world.succeed(&["history", table, key, "--from", sink, "--json"]));
            for record in &mut found {
                record.as_object_mut().expect("a record").remove("recorded_at");
                // The hot table keeps only the changes of an update; the lake also has the row after it.
                if record["event"] == "updated" {
                    record.as_object_mut().expect("a record").remove("after");
                }
            }
            let seen: Vec<&str> = found.iter().map(|record| record["event"].as_str().expect("an event")).collect();
            let rows: Vec<&&str> = seen.iter().filter(|event| **event != "truncated").collect();
            assert_eq!(rows, events.iter().collect::<Vec<_>>(), "{table} {key} from {sink}");
            told.push(found);
        }
        assert_eq!(told[0], told[1], "{table} {key}");
    }
    // Printed as a table, both sinks show the columns in the table's order.
    let tables = ["hot", "archive"].map(|sink| {
        let told = world.succeed(&["history", "public.orders", "10", "--from", sink]);
        let without_time = |line: &str| line.split('|').skip(4).map(str::trim).collect::<Vec<_>>().join(" | ");
        told.lines().skip(2).map(|line| without_time(line).trim_end().to_owned() + "\n").collect::<String>()
    });
    expect![[r#"
        deleted |  | Id was 10, state was paid and total was 6.00. |  |
        updated | ann | Total changed from 5.00 to 6.00. | typo |
        updated |  | Id changed from 1 to 10. (key was 1) |  |
        updated |  | State changed from draft to paid. |  |
        created |  | Id set to 1, state set to draft and total set to 5.00. |  |
    "#]]
    .assert_eq(&tables[0]);
    assert_eq!(tables[0], tables[1]);
    let output = world.command(&["history", "public.nothing", "1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tables with versions: public.orders, public.parts"));
}

/// Rows, ranges and checksums of the manifest are those of the files.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_can_be_proved() {
    let world = world().await;
    let versions = world.recorded().await.hot.len();
    for sink in ["hot", "archive"] {
        let folder = world.path(&format!("export from {sink}"));
        let to = folder.to_str().expect("a plain name");
        world.succeed(&["export", "--to", to, "--from", sink]);
        let manifest: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("manifest.json")).expect("a manifest"))
                .expect("JSON");
        let mut rows = 0;
        for file in manifest["files"].as_array().expect("files") {
            let path = folder.join(file["path"].as_str().expect("a path"));
            let lines = std::fs::read_to_string(&path).expect("a file").lines().count();
            assert_eq!(file["rows"], lines);
            let output = Command::new("sha256sum").arg(&path).output().expect("sha256sum runs");
            let sum = String::from_utf8_lossy(&output.stdout).split_whitespace().next().expect("a sum").to_owned();
            assert_eq!(file["sha256"], sum);
            rows += lines;
        }
        assert_eq!((rows, &manifest["rows"]), (versions, &Value::from(versions)), "from {sink}");
        // An export never overwrites existing files.
        assert!(!world.command(&["export", "--to", to, "--from", sink]).status.success());
        assert_eq!(manifest["store"]["sink"], *sink);
        assert!(manifest["store"]["flushed_lsn"].is_string() && manifest["store"]["complete_until"].is_string());
        resumed(&world, sink, &folder, manifest);
    }
    let folder = world.path("nothing");
    world.succeed(&["export", "--until", "2001-01-01", "--to", folder.to_str().expect("a plain name")]);
}

/// The newest version is looked for within the export's own bounds, and not in the whole trail.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_says_how_far_the_sink_is_within_its_bounds() {
    let world = world().await;
    for sink in ["hot", "archive"] {
        let export = |since: &str, until: &str| {
            let folder = world.path(&format!("{sink} {since} {until}"));
            let to = folder.to_str().expect("a plain name");
            let output = world.command(&["export", "--from", sink, "--since", since, "--until", until, "--to", to]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
            let manifest = std::fs::read_to_string(folder.join("manifest.json")).expect("a manifest");
            (serde_json::from_str::<Value>(&manifest).expect("JSON"), said)
        };
        let (manifest, said) = export("2001-01-01", "2101-01-01");
        assert!(manifest["store"]["complete_until"].is_string(), "{manifest}");
        assert!(said.contains("is later than what") && said.contains("its newest version was committed at"), "{said}");
        let (manifest, said) = export("2100-01-01", "2101-01-01");
        assert!(manifest["store"]["complete_until"].is_null(), "{manifest}");
        assert!(said.contains("it had no version in that time"), "{said}");
        let (_, said) = export("2001-01-01", "2002-01-01");
        assert!(!said.contains("is later than what"), "{said}");
    }
}

/// This is true whatever the umask is. A key from standard input is not visible in the arguments of a process.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_for_its_owner_alone_and_a_key_comes_from_standard_input() {
    let world = world().await;
    let run = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 0; printf '%s\\n' 2 | \"$@\"", "sh"]).arg(audit_testkit::program());
        let output = command.args(arguments).arg("--config").arg(&world.config).output().expect("a shell");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(records(&run(&["history", "public.orders", "-", "--json"])).len(), 1);
    let (export, plan) = (world.path("for me"), world.path("plan.json"));
    run(&["export", "--to", export.to_str().expect("a plain name")]);
    run(&["plan", "--save", plan.to_str().expect("a plain name")]);
    let mode = |path: &Path| std::fs::metadata(path).expect("what was written").permissions().mode() & 0o777;
    assert_eq!((mode(&export), mode(&plan)), (0o700, 0o600));
    for file in std::fs::read_dir(&export).expect("the export") {
        assert_eq!(mode(&file.expect("a file").path()), 0o600);
    }
    let folders = std::fs::read_dir(&world.lake).expect("the lake").filter_map(Result::ok).map(|entry| entry.path());
    let folders: Vec<_> = folders.filter(|path| path.is_dir()).collect();
    assert!(!folders.is_empty() && folders.iter().all(|folder| mode(folder) == 0o700), "{folders:?}");
}

/// Cuts an export after some lines of one file, as a kill would, and resumes it: the files are the same.
fn resumed(world: &World, sink: &str, whole: &Path, manifest: Value) {
    let folder = world.path(&format!("resumed from {sink}"));
    let to = folder.to_str().expect("a plain name");
    std::fs::create_dir(&folder).expect("a folder");
    let mut begun = manifest.clone();
    begun["files"] = json!([]);
    std::fs::write(folder.join("unfinished.jsonl"), format!("{begun}\n{{\"path\": \"cut")).expect("a list");
    let files = manifest["files"].as_array().expect("files");
    let longest = files.iter().max_by_key(|file| file["rows"].as_u64()).expect("a file");
    let path = longest["path"].as_str().expect("a path");
    let lines = std::fs::read_to_string(whole.join(path)).expect("a file");
    let cut = lines.lines().next().expect("a line").len() + 20;
    std::fs::write(folder.join(format!("{path}.part")), &lines[..cut]).expect("a part of it");
    let said = |arguments: &[&str]| {
        let output = world.command(&[&["export", "--to", to, "--from", sink], arguments].concat());
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&[]).contains("--resume"));
    assert!(said(&["--resume", "--until", "2001-01-01"]).contains("was begun with another --until"));
    world.succeed(&["export", "--to", to, "--from", sink, "--resume"]);
    let resumed: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("manifest.json")).expect("a manifest"))
            .expect("JSON");
    assert_eq!(resumed["files"], manifest["files"]);
    assert!(!folder.join("unfinished.jsonl").exists());
}
