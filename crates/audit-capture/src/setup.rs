//! `cdc-audit setup` on the source: publication, slot, schema `cdc_audit`, grants.
//!
//! [`plan`] reads what exists, compares it with what the configuration asks for, and lists the statements in between.
//! What exists is left alone, so a second run finds nothing to do. Three rules apply:
//!
//! - **The application must not notice.** A table without a usable replica identity is not published, because
//!   PostgreSQL would then refuse its UPDATE and DELETE. A table is altered only if the operator asked for it, and not
//!   if that too would make PostgreSQL refuse these statements. Statements that lock tables time out instead of making
//!   the application's statements wait.
//! - **Publication before slot.** The server decodes each change by the catalog as it was at that point of the WAL: a
//!   change from before the publication existed cannot be decoded.
//! - **No superuser.** The role that runs it owns the tables (or is a member of their owners) and may create a schema
//!   and a publication. What it may not do, such as give the daemon's role an attribute, is printed for someone who
//!   may.

pub(crate) mod filter;
pub(crate) mod objects;
pub(crate) mod publication;
mod replica_identity;
mod role;
pub(crate) mod session_context;
pub(crate) mod slot;

use std::collections::BTreeMap;

use audit_core::rules::{FormerNames, Rules};
use tokio_postgres::Client;

use crate::config::SourceConfig;
use crate::encoding;
use crate::facts::{self, Membership, Objects, Publication, Role, Server, Table};
use crate::former_names;
use crate::query::{QueryError, major};
use crate::select::{names, selects};
use crate::setup::filter::Filter;
use crate::slot::SlotState;
use crate::step::{Plan, Step};

/// The oldest and the newest major version that this program was tested with.
pub const MAJORS: std::ops::RangeInclusive<u32> = 14..=18;

/// What the operator asks for.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub source: &'a SourceConfig,
    pub rules: &'a Rules,
    /// The role that the daemon connects as.
    pub daemon_role: &'a str,
    /// The role that owns the tables of hot sinks, which may be in the same schema.
    pub owner: Option<&'a str>,
    /// Set REPLICA IDENTITY FULL on the captured tables whose name (`schema.table`) matches one of these patterns, or
    /// on all of them if the list is empty.
    pub replica_identity_full: Option<&'a [String]>,
}

/// Everything that exists before setup.
pub(crate) struct Found {
    pub server: Server,
    /// The session's own role.
    pub admin: Role,
    pub daemon: Option<Role>,
    /// The publication's name as SQL.
    pub quoted_publication: String,
    /// The daemon's role as SQL.
    pub quoted_daemon: String,
    pub publication: Option<Publication>,
    pub slot: Option<SlotState>,
    pub objects: Objects,
    pub tables: Vec<Table>,
    pub memberships: Vec<Membership>,
    /// What tables were called before: the daemon captures them by the rules for those names too.
    pub names: FormerNames,
    /// The row filters that the rules ask for, by the oids of the tables; only for a plan of `setup`.
    pub filters: BTreeMap<u32, Filter>,
}

/// Plans what has to be done on the source, as seen through `admin`, a session of the role that will do it.
///
/// # Errors
/// Returns a [`QueryError`] if the source cannot be read; what setup must not do is a refusal in the plan.
pub async fn plan(admin: &Client, wanted: &Wanted<'_>) -> Result<Plan, QueryError> {
    let major = major(admin).await?;
    if major < *MAJORS.start() {
        let mut plan = Plan::default();
        plan.refuse(format!("PostgreSQL {major} is too old"), format!("upgrade to {} or later", MAJORS.start()));
        return Ok(plan);
    }
    let mut found = Found::read(admin, wanted.source, wanted.daemon_role, wanted.owner).await?;
    found.filters = filter::read(admin, &found, wanted.rules).await?;
    Ok(plan_of(&found, wanted))
}

impl Found {
    pub(crate) async fn read(
        client: &Client,
        source: &SourceConfig,
        daemon_role: &str,
        owner: Option<&str>,
    ) -> Result<Found, QueryError> {
        let server = facts::server(client).await?;
        let daemon = facts::role(client, daemon_role).await?;
        let existing = daemon.as_ref().map(|role| role.name.as_str());
        Ok(Found {
            admin: facts::session_role(client).await?,
            quoted_publication: facts::quoted(client, &source.publication).await?,
            quoted_daemon: facts::quoted(client, daemon_role).await?,
            publication: facts::publication(client, &source.publication, server.major).await?,
            slot: crate::slot::read(client, &source.slot).await?,
            objects: facts::objects(client, existing, owner).await?,
            tables: facts::tables(client, existing).await?,
            memberships: facts::memberships(client, server.major).await?,
            names: former_names::known(client, &source.name).await?,
            filters: BTreeMap::new(),
            daemon,
            server,
        })
    }

    /// The tables that the rules select, also by a former name: what the daemon captures must not leave the publication.
    /// A table of an extension has to be named exactly.
    pub(crate) fn selected(&self, rules: &Rules) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(move |table| {
            let name = table.name();
            let taken = selects(rules, &name) || self.names.rules_now(rules, &name, table.oid).captured();
            taken && (!table.extension || names(rules, &name))
        })
    }
}

fn plan_of(found: &Found, wanted: &Wanted<'_>) -> Plan {
    let mut plan = Plan::default();
    server(&mut plan, found);
    role::create(&mut plan, found, wanted);
    objects::create(&mut plan, found);
    tables(&mut plan, found, wanted);
    role::grant(&mut plan, found, wanted);
    slot::create(&mut plan, found, wanted);
    plan
}

fn server(plan: &mut Plan, found: &Found) {
    let server = &found.server;
    if server.in_recovery {
        plan.refuse("the server is a standby, where nothing can be created", "connect to the primary");
    }
    if let Some(message) = encoding::complaint(&server.encoding) {
        plan.refuse(message, encoding::FIX);
    }
    if server.wal_level != "logical" {
        let message = format!("wal_level is {}, and changes can only be decoded from logical", server.wal_level);
        plan.refuse(message, "run ALTER SYSTEM SET wal_level = logical, then restart the server");
    }
    if server.major > *MAJORS.end() {
        plan.note(format!("PostgreSQL {} is newer than what cdc-audit was tried with", server.version), None);
    }
}

/// How long a statement may wait for a table lock: while it waits, the application's statements queue behind it.
pub(crate) const LOCK_TIMEOUT: &str = "2s";

fn tables(plan: &mut Plan, found: &Found, wanted: &Wanted<'_>) {
    let mut locking = Plan::default();
    let made_full = replica_identity::full(&mut locking, found, wanted);
    filter::alter(&mut locking, found, &made_full);
    publication::create(&mut locking, found, wanted, &made_full);
    session_context::create(&mut locking, found, wanted);
    let locks = locking.steps.iter().any(|step| matches!(step, Step::Run(_)));
    if locks {
        let why = "give up instead of waiting in front of the application's statements";
        plan.run(why, format!("SET lock_timeout TO '{LOCK_TIMEOUT}'"));
    }
    plan.refusals.append(&mut locking.refusals);
    plan.steps.append(&mut locking.steps);
    if locks {
        plan.run("what follows locks no table", "SET lock_timeout TO 0");
    }
}
