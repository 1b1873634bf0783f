//! One chunk, read in one short transaction: [`read`].
//!
//! - The lock comes before the snapshot. ⚠ Otherwise an ALTER TABLE that writes the table anew could commit between the two, and to the
//!   older snapshot the new file is empty: every row would be missed.
//! - The table is looked up in the same transaction, so that rows and shape belong together.
//! - `row_security = off`: under a policy the role would see fewer rows; now that is an error.
//! - An index or a range of places is read, never the whole table sorted, whatever the statistics say; and nothing in parallel, so that a
//!   stretch comes in its order.

use audit_core::baseline::rows::RawRows;
use audit_core::baseline::seen::Seen;
use audit_core::baseline::snapshot::Snapshot;
use audit_core::shape::TableName;
use futures::{StreamExt, pin_mut};
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::describe::{Described, Rows};
use super::error::BaselineError;
use super::files::{files, next_stretch, older_than, unchanged};
use super::key::{self, Access};
use super::session::{Control, Reader};
use super::settle::snapshot;
use super::store::Bounds;
use crate::query::QueryError;

/// What to read.
pub(super) struct Wanted<'a> {
    pub publication: &'a str,
    pub described: &'a Described,
    /// What the stream delivered before the chunk is watched.
    pub seen: &'a Seen,
    /// Where the chunk before ended.
    pub lower: Option<&'a [String]>,
    /// The chunk's stored end, where it has one.
    pub stored: Option<&'a Bounds>,
    /// Rows to read, where the end is not stored.
    pub rows_max: u32,
    /// Where the end is not stored, the row that brings the chunk to this size is its last.
    pub bytes_max: usize,
    /// A chunk whose end is stored may be as large as this.
    pub bytes_limit: usize,
    /// What the bounds depend on, as it was when the baseline began.
    pub identity: &'a [String],
    /// Of a table without a key: rows of transactions from here on are in the stream.
    pub xmax: Option<u64>,
}

pub(super) struct Chunk {
    pub rows: RawRows,
    pub snapshot: Snapshot,
    pub bounds: Bounds,
}

pub(super) enum Read {
    Chunk(Chunk),
    /// What the stream has delivered is not visible yet.
    NotYet,
    /// The table is not what it was described as.
    Changed,
    /// The bounds no longer serve: the stretch has grown beyond the limit, the files are others, or too much has happened since.
    Worn,
    /// There is no such table.
    Gone,
}

/// A lock that is not had soon is left to whoever waits for it with us.
const SETTINGS: &str = "
    SET LOCAL lock_timeout TO '5s';
    SET LOCAL row_security TO off;
    SET LOCAL jit TO off;
    SET LOCAL enable_seqscan TO off;
    SET LOCAL enable_bitmapscan TO off;
    SET LOCAL enable_sort TO off;
    SET LOCAL synchronize_seqscans TO off;
    SET LOCAL max_parallel_workers_per_gather TO 0;";

/// Reads a chunk. Whatever happens, the session is fit for the next one or closed.
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
    if !ended {
        reader.close();
    }
    read
}

/// False where the table does not exist.
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
    // The first chunk of all, where it is the last one too, has no end: see the plan.
    let open = wanted.lower.is_none() && wanted.stored.is_some_and(|stored| stored.last);
    let upper = wanted.stored.filter(|_| !open).map(|stored| stored.upper.as_deref());
    if upper == Some(None) {
        // Nothing was left when this last chunk was first read; what came later is in the stream.
        return Ok(chunk(RawRows::new(rows.columns.len()), snapshot, wanted.stored.cloned().unwrap_or_default()));
    }
    let mut conditions = rows.filter.iter().map(|filter| format!("({filter})")).collect::<Vec<_>>();
    conditions.extend(wanted.lower.map(|bound| key::behind(parts, bound)));
    conditions.extend(upper.flatten().map(|bound| key::up_to(parts, bound)));
    let limit = if wanted.stored.is_some() { String::new() } else { format!(" LIMIT {}", wanted.rows_max) };
    let tail = format!("{} ORDER BY {}{limit}", rows.where_clause(&conditions), key::order(parts));
    let query = rows.query(&rows.from(), &[], &tail);

    // The statement counts the rows.
    let stretch = Source { name: &rows.name, query, extra: 0, rows_max: usize::MAX };
    match copy(client, pid, control, wanted, stretch).await? {
        Copied::Outgrown => Ok(Read::Worn),
        Copied::All(read) if wanted.stored.is_some() => {
            Ok(chunk(read, snapshot, wanted.stored.cloned().unwrap_or_default()))
        }
        Copied::All(read) => {
            let last = read.len() < wanted.rows_max as usize;
            let bounds = Bounds { lower: lower(wanted), upper: last_key(&read, parts), last };
            Ok(chunk(read, snapshot, bounds))
        }
        Copied::Cut(read) => {
            let bounds = Bounds { lower: lower(wanted), upper: last_key(&read, parts), last: false };
            Ok(chunk(read, snapshot, bounds))
        }
    }
}

async fn by_ctid(
    client: &Client,
    pid: i32,
    control: &Control,
    wanted: &Wanted<'_>,
    snapshot: Snapshot,
) -> Result<Read, BaselineError> {
    let rows = &wanted.described.rows;
    let files = files(client, wanted.described.table.catalog.oid).await?;
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
            // A partition that is gone took its rows with it.
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
    let query = rows.query(&format!("ONLY {name}"), &["ctid"], &rows.where_clause(&conditions));
    let end = |place: &str| Some(vec![file.oid.to_string(), place.to_owned()]);

    // The stretch was chosen by the server's statistics.
    let stretch = Source { name: &name, query, extra: 1, rows_max: 2 * wanted.rows_max as usize };
    match copy(client, pid, control, wanted, stretch).await? {
        Copied::Outgrown => Ok(Read::Worn),
        Copied::All(read) => {
            let fresh = Bounds { lower: lower(wanted), upper: end(&up_to), last };
            Ok(chunk(read, snapshot, wanted.stored.cloned().unwrap_or(fresh)))
        }
        Copied::Cut(read) => {
            let upper = read.extra(0).and_then(end);
            Ok(chunk(read, snapshot, Bounds { lower: lower(wanted), upper, last: false }))
        }
    }
}

fn chunk(rows: RawRows, snapshot: Snapshot, bounds: Bounds) -> Read {
    Read::Chunk(Chunk { rows, snapshot, bounds })
}

fn lower(wanted: &Wanted<'_>) -> Option<Vec<String>> {
    wanted.lower.map(<[String]>::to_vec)
}

fn last_key(rows: &RawRows, parts: &[key::KeyPart]) -> Option<Vec<String>> {
    parts.iter().map(|part| rows.last(part.column).map(str::to_owned)).collect()
}

enum Copied {
    All(RawRows),
    /// The chunk is full; rows follow, or may.
    Cut(RawRows),
    /// More than a stored chunk may hold.
    Outgrown,
}

/// What is read from where.
struct Source<'a> {
    /// For messages.
    name: &'a str,
    query: String,
    /// Columns behind the table's own.
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
    // Dropping the stream would leave the server sending all the rest.
    let cancel = |error| QueryError::new("end the reading of a chunk", error);
    control.get().await?.execute("SELECT pg_cancel_backend($1)", &[&pid]).await.map_err(cancel)?;
    while let Some(Ok(_)) = stream.next().await {}
    Ok(ended)
}

/// A name as in SQL.
pub(super) fn quoted(name: &TableName) -> String {
    format!("{}.{}", escape_identifier(&name.schema), escape_identifier(&name.table))
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
