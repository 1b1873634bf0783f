use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use arrow::array::AsArray as _;
use audit_testkit::shared;
use cdc_audit_tests::world::World;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

const FORMS: [&[&str]; 6] = [
    &["--format", "jsonl"],
    &["--format", "jsonl", "--compress", "zstd"],
    &["--format", "csv"],
    &["--format", "csv", "--compress", "gzip"],
    &["--format", "parquet"],
    &["--format", "parquet", "--compress", "gzip"],
];

/// Rows that exist before capture, changes by two actors, and a text that a spreadsheet would run.
async fn world() -> World {
    let world = only_baseline().await;
    change(&world, 1).await;
    world
}

/// Nothing was committed since the rows that existed before were read.
async fn only_baseline() -> World {
    let server = shared(15).await;
    let tables = "CREATE TABLE orders (id int PRIMARY KEY, state text); ALTER TABLE orders REPLICA IDENTITY FULL; \
                  INSERT INTO orders SELECT n, 'old' FROM generate_series(1001, 1020) AS n; CREATE TABLE users (id int PRIMARY KEY)";
    let world = World::on(server).full(true).baseline().sql(tables).build().await;
    let mut daemon = world.launch().start();
    let is_complete = |line: &str| line.contains("baseline complete") && line.contains("orders");
    daemon.wait_for("the baseline", |daemon| daemon.output().lines().any(is_complete));
    assert!(daemon.stop().success(), "{}", daemon.output());
    world
}

async fn change(world: &World, from: u32) {
    let sql = format!(
        "INSERT INTO orders SELECT n, 'open' FROM generate_series({from}, {from} + 39) AS n; \
         BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{{\"actor_id\": \"ann\", \"reason\": \"=cmd()\"}}'); \
         UPDATE orders SET state = '@SUM(1, 2)' WHERE id = {from}; INSERT INTO users VALUES ({from}); COMMIT"
    );
    shared(15).await.execute(&world.database, &sql);
    world.catch_up().await;
}

fn manifest(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("manifest.json")).expect("a manifest")).expect("JSON")
}

fn export(world: &World, name: &str, arguments: &[&str]) -> Value {
    let folder = world.path(name);
    world.succeed(&[&["export", "--to", folder.to_str().expect("a plain name")], arguments].concat());
    manifest(&folder)
}

fn files(manifest: &Value) -> &Vec<Value> {
    manifest["files"].as_array().expect("files")
}

/// The bytes of a file, decompressed.
fn content(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).expect("a file");
    let mut plain = Vec::new();
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).expect("gzip"),
        Some("zst") => zstd::Decoder::new(bytes.as_slice()).expect("zstd").read_to_end(&mut plain).expect("zstd"),
        _ => return bytes,
    };
    plain
}

/// The positions of a file's versions, in its order.
fn positions(path: &Path) -> Vec<String> {
    let name = path.to_str().expect("a plain name");
    if name.ends_with(".parquet") {
        let file = fs::File::open(path).expect("a file");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("a reader");
        let batches = reader.map(|batch| batch.expect("a batch"));
        let of = |batch: arrow::array::RecordBatch| {
            let column = batch.column_by_name("position").expect("a column").as_string::<i32>().clone();
            column.iter().flatten().map(str::to_owned).collect::<Vec<_>>()
        };
        return batches.flat_map(of).collect();
    }
    let text = String::from_utf8(content(path)).expect("text");
    if name.contains(".csv") {
        // No value of this world has a line break.
        return text.lines().skip(1).map(|line| line.split(',').next().expect("a field").to_owned()).collect();
    }
    let of =
        |line: &str| serde_json::from_str::<Value>(line).expect("a record")["position"].as_str().map(str::to_owned);
    text.lines().filter_map(of).collect()
}

/// The positions of each table's versions.
fn by_table(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let mut tables = BTreeMap::<String, Vec<String>>::new();
    for file in files(&manifest(folder)) {
        let path = folder.join(file["path"].as_str().expect("a path"));
        let found = positions(&path);
        assert_eq!(file["rows"], found.len(), "{}", path.display());
        assert_eq!(file["last_position"].as_str(), found.last().map(String::as_str));
        tables.entry(file["table"].as_str().expect("a table").to_owned()).or_default().extend(found);
    }
    tables
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_has_every_version_in_files_of_bounded_size() {
    let world = world().await;
    let versions = world.recorded().await.hot.len();
    for sink in ["hot", "archive"] {
        let mut seen = Vec::new();
        for (at, form) in FORMS.iter().enumerate() {
            for parts in [&[][..], &["--part-size", "4 KiB"]] {
                let name = format!("{sink} {at} {}", parts.len());
                let manifest = export(&world, &name, &[form, parts, &["--from", sink]].concat());
                assert_eq!(manifest["rows"], versions, "{name}");
                assert!(manifest["coverage"]["head"].as_str() >= manifest["store"]["position"].as_str());
                assert_eq!(
                    (&manifest["coverage"]["gaps"], &manifest["coverage"]["complete"]),
                    (&json!(0), &json!(true))
                );
                assert_eq!(files(&manifest).len() > 3, !parts.is_empty(), "{name}: {manifest}");
                seen.push(by_table(&world.path(&name)));
            }
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{sink}");
    }
    let csv = String::from_utf8(content(&world.path("hot 2 0").join("public.orders.csv"))).expect("text");
    assert!(csv.starts_with("position,table_name,item_type,key,old_key,event,changes,actor_id,"), "{csv}");
    assert!(csv.contains(",'=cmd(),") && !csv.contains(",=cmd(),"), "{csv}");
}

/// ⚠ An export that was killed, and continued after the daemon has written more, is the same as one that was not, byte
/// for byte.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_broke_off_becomes_the_same_in_every_form() {
    let world = world().await;
    let wholes: Vec<Value> = FORMS
        .iter()
        .enumerate()
        .map(|(at, form)| export(&world, &format!("whole {at}"), &[form, &["--part-size", "4 KiB"][..]].concat()))
        .collect();
    change(&world, 101).await;
    for (at, form) in FORMS.iter().enumerate() {
        let (whole, folder) = (world.path(&format!("whole {at}")), world.path(&format!("cut {at}")));
        fs::create_dir(&folder).expect("a folder");
        let mut begun = wholes[at].clone();
        begun["files"] = json!([]);
        // Two files are whole; of the third there are some bytes.
        let mut list = format!("{begun}\n");
        for file in &files(&wholes[at])[..2] {
            list += &format!("{file}\n");
            let path = file["path"].as_str().expect("a path");
            fs::copy(whole.join(path), folder.join(path)).expect("a file");
        }
        fs::write(folder.join("unfinished.jsonl"), list + "{\"path\": \"cut").expect("a list");
        let third = files(&wholes[at])[2]["path"].as_str().expect("a path");
        let bytes = fs::read(whole.join(third)).expect("a file");
        fs::write(folder.join(format!("{third}.part")), &bytes[..bytes.len() / 2]).expect("a part of it");
        let arguments = [form, &["--part-size", "4 KiB", "--resume"][..]].concat();
        let resumed = export(&world, &format!("cut {at}"), &arguments);
        assert_eq!((&resumed["files"], &resumed["rows"]), (&wholes[at]["files"], &wholes[at]["rows"]), "{form:?}");
        for file in files(&resumed) {
            let path = file["path"].as_str().expect("a path");
            assert!(
                fs::read(folder.join(path)).expect("a file") == fs::read(whole.join(path)).expect("a file"),
                "{path}"
            );
        }
        let left: Vec<_> = fs::read_dir(&folder).expect("a folder").filter_map(Result::ok).collect();
        assert_eq!(left.len(), files(&resumed).len() + 1, "{left:?}");
    }
    // Another form is another export.
    let folder = world.path("another");
    fs::create_dir(&folder).expect("a folder");
    let mut begun = wholes[0].clone();
    begun["files"] = json!([]);
    fs::write(folder.join("unfinished.jsonl"), format!("{begun}\n")).expect("a list");
    let to = folder.to_str().expect("a plain name");
    let output = world.command(&["export", "--to", to, "--resume", "--format", "csv", "--part-size", "4 KiB"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("was begun with another --format"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_only_the_actors_and_events_that_were_asked_for() {
    let world = world().await;
    for sink in ["hot", "archive"] {
        let rows = |name: &str, arguments: &[&str]| {
            export(&world, &format!("{sink} {name}"), &[&["--from", sink], arguments].concat())["rows"].clone()
        };
        assert_eq!(rows("by ann", &["--actor", "ann,bob"]), 2);
        assert_eq!(rows("updated", &["--event", "updated"]), 1);
        assert_eq!(rows("both", &["--event", "created,updated", "--actor", "ann", "--table", "orders"]), 1);
        assert_eq!(rows("snapshots", &["--event", "snapshot"]), 20);
    }
}

/// An export ends with the sink's head, which is not before the rows of a baseline.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_existed_before_are_exported_before_anything_else_is_committed() {
    let world = only_baseline().await;
    for sink in ["hot", "archive"] {
        assert_eq!(export(&world, sink, &["--from", sink])["rows"], 20);
    }
}

/// Each export of a series begins where the last whole one ended, so that together they have each version once. One that
/// broke off does not move the mark, and is continued.
#[tokio::test(flavor = "multi_thread")]
async fn a_series_has_each_version_once() {
    let world = world().await;
    for sink in ["hot", "archive"] {
        let series = world.path(&format!("series from {sink}"));
        let to = series.to_str().expect("a plain name");
        let next = || world.succeed(&["export", "--from", sink, "--to", to, "--since-last", "feed", "--format", "csv"]);
        next();
        assert!(next().contains("there is nothing new"));
        change(&world, if sink == "hot" { 201 } else { 301 }).await;
        next();
        let folder = |number: u32| series.join(format!("feed-{number:06}"));
        assert_eq!(manifest(&folder(2))["rows"], 42);
        assert_eq!(manifest(&folder(2))["after"], manifest(&folder(1))["coverage"]["head"]);
        // The second one broke off before its manifest was written.
        let mut begun = manifest(&folder(2));
        let whole = begun["files"].clone();
        begun["files"] = json!([]);
        fs::remove_file(folder(2).join("manifest.json")).expect("a manifest");
        fs::write(folder(2).join("unfinished.jsonl"), format!("{begun}\n")).expect("a list");
        next();
        assert_eq!(manifest(&folder(2))["files"], whole);
        assert!(!folder(3).exists());
        let all = export(&world, &format!("all from {sink}"), &["--from", sink]);
        let mut together = by_table(&folder(1));
        for (table, positions) in by_table(&folder(2)) {
            together.entry(table).or_default().extend(positions);
        }
        assert_eq!(together, by_table(&world.path(&format!("all from {sink}"))), "{all}");
    }
    // A series of another source has another mark.
    let first = world.path("series from hot").join("feed-000001/manifest.json");
    let of_another =
        fs::read_to_string(&first).expect("a manifest").replace("\"source\": \"shop\"", "\"source\": \"crm\"");
    fs::write(&first, of_another).expect("a manifest");
    let to = world.path("series from hot");
    let refused = world.command(&["export", "--to", to.to_str().unwrap(), "--since-last", "feed"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("source or tenant"), "{refused:?}");
    let refused = world.command(&["export", "--to", world.path("x").to_str().unwrap(), "--since-last", "../up"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is no name of a series"));
}
