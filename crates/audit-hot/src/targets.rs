//! The tables that versions go to: the common one and, where `versions_table` names others, those ([`Targets`]).
//!
//! Which table takes a version follows from its table and, where the name has a place for it, its tenant. That is looked up where either
//! differs from the version before; the database is asked once a session. Rows of no tenant, or of one whose name is too long, records of what
//! went wrong and versions that were given up go to the common table.

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

/// A session forgets which tables there are when it knows more: one with tens of thousands of tenants must not grow for ever.
const KNOWN_MAX: usize = 1_000;

/// A longer tenant has no table of its own: it is a value of somebody's row, and an index of the tables' names holds it twice.
const TENANT_MAX: usize = 512;

/// A table that takes versions.
#[derive(Debug)]
pub(crate) struct Target {
    pub name: Arc<str>,
    pub copy: Statement,
    pub partitions: Partitions,
}

/// Those that a session has written to.
#[derive(Debug)]
pub(crate) struct Targets {
    partitioning: Partitioning,
    /// The common one first.
    targets: Vec<Target>,
    /// By table and tenant, which is empty where it makes no difference.
    known: HashMap<Arc<str>, HashMap<Box<str>, usize>>,
    /// It was said that a tenant is too long for a table of its own.
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

    /// How versions are divided.
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

    /// Whether there is any beside the common one.
    pub fn has_own(&self) -> bool {
        self.targets.len() > 1
    }

    /// Divides a unit by the tables that take its versions, and makes those where they are missing. Of a unit without versions the
    /// common table takes none.
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
        // Runs of one table and tenant are the rule.
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

    /// The table of this tenant, made where it is missing.
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
        let wanted = own.fill(table, tenant);
        let statement = "SELECT cdc_audit.ensure_versions_table($1, $2, $3, $4, $5)";
        let wishes = names::wishes(&wanted, tenant);
        let row = client.query_one(statement, &[&source, &table.name.as_ref(), &tenant, &wanted, &wishes]).await?;
        let name: Arc<str> = row.get::<_, String>(0).into();
        let target = match self.targets.iter().position(|target| target.name == name) {
            Some(target) => target,
            None => {
                // Most of a thousand tenants may have nothing to say next month.
                let ahead = tenant.is_empty();
                self.targets.push(Target::open(client, name, self.partitioning, ahead).await?);
                self.targets.len() - 1
            }
        };
        self.known.entry(table.name.clone()).or_default().insert(tenant.into(), target);
        Ok(target)
    }

    /// Makes the partitions that these need.
    pub async fn ensure(&mut self, client: &Client, groups: &[Group<'_, '_>]) -> Result<(), Error> {
        for group in groups {
            self.targets[group.target].partitions.ensure(client, &group.versions).await?;
        }
        Ok(())
    }

    /// Looks again at every partition.
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

/// The tenant in whose table a version belongs: empty where it makes no difference, `None` where that is the common table.
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
