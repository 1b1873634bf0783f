//! Selects the row groups of a file that may have a value in a column, by their bounds and Bloom filters.
//!
//! The filters are most of what a look-up of one key reads, and it asks the same files the same question more than
//! once, so the answers are kept.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::Result;
use parquet::file::metadata::RowGroupMetaData;

use crate::fetch::ObjectReader;

/// Number of answers after which all are forgotten: a row that had a thousand keys, in a lake of thousands of files,
/// must not fill the memory.
const KNOWN_MAX: usize = 50_000;

type Builder = ParquetRecordBatchStreamBuilder<ObjectReader>;

/// The answers so far: by file, column and value, whether each row group may have it.
#[derive(Debug, Default)]
pub struct Groups(Mutex<Known>);

type Known = HashMap<(String, &'static str, String), Vec<bool>>;

impl Groups {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row groups of the file named `shown` in which one of `columns` may have one of `values`.
    pub async fn select(
        &self,
        shown: &str,
        builder: &mut Builder,
        columns: &[&'static str],
        values: &[String],
    ) -> Result<Vec<usize>> {
        if self.known().len() > KNOWN_MAX {
            self.known().clear();
        }
        let mut may = vec![false; builder.metadata().num_row_groups()];
        for column in columns {
            let place = |value: &String| (shown.to_owned(), *column, value.clone());
            let unknown: Vec<&String> = {
                let known = self.known();
                values.iter().filter(|value| !known.contains_key(&place(value))).collect()
            };
            let answers = ask(builder, column, &unknown).await?;
            let mut known = self.known();
            known.extend(unknown.into_iter().map(place).zip(answers));
            for answer in values.iter().filter_map(|value| known.get(&place(value))) {
                may.iter_mut().zip(answer).for_each(|(may, answer)| *may |= answer);
            }
        }
        Ok((0..may.len()).filter(|group| may[*group]).collect())
    }
}

/// For each value, whether each row group may have it. A filter is read once for all values.
async fn ask(builder: &mut Builder, column: &str, values: &[&String]) -> Result<Vec<Vec<bool>>> {
    let groups = builder.metadata().num_row_groups();
    let mut answers = vec![vec![false; groups]; values.len()];
    if values.is_empty() {
        return Ok(answers);
    }
    for group in 0..groups {
        let metadata = builder.metadata().row_group(group);
        let Some(at) = metadata.columns().iter().position(|chunk| chunk.column_path().string() == column) else {
            continue;
        };
        let within: Vec<bool> = values.iter().map(|value| is_within(metadata, at, value)).collect();
        if !within.contains(&true) {
            continue;
        }
        let bloom = builder.get_row_group_column_bloom_filter(group, at).await?;
        for (answer, (value, within)) in answers.iter_mut().zip(values.iter().zip(within)) {
            answer[group] = within && bloom.as_ref().is_none_or(|bloom| bloom.check(&value.as_str()));
        }
    }
    Ok(answers)
}

/// Whether a value is within the bounds of a column.
fn is_within(group: &RowGroupMetaData, column: usize, value: &str) -> bool {
    let Some(statistics) = group.column(column).statistics() else { return true };
    let (min, max) = (statistics.min_bytes_opt(), statistics.max_bytes_opt());
    let is_null = statistics.null_count_opt() == Some(group.num_rows() as u64);
    !is_null && min.is_none_or(|min| min <= value.as_bytes()) && max.is_none_or(|max| value.as_bytes() <= max)
}
