//! The tables that versions go to: the common one and, if `versions_table` names others, those ([`Targets`]).
//!
//! The table of a version and, if the configured name contains it, its tenant decide which table takes the version.
//! This is looked up whenever either differs from the previous version; the database is asked once in a session. The
//! common table takes rows of no tenant or of a tenant whose name is too long, records of errors, and versions that
//! were quarantined.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use audit_core::batch::Version;
use audit_core::plan::{Places, Unit};
use audit_core::table::Table;
use audit_core::version::Event;
use audit_core::versions_table::{COMMON, VersionsTable};
use tokio_postgres::{Client, Error, Statement};
use tracing::warn;

use crate::config::Partitioning;
use crate::layout::VERSIONS;
use crate::names;
use crate::partitions::Partitions;
use crate::quote::ident;

/// Number of tables above which a session forgets them all, so that one with tens of thousands of tenants does not grow
/// for ever.
const KNOWN_MAX: usize = 1_000;

/// Bytes of a tenant's name. A longer one gets no table of its own: it is a value from a row, and the index of the
/// registry holds it twice.
const TENANT_MAX: usize = 512;

/// A table that takes versions.
#[derive(Debug)]
pub(crate) struct Target {
    pub name: Arc<str>,
    pub copy: Statement,
    pub partitions: Partitions,
}

/// The tables that a session has written to.
#[derive(Debug)]
pub(crate) struct Targets {
    partitioning: Partitioning,
    /// All known targets; the common one is the first.
    targets: Vec<Target>,
    /// Indexes of targets by table and tenant; the tenant is empty if it makes no difference.
    known: HashMap<Arc<str>, HashMap<Box<str>, usize>>,
    /// The warning about tenants that are too long for a table of their own was already logged.
    told_of_long: bool,
}

/// Versions that one table takes, in their order.
#[derive(Debug)]
pub(crate) struct Group<'u, 'b> {
    /// Index of the target.
    target: usize,
    pub versions: Cow<'u, [Version<'b>]>,
}

impl Targets {
    pub async fn open(client: &Client, partitioning: Partitioning) -> Result<Targets, Error> {
        let common = Target::open(client, COMMON.into(), partitioning, true).await?;
        Ok(Targets { partitioning, targets: vec![common], known: HashMap::new(), told_of_long: false })
    }

    /// How versions are divided between tables.
    pub fn places(&self) -> Places {
        match self.partitioning {
            Partitioning::Month => Places::Own,
            Partitioning::TableAndMonth => Places::EveryTable,
        }
    }

    pub fn common(&mut self) -> &mut Target {
        &mut self.targets[0]
    }

    pub fn of(&self, group: &Group<'_, '_>) -> &Target {
        &self.targets[group.target]
    }

    /// Whether there is any target besides the common one.
    pub fn has_own(&self) -> bool {
        self.targets.len() > 1
    }

    /// Divides a unit by the tables that take its versions, and makes those tables if they are missing. A unit without
    /// versions gets one empty group, for the common table.
    pub async fn divide<'u, 'b>(
        &mut self,
        client: &Client,
        source: &str,
        unit: &'u Unit<'b>,
    ) -> Result<Vec<Group<'u, 'b>>, Error> {
        if self.targets.len() > KNOWN_MAX {
            self.targets.truncate(1);
            self.known.clear();
        }
        let common = unit.versions.is_empty() || unit.tables.iter().all(|table| table.versions_table.is_none());
        match common {
            true => Ok(vec![Group { target: 0, versions: Cow::Borrowed(unit.versions.as_slice()) }]),
            false => self.route(client, source, &unit.versions).await,
        }
    }

    async fn route<'b>(
        &mut self,
        client: &Client,
        source: &str,
        versions: &[Version<'b>],
    ) -> Result<Vec<Group<'b, 'b>>, Error> {
        let mut divided: Vec<(usize, Vec<Version<'b>>)> = Vec::new();
        let mut places: HashMap<usize, usize> = HashMap::new();
        // Usually many versions in a row have the same table and tenant.
        let mut last: Option<(&Arc<Table>, Option<&str>, usize)> = None;
        for version in versions {
            let (table, tenant) = (version.table(), own_tenant(version));
            if !self.told_of_long && version.tenant().is_some_and(|tenant| tenant.len() > TENANT_MAX) {
                self.told_of_long = true;
                warn!(%table.name, "tenants of more than {TENANT_MAX} bytes have no table of their own: their versions are in cdc_audit.versions");
            }
            let place = match last {
                Some((same, of, place)) if Arc::ptr_eq(same, table) && of == tenant => place,
                _ => {
                    let target = match (&table.versions_table, tenant) {
                        (Some(own), Some(tenant)) => self.own(client, source, table, own, tenant).await?,
                        _ => 0,
                    };
                    *places.entry(target).or_insert_with(|| {
                        divided.push((target, Vec::new()));
                        divided.len() - 1
                    })
                }
            };
            last = Some((table, tenant, place));
            divided[place].1.push(*version);
        }
        Ok(divided.into_iter().map(|(target, versions)| Group { target, versions: Cow::Owned(versions) }).collect())
    }

    /// The table for this tenant, which is made if it is missing.
    async fn own(
        &mut self,
        client: &Client,
        source: &str,
        table: &Arc<Table>,
        own: &VersionsTable,
        tenant: &str,
    ) -> Result<usize, Error> {
        if let Some(target) = self.known.get(&table.name).and_then(|tenants| tenants.get(tenant)) {
            return Ok(*target);
        }
        let wanted = own.fill(&table.shape, tenant);
        let statement = "SELECT cdc_audit.ensure_versions_table($1, $2, $3, $4, $5)";
        let wishes = names::wishes(&wanted, tenant);
        let row = client.query_one(statement, &[&source, &table.name.as_ref(), &tenant, &wanted, &wishes]).await?;
        let name: Arc<str> = row.get::<_, String>(0).into();
        let target = match self.targets.iter().position(|target| target.name == name) {
            Some(target) => target,
            None => {
                // Most of a thousand tenants may have no versions next month.
                let ahead = tenant.is_empty();
                self.targets.push(Target::open(client, name, self.partitioning, ahead).await?);
                self.targets.len() - 1
            }
        };
        self.known.entry(table.name.clone()).or_default().insert(tenant.into(), target);
        Ok(target)
    }

    /// Makes the partitions that these groups need.
    pub async fn ensure(&mut self, client: &Client, groups: &[Group<'_, '_>]) -> Result<(), Error> {
        for group in groups {
            self.targets[group.target].partitions.ensure(client, &group.versions).await?;
        }
        Ok(())
    }

    /// Forgets which partitions exist, so that each is checked again.
    pub fn forget_partitions(&mut self) {
        self.targets.iter_mut().for_each(|target| target.partitions.forget());
    }
}

impl Target {
    async fn open(client: &Client, name: Arc<str>, partitioning: Partitioning, ahead: bool) -> Result<Target, Error> {
        let copy = format!("COPY cdc_audit.{} ({}) FROM STDIN (FORMAT binary)", ident(&name), VERSIONS.names());
        let copy = client.prepare(&copy).await?;
        Ok(Target { partitions: Partitions::new(name.clone(), partitioning, ahead), name, copy })
    }
}

/// The tenant whose table takes a version: empty if the tenant makes no difference, `None` if the common table takes
/// it.
fn own_tenant<'b>(version: &Version<'b>) -> Option<&'b str> {
    let own = version.table().versions_table.as_ref()?;
    if matches!(version.event(), Event::Gap | Event::Error) {
        return None;
    }
    match own.has_tenant() {
        true => version.tenant().filter(|tenant| (1..=TENANT_MAX).contains(&tenant.len())),
        false => Some(""),
    }
}
