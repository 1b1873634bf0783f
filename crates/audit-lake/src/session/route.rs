//! Finds the table that each version of a batch belongs to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use audit_core::batch::Batch;
use audit_core::quarantine::Quarantine;
use audit_core::table::Table;

use crate::table::TableId;

/// The index of versions that this lake does not get.
const NOWHERE: u32 = u32::MAX;

/// The tables of a batch, and for each of its versions the index of its table.
#[derive(Debug)]
pub struct Route {
    pub ids: Vec<TableId>,
    indices: Vec<u32>,
}

impl Route {
    /// Routes each version. With `tenants`, a version goes to its tenant, whose name is taken after protection; it goes
    /// to home if it has no tenant, if its tenant is in `at_home`, or if it is quarantined.
    pub fn of(batch: &Batch, sink: &str, tenants: bool, at_home: &HashSet<Arc<str>>, quarantine: &Quarantine) -> Route {
        let mut route = Route { ids: Vec::new(), indices: Vec::with_capacity(batch.len()) };
        let mut known: HashMap<(&str, Option<&str>), u32> = HashMap::new();
        let mut last: Option<(&Arc<Table>, Option<&str>, u32)> = None;
        for version in batch.versions_unless(quarantine) {
            let table = version.table();
            let own = |tenant: &&str| tenants && !tenant.is_empty() && !at_home.contains(*tenant);
            let tenant = version.tenant().filter(own);
            let index = match last {
                Some((same, of, index)) if Arc::ptr_eq(same, table) && of == tenant => index,
                _ if !table.goes_to(sink) => NOWHERE,
                _ => *known.entry((&table.name, tenant)).or_insert_with(|| {
                    route.ids.push(TableId { tenant: tenant.map(Arc::from), name: table.name.clone() });
                    (route.ids.len() - 1) as u32
                }),
            };
            last = Some((table, tenant, index));
            route.indices.push(index);
        }
        route
    }

    /// For each version, the index of its table among those from `first` on; it may be out of their range.
    pub fn targets(&self, first: usize) -> impl Iterator<Item = usize> {
        self.indices.iter().map(move |index| (*index as usize).wrapping_sub(first))
    }
}

#[cfg(test)]
mod tests {
    use audit_core::protect::Policy;
    use audit_core::quarantine::Quarantined;
    use audit_core::rules::{Rules, TableRule};
    use audit_testkit::Fixture;

    use super::*;

    #[test]
    fn a_version_goes_to_its_tenant_and_to_home_without_one() {
        let rule = TableRule { name: "*".into(), tenant: Some("owner".into()), ..TableRule::default() };
        let rules = Rules { tables: vec![rule], ..Rules::default() };
        let batches = Fixture::under(rules, Policy::default()).batches(
            r#"table public.a (id int4 key, owner text) full
               table public.b (id int4 key) full
               begin
               insert public.a [1, "x"]
               insert public.a [2, null]
               insert public.a [3, ""]
               insert public.b [1]
               update public.a [1, "x"] -> [1, "y"]
               delete public.a [1, "y"]
               truncate public.a
               insert public.a [4, "x"]
               insert public.a [5, "z"]
               commit"#,
        );
        let (batch, at_home) = (&batches[0], HashSet::from(["z".into()]));
        let go = |tenants: bool, quarantine: &Quarantine| -> Vec<String> {
            let route = Route::of(batch, "lake", tenants, &at_home, quarantine);
            let id = |index: usize| route.ids.get(index);
            let shown = |id: &TableId| format!("{} {}", id.tenant.as_deref().unwrap_or("-"), id.name);
            route.targets(0).map(|index| id(index).map_or_else(String::new, shown)).collect()
        };
        let expected = ["x a", "- a", "- a", "- b", "y a", "y a", "- a", "x a", "- a"];
        let expected = expected.map(|short| short.replace(' ', " public."));
        assert_eq!(go(true, &Quarantine::new()), expected);
        assert!(go(false, &Quarantine::new()).iter().all(|to| to.starts_with('-')));
        let first = batch.versions().take(1).map(|version| (version.position(), Quarantined::default()));
        assert_eq!(go(true, &first.collect())[0], "- public.a");
    }
}
