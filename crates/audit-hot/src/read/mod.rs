//! Reading the trail back: [`HotReader`].
//!
//! Rows are returned as [`Record`]s, the type that every store's reader returns. Memory holds only what is asked for:
//! an export is a stream, whatever its size.

mod archived;
mod history;
mod pin;
mod places;
mod portions;
mod row;
mod search;
mod session;
mod sql;
mod totals;
mod views;

use std::collections::HashMap;
use std::sync::Arc;

use audit_connect::{ConnectError, PgEndpoint, ServerError, connect};
use audit_core::cost::Cost;
use audit_core::position::{Micros, Position, Window};
use audit_core::search::{Commit, Matches, Wanted};
use audit_core::shape::Shape;
use audit_core::sink::{Checkpoint, SinkError};
use audit_core::stored::Record;
use audit_core::totals::{Bounds, Totals};
use futures::{Stream, StreamExt};
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};

use crate::checkpoint;
use crate::error;
use crate::layout::{TABLES, VERSIONS};
use crate::session::check_columns;
pub(crate) use archived::list;
pub use archived::{Archived, Partition, State};
use history::bounds;
use places::{Places, Whose};
pub(crate) use row::Time;
use row::record;
use session::Session;
pub use sql::{SqlAnswer, SqlRow, Written};
pub use views::View;

pub use history::RowTrail;

/// Why the trail could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the hot database gives no session")]
    Connect(#[source] ConnectError),
    #[error("{doing} failed in the hot database")]
    Server { doing: &'static str, source: ServerError },
    #[error("{doing} failed: the connection to the hot database was lost, or it does not hold what it should")]
    Driver { doing: &'static str, source: tokio_postgres::Error },
    #[error("{what}")]
    Layout { what: String, hint: Option<String> },
    #[error("the query is refused: {what}")]
    Query { what: String, hint: Option<String> },
    #[error("no table of its own holds versions of tenant {tenant}")]
    NoTenant { tenant: String },
    #[error("a row of cdc_audit.versions is not as the daemon writes it: {what}")]
    Stored { what: String },
}

impl ReadError {
    /// A hint on what to do about the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            ReadError::Connect(error) => error.hint(),
            ReadError::Server { source, .. } => error::hint(source.sqlstate.code()).map(str::to_owned),
            ReadError::Layout { hint, .. } | ReadError::Query { hint, .. } => hint.clone(),
            ReadError::NoTenant { .. } => Some(
                "cdc_audit.versions_tables lists the tenants that have any; leave --tenant out to read everything"
                    .to_owned(),
            ),
            ReadError::Driver { .. } | ReadError::Stored { .. } => None,
        }
    }
}

pub(crate) fn failed(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> ReadError {
    move |error| match error.as_db_error() {
        Some(server) => ReadError::Server { doing, source: ServerError::from(server) },
        None => ReadError::Driver { doing, source: error },
    }
}

/// What to export: all versions of a source that meet every condition.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub source: String,
    /// Names of tables; an empty list means all.
    pub tables: Vec<String>,
    /// Only versions that were committed at or after this time.
    pub since: Option<Micros>,
    /// Only versions that were committed before this time.
    pub until: Option<Micros>,
    /// Only versions that lack an actor or a reason that their table requires.
    pub unattributed: bool,
}

/// How far a sink is, according to its row.
#[derive(Clone, Debug)]
pub struct SinkState {
    pub sink: String,
    pub owner_epoch: i64,
    /// The process that took the checkpoint over last, as text for people.
    pub owner: Option<String>,
    /// `None` before the first write.
    pub checkpoint: Option<Checkpoint>,
    /// The floor: the hot tables have every version of the source from this position on. `None` before the first write.
    pub began: Option<Position>,
    pub updated_at: Micros,
}

/// A session that reads everything or what one tenant has. Its role needs SELECT on the tables. Clones share the
/// session.
#[derive(Clone)]
pub struct HotReader {
    client: Arc<Session>,
    whose: Whose,
    /// Only versions in it are read.
    window: Window,
}

impl HotReader {
    /// Opens a session that reads everything.
    ///
    /// # Errors
    /// Fails if the database cannot be reached, or if its tables are not as this version expects them.
    pub async fn connect(endpoint: &PgEndpoint) -> Result<HotReader, ReadError> {
        let client = connect(endpoint, "cdc-audit reader").await.map_err(ReadError::Connect)?;
        let altered = |error: SinkError| ReadError::Layout { what: error.message, hint: error.hint };
        check_columns(&client, &TABLES).await.map_err(altered)?;
        Ok(HotReader { client: Arc::new(Session::new(client)), whose: Whose::Everybodys, window: Window::ALL })
    }

    /// Has the server explain the statements of all further questions of this reader, and of its clones.
    pub fn explain(&self) {
        self.client.explain();
    }

    /// What this reader and its clones were asked so far.
    pub fn cost(&self) -> Cost {
        self.client.cost()
    }

    fn of(&self, whose: Whose) -> HotReader {
        HotReader { whose, ..self.clone() }
    }

    /// Reads only versions in a range of positions. Names and shapes of tables do not depend on it.
    pub fn within(&self, window: Window) -> HotReader {
        HotReader { window: self.window.within(window), ..self.clone() }
    }

    /// Reads only what belongs to no tenant, or is in no tenant's table.
    pub fn of_home(&self) -> HotReader {
        self.of(Whose::Homes)
    }

    /// Reads only what is in one tenant's tables.
    ///
    /// # Errors
    /// Returns [`ReadError::NoTenant`] if the tenant has no tables.
    pub async fn of_tenant(&self, source: &str, tenant: &str) -> Result<HotReader, ReadError> {
        let known = self.tenants(source).await?.into_iter().find(|known| known == tenant);
        let tenant = known.ok_or_else(|| ReadError::NoTenant { tenant: tenant.to_owned() })?;
        Ok(self.of(Whose::Tenants(tenant.into())))
    }

    /// One reader for home and one for each tenant that has its own tables. If no tenant has any, a single reader for
    /// everything.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn each(&self, source: &str) -> Result<Vec<HotReader>, ReadError> {
        let tenants = match &self.whose {
            Whose::Everybodys => self.tenants(source).await?,
            Whose::Homes | Whose::Tenants(_) => Vec::new(),
        };
        if tenants.is_empty() {
            return Ok(vec![self.clone()]);
        }
        let tenants = tenants.into_iter().map(|tenant| Whose::Tenants(tenant.into()));
        Ok([Whose::Homes].into_iter().chain(tenants).map(|whose| self.of(whose)).collect())
    }

    /// The tenant whose versions this reader reads; `None` if it does not read a single tenant's.
    pub fn tenant(&self) -> Option<&Arc<str>> {
        match &self.whose {
            Whose::Tenants(tenant) => Some(tenant),
            Whose::Everybodys | Whose::Homes => None,
        }
    }

    async fn tenants(&self, source: &str) -> Result<Vec<String>, ReadError> {
        let statement =
            "SELECT DISTINCT tenant FROM cdc_audit.versions_tables WHERE source = $1 AND tenant <> '' ORDER BY tenant";
        let rows = self.client.query(statement, &[&source]).await.map_err(failed("reading which tenants there are"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The months of a source that left the hot tables, oldest first.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn archived(&self, source: &str) -> Result<Vec<Archived>, ReadError> {
        list(&self.client, source).await
    }

    /// The trail of one row, newest first, at most `limit` versions: what happened under this key, what happened to the
    /// same row under its earlier and later keys, and the truncations that removed it.
    ///
    /// A key that was used again after a deletion belongs to more than one row: the versions of all of them are
    /// returned.
    ///
    /// # Errors
    /// Fails if the database cannot be read, or holds a row that the daemon would not write.
    pub async fn history(&self, source: &str, table: &str, key: &str, limit: u32) -> Result<Vec<Record>, ReadError> {
        let mut trail = self.trail(source, table).await?;
        audit_core::trail::history(&mut trail, key, limit as usize).await
    }

    /// The versions of a table, for following the trail of a row.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn trail(&self, source: &str, table: &str) -> Result<RowTrail, ReadError> {
        RowTrail::open(&self.client, &self.whose, (source, table), self.window).await
    }

    /// The newest versions that are wanted and match, newest first, at most `limit`.
    ///
    /// # Errors
    /// Fails if the database cannot be read, or holds a row that the daemon would not write.
    pub async fn search(&self, wanted: &Wanted, matches: Matches<'_>, limit: usize) -> Result<Vec<Record>, ReadError> {
        let wanted = Wanted { window: wanted.window.within(self.window), ..wanted.clone() };
        search::search(&self.client, &self.whose, &wanted, matches, limit).await
    }

    /// The number of versions that transactions have in each table; their commit times find them.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn commit_sizes(
        &self,
        source: &str,
        commits: &[(Commit, Micros)],
    ) -> Result<HashMap<(Commit, String), u64>, ReadError> {
        search::commit_sizes(&self.client, &self.whose, source, commits).await
    }

    /// Streams versions in the order of their positions. The server sorts them; nothing is collected here.
    ///
    /// # Errors
    /// Fails if the query cannot be started; later errors are items of the stream.
    pub async fn export(
        &self,
        selection: &Selection,
    ) -> Result<impl Stream<Item = Result<Record, ReadError>> + Send + use<>, ReadError> {
        let (from, condition) = self.chosen(selection).await?;
        let statement = format!("SELECT {} FROM {from} WHERE {} ORDER BY position", VERSIONS.names(), condition.text);
        let rows = self.rows("exporting", &statement, condition.parameters()).await?;
        Ok(rows.map(|row| record(&row?)))
    }

    /// The table's `error` records that name no row, in the order of their positions.
    ///
    /// # Errors
    /// Fails if the database cannot be read, or holds a row that the daemon would not write.
    pub async fn errors(&self, source: &str, table: &str) -> Result<Vec<Record>, ReadError> {
        let places = Places::of(&self.client, &self.whose, source, &[table.to_owned()]).await?.all();
        let statement = format!(
            "SELECT {} FROM {places} WHERE source = $1 AND table_name = $2 AND left(key, 200) IS NULL AND event = 'error' \
             ORDER BY position",
            VERSIONS.names()
        );
        let rows = self.client.read("reading errors", &statement, &[&source, &table]).await?;
        rows.iter().map(record).collect()
    }

    /// The places of the selected versions, and the condition for them.
    async fn chosen(&self, selection: &Selection) -> Result<(String, Condition), ReadError> {
        let places = Places::of(&self.client, &self.whose, &selection.source, &selection.tables).await?;
        Ok((places.all(), Condition::of(selection, self.window)))
    }

    /// Streams baseline and key of the selected snapshot rows that have both, in no order.
    ///
    /// # Errors
    /// Fails if the query cannot be started; later errors are items of the stream.
    pub async fn snapshots(
        &self,
        selection: &Selection,
    ) -> Result<impl Stream<Item = Result<(u32, String), ReadError>> + Send + use<>, ReadError> {
        let (from, condition) = self.chosen(selection).await?;
        let statement = format!(
            "SELECT baseline, key FROM {from} WHERE {} AND event = 'snapshot' AND baseline IS NOT NULL AND key IS NOT NULL",
            condition.text
        );
        let rows = self.rows("reading snapshot rows", &statement, condition.parameters()).await?;
        Ok(rows.map(|row| row.map(|row| snapshot(&row))))
    }

    /// Names of the tables that have versions here, in order.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn tables(&self, source: &str) -> Result<Vec<String>, ReadError> {
        if let Whose::Tenants(tenant) = &self.whose {
            let statement = "SELECT DISTINCT table_name FROM cdc_audit.versions_tables WHERE source = $1 AND tenant = $2 ORDER BY 1";
            let rows = self.client.query(statement, &[&source, &tenant.as_ref()]).await;
            let rows = rows.map_err(failed("reading the names of tables"))?;
            return Ok(rows.iter().map(|row| row.get(0)).collect());
        }
        let statement = "SELECT DISTINCT table_name FROM cdc_audit.shapes WHERE source = $1 \
            UNION SELECT 'cdc_audit.gap' FROM cdc_audit.versions WHERE source = $1 AND table_name = 'cdc_audit.gap' ORDER BY 1";
        let rows = self.client.query(statement, &[&source]).await.map_err(failed("reading the names of tables"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The shapes of a table, oldest first.
    ///
    /// # Errors
    /// Fails if the database cannot be read, or holds a row that the daemon would not write.
    pub async fn shapes(&self, source: &str, table: &str) -> Result<Vec<Shape>, ReadError> {
        let statement =
            "SELECT shape FROM cdc_audit.shapes WHERE source = $1 AND table_name = $2 ORDER BY schema_version";
        let rows =
            self.client.query(statement, &[&source, &table]).await.map_err(failed("reading a table's shapes"))?;
        let shape = |row: &Row| match row.try_get::<_, Json<Shape>>(0) {
            Ok(Json(shape)) => Ok(shape),
            Err(_) => Err(ReadError::Stored { what: "a shape".to_owned() }),
        };
        rows.iter().map(shape).collect()
    }

    /// The latest commit time of the versions that [`HotReader::export`] would return.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn newest(&self, selection: &Selection) -> Result<Option<Micros>, ReadError> {
        let each = match selection.tables.as_slice() {
            [] => vec![Vec::new()],
            tables => tables.iter().map(|table| vec![table.clone()]).collect(),
        };
        let mut newest = None;
        for tables in each {
            // ⚠ One table at a time, and only what is newer: that takes one look into an index.
            let since = selection.since.max(newest);
            let (from, condition) = self.chosen(&Selection { tables, since, ..selection.clone() }).await?;
            let statement = format!("SELECT max(committed_at) FROM {from} WHERE {}", condition.text);
            let rows = self.client.read("reading commit times", &statement, &condition.parameters()).await?;
            newest = newest.max(rows.first().and_then(|row| row.get::<_, Option<Time>>(0)).map(|Time(at)| at));
        }
        Ok(newest)
    }

    /// The first position of the versions that [`HotReader::export`] would return.
    ///
    /// Most of what was committed later lies at later positions, and the index on both tells apart what need not be read.
    /// So a version that was committed soon after the time comes first, then what lies before it.
    ///
    /// # Errors
    /// Fails if the database cannot be read, or holds a row that the daemon would not write.
    pub async fn first(&self, selection: &Selection) -> Result<Option<Position>, ReadError> {
        let Some(since) = selection.since else { return self.least(selection).await };
        for span in SPANS {
            let until = Micros(since.0.saturating_add(span));
            let until = selection.until.map_or(until, |own| own.min(until));
            let soon = Selection { until: Some(until), ..selection.clone() };
            if let Some(near) = self.least(&soon).await? {
                let before = self.within(Window { from: None, to: Some(near) });
                return Ok(before.least(selection).await?.or(Some(near)));
            }
        }
        self.least(selection).await
    }

    async fn least(&self, selection: &Selection) -> Result<Option<Position>, ReadError> {
        let (from, condition) = self.chosen(selection).await?;
        let statement = format!("SELECT min(position) FROM {from} WHERE {}", condition.text);
        let rows = self.client.read("looking for a time", &statement, &condition.parameters()).await?;
        let first = rows.first().and_then(|row| row.get::<_, Option<&str>>(0)).map(str::parse).transpose();
        first.map_err(|_| ReadError::Stored { what: "position".to_owned() })
    }

    /// The number of versions that [`HotReader::export`] would return.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn count(&self, selection: &Selection) -> Result<u64, ReadError> {
        let (from, condition) = self.chosen(selection).await?;
        let statement = format!("SELECT count(*) FROM {from} WHERE {}", condition.text);
        let rows = self.client.read("counting", &statement, &condition.parameters()).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0) as u64))
    }

    /// Counts the versions of these tables that lie within the bounds. The server counts, in one statement.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn totals(&self, source: &str, tables: &[String], bounds: &Bounds) -> Result<Totals, ReadError> {
        totals::totals(&self.client, &self.whose, (source, tables), bounds).await
    }

    /// All sinks that store their checkpoint for a source here.
    ///
    /// # Errors
    /// Fails if the database cannot be read, or holds a row that the daemon would not write.
    pub async fn sinks(&self, source: &str) -> Result<Vec<SinkState>, ReadError> {
        let statement = format!(
            "SELECT {}, sink, owner, began, updated_at FROM cdc_audit.checkpoints WHERE source = $1 ORDER BY sink",
            checkpoint::COLUMNS
        );
        let rows = self.client.query(&statement, &[&source]).await.map_err(failed("reading checkpoints"))?;
        rows.iter()
            .map(|row| {
                let owned =
                    checkpoint::owned(source, row).map_err(|error| ReadError::Stored { what: error.message })?;
                let Time(updated_at) = row.get("updated_at");
                let began = row.get::<_, Option<String>>("began").map(|text| text.parse()).transpose();
                Ok(SinkState {
                    sink: row.get("sink"),
                    owner_epoch: owned.owner_epoch,
                    owner: row.get("owner"),
                    checkpoint: owned.checkpoint,
                    began: began.map_err(|_| ReadError::Stored { what: "the column began".to_owned() })?,
                    updated_at,
                })
            })
            .collect()
    }
}

/// How long after a time a version is looked for, in microseconds: a minute, an hour, a day, 32 days.
const SPANS: [i64; 4] = [60_000_000, 3_600_000_000, 86_400_000_000, 2_764_800_000_000];

/// Baseline and key.
fn snapshot(row: &Row) -> (u32, String) {
    (row.get::<_, i32>(0) as u32, row.get(1))
}

/// A WHERE condition, and its parameters in order.
struct Condition {
    text: String,
    parameters: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Condition {
    fn of(selection: &Selection, window: Window) -> Condition {
        let mut condition = Condition { text: String::new(), parameters: Vec::new() };
        condition.and("source = ?", selection.source.clone());
        match selection.tables.as_slice() {
            [] => {}
            [table] => condition.and("table_name = ?", table.clone()),
            tables => condition.and("table_name = ANY (?)", tables.to_vec()),
        }
        if let Some(since) = selection.since {
            condition.and("committed_at >= ?", Time(since));
        }
        if let Some(until) = selection.until {
            condition.and("committed_at < ?", Time(until));
        }
        let (from, to) = bounds(window);
        if window.from.is_some() {
            condition.and("position >= ?", from);
        }
        if window.to.is_some() {
            condition.and("position < ?", to);
        }
        if selection.unattributed {
            condition.text += " AND jsonb_exists(context, 'missing')";
        }
        condition
    }

    /// Adds a condition in which `?` is the parameter.
    fn and(&mut self, text: &str, parameter: impl ToSql + Sync + Send + 'static) {
        self.parameters.push(Box::new(parameter));
        let and = if self.text.is_empty() { "" } else { " AND " };
        self.text += &format!("{and}{text}").replace('?', &format!("${}", self.parameters.len()));
    }

    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync)).collect()
    }
}
