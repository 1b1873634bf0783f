use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use audit_core::protect::Policy;
use audit_core::rules::{Rules, TableRule};
use audit_history::compare::{Compared, What, compare};
use audit_history::{Selection, Store};
use audit_testkit::{shared, thorough};
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::seed;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

use crate::sides::{SOURCE, Sides};

const TABLE: &str = "public.t";

async fn filled() -> Sides {
    let rule: TableRule = serde_json::from_value(serde_json::json!({
        "name": "*", "baseline": true, "ignore_alone": [], "include": ["name"]
    }))
    .unwrap();
    let before = "CREATE TABLE t (id int PRIMARY KEY, name text, n float8, doc jsonb); ALTER TABLE t REPLICA IDENTITY FULL; \
                  INSERT INTO t SELECT i, 'row ' || i, i / 7.0, jsonb_build_object('i', i) FROM generate_series(1, 40) AS i";
    let rules = Rules { tables: vec![rule], ..Rules::default() };
    let sides = Sides::new(shared(15).await, before, rules, Policy::default()).await;
    let changes: String = (0..40)
        .map(|round| {
            format!(
                "BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{{\"actor_id\": \"u{round}\", \"reason\": \"r{round}\"}}'); \
                 INSERT INTO t VALUES ({0}, 'new {0}', 1e20, '{{\"b\": 1.50}}'); \
                 UPDATE t SET name = name || '!', n = -n WHERE id IN ({0}, {0} - 1, 3); COMMIT;\n",
                1_000 + round
            )
        })
        .collect();
    sides.run(40, &changes).await;
    let copy = "CREATE TABLE copy AS SELECT * FROM cdc_audit.versions";
    sides.server.execute(&sides.hot, copy);
    sides
}

async fn compared(sides: &Sides) -> Compared {
    let [hot, lake] = sides.stores().await;
    compared_stores(&hot, &lake).await
}

async fn compared_stores(hot: &Store, lake: &Store) -> Compared {
    let selection = Selection {
        source: SOURCE.into(),
        table: TABLE.into(),
        since: None,
        until: None,
        unattributed: false,
        after: None,
    };
    compare(hot, lake, &selection, [7; 32]).await.unwrap()
}

fn fields(names: &[&str]) -> What {
    What::Altered(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Checks that exactly this difference is found.
fn is_named(compared: &Compared, position: &str, what: &What, tamper: &str) {
    let found: Vec<_> =
        compared.differences.iter().map(|found| (found.position.to_string(), found.what.clone())).collect();
    assert_eq!(found, [(position.to_owned(), what.clone())], "{tamper}");
}

fn rounds() -> u64 {
    if thorough() { 500 } else { 40 }
}

/// A position among the versions of the table that fulfil a condition.
fn pick(sides: &Sides, dice: &mut Dice, condition: &str) -> String {
    let all = sides.server.execute(
        &sides.hot,
        &format!("SELECT position FROM copy WHERE table_name = '{TABLE}' AND {condition} ORDER BY position"),
    );
    let all: Vec<&str> = all.lines().collect();
    (*dice.pick(&all)).to_owned()
}

/// The ways to change a hot table: the rows that can be changed so, what is changed, and what is found.
fn hot_tampers() -> Vec<(&'static str, String, What)> {
    let set = |columns: &str| format!("UPDATE cdc_audit.versions SET {columns} WHERE position = '{{}}'");
    vec![
        ("event <> 'snapshot'", set("reason = 'forged'"), fields(&["reason"])),
        ("true", set("key = 'forged'"), fields(&["key"])),
        ("event <> 'snapshot'", set("xid = xid + 1"), fields(&["xid"])),
        (
            "event <> 'snapshot'",
            set("committed_at = committed_at + interval '1 microsecond'"),
            fields(&["committed_at"]),
        ),
        ("event <> 'snapshot'", set("actor_id = NULL"), fields(&["actor_id"])),
        ("event <> 'snapshot'", set("context = jsonb_set(context, '{reason}', '7')"), fields(&["context"])),
        ("true", set("included = '{\"name\": \"forged\"}'"), fields(&["included.name"])),
        ("event = 'created'", set("after = jsonb_set(after, '{n}', '1e19')"), fields(&["row.n"])),
        ("event = 'created'", set("after = after - 'doc'"), fields(&["row.doc"])),
        ("event = 'snapshot'", set("after = jsonb_set(after, '{name}', 'null')"), fields(&["row.name"])),
        (
            "event = 'created'",
            set("changes = '{\"name\": [null, \"forged\"]}'"),
            fields(&["changes.name[0]", "changes.name[1]"]),
        ),
        (
            "event = 'updated'",
            set("changes = jsonb_set(changes, '{name,1}', '\"forged\"')"),
            fields(&["changes.name[1]"]),
        ),
        (
            "event = 'updated'",
            set("changes = changes || '{\"x\": [null, null]}'"),
            fields(&["changes.x[0]", "changes.x[1]"]),
        ),
        ("event = 'updated'", set("changed = '{name}'"), fields(&["changed"])),
        ("event = 'updated'", "DELETE FROM cdc_audit.versions WHERE position = '{}'".to_owned(), What::Extra),
    ]
}

/// A changed field and a removed row of a hot table are named, and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_hot_table_is_named() {
    let sides = filled().await;
    let untouched = compared(&sides).await;
    assert!(untouched.is_equal(), "{:?}", untouched.differences);
    assert_eq!((untouched.versions, untouched.snapshots), (40 + 40 + 40 * 2 + 39, 40));
    let mut dice = Dice::new(seed());
    let tampers = hot_tampers();
    for round in 0..rounds() {
        let (condition, statement, what) = &tampers[round as usize % tampers.len()];
        let position = pick(&sides, &mut dice, condition);
        sides.server.execute(&sides.hot, &statement.replace("{}", &position));
        // A snapshot under another key is one that the lake lacks.
        let event =
            sides.server.execute(&sides.hot, &format!("SELECT event FROM copy WHERE position = '{position}' LIMIT 1"));
        let what = if event == "snapshot" && *what == fields(&["key"]) { &What::Missing } else { what };
        is_named(&compared(&sides).await, &position, what, statement);
        sides.server.execute(
            &sides.hot,
            &format!(
                "DELETE FROM cdc_audit.versions WHERE position = '{position}'; \
                 INSERT INTO cdc_audit.versions SELECT * FROM copy WHERE position = '{position}'"
            ),
        );
    }
    // A row that nobody wrote.
    let position = pick(&sides, &mut dice, "event = 'updated'");
    let forged = format!("{}4294967295", &position[..position.len() - 10]);
    sides.server.execute(
        &sides.hot,
        &format!(
            "CREATE TABLE forged AS SELECT * FROM copy WHERE position = '{position}'; \
             UPDATE forged SET position = '{forged}', seq = 4294967295; INSERT INTO cdc_audit.versions SELECT * FROM forged"
        ),
    );
    is_named(&compared(&sides).await, &forged, &What::Missing, "a forged row");
}

/// The table's files, and what each holds.
fn files(lake: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(lake).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet")
            && !path.to_string_lossy().contains("_delta_log")
        {
            files.push(path);
        }
    }
    files
}

fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// Replaces a file, and its size in the log.
fn replace(lake: &Path, path: &Path, batch: &RecordBatch) {
    let before = std::fs::metadata(path).unwrap().len();
    // Readers sort a file that says so.
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let sorted = reader.metadata().row_group(0).sorting_columns().cloned();
    let properties = WriterProperties::builder().set_sorting_columns(sorted).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    resize(lake, path, (before, std::fs::metadata(path).unwrap().len()));
}

fn resize(lake: &Path, path: &Path, (before, after): (u64, u64)) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    for log in logs(lake) {
        let text = std::fs::read_to_string(&log).unwrap();
        let lines = text.lines().map(|line| match line.contains(&name) {
            true => line.replace(&format!("\"size\":{before}"), &format!("\"size\":{after}")),
            false => line.to_owned(),
        });
        let lines: Vec<String> = lines.collect();
        std::fs::write(&log, lines.join("\n") + "\n").unwrap();
    }
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(logs(&path));
        } else if path.to_string_lossy().contains("_delta_log") && path.extension().is_some_and(|end| end == "json") {
            found.push(path);
        }
    }
    found
}

/// The batch with another text in one cell.
fn with_text(batch: &RecordBatch, column: &str, row: usize, text: Option<&str>) -> RecordBatch {
    let at = batch.schema().index_of(column).unwrap();
    let texts = batch.column(at).as_string::<i32>();
    let changed: StringArray = (0..batch.num_rows())
        .map(|other| if other == row { text } else { texts.is_valid(other).then(|| texts.value(other)) })
        .collect();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    columns[at] = Arc::new(changed);
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

/// A changed field, a removed and an added row of a lake's file are named, and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_lakes_file_is_named() {
    let sides = filled().await;
    let lake = sides.lake.path();
    let files: Vec<PathBuf> = files(lake).into_iter().filter(|path| read(path).num_rows() > 1).collect();
    assert!(!files.is_empty());
    let [hot, _] = sides.stores().await;
    let of_table = sides.read(&hot).await.into_iter().filter(|told| told.record.table_name == TABLE);
    let last = of_table.map(|told| told.record.position.to_string()).max().unwrap();
    let mut dice = Dice::new(seed());
    for round in 0..rounds() {
        let path = dice.pick(&files);
        let (original, batch) = (std::fs::read(path).unwrap(), read(path));
        let text =
            |column: &str, row: usize| batch.column_by_name(column).unwrap().as_string::<i32>().value(row).to_owned();
        let row = dice.below(batch.num_rows() as u64) as usize;
        let (position, event) = (text("cdc_position", row), text("cdc_event", row));
        let snapshot = event == "snapshot";
        let others: UInt32Array = (0..batch.num_rows() as u32).filter(|other| *other != row as u32).collect();
        let (tampered, position, what) = match round % 5 {
            0 => (with_text(&batch, "cdc_reason", row, Some("forged")), position, fields(&["reason"])),
            1 if event != "updated" => {
                (with_text(&batch, "name", row, Some("forged")), position, fields(&["row.name"]))
            }
            2 if event == "updated" => {
                let changes = text("cdc_changes", row).replacen("\", \"", "\", \"forged ", 1);
                (with_text(&batch, "cdc_changes", row, Some(&changes)), position, fields(&["changes.name[1]"]))
            }
            3 => (take_record_batch(&batch, &others).unwrap(), position, What::Missing),
            // After the last position that a file's name states, no reader looks for rows.
            4 if !snapshot && position[..21] != last[..21] => {
                let forged = format!("{}4294967295", &position[..position.len() - 10]);
                let added = with_text(&batch, "cdc_position", row, Some(&forged)).slice(row, 1);
                let all = concat_batches(&batch.schema(), [&batch, &added]).unwrap();
                (all, forged, What::Extra)
            }
            _ => (with_text(&batch, "cdc_item_type", row, Some("forged")), position, fields(&["item_type"])),
        };
        replace(lake, path, &tampered);
        is_named(&compared(&sides).await, &position, &what, &format!("{event}, way {}", round % 5));
        let size = std::fs::metadata(path).unwrap().len();
        std::fs::write(path, &original).unwrap();
        resize(lake, path, (size, original.len() as u64));
    }
    assert!(compared(&sides).await.is_equal());
}
