use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use cdc_audit_tests::lake::{Snapshot, tables};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Returns for each table the number of rows, and for each column a checksum of the values in the order of positions.
/// `read.py` computes the same. Every file that the log names counts; in lakes without fresh files, listing finds the
/// same files.
pub fn of_lake(lake: &Path) -> Value {
    let table = |(folder, path): (String, PathBuf)| (folder, of_table(&path));
    Value::Object(tables(lake).into_iter().map(table).collect())
}

fn of_table(table: &Path) -> Value {
    let Snapshot { schema, files, .. } = Snapshot::read(table);
    let names: Vec<&str> =
        schema["fields"].as_array().into_iter().flatten().filter_map(|field| field["name"].as_str()).collect();
    let mut rows: Vec<(String, BTreeMap<&str, String>)> = Vec::new();
    for (path, added) in files {
        let partition = |name: &str| match added.partition.get(name) {
            Some(date) if name == "date" => days(date),
            Some(value) => value.clone(),
            None => "null".to_owned(),
        };
        let file = table.join(path);
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&file).unwrap()).unwrap().build().unwrap();
        for batch in reader {
            let batch = batch.unwrap();
            let positions = batch.column_by_name("cdc_position").unwrap().as_string::<i32>();
            for row in 0..batch.num_rows() {
                let value = |name: &str| match batch.column_by_name(name) {
                    Some(column) => text(column, row),
                    None => partition(name),
                };
                let values = names.iter().map(|name| (*name, value(name))).collect();
                rows.push((positions.value(row).to_owned(), values));
            }
        }
    }
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    let checksum = |name: &str| {
        let values: Vec<&str> = rows.iter().map(|(_, values)| values[name].as_str()).collect();
        hex::encode(&Sha256::digest(values.join("\n"))[..8])
    };
    let columns: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), Value::from(checksum(name)))).collect();
    json!({ "rows": rows.len(), "columns": columns })
}

/// Converts `YYYY-MM-DD` to days since 1970-01-01, as Arrow counts them.
fn days(date: &str) -> String {
    let date = arrow::compute::cast(&arrow::array::StringArray::from(vec![date]), &DataType::Date32);
    text(&date.expect("a date"), 0)
}

/// Writes a value in one form: digits of a decimal, bits of a float, days, microseconds, hex.
fn text(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => float(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Date32 => column.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Binary => hex::encode(column.as_binary::<i32>().value(row)),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let items: Vec<Option<&str>> = items.as_string::<i32>().iter().collect();
            // For ClickHouse no list and an empty one are the same.
            if items.is_empty() { "null".to_owned() } else { json!(items).to_string() }
        }
        other => panic!("a column of type {other}"),
    }
}

fn float(value: f64) -> String {
    if value.is_nan() { "NaN".to_owned() } else { format!("{:016x}", value.to_bits()) }
}
