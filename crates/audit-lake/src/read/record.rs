//! Converts rows of a lake's file into [`Record`]s.
//!
//! Typed values become JSON by way of PostgreSQL's text, so that lake and hot show the same.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Fields, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use audit_core::position::{Lsn, Micros, Position};
use audit_core::stored::{Json, Record, json};
use audit_core::value::{Kind, write_json_string, write_json_value};
use serde_json::{Map, Value};

use crate::error::LakeError;
use crate::form::Form;
use crate::schema::{BEFORE, SOURCE_COLUMN, SOURCE_KIND};
use crate::stats;

/// The columns of [`Rows::snapshot`], and the position.
pub const SNAPSHOT: [&str; 4] = ["cdc_position", "cdc_event", "cdc_key", "cdc_baseline"];

/// Some rows of one file.
#[derive(Debug)]
pub struct Rows {
    batch: RecordBatch,
    /// The row's own columns.
    columns: Vec<RowColumn>,
}

#[derive(Clone, Debug)]
struct RowColumn {
    source: String,
    lake: String,
    kind: Kind,
    at: usize,
}

impl Default for Rows {
    fn default() -> Rows {
        Rows::new(RecordBatch::new_empty(std::sync::Arc::new(arrow::datatypes::Schema::empty())))
    }
}

impl Rows {
    pub fn new(batch: RecordBatch) -> Rows {
        let column = |(at, field): (usize, &std::sync::Arc<Field>)| {
            let source = field.metadata().get(SOURCE_COLUMN)?.clone();
            let kind = field.metadata().get(SOURCE_KIND)?.parse().ok()?;
            Some(RowColumn { source, lake: field.name().clone(), kind, at })
        };
        let columns = batch.schema_ref().fields().iter().enumerate().filter_map(column).collect();
        Rows { batch, columns }
    }

    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// The value of a text column of the record.
    pub fn text(&self, column: &str, at: usize) -> Option<&str> {
        let column = self.batch.column_by_name(column)?.as_string_opt::<i32>()?;
        column.is_valid(at).then(|| column.value(at))
    }

    pub fn position(&self, at: usize, path: &str) -> Result<Position, LakeError> {
        let position = self.text("cdc_position", at).and_then(|text| text.parse().ok());
        position.ok_or_else(|| missing(path, "cdc_position"))
    }

    /// Baseline and key, if the row is a snapshot row that has both.
    pub fn snapshot(&self, at: usize) -> Option<(u32, String)> {
        let is_one = self.text("cdc_event", at) == Some("snapshot");
        let baseline = self.number("cdc_baseline", at)?;
        self.text("cdc_key", at).filter(|_| is_one).map(|key| (baseline, key.to_string()))
    }

    pub fn committed_at(&self, at: usize) -> Micros {
        self.time("cdc_committed_at", at).unwrap_or_default()
    }

    fn time(&self, column: &str, at: usize) -> Option<Micros> {
        let column = self.batch.column_by_name(column)?.as_primitive_opt::<TimestampMicrosecondType>()?;
        column.is_valid(at).then(|| Micros(column.value(at)))
    }

    fn boolean(&self, column: &str, at: usize) -> Option<bool> {
        let column = self.batch.column_by_name(column)?.as_boolean_opt()?;
        column.is_valid(at).then(|| column.value(at))
    }

    pub fn number(&self, column: &str, at: usize) -> Option<u32> {
        let column = self.batch.column_by_name(column)?;
        if !column.is_valid(at) {
            return None;
        }
        match column.data_type() {
            DataType::Int64 => u32::try_from(column.as_primitive::<Int64Type>().value(at)).ok(),
            DataType::Int32 => u32::try_from(column.as_primitive::<Int32Type>().value(at)).ok(),
            _ => None,
        }
    }

    /// The names in a list; `None` if there is no list.
    pub fn names(&self, column: &str, at: usize) -> Option<Vec<String>> {
        let column = self.batch.column_by_name(column)?.as_list_opt::<i32>()?;
        let names = column.is_valid(at).then(|| column.value(at))?;
        Some(names.as_string_opt::<i32>()?.iter().flatten().map(str::to_string).collect())
    }

    /// The complete record of row `at`.
    pub fn record(&self, at: usize, path: &str) -> Result<Record, LakeError> {
        let text = |column: &str| self.text(column, at).map(str::to_string);
        let needed = |column: &'static str| text(column).ok_or_else(|| missing(path, column));
        let lsn = |column: &'static str| {
            let digits = self.text(column, at).and_then(|text| u64::from_str_radix(text, 16).ok());
            digits.map(Lsn).ok_or_else(|| missing(path, column))
        };
        let raw = |column: &str| text(column).map(json);
        let event = needed("cdc_event")?;
        let unknown = self.names("cdc_unknown", at).unwrap_or_default();
        let before_known = self.boolean("cdc_before_known", at).unwrap_or(false);
        let exact = self.exact(at);
        // Values of the row before that are not known are null in its columns. What is known of it then is its key, and
        // no part of a key is null.
        let known_only = event == "deleted" && !before_known;
        let image = || self.image(self.batch.columns(), at, "", &exact, &unknown, known_only);
        let (before, after) = match event.as_str() {
            "created" | "updated" | "snapshot" | "discarded" | "restored" => {
                (self.kept_before(at, &exact, before_known), Some(image()))
            }
            "deleted" => (Some(image()), None),
            _ => (None, None),
        };
        let record = Record {
            source: needed("cdc_source")?,
            position: self.position(at, path)?,
            table_name: needed("cdc_table_name")?,
            item_type: needed("cdc_item_type")?,
            key: text("cdc_key"),
            old_key: text("cdc_old_key"),
            event,
            changes: raw("cdc_changes"),
            before,
            after,
            changed: self.names("cdc_changed", at),
            before_known,
            unknown,
            carried: self.names("cdc_carried", at).unwrap_or_default(),
            included: raw("cdc_included"),
            actor_id: text("cdc_actor_id"),
            actor: raw("cdc_actor"),
            reason: text("cdc_reason"),
            context: raw("cdc_context"),
            actor_source: text("cdc_actor_source"),
            context_verified: self.boolean("cdc_context_verified", at),
            xid: self.number("cdc_xid", at).ok_or_else(|| missing(path, "cdc_xid"))?,
            commit_lsn: lsn("cdc_commit_lsn")?,
            lsn: lsn("cdc_lsn")?,
            seq: self.number("cdc_seq", at).ok_or_else(|| missing(path, "cdc_seq"))?,
            committed_at: self.time("cdc_committed_at", at).ok_or_else(|| missing(path, "cdc_committed_at"))?,
            recorded_at: self.time("cdc_recorded_at", at).unwrap_or_default(),
            schema_version: self.number("cdc_schema_version", at).unwrap_or(0),
            baseline: self.number("cdc_baseline", at),
            tenant: text("cdc_tenant"),
            summary: String::new(),
        };
        Ok(record.complete())
    }

    /// The texts of values that their typed columns cannot hold.
    fn exact(&self, at: usize) -> Map<String, Value> {
        self.text("cdc_exact", at).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    fn kept_before(&self, at: usize, exact: &Map<String, Value>, whole: bool) -> Option<Json> {
        let kept: &StructArray = self.batch.column_by_name(BEFORE)?.as_struct_opt()?;
        if !kept.is_valid(at) {
            return None;
        }
        // Its fields are the row's columns, by name.
        let fields: &Fields = kept.fields();
        let mut columns = self.batch.columns().to_vec();
        for column in &self.columns {
            if let Some(inner) = fields.iter().position(|field| *field.name() == column.lake) {
                columns[column.at] = kept.column(inner).clone();
            }
        }
        Some(self.image(&columns, at, "cdc_before.", exact, &[], !whole))
    }

    /// One side of the row as an object; unknown values are left out.
    fn image(
        &self,
        columns: &[ArrayRef],
        at: usize,
        prefix: &str,
        exact: &Map<String, Value>,
        unknown: &[String],
        known_only: bool,
    ) -> Json {
        let mut out = vec![b'{'];
        for column in &self.columns {
            let exact = exact.get(&format!("{prefix}{}", column.lake)).and_then(Value::as_str);
            let array = &columns[column.at];
            let null = exact.is_none() && !array.is_valid(at);
            if unknown.contains(&column.source) || (null && known_only) {
                continue;
            }
            if out.len() > 1 {
                out.extend_from_slice(b", ");
            }
            write_json_string(&mut out, &column.source);
            out.extend_from_slice(b": ");
            match exact {
                Some(text) => write_json_value(&mut out, &column.kind, text),
                None if null => out.extend_from_slice(b"null"),
                None => write_value(&mut out, &column.kind, array, at),
            }
        }
        out.push(b'}');
        json(String::from_utf8(out).unwrap_or_default())
    }
}

fn missing(path: &str, column: &str) -> LakeError {
    LakeError::altered(path, format!("it has no {column}"))
}

/// Appends a value as JSON.
fn write_value(out: &mut Vec<u8>, kind: &Kind, array: &ArrayRef, at: usize) {
    match Form::of(kind) {
        // A list already has the record's form, and so has jsonb, except for its `null`.
        Form::Json(Kind::Array(_)) => {
            out.extend_from_slice(array.as_string_opt::<i32>().map_or("null", |texts| texts.value(at)).as_bytes())
        }
        form => match postgres_text(&form, array, at) {
            Some(text) => write_json_value(out, kind, &text),
            None => out.extend_from_slice(b"null"),
        },
    }
}

/// A typed value in the text form that PostgreSQL gives it; `None` if the column has another type than its form, or a
/// time that the lake does not write.
fn postgres_text(form: &Form, array: &ArrayRef, at: usize) -> Option<String> {
    Some(match form {
        Form::Bool => if array.as_boolean_opt()?.value(at) { "t" } else { "f" }.to_string(),
        Form::Int16 => array.as_primitive_opt::<Int16Type>()?.value(at).to_string(),
        Form::Int32 => array.as_primitive_opt::<Int32Type>()?.value(at).to_string(),
        Form::Int64 => array.as_primitive_opt::<Int64Type>()?.value(at).to_string(),
        Form::Float32 => float(
            f64::from(array.as_primitive_opt::<Float32Type>()?.value(at)),
            array.as_primitive_opt::<Float32Type>()?.value(at).to_string(),
        ),
        Form::Float64 => float(
            array.as_primitive_opt::<Float64Type>()?.value(at),
            array.as_primitive_opt::<Float64Type>()?.value(at).to_string(),
        ),
        Form::Decimal(_, scale) => stats::decimal(array.as_primitive_opt::<Decimal128Type>()?.value(at), *scale),
        Form::Binary => {
            let mut text = "\\x".to_string();
            array.as_binary_opt::<i32>()?.value(at).iter().for_each(|byte| {
                let _ = write!(text, "{byte:02x}");
            });
            text
        }
        Form::Date => stats::date(array.as_primitive_opt::<Date32Type>()?.value(at))?,
        Form::Timestamp { zone } => timestamp(array.as_primitive_opt::<TimestampMicrosecondType>()?.value(at), *zone)?,
        Form::Text | Form::Json(_) => array.as_string_opt::<i32>()?.value(at).to_string(),
        Form::TextList => return None,
    })
}

fn float(value: f64, shown: String) -> String {
    match value {
        value if value.is_nan() => "NaN".to_string(),
        f64::INFINITY => "Infinity".to_string(),
        f64::NEG_INFINITY => "-Infinity".to_string(),
        _ => shown,
    }
}

/// Formats a time as `YYYY-MM-DD HH:MM:SS[.ffffff][+00]`, without trailing zeros.
fn timestamp(micros: i64, zone: bool) -> Option<String> {
    let shown = stats::time(micros)?;
    let (date, time) = shown.strip_suffix('Z')?.split_once('T')?;
    let time = time.trim_end_matches('0').trim_end_matches('.');
    Some(format!("{date} {time}{}", if zone { "+00" } else { "" }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_are_shown_as_postgres_shows_them() {
        for text in [
            "2026-03-01 09:30:00+00",
            "2026-03-01 00:00:00+00",
            "2026-03-01 09:30:20.5+00",
            "2026-03-01 09:30:00.000001+00",
            "0001-01-01 10:00:00+00",
            "9999-12-31 23:59:59.999999+00",
        ] {
            let micros = crate::parse::timestamp(text, true).unwrap();
            assert_eq!(timestamp(micros, true).as_deref(), Some(text));
        }
    }
}
