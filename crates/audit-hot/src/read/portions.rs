//! The rows of a long answer, in portions.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{HotReader, ReadError, failed};

/// Number of rows in one portion, which is what memory holds of an answer.
const PORTION: usize = 200;

/// Gives each cursor a name of its own.
static CURSORS: AtomicU64 = AtomicU64::new(0);

impl HotReader {
    /// Streams the rows that a query returns.
    ///
    /// ⚠ Within a look they come through a cursor, so that the session can answer other questions between two portions.
    /// The rows of an open query hold up every later answer, for ever if the stream itself waits for one.
    pub(super) async fn rows(
        &self,
        doing: &'static str,
        statement: &str,
        parameters: Vec<&(dyn ToSql + Sync)>,
    ) -> Result<BoxStream<'static, Result<Row, ReadError>>, ReadError> {
        self.client.begin(doing, statement, &parameters).await?;
        if !self.client.looks.load(Ordering::Relaxed) {
            let rows = self.client.query_raw(statement, parameters).await.map_err(failed(doing))?;
            let client = self.client.clone();
            return Ok(rows.inspect_ok(move |_| client.count(doing, 1)).map_err(failed_each(doing)).boxed());
        }
        let cursor = format!("answer_{}", CURSORS.fetch_add(1, Ordering::Relaxed));
        let declare = format!("DECLARE {cursor} NO SCROLL CURSOR FOR {statement}");
        self.client.execute(&declare, &parameters).await.map_err(failed(doing))?;
        let fetch = self.client.prepare(&format!("FETCH {PORTION} FROM {cursor}")).await.map_err(failed(doing))?;
        let client = self.client.clone();
        let portions = stream::try_unfold((client, fetch, cursor), move |(client, fetch, cursor)| async move {
            let rows = client.query(&fetch, &[]).await.map_err(failed(doing))?;
            if rows.is_empty() {
                client.batch_execute(&format!("CLOSE {cursor}")).await.map_err(failed(doing))?;
                return Ok(None);
            }
            client.count(doing, rows.len());
            Ok(Some((stream::iter(rows.into_iter().map(Ok)), (client, fetch, cursor))))
        });
        Ok(portions.try_flatten().boxed())
    }
}

fn failed_each(doing: &'static str) -> impl FnMut(tokio_postgres::Error) -> ReadError {
    move |error| failed(doing)(error)
}
