//! A minimal reader of the Delta log, as the protocol requires: the newest checkpoint, the commits after it, and the
//! files that remain ([Delta Transaction Log Protocol](https://github.com/delta-io/delta/blob/master/PROTOCOL.md)).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, StructArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::lake::file::{self, Column};
use crate::trail::Version;

/// A Delta table as of its newest version.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub version: u64,
    /// Path relative to the table, with partition values, size and the number of rows in the statistics.
    pub files: BTreeMap<String, Added>,
    pub transactions: BTreeMap<String, i64>,
    /// The schema in the log's metadata.
    pub schema: Value,
    pub partition_columns: Vec<String>,
    pub configuration: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
pub struct Added {
    pub partition: BTreeMap<String, String>,
    pub size: u64,
    pub records: Option<u64>,
}

impl Snapshot {
    /// Reads a table's log. A table without commits is empty.
    pub fn read(table: &Path) -> Snapshot {
        let log = table.join("_delta_log");
        let mut snapshot = Snapshot::default();
        let mut next = 0;
        if let Ok(hint) = fs::read_to_string(log.join("_last_checkpoint")) {
            let hint: Value = serde_json::from_str(&hint).expect("_last_checkpoint is JSON");
            let version = hint["version"].as_u64().expect("_last_checkpoint names a version");
            assert!(hint.get("parts").is_none_or(Value::is_null), "a checkpoint in several parts");
            snapshot.checkpoint(&log.join(format!("{version:020}.checkpoint.parquet")));
            next = version + 1;
        }
        while let Ok(commit) = fs::read_to_string(log.join(format!("{next:020}.json"))) {
            snapshot.commit(&commit);
            snapshot.version = next;
            next += 1;
        }
        snapshot
    }

    fn commit(&mut self, commit: &str) {
        for line in commit.lines() {
            let action: Value = serde_json::from_str(line).expect("a commit holds JSON lines");
            let (kind, action) = action.as_object().and_then(|action| action.iter().next()).expect("an action");
            match kind.as_str() {
                "add" => self.add(action),
                "remove" => {
                    let path = decoded(action["path"].as_str().expect("a path"));
                    assert!(self.files.remove(&path).is_some(), "a file is removed that was not there: {path}");
                }
                "txn" => {
                    let name = action["appId"].as_str().expect("an application").to_owned();
                    self.transactions.insert(name, action["version"].as_i64().expect("a version"));
                }
                "metaData" => self.metadata(action),
                "protocol" | "commitInfo" => {}
                other => panic!("an action that no reader was told of: {other}"),
            }
        }
    }

    fn add(&mut self, action: &Value) {
        let path = decoded(action["path"].as_str().expect("a path"));
        let partition = action["partitionValues"].as_object().expect("partition values");
        let partition = partition.iter().map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()));
        let statistics = action["stats"].as_str().map(|text| serde_json::from_str::<Value>(text).expect("statistics"));
        let added = Added {
            partition: partition.collect(),
            size: action["size"].as_u64().expect("a size"),
            records: statistics.and_then(|statistics| statistics["numRecords"].as_u64()),
        };
        assert!(self.files.insert(path.clone(), added).is_none(), "a file is added twice: {path}");
    }

    fn metadata(&mut self, action: &Value) {
        self.schema = serde_json::from_str(action["schemaString"].as_str().expect("a schema")).expect("a schema");
        let names = action["partitionColumns"].as_array().expect("partition columns");
        self.partition_columns = names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect();
        let configuration = action["configuration"].as_object().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.configuration = configuration.map(|(key, value)| (key.clone(), text(value))).collect();
    }

    /// Reads the actions of a checkpoint as those of a commit.
    fn checkpoint(&mut self, path: &Path) {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(file).expect("a checkpoint is Parquet").build().expect("a reader");
        for batch in reader {
            let batch = batch.expect("a batch of the checkpoint");
            let columns = |name: &str| batch.column_by_name(name).map(|column| column.as_struct().clone());
            if let Some(adds) = columns("add") {
                rows(&adds).for_each(|row| self.add(&add_of(&adds, row)));
            }
            if let Some(transactions) = columns("txn") {
                for row in rows(&transactions) {
                    let name = text(&transactions, "appId", row).expect("an application");
                    self.transactions.insert(name, long(&transactions, "version", row).expect("a version"));
                }
            }
            if let Some(metadata) = columns("metaData") {
                for row in rows(&metadata) {
                    let configuration = map(&metadata, "configuration", row);
                    let columns = metadata
                        .column_by_name("partitionColumns")
                        .expect("partition columns")
                        .as_list::<i32>()
                        .value(row);
                    let columns: Vec<String> = strings(&columns).into_iter().flatten().collect();
                    self.metadata(&serde_json::json!({
                        "schemaString": text(&metadata, "schemaString", row), "partitionColumns": columns,
                        "configuration": configuration,
                    }));
                }
            }
        }
    }

    /// Returns lake columns by name, with the source's column and kind of each.
    pub fn columns(&self) -> BTreeMap<String, Column> {
        let fields = self.schema["fields"].as_array().into_iter().flatten();
        let column = |field: &Value| {
            let text = |key: &str| field["metadata"][key].as_str().map(str::to_owned);
            let column = Column { source: text("cdc_audit.column")?, kind: text("cdc_audit.kind")? };
            Some((field["name"].as_str()?.to_owned(), column))
        };
        fields.filter_map(column).collect()
    }
}

/// Reads the versions of a table, after it checked what the log says about its files.
pub fn versions(table: &Path) -> Vec<Version> {
    let snapshot = Snapshot::read(table);
    let columns = snapshot.columns();
    let mut versions = Vec::new();
    for (path, added) in &snapshot.files {
        let full = table.join(path);
        let size =
            fs::metadata(&full).unwrap_or_else(|error| panic!("the log names {}: {error}", full.display())).len();
        assert_eq!(size, added.size, "the size of {path}");
        assert_eq!(partition_of(path), added.partition, "the partition of {path}");
        let rows = file::versions(&full, &columns);
        assert!(added.records.is_none_or(|records| records == rows.len() as u64), "the number of rows of {path}");
        versions.extend(rows);
    }
    versions
}

/// Reads `year=2026/month=03/day=01` as Delta writes integers, without leading zeros; a date stays as it is.
fn partition_of(path: &str) -> BTreeMap<String, String> {
    let part = |segment: &str| {
        let (name, value) = segment.split_once('=')?;
        Some((name.to_owned(), value.parse::<i32>().map_or_else(|_| value.to_owned(), |number| number.to_string())))
    };
    PathBuf::from(path).iter().filter_map(|segment| part(segment.to_str()?)).collect()
}

/// Decodes a path of the log, which is percent-encoded.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digits = [*high, *low];
                bytes.extend(hex::decode(digits).expect("two hex digits after a per cent sign"));
                rest = tail;
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).expect("a path is UTF-8")
}

fn rows(column: &StructArray) -> impl Iterator<Item = usize> + use<> {
    let valid: Vec<usize> = (0..column.len()).filter(|&row| column.is_valid(row)).collect();
    valid.into_iter()
}

fn add_of(adds: &StructArray, row: usize) -> Value {
    serde_json::json!({
        "path": text(adds, "path", row), "partitionValues": map(adds, "partitionValues", row),
        "size": long(adds, "size", row), "stats": text(adds, "stats", row),
    })
}

fn text(column: &StructArray, name: &str, row: usize) -> Option<String> {
    let column = column.column_by_name(name)?;
    column.is_valid(row).then(|| strings(column)[row].clone()).flatten()
}

fn long(column: &StructArray, name: &str, row: usize) -> Option<i64> {
    let column = column.column_by_name(name)?;
    column.is_valid(row).then(|| column.as_primitive::<arrow::datatypes::Int64Type>().value(row))
}

fn map(column: &StructArray, name: &str, row: usize) -> BTreeMap<String, String> {
    let entries = column.column_by_name(name).expect("a map").as_map().value(row);
    let (keys, values) = (strings(entries.column(0)), strings(entries.column(1)));
    keys.into_iter().zip(values).filter_map(|(key, value)| Some((key?, value?))).collect()
}

/// Reads a column of text in any encoding.
fn strings(column: &dyn Array) -> Vec<Option<String>> {
    let plain = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).expect("a column of text");
    plain.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}
