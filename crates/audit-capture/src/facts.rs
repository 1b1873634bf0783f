//! What exists before `setup`, `teardown` or `check` decides anything: the server, roles, publication, tables, objects.
//!
//! Each struct is the result of one statement of `sql/`, so a survey of ten thousand tables takes six statements.

use std::collections::BTreeMap;

use audit_core::shape::{Identity, TableName};
use serde::Deserialize;
use tokio_postgres::Client;

use crate::query::{QueryError, row, rows};

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Server {
    pub version: String,
    pub major: u32,
    pub database: String,
    pub quoted_database: String,
    pub encoding: String,
    pub in_recovery: bool,
    pub synchronous_standby_names: String,
    pub wal_level: String,
    pub max_replication_slots: i64,
    pub replication_slots: i64,
    pub max_wal_senders: i64,
    pub wal_senders: i64,
    /// The value -1 means no limit.
    pub max_slot_wal_keep_mb: i64,
    /// The setting as `SHOW` prints it, if it is on (18 and later).
    pub idle_slot_timeout: Option<String>,
    /// The value 0 means for ever.
    pub wal_sender_timeout_ms: i64,
    pub standby_slots: Vec<StandbySlot>,
    pub synchronized_standby_slots: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StandbySlot {
    pub name: String,
    pub active: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Role {
    pub name: String,
    pub quoted: String,
    pub superuser: bool,
    pub create_role: bool,
    /// Whether it may use replication slots.
    pub replication: bool,
    pub bypass_rls: bool,
    pub may_connect: bool,
    /// Whether it may create schemas and publications in this database.
    pub may_create: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Publication {
    pub owner: String,
    /// Whether the session's role may alter it.
    pub owned: bool,
    pub all_tables: bool,
    pub via_root: bool,
    pub operations: Vec<String>,
    /// Whether it publishes stored generated columns (18 and later).
    pub generated: bool,
    pub schemas: Vec<String>,
    pub members: Vec<Member>,
}

/// A table that a publication names.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Member {
    pub oid: u32,
    pub quoted: String,
    /// The row filter, as the server writes it.
    pub filter: Option<String>,
}

impl Publication {
    pub fn holds(&self, table: &Table) -> bool {
        self.all_tables || self.schemas.contains(&table.schema) || self.members.iter().any(|m| m.oid == table.oid)
    }
}

/// A table that can be captured. "Session" means the role that asked, "daemon" the role that will capture.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Table {
    pub oid: u32,
    pub schema: String,
    pub table: String,
    /// The table's name as SQL.
    pub quoted: String,
    pub quoted_schema: String,
    pub partitioned: bool,
    identity: u8,
    usable_identity: bool,
    /// Columns of the index that is its replica identity, if that is not the primary key's index.
    pub index_key: Option<Vec<String>>,
    pub owner: String,
    /// Whether the session's role may alter it.
    pub owned: bool,
    /// Whether it belongs to an extension.
    pub extension: bool,
    pub generated_stored: bool,
    pub generated_virtual: bool,
    /// Whether row-level security applies to the daemon's role, unless that role has BYPASSRLS.
    pub row_security: bool,
    /// Whether the daemon's role may use the schema.
    pub may_use_schema: bool,
    /// Whether the daemon's role may SELECT from the table.
    pub may_select: bool,
    /// Whether the session's role may grant the use of the table's schema.
    pub may_grant_schema: bool,
    /// Whether the session's role may grant SELECT.
    pub may_grant_select: bool,
    /// The number of rows, an estimate.
    rows: u64,
    pages: u64,
    /// The arguments of the trigger `cdc_audit_context`, and an empty text after them; `None` if there is no trigger.
    pub context_trigger: Option<Vec<String>>,
    /// The leaves of a partitioned table.
    pub leaves: Vec<Leaf>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Leaf {
    pub oid: u32,
    pub quoted: String,
    identity: u8,
    usable_identity: bool,
    pub owned: bool,
    rows: u64,
    pages: u64,
}

impl Table {
    pub fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }

    /// The replica identity of the table itself; rows of partitions have that of their partition.
    pub fn identity(&self) -> Option<Identity> {
        Identity::from_byte(self.identity)
    }

    pub fn is_full(&self) -> bool {
        self.identity() == Some(Identity::Full) && self.leaves.iter().all(Leaf::is_full)
    }

    /// Whether PostgreSQL allows updating and deleting rows while a publication sends that: for a partitioned table
    /// each partition decides.
    pub fn has_identity(&self) -> bool {
        if self.partitioned { self.leaves.iter().all(|leaf| leaf.usable_identity) } else { self.usable_identity }
    }

    /// Oids of the table and its partitions.
    pub fn family(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.oid).chain(self.leaves.iter().map(|leaf| leaf.oid))
    }

    /// Average size of a row, as of the last ANALYZE or VACUUM; `None` if the server does not know it.
    pub fn row_bytes(&self) -> Option<u64> {
        const PAGE_BYTES: u64 = 8192;
        let own = [(self.rows, self.pages)];
        let all = self.leaves.iter().map(|leaf| (leaf.rows, leaf.pages)).chain(own);
        let (rows, pages) = all.fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        (pages * PAGE_BYTES).checked_div(rows)
    }
}

impl Leaf {
    pub fn is_full(&self) -> bool {
        Identity::from_byte(self.identity) == Some(Identity::Full)
    }
}

/// A publication that sends updates or deletions contains a table.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Membership {
    pub publication: String,
    pub oid: u32,
    pub column_list: bool,
    /// Whether the publication sends stored generated columns.
    pub generated: bool,
}

/// Schema `cdc_audit` on the source.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Objects {
    pub schema: bool,
    /// Whether the session's role may create objects in it.
    pub may_create: bool,
    /// Whether the session's role may drop it.
    pub owned: bool,
    pub public_usage: bool,
    pub daemon_usage: bool,
    /// The functions that exist in it.
    pub functions: BTreeMap<String, Function>,
    pub emit: Emit,
    /// Roles that may read the keys of contexts but should not.
    pub key_readers: Vec<KeyReader>,
    /// The schema's owner, as SQL, if that is not one of the roles that may have created it for us.
    pub foreign_schema: Option<String>,
    /// Functions, tables, triggers and rules that someone else created in it, each described in words.
    pub foreign: Vec<String>,
    pub quarantine_is_old: bool,
    /// Whether the daemon's role, or every role, may do more than read it and add to some of its columns.
    pub quarantine_is_open: bool,
    /// The tables that exist in it, each with the privileges of the daemon's role.
    pub tables: BTreeMap<String, Vec<String>>,
    /// Number of objects in the schema that do not belong to the source.
    pub others: i64,
}

/// Who may call `pg_logical_emit_message`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Emit {
    /// All functions of this name, as SQL.
    pub functions: Vec<String>,
    pub public: bool,
    pub daemon: bool,
    /// The owner of `set_context`, as SQL.
    pub owner: Option<String>,
    /// Whether that owner may call it; `true` if there is no `set_context`.
    pub owner_may: bool,
}

impl Emit {
    /// The statement that allows roles, given as SQL, to call the functions.
    pub fn grant(&self, roles: &str) -> String {
        format!("GRANT EXECUTE ON FUNCTION {} TO {roles}", self.functions.join(", "))
    }

    pub fn revoke(&self) -> String {
        format!("REVOKE EXECUTE ON FUNCTION {} FROM PUBLIC", self.functions.join(", "))
    }
}

/// A role that may read the keys of contexts.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct KeyReader {
    /// The role's name as SQL.
    pub role: String,
    /// The role that it can act as, as SQL; `None` if it has the right itself.
    pub by: Option<String>,
}

impl KeyReader {
    /// The statement that revokes the right.
    pub fn revoke(&self) -> String {
        match &self.by {
            None => format!("REVOKE ALL ON cdc_audit.context_keys FROM {}", self.role),
            Some(by) => format!("REVOKE {by} FROM {}", self.role),
        }
    }
}

/// A function in schema `cdc_audit`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Function {
    pub body: String,
    /// Whether it runs with its owner's rights.
    pub definer: bool,
    /// Settings in the form `NAME=VALUE` that apply while it runs.
    pub settings: Vec<String>,
    pub public_execute: bool,
}

pub(crate) async fn server(client: &Client) -> Result<Server, QueryError> {
    row(client, "read the server's settings", include_str!("sql/server.sql"), &[]).await
}

/// Returns `None` if there is no such role.
pub(crate) async fn role(client: &Client, name: &str) -> Result<Option<Role>, QueryError> {
    Ok(rows(client, "read the role's attributes", include_str!("sql/role.sql"), &[&Some(name)]).await?.pop())
}

/// The role that the session runs as.
pub(crate) async fn session_role(client: &Client) -> Result<Role, QueryError> {
    row(client, "read the role's attributes", include_str!("sql/role.sql"), &[&None::<&str>]).await
}

pub(crate) async fn publication(client: &Client, name: &str, major: u32) -> Result<Option<Publication>, QueryError> {
    const SCHEMAS: &str = "(
        SELECT coalesce(jsonb_agg(n.nspname), '[]')
        FROM pg_publication_namespace s
        JOIN pg_namespace n ON n.oid = s.pnnspid
        WHERE s.pnpubid = p.oid
    )";
    let schemas = if major >= 15 { SCHEMAS } else { "jsonb_build_array()" };
    let filter = if major >= 15 { "pg_get_expr(r.prqual, r.prrelid)" } else { "NULL" };
    let sql = include_str!("sql/publication.sql").replace("{schemas}", schemas).replace("{filter}", filter);
    Ok(rows(client, "read the publication", &sql, &[&name]).await?.pop())
}

/// Every table that could be captured, by name. `daemon` is a role that exists.
pub(crate) async fn tables(client: &Client, daemon: Option<&str>) -> Result<Vec<Table>, QueryError> {
    rows(client, "read the tables", include_str!("sql/candidates.sql"), &[&daemon]).await
}

/// The memberships of tables in publications. Empty before version 15, whose publications can do nothing that matters
/// here.
pub(crate) async fn memberships(client: &Client, major: u32) -> Result<Vec<Membership>, QueryError> {
    if major < 15 {
        return Ok(Vec::new());
    }
    rows(client, "read the publications", include_str!("sql/memberships.sql"), &[]).await
}

/// The objects in schema `cdc_audit`. `daemon` is a role that exists; `owner` is the role that owns the tables of hot
/// sinks, if one is named.
pub(crate) async fn objects(client: &Client, daemon: Option<&str>, owner: Option<&str>) -> Result<Objects, QueryError> {
    row(client, "read the schema cdc_audit", include_str!("sql/objects.sql"), &[&daemon, &owner]).await
}

/// A name quoted as SQL.
pub(crate) async fn quoted(client: &Client, name: &str) -> Result<String, QueryError> {
    row(client, "quote a name", "SELECT to_jsonb(quote_ident($1))", &[&name]).await
}
