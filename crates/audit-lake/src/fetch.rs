//! Reads Parquet from the object store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use crate::meter::Meter;

/// A Parquet file in the store.
#[derive(Clone, Debug)]
pub struct ObjectReader {
    pub objects: Arc<dyn ObjectStore>,
    pub path: Path,
    pub size: u64,
    pub meter: Meter,
}

/// A Parquet file in the store, or one that was read whole.
#[derive(Debug)]
pub enum Fetched {
    Part(ObjectReader),
    Whole(Bytes),
}

impl Fetched {
    /// Opens a file. One that is no larger than `whole` is read completely: one request instead of two or more.
    pub async fn open(reader: ObjectReader, whole: u64) -> Result<Fetched> {
        if reader.size > whole {
            return Ok(Fetched::Part(reader));
        }
        let found = reader.objects.get(&reader.path).await.map_err(external)?;
        Ok(Fetched::Whole(found.bytes().await.map_err(external)?))
    }
}

impl AsyncFileReader for Fetched {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        match self {
            Fetched::Part(reader) => reader.get_bytes(range),
            Fetched::Whole(bytes) => std::future::ready(slice(bytes, range)).boxed(),
        }
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        match self {
            Fetched::Part(reader) => reader.get_byte_ranges(ranges),
            Fetched::Whole(bytes) => {
                std::future::ready(ranges.into_iter().map(|range| slice(bytes, range)).collect()).boxed()
            }
        }
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        match self {
            Fetched::Part(reader) => reader.get_metadata(options),
            Fetched::Whole(bytes) => {
                let footer = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip);
                std::future::ready(footer.parse_and_finish(bytes).map(Arc::new)).boxed()
            }
        }
    }
}

fn slice(bytes: &Bytes, range: Range<u64>) -> Result<Bytes> {
    let (start, end) = (range.start as usize, range.end as usize);
    match start <= end && end <= bytes.len() {
        true => Ok(bytes.slice(start..end)),
        false => Err(ParquetError::EOF(format!("bytes {start} to {end} of {}", bytes.len()))),
    }
}

/// Bytes that are read with the footer in one request, which is enough for the footer of most files.
const FOOTER_BYTES: usize = 64 << 10;

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.meter.bytes(range.end.saturating_sub(range.start));
        self.objects.get_range(&self.path, range).map_err(external).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        self.meter.bytes(ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum());
        async move { self.objects.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let policies = options.map(|options| (options.column_index_policy(), options.offset_index_policy()));
        let (bounds, places) = policies.unwrap_or((PageIndexPolicy::Skip, PageIndexPolicy::Skip));
        let size = self.size;
        async move {
            let reader = ParquetMetaDataReader::new()
                .with_metadata_options(options.map(|options| options.metadata_options().clone()))
                .with_column_index_policy(bounds)
                .with_offset_index_policy(places)
                .with_prefetch_hint(Some(FOOTER_BYTES));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}
