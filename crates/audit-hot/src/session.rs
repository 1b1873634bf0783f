//! A session with the hot database that may write. It is opened and checked here ([`Session::open`]).

use audit_connect::{PgEndpoint, refuse_pooler};
use audit_core::sink::SinkError;
use tokio_postgres::{Client, Statement};

use crate::checkpoint::ADVANCE;
use crate::config::{HotConfig, Partitioning};
use crate::connection::open;
use crate::error::{failed, not_connected};
use crate::layout::{FOR_VERSIONS, TABLES, Table};
use crate::targets::Targets;

/// A session whose tables are as they must be.
#[derive(Debug)]
pub(crate) struct Session {
    pub client: Client,
    pub advance: Statement,
    pub targets: Targets,
}

/// The rights that the daemon's role needs, by table: first for the versions, then for the checkpoint.
const PRIVILEGES: &[(&str, &str)] = &[
    ("versions", "INSERT"),
    ("checkpoints", "SELECT"),
    ("checkpoints", "UPDATE"),
    ("baselines", "SELECT"),
    ("baselines", "INSERT"),
    ("baselines", "UPDATE"),
    ("shapes", "SELECT"),
    ("shapes", "INSERT"),
];

const SETUP: &str = "run `cdc-audit setup`: it makes the tables and prints the grants";

impl Session {
    /// Connects, and checks encoding, tables and rights. Changes nothing.
    pub async fn open(config: &HotConfig, sink: &str) -> Result<Session, SinkError> {
        let client = open(&config.endpoint, sink).await?;
        check_encoding(&client).await?;
        check_columns(&client, &TABLES).await?;
        check_rights(&client, PRIVILEGES).await?;
        let partitioning = check_partitions(&client).await?;
        let (targets, advance) = tokio::try_join!(Targets::open(&client, partitioning), client.prepare(ADVANCE))
            .map_err(|error| failed("preparing to write versions", error))?;
        Ok(Session { client, advance, targets })
    }
}

/// Refuses an endpoint that shares sessions between transactions. Called once in a run.
pub(crate) async fn check_pooler(client: &Client, endpoint: &PgEndpoint, sink: &str) -> Result<(), SinkError> {
    refuse_pooler(client, endpoint, &format!("cdc-audit {sink}")).await.map_err(not_connected)
}

/// The hint for a database that cannot store every character.
const UTF8: &str = "make a database with ENCODING 'UTF8' for it, let the sink's url name it, and run `cdc-audit setup`";

/// Refuses a database whose encoding is not UTF-8: the first character that it cannot store would stop the sink.
///
/// # Errors
/// Fails if the encoding cannot be read or is not UTF-8.
pub async fn check_encoding(client: &Client) -> Result<(), SinkError> {
    let asked = client.query_one("SELECT current_setting('server_encoding')", &[]).await;
    let encoding: String = asked.map_err(|error| failed("looking at the encoding", error))?.get(0);
    match encoding.as_str() {
        "UTF8" => Ok(()),
        other => Err(SinkError::stop(format!("the hot database's encoding is {other}, and has to be UTF8")).hint(UTF8)),
    }
}

/// Opens a session for a checkpoint alone. A sink that delivers its versions elsewhere needs no tables for them here.
pub(crate) async fn open_for_checkpoint(endpoint: &PgEndpoint, sink: &str) -> Result<(Client, Statement), SinkError> {
    let client = open(endpoint, sink).await?;
    let (_, tables) = TABLES.split_at(FOR_VERSIONS);
    check_columns(&client, tables).await?;
    let (_, privileges) = PRIVILEGES.split_at(1);
    check_rights(&client, privileges).await?;
    let advance = client.prepare(ADVANCE).await.map_err(|error| failed("preparing to move the checkpoint", error))?;
    Ok((client, advance))
}

/// Compares the tables with what this program writes. Columns that were added by hand do no harm unless they require a
/// value.
pub(crate) async fn check_columns(client: &Client, tables: &[Table]) -> Result<(), SinkError> {
    let statement = "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), \
         a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '' \
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         WHERE c.relnamespace = to_regnamespace('cdc_audit') AND c.relname = ANY ($1)";
    let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
    let found = client.query(statement, &[&names]).await.map_err(|error| failed("looking at the tables", error))?;
    let found: Vec<(String, String, String, bool)> =
        found.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();

    for table in tables {
        let mut has = found.iter().filter(|column| column.0 == table.name).peekable();
        if has.peek().is_none() {
            return Err(SinkError::stop(format!("the hot database has no table cdc_audit.{}", table.name)).hint(SETUP));
        }
        let has: Vec<_> = has.collect();
        let missing = table.columns.iter().filter(|wanted| has.iter().all(|column| column.1 != wanted.name));
        let mut wrong: Vec<String> =
            missing.map(|column| format!("it has no column {} ({})", column.name, column.sql_type)).collect();
        for (_, name, sql_type, demands) in &has {
            match table.columns.iter().find(|column| column.name == name) {
                Some(column) if column.sql_type != sql_type => {
                    wrong.push(format!("column {name} is {sql_type}, not {}", column.sql_type))
                }
                None if *demands => wrong.push(format!("column {name} is unknown, and not null without a default")),
                _ => {}
            }
        }
        if !wrong.is_empty() {
            let message = format!("cdc_audit.{} is not as `setup` made it: {}", table.name, wrong.join("; "));
            let hint = "run `cdc-audit setup`, which adds what earlier releases did not make; if that does not help, undo what was \
                        altered by hand; nothing was written to the table since";
            return Err(SinkError::stop(message).hint(hint));
        }
    }
    Ok(())
}

/// Checks the role's rights on tables.
async fn check_rights(client: &Client, privileges: &[(&str, &str)]) -> Result<(), SinkError> {
    let looking = |error| failed("looking at the role's rights", error);
    let statement = "SELECT has_schema_privilege(n.oid, 'USAGE'), current_user::text FROM pg_namespace n WHERE n.nspname = 'cdc_audit'";
    let row = client.query_one(statement, &[]).await.map_err(looking)?;
    let (usage, role): (bool, String) = (row.get(0), row.get(1));
    let statement = "SELECT w.privilege || ' on cdc_audit.' || w.name \
         FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (name, privilege, nth) \
         JOIN pg_class c ON c.relname = w.name AND c.relnamespace = to_regnamespace('cdc_audit') \
         WHERE NOT has_table_privilege(c.oid, w.privilege) ORDER BY w.nth";
    let (names, privileges): (Vec<&str>, Vec<&str>) = privileges.iter().copied().unzip();
    let rows = client.query(statement, &[&names, &privileges]).await.map_err(looking)?;
    let mut lacks: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if !usage {
        lacks.push("USAGE on schema cdc_audit".to_owned());
    }
    lacking(&role, &lacks)
}

fn lacking(role: &str, lacks: &[String]) -> Result<(), SinkError> {
    if lacks.is_empty() {
        return Ok(());
    }
    let message = format!("role {role} lacks {}", lacks.join(", "));
    Err(SinkError::stop(message).hint("grant what `cdc-audit setup --dry-run` prints"))
}

/// Returns how the audit table is partitioned, after checking that the role may have partitions and further tables
/// made.
async fn check_partitions(client: &Client) -> Result<Partitioning, SinkError> {
    let statement = "SELECT ARRAY(SELECT 'EXECUTE on function cdc_audit.' || w.name \
                   FROM unnest(ARRAY['ensure_partition', 'ensure_versions_table']) WITH ORDINALITY AS w (name, nth) \
                   WHERE NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid AND p.proname = w.name \
                       AND has_function_privilege(p.oid, 'EXECUTE')) ORDER BY w.nth), \
         (SELECT partstrat::text FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid \
          WHERE c.relnamespace = n.oid AND c.relname = 'versions'), current_user::text \
         FROM pg_namespace n WHERE n.nspname = 'cdc_audit'";
    let row = client.query_one(statement, &[]).await.map_err(|error| failed("looking at the role's rights", error))?;
    let (lacks, strategy, role): (Vec<String>, Option<String>, String) = (row.get(0), row.get(1), row.get(2));
    lacking(&role, &lacks)?;
    match strategy.as_deref() {
        Some("r") => Ok(Partitioning::Month),
        Some("l") => Ok(Partitioning::TableAndMonth),
        _ => Err(SinkError::stop("cdc_audit.versions is not partitioned as `setup` made it").hint(SETUP)),
    }
}
