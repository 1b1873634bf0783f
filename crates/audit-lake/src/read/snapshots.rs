//! Streams baseline and key of a table's snapshot rows, in no order.

use std::collections::VecDeque;

use futures::{Stream, StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStream;

use super::export::Asked;
use super::files::{self, DataFile};
use super::history::TRIES_MAX;
use super::record::{Rows, SNAPSHOT};
use crate::error::LakeError;
use crate::fetch::ObjectReader;

struct Scan {
    asked: Asked,
    waiting: VecDeque<DataFile>,
    open: Option<(String, ParquetRecordBatchStream<ObjectReader>)>,
    tries: u32,
}

/// Streams them. If a file was replaced and removed meanwhile, the scan begins again, and some come twice.
pub(super) async fn snapshots(
    asked: Asked,
) -> Result<impl Stream<Item = Result<(u32, String), LakeError>> + Send + use<>, LakeError> {
    let mut scan = Scan { asked, waiting: VecDeque::new(), open: None, tries: 1 };
    scan.begin().await?;
    let batches = futures::stream::try_unfold(scan, |mut scan| async move {
        let next = scan.next().await?;
        Ok::<_, LakeError>(next.map(|found| (found, scan)))
    });
    Ok(batches.map_ok(|found| futures::stream::iter(found.into_iter().map(Ok))).try_flatten().boxed())
}

impl Scan {
    async fn begin(&mut self) -> Result<(), LakeError> {
        self.open = None;
        self.waiting = self.asked.files(None).await?.into();
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Vec<(u32, String)>>, LakeError> {
        loop {
            match self.next_of_open().await {
                Err(error) if error.is_gone() && self.tries < TRIES_MAX => {
                    self.tries += 1;
                    self.asked.again().await?;
                    self.begin().await?;
                }
                next => return next,
            }
        }
    }

    async fn next_of_open(&mut self) -> Result<Option<Vec<(u32, String)>>, LakeError> {
        loop {
            if let Some((path, stream)) = &mut self.open {
                let batch = stream.try_next().await;
                match batch.map_err(|source| LakeError::Read { path: path.clone(), source })? {
                    Some(batch) => return wanted(&Rows::new(batch), &self.asked, path).map(Some),
                    None => self.open = None,
                }
            }
            let Some(file) = self.waiting.pop_front() else { return Ok(None) };
            let builder = files::open(&file).await?;
            file.meter.row_groups(builder.metadata().num_row_groups(), builder.metadata().num_row_groups());
            let projection =
                ProjectionMask::columns(builder.parquet_schema(), SNAPSHOT.into_iter().chain(["cdc_committed_at"]));
            let stream = builder.with_projection(projection).build();
            let path = file.shown();
            let stream = stream.map_err(|source| LakeError::Read { path: path.clone(), source })?;
            self.open = Some((path, stream));
        }
    }
}

fn wanted(rows: &Rows, asked: &Asked, path: &str) -> Result<Vec<(u32, String)>, LakeError> {
    let mut found = Vec::new();
    for at in 0..rows.len() {
        if asked.wants(rows.position(at, path)?, rows.committed_at(at)) {
            found.extend(rows.snapshot(at));
        }
    }
    Ok(found)
}
