//! The sink's row in `checkpoints`, and how it is taken over, read and moved.
//!
//! The owner of the row is the process that last raised its `owner_epoch`, by compare-and-set. Every transaction moves
//! the row on the condition that owner and position are still what the writer knows, so of two writers one commits and
//! the other commits nothing. After a lost session the row is taken again in the same way: a COMMIT of the old session
//! that is still on its way either arrived before, and its position is then read, or its comparison fails.

use std::collections::BTreeMap;

use audit_core::batch::Progress;
use audit_core::position::{Lsn, Position};
use audit_core::shape::Shape;
use audit_core::sink::{Checkpoint, ChunkProgress, SinkError};
use audit_core::table::Table;
use tokio_postgres::types::{Json, PgLsn, ToSql};
use tokio_postgres::{Client, Row, Statement};

use audit_connect::PgEndpoint;

use crate::connection::{BEGIN, unblocked};
use crate::error::failed;

/// A row of `checkpoints`.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub owner_epoch: i64,
    /// `None` before the first write.
    pub checkpoint: Option<Checkpoint>,
}

pub(crate) const COLUMNS: &str = "owner_epoch, system_id, timeline, position, change_lsn, flushed_lsn, timeline_start";

/// The owner epoch and the owner, as text for people. `None` if there is no such row.
pub(crate) async fn owner(
    client: &Client,
    source: &str,
    sink: &str,
) -> Result<Option<(i64, String)>, tokio_postgres::Error> {
    let statement =
        "SELECT owner_epoch, coalesce(owner, 'nobody yet') FROM cdc_audit.checkpoints WHERE source = $1 AND sink = $2";
    let row = client.query_opt(statement, &[&source, &sink]).await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// The start of the row's `owner` text.
pub(crate) fn owner_text(process: &str) -> String {
    format!("process {process}")
}

/// Raises the owner epoch from `known` and returns the row, or `None` if the epoch is no longer `known`. `process`
/// distinguishes this owner from every other one.
pub(crate) async fn claim(
    endpoint: &PgEndpoint,
    client: &Client,
    (source, sink): (&str, &str),
    known: i64,
    process: &str,
) -> Result<Option<Owned>, SinkError> {
    let taking = |error| failed("taking the checkpoint", error);
    // A pooler that shares sessions cannot give us another server process before the transaction ends.
    client.batch_execute(BEGIN).await.map_err(taking)?;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(taking)?.get(0);
    let statement = format!(
        "UPDATE cdc_audit.checkpoints SET owner_epoch = owner_epoch + 1, owner = $4 \
         || coalesce(' at ' || host(inet_client_addr()), '') || ', since ' || date_trunc('second', clock_timestamp()) \
         WHERE source = $1 AND sink = $2 AND owner_epoch = $3 RETURNING {COLUMNS}"
    );
    let process = owner_text(process);
    let parameters: [&(dyn ToSql + Sync); 4] = [&source, &sink, &known, &process];
    let update = client.query_opt(&statement, &parameters);
    let row = unblocked(endpoint, sink, pid, update).await?;
    client.batch_execute("COMMIT").await.map_err(taking)?;
    row.map(|row| owned(source, &row)).transpose()
}

pub(crate) fn owned(source: &str, row: &Row) -> Result<Owned, SinkError> {
    let owner_epoch = row.get(0);
    let Some(position) = row.get::<_, Option<String>>(3) else { return Ok(Owned { owner_epoch, checkpoint: None }) };
    let wrong = || {
        SinkError::stop("the sink's checkpoint was altered by hand").hint("restore the row in cdc_audit.checkpoints")
    };
    let lsn = |column: usize| row.get::<_, Option<PgLsn>>(column).map(|lsn| Lsn(lsn.into()));
    let number = |column: usize| row.get::<_, Option<i64>>(column);
    let checkpoint = Checkpoint {
        source: source.to_owned(),
        // The same 64 bits that `pg_control_system()` shows.
        system_id: number(1).ok_or_else(wrong)? as u64,
        timeline: number(2).and_then(|timeline| u32::try_from(timeline).ok()).ok_or_else(wrong)?,
        timeline_start: lsn(6),
        position: position.parse::<Position>().map_err(|_| wrong())?,
        change_lsn: lsn(4).ok_or_else(wrong)?,
        flushed_lsn: lsn(5).ok_or_else(wrong)?,
    };
    Ok(Owned { owner_epoch, checkpoint: Some(checkpoint) })
}

/// The row as it is, whoever owns it.
pub(crate) async fn read(client: &Client, source: &str, sink: &str) -> Result<Option<Checkpoint>, SinkError> {
    let statement = format!("SELECT {COLUMNS} FROM cdc_audit.checkpoints WHERE source = $1 AND sink = $2");
    let row = client.query_opt(&statement, &[&source, &sink]).await;
    let row = row.map_err(|error| failed("reading the checkpoint", error))?;
    Ok(row.map(|row| owned(source, &row)).transpose()?.and_then(|owned| owned.checkpoint))
}

/// The error for a sink that has no row.
pub(crate) fn missing(source: &str, sink: &str) -> SinkError {
    SinkError::stop(format!("the hot database has no checkpoint for source {source} and sink {sink}"))
        .hint("run `cdc-audit setup`, which makes the row; if there was one, restore it instead: with an empty one the sink begins anew")
}

pub(crate) async fn baselines(
    client: &Client,
    source: &str,
    sink: &str,
) -> Result<BTreeMap<String, ChunkProgress>, SinkError> {
    let statement = "SELECT table_name, baseline, chunk, done FROM cdc_audit.baselines WHERE source = $1 AND sink = $2";
    let rows = client.query(statement, &[&source, &sink]).await.map_err(|error| failed("reading baselines", error))?;
    let progress = |row: &Row| {
        let number = |column: usize| u32::try_from(row.get::<_, i64>(column)).unwrap_or(u32::MAX);
        (row.get(0), ChunkProgress { baseline: number(1), chunk: number(2), done: row.get(3) })
    };
    Ok(rows.iter().map(progress).collect())
}

pub(crate) async fn shapes(client: &Client, source: &str) -> Result<Vec<Shape>, SinkError> {
    let statement =
        "SELECT table_name, shape FROM cdc_audit.shapes WHERE source = $1 ORDER BY table_name, schema_version";
    let rows = client.query(statement, &[&source]).await.map_err(|error| failed("reading shapes", error))?;
    let shape = |row: &Row| {
        let unreadable = |error| {
            let table: String = row.get(0);
            SinkError::stop(format!("a shape of {table} in cdc_audit.shapes is not readable"))
                .hint("it was altered by hand, or written by a later version of cdc-audit")
                .source(error)
        };
        row.try_get::<_, Json<Shape>>(1).map(|json| json.0).map_err(unreadable)
    };
    rows.iter().map(shape).collect()
}

/// Adds a shape, and returns whether the shape that is stored under its number is the same one.
async fn add_shape(client: &Client, source: &str, shape: &Shape) -> Result<bool, tokio_postgres::Error> {
    let statement = "WITH added AS (INSERT INTO cdc_audit.shapes (source, table_name, schema_version, digest, shape) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING digest) \
         SELECT digest FROM added UNION ALL SELECT digest FROM cdc_audit.shapes \
         WHERE source = $1 AND table_name = $2 AND schema_version = $3";
    let version = i32::try_from(shape.schema_version).unwrap_or(i32::MAX);
    let name = shape.name().to_string();
    let rows = client.query(statement, &[&source, &name, &version, &shape.digest, &Json(shape)]).await?;
    Ok(rows.iter().all(|row| row.get::<_, String>(0) == shape.digest))
}

/// Stores new shapes and baselines in the current transaction.
pub(crate) async fn add(
    client: &Client,
    source: &str,
    sink: &str,
    shapes: &[&Table],
    baselines: &[(String, ChunkProgress)],
) -> Result<(), SinkError> {
    let storing = |error| failed("storing shapes and baselines", error);
    for table in shapes {
        if !add_shape(client, source, &table.shape).await.map_err(storing)? {
            let (name, number) = (&table.name, table.shape.schema_version);
            let message = format!("cdc_audit.shapes holds another shape of {name} under version {number}");
            let hint = "the row was altered by hand, or by another source of the same name";
            return Err(SinkError::stop(message).hint(hint));
        }
    }
    for (table, progress) in baselines {
        set_baseline(client, source, sink, table, *progress).await.map_err(storing)?;
    }
    Ok(())
}

async fn set_baseline(
    client: &Client,
    source: &str,
    sink: &str,
    table: &str,
    progress: ChunkProgress,
) -> Result<(), tokio_postgres::Error> {
    let statement = "INSERT INTO cdc_audit.baselines (source, sink, table_name, baseline, chunk, done) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (source, sink, table_name) DO UPDATE \
         SET baseline = excluded.baseline, chunk = excluded.chunk, done = excluded.done";
    let (baseline, chunk) = (i64::from(progress.baseline), i64::from(progress.chunk));
    client.execute(statement, &[&source, &sink, &table, &baseline, &chunk, &progress.done]).await.map(|_| ())
}

/// Moves the row if it is owned under this epoch and is at the expected position. The first position is where the sink
/// begins, and nothing at or before it is stored.
pub(crate) const ADVANCE: &str = "UPDATE cdc_audit.checkpoints SET position = $5, change_lsn = $6, flushed_lsn = $7, \
     system_id = $8, timeline = $9, timeline_start = $10, updated_at = clock_timestamp(), \
     began = CASE WHEN position IS NULL THEN $11 ELSE began END \
     WHERE source = $1 AND sink = $2 AND owner_epoch = $3 AND position IS NOT DISTINCT FROM $4";

/// Executes the prepared [`ADVANCE`]. Returns false if the row was not as expected. The request is sent when the future
/// is first polled.
pub(crate) async fn advance(
    client: &Client,
    statement: &Statement,
    (sink, owner_epoch): (&str, i64),
    from: Option<Position>,
    to: &Checkpoint,
) -> Result<bool, tokio_postgres::Error> {
    let Progress { position, change_lsn, flushed_lsn } = to.progress();
    let from = from.map(|position| position.to_string());
    let began = position.next().max(Position::new(position.epoch, flushed_lsn, 0)).to_string();
    let position = position.to_string();
    let (change_lsn, flushed_lsn) = (PgLsn::from(change_lsn.0), PgLsn::from(flushed_lsn.0));
    let (system_id, timeline) = (to.system_id as i64, i64::from(to.timeline));
    let timeline_start = to.timeline_start.map(|start| PgLsn::from(start.0));
    let parameters: [&(dyn ToSql + Sync); 11] = [
        &to.source,
        &sink,
        &owner_epoch,
        &from,
        &position,
        &change_lsn,
        &flushed_lsn,
        &system_id,
        &timeline,
        &timeline_start,
        &began,
    ];
    client.execute(statement, &parameters).await.map(|rows| rows == 1)
}
