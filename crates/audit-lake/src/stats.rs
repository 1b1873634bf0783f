//! A file's statistics in the Delta log, taken from its Parquet footer (Delta protocol, "Per-file Statistics").
//!
//! Bounds are exact, or text that Parquet shortened: a prefix as the lower bound, a raised prefix as the upper. Columns
//! without a safe bound (floats, because Parquet's bounds ignore NaN; lists; JSON) have none. Readers skip files by
//! these bounds, so a wrong one would hide rows.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Int16Type, Int32Type, Int64Type, Schema, TimestampMicrosecondType,
};
use audit_core::position::Micros;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::errors::Result;
use parquet::file::metadata::ParquetMetaData;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::form::Form;
use crate::schema::{RECORD_COLUMNS, RowPlan};

/// Maximum number of row columns with statistics, as in other writers of Delta tables. Statistics are all read with the
/// log.
const ROW_COLUMNS_MAX: usize = 32;

/// Columns of the record that are queried.
const ASKED: [&str; 6] = ["cdc_position", "cdc_key", "cdc_old_key", "cdc_event", "cdc_actor_id", "cdc_committed_at"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    num_records: i64,
    min_values: BTreeMap<String, Box<RawValue>>,
    max_values: BTreeMap<String, Box<RawValue>>,
    null_count: BTreeMap<String, u64>,
}

/// The `stats` of an `add` action.
pub fn of_file(footer: &ParquetMetaData, plan: &RowPlan) -> Result<String> {
    let mut stats = Stats {
        num_records: footer.file_metadata().num_rows(),
        min_values: BTreeMap::new(),
        max_values: BTreeMap::new(),
        null_count: BTreeMap::new(),
    };
    let record =
        RECORD_COLUMNS.iter().filter(|(name, ..)| ASKED.contains(name)).map(|(name, form, _)| (*name, form.clone()));
    let row = plan.columns.iter().take(ROW_COLUMNS_MAX).map(|(name, form)| (name.as_str(), form.clone()));
    for (name, form) in record.chain(row) {
        add_column(&mut stats, footer, &plan.schema, name, &form)?;
    }
    Ok(serde_json::to_string(&stats).unwrap_or_default())
}

fn add_column(stats: &mut Stats, footer: &ParquetMetaData, schema: &Schema, name: &str, form: &Form) -> Result<()> {
    let converter = StatisticsConverter::try_new(name, schema, footer.file_metadata().schema_descr())?;
    let nulls = converter.row_group_null_counts(footer.row_groups())?;
    if nulls.null_count() > 0 {
        return Ok(());
    }
    stats.null_count.insert(name.to_string(), nulls.values().iter().sum());
    if !matches!(
        form,
        Form::Int16 | Form::Int32 | Form::Int64 | Form::Decimal(..) | Form::Date | Form::Timestamp { .. } | Form::Text
    ) {
        return Ok(());
    }
    // If a row group has values but no bound, the file has no bound.
    let bounded = |bounds: &ArrayRef| {
        let groups = footer.row_groups().iter().zip(nulls.values());
        groups.enumerate().all(|(at, (group, nulls))| bounds.is_valid(at) || *nulls == group.num_rows() as u64)
    };
    let (mins, maxes) =
        (converter.row_group_mins(footer.row_groups())?, converter.row_group_maxes(footer.row_groups())?);
    if bounded(&mins)
        && let Some(json) = bound(&mins, form, false)
    {
        stats.min_values.insert(name.to_string(), json);
    }
    if bounded(&maxes)
        && let Some(json) = bound(&maxes, form, true)
    {
        stats.max_values.insert(name.to_string(), json);
    }
    Ok(())
}

/// The smallest or greatest of the row groups' bounds, as JSON.
fn bound(bounds: &ArrayRef, form: &Form, greatest: bool) -> Option<Box<RawValue>> {
    fn pick<T: Ord>(values: impl Iterator<Item = T>, greatest: bool) -> Option<T> {
        if greatest { values.max() } else { values.min() }
    }
    fn number<T: ArrowPrimitiveType>(bounds: &ArrayRef, greatest: bool) -> Option<T::Native>
    where
        T::Native: Ord,
    {
        pick(bounds.as_primitive_opt::<T>()?.iter().flatten(), greatest)
    }
    let json = match form {
        Form::Int16 => number::<Int16Type>(bounds, greatest)?.to_string(),
        Form::Int32 => number::<Int32Type>(bounds, greatest)?.to_string(),
        Form::Int64 => number::<Int64Type>(bounds, greatest)?.to_string(),
        Form::Decimal(_, scale) => decimal(number::<Decimal128Type>(bounds, greatest)?, *scale),
        Form::Date => format!("\"{}\"", date(number::<Date32Type>(bounds, greatest)?)?),
        Form::Timestamp { .. } => format!("\"{}\"", time(number::<TimestampMicrosecondType>(bounds, greatest)?)?),
        Form::Text => serde_json::to_string(pick(bounds.as_string_opt::<i32>()?.iter().flatten(), greatest)?).ok()?,
        _ => return None,
    };
    RawValue::from_string(json).ok()
}

/// Formats days since 1970-01-01 as `YYYY-MM-DD`; `None` outside the years that the lake's typed columns hold, because
/// writers differ on those.
pub fn date(day: i32) -> Option<String> {
    time(i64::from(day).checked_mul(86_400_000_000)?)?.get(..10).map(str::to_string)
}

/// Formats microseconds since 1970-01-01 as `YYYY-MM-DDTHH:MM:SS.ffffffZ`; `None` outside the same years.
pub fn time(micros: i64) -> Option<String> {
    let at = Micros(micros);
    (1..=9999).contains(&at.date().0).then(|| at.to_string())
}

/// Writes a decimal digit by digit. The result is both a JSON number and PostgreSQL's text.
pub fn decimal(value: i128, scale: i8) -> String {
    let scale = usize::from(scale.unsigned_abs());
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let dot = if scale > 0 { "." } else { "" };
    format!("{sign}{whole}{dot}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_an_exact_form_is_no_bound() {
        for (day, text) in [(2_932_896, Some("9999-12-31")), (2_932_897, None), (-719_162, Some("0001-01-01"))] {
            assert_eq!(date(day).as_deref(), text);
        }
        assert_eq!((date(-719_163), date(i32::MAX), time(i64::MAX), time(i64::MIN)), (None, None, None, None));
    }

    #[test]
    fn decimals_keep_every_digit() {
        assert_eq!(decimal(1250, 2), "12.50");
        assert_eq!(decimal(-5, 3), "-0.005");
        assert_eq!(decimal(7, 0), "7");
        assert_eq!(
            decimal(99_999_999_999_999_999_999_999_999_999_999_999_999, 2),
            "999999999999999999999999999999999999.99"
        );
    }
}
