//! One chunk, read in one short transaction: [`read`].
//!
//! - The lock comes before the snapshot. ⚠ Otherwise an ALTER TABLE that rewrites the table could commit between the
//!   two, and to the older snapshot the new file is empty: every row would be missed.
//! - The table is looked up in the same transaction, so that rows and shape belong together.
//! - With `row_security = off`, a policy under which the role would see fewer rows is an error.
//! - The bounds of keys go from `cdc_audit.chunks` into settings of the transaction, on the server, and never into a
//!   statement.
//! - The largest row is looked for first. One that does not fit into memory is not fetched, and rows that fill much of
//!   it are read one at a time.
//! - An index or a range of places is read, and the whole table is never sorted, whatever the statistics say. Nothing
//!   runs in parallel, so that a stretch comes in its order.

use std::sync::Arc;

use audit_core::baseline::plan::Step;
use audit_core::baseline::rows::RawRows;
use audit_core::baseline::seen::Seen;
use audit_core::baseline::snapshot::Snapshot;
use futures::{StreamExt, pin_mut};
use postgres_protocol::escape::escape_identifier;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::describe::{Described, Rows, quoted};
use super::error::BaselineError;
use super::files::{files, next_stretch, older_than, unchanged};
use super::key::{self, Access, Bound};
use super::session::{Control, Reader};
use super::settle::snapshot;
use super::store::{Bounds, number};
use crate::query::QueryError;

/// Describes the chunk to read.
pub(super) struct Wanted<'a> {
    pub publication: &'a str,
    /// The source's configured name.
    pub source: &'a str,
    /// The table's name as it is captured.
    pub table: &'a str,
    pub step: &'a Step,
    pub described: &'a Described,
    /// The transactions that the stream delivered before the chunk is watched.
    pub seen: &'a Seen,
    /// Where the previous chunk ended.
    pub lower: Option<&'a [String]>,
    /// The stored end of the chunk, if there is one.
    pub stored: Option<&'a Bounds>,
    /// Number of rows to read, if the end is not stored.
    pub rows_max: u32,
    /// If the end is not stored, the row that brings the chunk to this size is its last one.
    pub bytes_max: usize,
    /// A chunk whose end is stored may be as large as this.
    pub bytes_limit: usize,
    /// The largest row that fits into memory, in bytes of text.
    pub row_max: u64,
    /// One permit, for rows that fill much of that size.
    pub large: &'a Arc<Semaphore>,
    /// What the bounds depend on, as it was when the baseline began.
    pub identity: &'a [String],
    /// For a table without a key: rows of transactions from here on are in the stream.
    pub xmax: Option<u64>,
}

pub(super) struct Chunk {
    pub rows: RawRows,
    pub snapshot: Snapshot,
    pub bounds: Bounds,
    /// Set if it contains a large row.
    pub large: Option<OwnedSemaphorePermit>,
}

pub(super) enum Read {
    Chunk(Chunk),
    /// What the stream has delivered is not visible yet.
    NotYet,
    /// The table no longer matches its description.
    Changed,
    /// The bounds no longer serve: the stretch has grown beyond the limit, the files have changed, or too many
    /// transactions were used since.
    Worn,
    /// There is no such table.
    Gone,
}

/// A lock that is not granted soon is left to the other sessions that wait for it.
const SETTINGS: &str = "
    SET LOCAL lock_timeout TO '5s';
    SET LOCAL row_security TO off;
    SET LOCAL jit TO off;
    SET LOCAL enable_seqscan TO off;
    SET LOCAL enable_bitmapscan TO off;
    SET LOCAL enable_sort TO off;
    SET LOCAL synchronize_seqscans TO off;
    SET LOCAL max_parallel_workers_per_gather TO 0;";

/// Reads a chunk. Whatever happens, the session is afterwards ready for the next one, or closed.
pub(super) async fn read(reader: &mut Reader, control: &Control, wanted: &Wanted<'_>) -> Result<Read, BaselineError> {
    let (client, pid) = reader.get().await?;
    let read = match begin(client, &wanted.described.rows).await {
        Ok(true) => read_in_transaction(client, pid, control, wanted).await,
        Ok(false) => Ok(Read::Gone),
        Err(error) => Err(error),
    };
    let ended = match &read {
        Ok(_) => client.batch_execute("ROLLBACK").await.is_ok(),
        Err(_) => false,
    };
    // A session keeps a buffer as large as the largest row that it has read.
    let held_large = matches!(&read, Ok(Read::Chunk(chunk)) if chunk.large.is_some());
    if !ended || held_large {
        reader.close();
    }
    read
}

/// Begins the transaction. Returns false if the table does not exist.
async fn begin(client: &Client, rows: &Rows) -> Result<bool, BaselineError> {
    let from = rows.from();
    let begin =
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {SETTINGS} LOCK TABLE {from} IN ACCESS SHARE MODE");
    match client.batch_execute(&begin).await {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.code(), Some(code) if *code == SqlState::UNDEFINED_TABLE) => Ok(false),
        Err(error) => Err(BaselineError::reading(&rows.name, error)),
    }
}

async fn read_in_transaction(
    client: &Client,
    pid: i32,
    control: &Control,
    wanted: &Wanted<'_>,
) -> Result<Read, BaselineError> {
    let snapshot = snapshot(client).await?;
    if !wanted.seen.finished_in(&snapshot) {
        return Ok(Read::NotYet);
    }
    if !wanted.described.still_holds(client, wanted.publication).await? {
        return Ok(Read::Changed);
    }
    match &wanted.described.rows.access {
        Access::Key(parts) => by_key(client, pid, control, wanted, snapshot, parts).await,
        Access::Ctid => by_ctid(client, pid, control, wanted, snapshot).await,
    }
}

async fn by_key(
    client: &Client,
    pid: i32,
    control: &Control,
    wanted: &Wanted<'_>,
    snapshot: Snapshot,
    parts: &[key::KeyPart],
) -> Result<Read, BaselineError> {
    let rows = &wanted.described.rows;
    // If the first chunk of all is also the last one, it has no end; the plan explains why.
    let open = wanted.lower.is_none() && wanted.stored.is_some_and(|stored| stored.last);
    let upper = wanted.stored.filter(|_| !open).map(|stored| stored.upper.as_deref());
    if upper == Some(None) {
        // Nothing was left when this last chunk was first read; what came later is in the stream.
        return Ok(chunk(RawRows::new(rows.columns.len()), snapshot, wanted.stored.cloned().unwrap_or_default()));
    }
    let mut conditions = rows.filter.iter().map(|filter| format!("({filter})")).collect::<Vec<_>>();
    if wanted.lower.is_some() {
        conditions.push(key::beyond_lower(parts));
    }
    if upper.is_some() {
        conditions.push(key::up_to_upper(parts));
    }
    let before = wanted.step.chunk.saturating_sub(1);
    if wanted.lower.is_some() && !set_bound(client, wanted, Bound::Lower, before, parts.len()).await?
        || upper.is_some() && !set_bound(client, wanted, Bound::Upper, wanted.step.chunk, parts.len()).await?
    {
        return Ok(Read::Worn);
    }
    let limit = if wanted.stored.is_some() { String::new() } else { format!(" LIMIT {}", wanted.rows_max) };
    let tail = format!("{} ORDER BY {}{limit}", rows.where_clause(&conditions), key::order(parts));
    let query = rows.query(&rows.from(), &[], &tail);

    let large = room_for_the_largest(client, wanted, rows.single_oid(), &format!("{}{tail}", rows.from())).await?;
    // The statement itself limits the rows.
    let stretch = Source { name: &rows.name, query, extra: 0, rows_max: usize::MAX };
    let (read, bounds) = match copy(client, pid, control, wanted, stretch).await? {
        Copied::Outgrown => return Ok(Read::Worn),
        Copied::All(read) if wanted.stored.is_some() => (read, wanted.stored.cloned().unwrap_or_default()),
        Copied::All(read) => {
            let last = read.len() < wanted.rows_max as usize;
            let upper = last_key(&read, parts);
            (read, Bounds { lower: lower(wanted), upper, last })
        }
        Copied::Cut(read) => {
            let upper = last_key(&read, parts);
            (read, Bounds { lower: lower(wanted), upper, last: false })
        }
    };
    Ok(Read::Chunk(Chunk { rows: read, snapshot, bounds, large }))
}

/// Copies the end of a stored chunk into the settings of this transaction. Returns false if it is not stored.
async fn set_bound(
    client: &Client,
    wanted: &Wanted<'_>,
    bound: Bound,
    chunk: u32,
    parts: usize,
) -> Result<bool, BaselineError> {
    let sql = "SELECT count(set_config($5 || value.place, value.text, true))
               FROM cdc_audit.chunks c, unnest(c.upper) WITH ORDINALITY AS value (text, place)
               WHERE c.source = $1 AND c.table_name = $2 AND c.baseline = $3 AND c.chunk = $4";
    let failed = |error| QueryError::new("take in the bounds of a chunk", error);
    let (baseline, chunk) = (number(wanted.step.baseline), number(chunk));
    let row = client
        .query_one(sql, &[&wanted.source, &wanted.table, &baseline, &chunk, &bound.prefix()])
        .await
        .map_err(failed)?;
    Ok(usize::try_from(row.get::<_, i64>(0)) == Ok(parts))
}

/// No compression of values makes more bytes than this out of one byte.
const COMPRESSION_MAX: u64 = 256;

/// A row that fills this part of the largest size is large.
const LARGE_PART: u64 = 16;

/// Looks for the largest row of a stretch of table `oid`, or of a partitioned one, and waits if that row is so large
/// that only one such row may be in memory. A table with nothing in its TOAST table has only small rows, and values
/// whose stored form is small are not unpacked, because they cannot be large.
///
/// # Errors
/// Returns [`BaselineError::RowTooLarge`] if a row does not fit into memory.
async fn room_for_the_largest(
    client: &Client,
    wanted: &Wanted<'_>,
    oid: Option<u32>,
    stretch: &str,
) -> Result<Option<OwnedSemaphorePermit>, BaselineError> {
    let rows = &wanted.described.rows;
    let columns: Vec<&str> = wanted.described.table.toastable().collect();
    let small = wanted.row_max / LARGE_PART / COMPRESSION_MAX / (columns.len().max(1) as u64);
    let length = |column: &&str| {
        let column = escape_identifier(column);
        format!(
            "CASE WHEN pg_column_size({column}) > {small} THEN octet_length(CAST({column} AS text))::bigint ELSE 0 END"
        )
    };
    let failed = |error| BaselineError::reading(&rows.name, error);
    let toast = "SELECT EXISTS (SELECT FROM pg_class WHERE oid = $1 AND reltoastrelid <> 0 AND pg_relation_size(reltoastrelid) > 0)";
    let is_small = match oid {
        Some(oid) => !client.query_one(toast, &[&oid]).await.map_err(failed)?.get::<_, bool>(0),
        None => false,
    };
    if columns.is_empty() || is_small {
        return Ok(None);
    }
    let bytes = columns.iter().map(length).collect::<Vec<_>>().join(" + ");
    let sql = format!("SELECT coalesce(max(r.bytes), 0) FROM (SELECT coalesce({bytes}, 0) AS bytes FROM {stretch}) r");
    let found = client.query_one(&sql, &[]).await.map_err(failed)?;
    let bytes = u64::try_from(found.get::<_, i64>(0)).unwrap_or_default();
    if bytes > wanted.row_max {
        let (relation, chunk) = (rows.name.clone(), wanted.step.chunk);
        return Err(BaselineError::RowTooLarge { relation, chunk, bytes, limit: wanted.row_max });
    }
    if bytes <= wanted.row_max / LARGE_PART {
        return Ok(None);
    }
    Ok(wanted.large.clone().acquire_owned().await.ok())
}

async fn by_ctid(
    client: &Client,
    pid: i32,
    control: &Control,
    wanted: &Wanted<'_>,
    snapshot: Snapshot,
) -> Result<Read, BaselineError> {
    let rows = &wanted.described.rows;
    let files = files(client, rows.oid, true).await?;
    let xmax = wanted.xmax.unwrap_or_else(|| snapshot.xmax());
    let (true, Some(older)) = (unchanged(wanted.identity, &files), older_than(xmax, snapshot.xmax())) else {
        return Ok(Read::Worn);
    };
    let nothing = Bounds { lower: lower(wanted), upper: None, last: true };
    let (file, behind, up_to, last) = match wanted.stored {
        Some(stored) => {
            let place = |bound: Option<&[String]>, file: &str| match bound {
                Some([oid, ctid]) if oid == file => Some(ctid.clone()),
                _ => None,
            };
            let Some([oid, up_to]) = stored.upper.as_deref() else {
                return Ok(chunk(RawRows::new(rows.columns.len()), snapshot, nothing));
            };
            // A dropped partition took its rows with it.
            let Some(file) = files.iter().find(|file| file.oid.to_string() == *oid) else {
                return Ok(chunk(RawRows::new(rows.columns.len()), snapshot, stored.clone()));
            };
            (file.clone(), place(wanted.lower, oid), up_to.clone(), stored.last)
        }
        None => match next_stretch(&files, wanted.lower, wanted.rows_max) {
            Some(stretch) => (stretch.file, stretch.behind, stretch.up_to, stretch.last),
            None => return Ok(chunk(RawRows::new(rows.columns.len()), snapshot, nothing)),
        },
    };
    let mut conditions = rows.filter.iter().map(|filter| format!("({filter})")).collect::<Vec<_>>();
    conditions.extend(behind.map(|behind| format!("ctid > '{behind}'")));
    conditions.push(format!("ctid <= '{up_to}'"));
    conditions.push(older);
    let name = quoted(&file.name());
    let (from, tail) = (format!("ONLY {name}"), rows.where_clause(&conditions));
    let query = rows.query(&from, &["ctid"], &tail);
    let large = room_for_the_largest(client, wanted, Some(file.oid), &format!("{from}{tail}")).await?;
    let end = |place: &str| Some(vec![file.oid.to_string(), place.to_owned()]);

    // The stretch was chosen by the server's statistics, which may be wrong.
    let stretch = Source { name: &name, query, extra: 1, rows_max: 2 * wanted.rows_max as usize };
    let (read, bounds) = match copy(client, pid, control, wanted, stretch).await? {
        Copied::Outgrown => return Ok(Read::Worn),
        Copied::All(read) => {
            let fresh = Bounds { lower: lower(wanted), upper: end(&up_to), last };
            (read, wanted.stored.cloned().unwrap_or(fresh))
        }
        Copied::Cut(read) => {
            let upper = read.extra(0).and_then(end);
            (read, Bounds { lower: lower(wanted), upper, last: false })
        }
    };
    Ok(Read::Chunk(Chunk { rows: read, snapshot, bounds, large }))
}

fn chunk(rows: RawRows, snapshot: Snapshot, bounds: Bounds) -> Read {
    Read::Chunk(Chunk { rows, snapshot, bounds, large: None })
}

fn lower(wanted: &Wanted<'_>) -> Option<Vec<String>> {
    wanted.lower.map(<[String]>::to_vec)
}

fn last_key(rows: &RawRows, parts: &[key::KeyPart]) -> Option<Vec<String>> {
    parts.iter().map(|part| rows.last(part.column).map(str::to_owned)).collect()
}

enum Copied {
    All(RawRows),
    /// The chunk is full; more rows follow, or may follow.
    Cut(RawRows),
    /// The rows are more than a stored chunk may hold.
    Outgrown,
}

/// What is read, and from where.
struct Source<'a> {
    /// The name for messages.
    name: &'a str,
    query: String,
    /// Number of columns after the table's own.
    extra: usize,
    rows_max: usize,
}

async fn copy(
    client: &Client,
    pid: i32,
    control: &Control,
    wanted: &Wanted<'_>,
    source: Source<'_>,
) -> Result<Copied, BaselineError> {
    let failed = |error| BaselineError::reading(source.name, error);
    let misread = |error| BaselineError::Copy { relation: source.name.to_owned(), source: error };
    let mut rows = RawRows::new(wanted.described.rows.columns.len());
    let stream = client.copy_out(&format!("COPY ({}) TO STDOUT", source.query)).await.map_err(failed)?;
    pin_mut!(stream);
    let is_stored = wanted.stored.is_some();
    let mut ended = None;
    while let Some(line) = stream.next().await {
        let line = line.map_err(failed)?;
        // The row that brings a chunk over the limit when it is first read is its last one, however large.
        if is_stored && rows.text_bytes() >= wanted.bytes_limit {
            ended = Some(Copied::Outgrown);
            break;
        }
        rows.push(&line, source.extra).map_err(misread)?;
        if !is_stored && (rows.text_bytes() >= wanted.bytes_max || rows.len() >= source.rows_max) {
            ended = Some(Copied::Cut(std::mem::take(&mut rows)));
            break;
        }
    }
    let Some(ended) = ended else { return Ok(Copied::All(rows)) };
    // Dropping the stream would make the server send all the rest.
    let cancel = |error| QueryError::new("end the reading of a chunk", error);
    control.get().await?.execute("SELECT pg_cancel_backend($1)", &[&pid]).await.map_err(cancel)?;
    while let Some(Ok(_)) = stream.next().await {}
    Ok(ended)
}

impl Rows {
    fn where_clause(&self, conditions: &[String]) -> String {
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
    }

    fn query(&self, from: &str, extra: &[&str], tail: &str) -> String {
        let columns = self.columns.iter().map(|column| escape_identifier(column));
        let columns: Vec<String> = columns.chain(extra.iter().map(ToString::to_string)).collect();
        format!("SELECT {} FROM {from}{tail}", columns.join(", "))
    }
}
