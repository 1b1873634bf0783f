//! Reads one Parquet file of versions.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::value::RawValue;

use crate::hot::{changes, image};
use crate::trail::{Row, Version};
use crate::value::{Text, float, from_json, from_postgres};

/// The content of a lake column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The source's column.
    pub source: String,
    pub kind: String,
}

fn open(path: &Path) -> ParquetRecordBatchReaderBuilder<File> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    ParquetRecordBatchReaderBuilder::try_new(file).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads what a file says about its own columns.
pub fn columns_of(path: &Path) -> BTreeMap<String, Column> {
    let column = |field: &Field| {
        let text = |key: &str| field.metadata().get(key).cloned();
        Some((field.name().clone(), Column { source: text("cdc_audit.column")?, kind: text("cdc_audit.kind")? }))
    };
    open(path).schema().fields().iter().filter_map(|field| column(field)).collect()
}

/// Reads the versions of a file in the order of their positions. In the file they must have that order too, or, if its
/// footer says so, each row group must be ordered by key and position.
pub fn versions(path: &Path, columns: &BTreeMap<String, Column>) -> Vec<Version> {
    let reader = open(path);
    let groups = reader.metadata().row_groups();
    let by_key = groups.iter().any(|group| group.sorting_columns().is_some());
    let groups: Vec<usize> = groups.iter().map(|group| group.num_rows() as usize).collect();
    let reader = reader.build().expect("a reader");
    let mut versions: Vec<Version> = Vec::new();
    for batch in reader {
        let batch = batch.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        versions.extend(Batch::of(&batch, columns).versions());
    }
    if by_key {
        let place = |version: &Version| (version.key.clone(), version.position.clone());
        let mut rest = versions.as_slice();
        for rows in groups {
            let (group, others) = rest.split_at(rows);
            assert!(group.is_sorted_by_key(place), "the keys in {} do not rise", path.display());
            rest = others;
        }
        versions.sort_by(|a, b| a.position.cmp(&b.position));
    }
    let rising = versions.windows(2).all(|pair| pair[0].position < pair[1].position);
    assert!(rising, "the positions in {} do not rise", path.display());
    assert!(!versions.is_empty(), "{} is empty", path.display());
    let name = path.file_name().expect("a name").to_string_lossy().replace('-', ":");
    let (first, last) = (&versions[0].position, &versions[versions.len() - 1].position);
    assert!(name.starts_with(&format!("{first}_{last}_")), "{} holds {first} to {last}", path.display());
    versions
}

struct Batch<'b> {
    batch: &'b RecordBatch,
    columns: Vec<(&'b str, &'b Column)>,
    /// Kinds by the source's name, for the JSON columns.
    kinds: HashMap<String, String>,
}

impl<'b> Batch<'b> {
    fn of(batch: &'b RecordBatch, columns: &'b BTreeMap<String, Column>) -> Batch<'b> {
        let schema = batch.schema_ref();
        let present = schema
            .fields()
            .iter()
            .filter(|field| !field.name().starts_with("cdc_") || columns.contains_key(field.name()));
        let column = |field: &'b std::sync::Arc<Field>| {
            let column = columns.get(field.name());
            (field.name().as_str(), column.unwrap_or_else(|| panic!("nobody says what column {} is", field.name())))
        };
        let columns: Vec<_> = present.map(column).collect();
        let kinds = columns.iter().map(|(_, column)| (column.source.clone(), column.kind.clone())).collect();
        Batch { batch, columns, kinds }
    }

    fn versions(&self) -> Vec<Version> {
        (0..self.batch.num_rows()).map(|row| self.version(row)).collect()
    }

    fn column(&self, name: &str) -> &ArrayRef {
        self.batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"))
    }

    fn text(&self, name: &str, row: usize) -> Option<&str> {
        let column = self.column(name).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row))
    }

    fn some(&self, name: &str, row: usize) -> String {
        self.text(name, row).unwrap_or_else(|| panic!("{name} is missing")).to_owned()
    }

    fn int(&self, name: &str, row: usize) -> Option<i64> {
        let column = self.column(name);
        column.is_valid(row).then(|| match column.data_type() {
            DataType::Int32 => i64::from(column.as_primitive::<Int32Type>().value(row)),
            DataType::Int64 => column.as_primitive::<Int64Type>().value(row),
            _ => column.as_primitive::<TimestampMicrosecondType>().value(row),
        })
    }

    fn boolean(&self, name: &str, row: usize) -> Option<bool> {
        let column = self.column(name).as_boolean();
        column.is_valid(row).then(|| column.value(row))
    }

    fn list(&self, name: &str, row: usize) -> Option<Vec<String>> {
        let column = self.column(name).as_list::<i32>();
        let names =
            || column.value(row).as_string::<i32>().iter().map(|name| name.expect("a name").to_owned()).collect();
        column.is_valid(row).then(names)
    }

    fn document(&self, name: &str, row: usize) -> Option<serde_json::Value> {
        self.text(name, row).map(|text| serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    fn version(&self, row: usize) -> Version {
        let event = self.some("cdc_event", row);
        let before_known = self.boolean("cdc_before_known", row).expect("cdc_before_known");
        let unknown = self.list("cdc_unknown", row).unwrap_or_default();
        let exact = self.exact(row);
        let flat = || self.row(self.batch.columns(), self.batch.schema_ref().fields(), row, "", &exact);
        let has_after = matches!(event.as_str(), "created" | "snapshot" | "updated");
        let after = has_after.then(flat).map(|mut row| {
            row.retain(|column, _| !unknown.contains(column));
            row
        });
        let before = (event == "deleted").then(flat).or_else(|| self.before(row, &exact)).map(|mut row| {
            if !before_known {
                row.retain(|_, value| value.is_some());
            }
            row
        });
        Version {
            source: self.some("cdc_source", row),
            position: self.some("cdc_position", row),
            table: self.some("cdc_table_name", row),
            item_type: self.some("cdc_item_type", row),
            key: self.text("cdc_key", row).map(str::to_owned),
            old_key: self.text("cdc_old_key", row).map(str::to_owned),
            changes: self.text("cdc_changes", row).map(|text| changes(text, &self.kinds)),
            changed: self.list("cdc_changed", row),
            included: self.text("cdc_included", row).map(|text| image(text, &self.kinds)),
            actor_id: self.text("cdc_actor_id", row).map(str::to_owned),
            actor: self.document("cdc_actor", row),
            reason: self.text("cdc_reason", row).map(str::to_owned),
            context: self.document("cdc_context", row),
            actor_source: self.text("cdc_actor_source", row).map(str::to_owned),
            context_verified: self.boolean("cdc_context_verified", row),
            xid: self.int("cdc_xid", row).expect("cdc_xid"),
            commit_lsn: u64::from_str_radix(&self.some("cdc_commit_lsn", row), 16).expect("hex digits"),
            lsn: u64::from_str_radix(&self.some("cdc_lsn", row), 16).expect("hex digits"),
            seq: self.int("cdc_seq", row).expect("cdc_seq"),
            committed_at: self.int("cdc_committed_at", row).expect("cdc_committed_at"),
            schema_version: self.int("cdc_schema_version", row).expect("cdc_schema_version") as i32,
            baseline: self.int("cdc_baseline", row).map(|number| number as i32),
            tenant: self.text("cdc_tenant", row).map(str::to_owned),
            before,
            after,
            before_known,
            unknown,
            event,
        }
    }

    /// Reads the values that typed columns cannot hold, by lake column.
    fn exact(&self, row: usize) -> BTreeMap<String, String> {
        self.text("cdc_exact", row).map_or_else(BTreeMap::new, |text| serde_json::from_str(text).expect("cdc_exact"))
    }

    fn before(&self, row: usize, exact: &BTreeMap<String, String>) -> Option<Row> {
        let before: &StructArray = self.batch.column_by_name("cdc_before")?.as_struct();
        before.is_valid(row).then(|| self.row(before.columns(), before.fields(), row, "cdc_before.", exact))
    }

    fn row(
        &self,
        arrays: &[ArrayRef],
        fields: &arrow::datatypes::Fields,
        row: usize,
        prefix: &str,
        exact: &BTreeMap<String, String>,
    ) -> Row {
        let mut values = Row::new();
        for (name, column) in &self.columns {
            let at = fields
                .iter()
                .position(|field| field.name() == name)
                .unwrap_or_else(|| panic!("no column {prefix}{name}"));
            let value = match exact.get(&format!("{prefix}{name}")) {
                Some(text) => {
                    assert!(arrays[at].is_null(row), "{prefix}{name} has a value and an exact one");
                    Some(from_postgres(text, &column.kind))
                }
                None => value(&arrays[at], row, &column.kind),
            };
            values.insert(column.source.clone(), value);
        }
        values
    }
}

/// Writes a typed value as PostgreSQL's text.
fn value(array: &ArrayRef, row: usize, kind: &str) -> Text {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Boolean => if array.as_boolean().value(row) { "t" } else { "f" }.to_owned(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => single(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => {
            decimal(array.as_primitive::<Decimal128Type>().value(row), usize::try_from(*scale).expect("a scale"))
        }
        DataType::Binary => format!("\\x{}", hex::encode(array.as_binary::<i32>().value(row))),
        DataType::Date32 => date(i64::from(array.as_primitive::<Date32Type>().value(row))),
        DataType::Timestamp(..) => {
            let zone = if kind == "timestamptz" { "+00" } else { "" };
            time(array.as_primitive::<TimestampMicrosecondType>().value(row)) + zone
        }
        DataType::Utf8 => {
            let text = array.as_string::<i32>().value(row);
            if kind == "jsonb" && text == "null" {
                return Some(text.to_owned());
            }
            if kind == "jsonb" || kind.ends_with("[]") {
                let json: &RawValue =
                    serde_json::from_str(text).unwrap_or_else(|error| panic!("{kind} {text}: {error}"));
                return from_json(json, kind);
            }
            from_postgres(text, kind)
        }
        other => panic!("a column of type {other}"),
    })
}

fn single(value: f32) -> String {
    match (value.is_nan(), value.is_infinite()) {
        (true, _) => "NaN".to_owned(),
        (_, true) => infinity(value > 0.0),
        _ => float(&value.to_string(), true),
    }
}

fn double(value: f64) -> String {
    match (value.is_nan(), value.is_infinite()) {
        (true, _) => "NaN".to_owned(),
        (_, true) => infinity(value > 0.0),
        _ => float(&value.to_string(), false),
    }
}

fn infinity(positive: bool) -> String {
    if positive { "Infinity" } else { "-Infinity" }.to_owned()
}

fn decimal(value: i128, scale: usize) -> String {
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

/// Writes days since 1970-01-01 as `YYYY-MM-DD`.
fn date(days: i64) -> String {
    // Compute the civil date from days in eras of 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn time(micros: i64) -> String {
    let (days, within) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let (seconds, fraction) = (within / 1_000_000, within % 1_000_000);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction =
        if fraction == 0 { String::new() } else { format!(".{fraction:06}").trim_end_matches('0').to_owned() };
    format!("{} {clock}{fraction}", date(days))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_values_are_written_as_postgres_writes_them() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(-719_162), "0001-01-01");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(time(1_772_357_400_500_000), "2026-03-01 09:30:00.5");
        assert_eq!(time(-1), "1969-12-31 23:59:59.999999");
        assert_eq!(decimal(-125, 2), "-1.25");
        assert_eq!(decimal(5, 4), "0.0005");
        assert_eq!(decimal(12, 0), "12");
    }
}
