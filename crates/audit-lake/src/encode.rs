//! Encodes rows as Parquet.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as Codec, GzipLevel, ZstdLevel};
use parquet::errors::Result;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{BloomFilterProperties, EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::config::{Compression, LakeConfig};
use crate::schema::RECORD_COLUMNS;

/// About how many bytes an open writer holds in addition to what it reports: compressors and dictionaries.
pub const WRITER_BYTES: usize = 4 << 20;

/// How files are encoded.
#[derive(Clone, Debug)]
pub struct Settings {
    pub row_group_rows: usize,
    pub row_group_bytes: usize,
    codec: Codec,
}

impl Settings {
    /// `row_group_bytes` is the size that memory allows.
    pub fn new(config: &LakeConfig, row_group_bytes: usize) -> Result<Settings> {
        let codec = match config.compression {
            Compression::Zstd => Codec::ZSTD(ZstdLevel::try_new(config.zstd_level)?),
            Compression::Snappy => Codec::SNAPPY,
            Compression::Gzip => Codec::GZIP(GzipLevel::default()),
            Compression::None => Codec::UNCOMPRESSED,
        };
        let row_group_rows = usize::try_from(config.row_group_rows).unwrap_or(usize::MAX);
        Ok(Settings { row_group_rows, row_group_bytes, codec })
    }
}

/// What is known about a file's rows when its writer opens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rows {
    /// Number of rows in a row group, if known.
    pub group: Option<usize>,
    /// Large rows may follow.
    pub large: bool,
    /// The rows of a row group are sorted by key and position.
    pub by_key: bool,
}

/// Number of rows that are examined to find out whether a column's values repeat.
const SAMPLE: usize = 1024;
/// If a larger share of the values is distinct, a dictionary costs more than it saves.
const DISTINCT_MAX: f64 = 0.5;
/// Bytes of a value from which its column has neither dictionary nor statistics, because both would keep copies of such
/// values.
const LONG: usize = 64 << 10;
/// Columns in which values are looked for: they have a Bloom filter, which tells which row groups cannot have a value.
const LOOKED_UP: [&str; 3] = ["cdc_key", "cdc_event", "cdc_actor_id"];
/// Rate of false positives of such a filter. One with few values is small.
const BLOOM: f64 = 0.01;

/// Number of columns that have a dictionary and, if it is zstd, the configured codec: both take about a quarter of a
/// megabyte for each column while a row group is encoded, whatever it holds. Further columns are compressed with
/// snappy, which takes none.
const RICH_COLUMNS: usize = 64;

/// A row with more bytes than this is large. Such rows are only in files that were opened for them.
pub const LARGE: usize = 4 << 20;

/// Opens a writer for a file that begins with `first`.
pub fn open(first: &RecordBatch, settings: &Settings, rows: Rows) -> Result<ArrowWriter<Vec<u8>>> {
    let row_group = rows.group.unwrap_or(settings.row_group_rows).min(settings.row_group_rows);
    let bloom = BloomFilterProperties::builder().with_fpp(BLOOM).with_max_ndv(row_group as u64).build();
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("cdc-audit ", env!("CARGO_PKG_VERSION")).to_string())
        .set_compression(settings.codec)
        .set_max_row_group_row_count(Some(settings.row_group_rows))
        .set_max_row_group_bytes(Some(settings.row_group_bytes));
    for column in LOOKED_UP {
        properties = properties.set_column_bloom_filter_properties(ColumnPath::from(column), bloom.clone());
    }
    if rows.by_key {
        properties = properties.set_sorting_columns(Some(sorting_columns(first)));
    }
    for (at, (path, column)) in leaves(first).into_iter().enumerate() {
        let (name, not_asked) = (path.parts()[0].as_str(), NOT_ASKED.contains(&path.parts()[0].as_str()));
        let of_row = not_asked || RECORD_COLUMNS.iter().all(|(known, ..)| *known != name);
        let long = longest(&column) > LONG || (rows.large && of_row && is_bytes(&column));
        if long || at >= RICH_COLUMNS || mostly_distinct(&column) {
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
        }
        if at >= RICH_COLUMNS && matches!(settings.codec, Codec::ZSTD(_)) {
            properties = properties.set_column_compression(path.clone(), Codec::SNAPPY);
        }
        if long || not_asked {
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
        }
    }
    ArrowWriter::try_new(Vec::new(), first.schema(), Some(properties.build()))
}

/// The columns that rows are sorted by. A footer that names them declares its row groups sorted.
pub const SORTED_BY: [&str; 2] = ["cdc_key", "cdc_position"];

fn sorting_columns(first: &RecordBatch) -> Vec<SortingColumn> {
    let leaves = leaves(first);
    let place = |name: &&str| leaves.iter().position(|(path, _)| path.parts()[0] == **name);
    let column = |at: usize| SortingColumn { column_idx: at as i32, descending: false, nulls_first: true };
    SORTED_BY.iter().filter_map(place).map(column).collect()
}

/// JSON texts without statistics, because nobody queries a range of them.
const NOT_ASKED: [&str; 5] = ["cdc_changes", "cdc_included", "cdc_actor", "cdc_context", "cdc_exact"];

/// The columns as Parquet has them: each field of a struct is a column of its own.
fn leaves(batch: &RecordBatch) -> Vec<(ColumnPath, ArrayRef)> {
    let mut leaves = Vec::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        match column.as_struct_opt() {
            None => leaves.push((ColumnPath::new(vec![field.name().clone()]), column.clone())),
            Some(row) => leaves.extend(row.fields().iter().zip(row.columns()).map(|(inner, column)| {
                (ColumnPath::new(vec![field.name().clone(), inner.name().clone()]), column.clone())
            })),
        }
    }
    leaves
}

fn is_bytes(column: &ArrayRef) -> bool {
    matches!(column.data_type(), DataType::Utf8 | DataType::Binary)
}

fn longest(column: &ArrayRef) -> usize {
    let offsets = match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value_offsets(),
        DataType::Binary => column.as_binary::<i32>().value_offsets(),
        _ => return 0,
    };
    offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize).max().unwrap_or(0)
}

fn mostly_distinct(column: &ArrayRef) -> bool {
    let rows = column.len().min(SAMPLE);
    let sample = column.slice(0, rows);
    let present = rows - sample.null_count();
    let distinct = match column.data_type() {
        DataType::Utf8 => sample.as_string::<i32>().iter().flatten().collect::<HashSet<_>>().len(),
        DataType::Binary => sample.as_binary::<i32>().iter().flatten().collect::<HashSet<_>>().len(),
        DataType::Boolean | DataType::List(_) | DataType::Struct(_) => return false,
        _ => fixed_values(&sample).map_or(0, |values| values.len()),
    };
    present >= 64 && distinct as f64 > DISTINCT_MAX * present as f64
}

/// The distinct values of a column whose values all have the same width.
fn fixed_values(column: &ArrayRef) -> Option<HashSet<Vec<u8>>> {
    let width = column.data_type().primitive_width()?;
    let data = column.to_data();
    let bytes = data.buffers().first()?.as_slice().get(data.offset() * width..)?;
    Some(bytes.chunks(width).take(column.len()).map(<[u8]>::to_vec).collect())
}

/// Runs work that takes processor time, so that other tasks of this thread continue elsewhere.
pub fn on_cpu<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
