//! The same story in a lake that keeps tenants apart: rows of three tenants and of none, one that moves, chunks that
//! are spread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use audit_core::protect::Policy;
use audit_core::rules::{Rules, TableRule};
use audit_lake::tenant_names::folder_of;
use audit_testkit::Fixture;

use super::story::{TABLES, World};
use super::{Lake, View};

const STREAM: &str = r#"
    table public.users (id int4 key, name text, owner text) full
    table public.orders (id int4 key, total numeric(10,2), owner text) full
    begin at=2026-03-01T23:59:58Z
    insert public.users [1, "Ann", "acme"]
    insert public.users [2, "Bea", "Initech/.."]
    insert public.orders [10, 1.50, "acme"]
    insert public.users [3, "Cid", null]
    commit
    ---
    begin at=2026-03-02T00:00:01Z
    insert public.users [4, "Dan", "acme"]
    insert public.users [5, "Eve", "Initech/.."]
    insert public.orders [11, 2.50, null]
    commit
    begin at=2026-03-01T23:59:59Z
    update public.users [1, "Ann", "acme"] -> [1, "Anna", "hooli"]
    commit
    ---
    begin at=2026-03-02T00:00:02Z
    delete public.orders [10, 1.50, "acme"]
    insert public.users [6, "Fay", "hooli"]
    truncate public.orders
    commit
    begin at=2026-03-03T10:00:00Z
    insert public.orders [12, 3.50, "acme"]
    commit
    idle 0/9000
"#;

const CHUNKS: [&str; 2] = [
    r#"chunk public.users baseline=1 chunk=1 for=lake
       snapshot public.users [100, "Old", "acme"]
       snapshot public.users [101, "Older", "hooli"]
       snapshot public.users [102, "Oldest", null]"#,
    r#"chunk public.users baseline=1 chunk=2 last for=lake
       snapshot public.users [103, "Elder", "hooli"]
       snapshot public.users [104, "Eldest", "initech"]"#,
];

/// Rows have moved in the meantime: if half a chunk stayed, they would be there twice or not at all.
const AGAIN: [&str; 2] = [
    r#"chunk public.users baseline=1 chunk=1 for=lake
       snapshot public.users [100, "Old", "hooli"]
       snapshot public.users [101, "Older", null]
       snapshot public.users [102, "Oldest", "acme"]"#,
    r#"chunk public.users baseline=1 chunk=2 last for=lake
       snapshot public.users [103, "Elder", "acme"]
       snapshot public.users [104, "Eldest", "hooli"]"#,
];

pub fn rules() -> Rules {
    let rule = TableRule { name: "*".into(), tenant: Some("owner".into()), ..TableRule::default() };
    Rules { tables: vec![rule], ..Rules::default() }
}

pub fn fixture() -> Fixture {
    Fixture::under(rules(), Policy::default())
}

pub fn world() -> World {
    World::of(fixture(), STREAM, &CHUNKS, &AGAIN)
}

/// A lake on disk, see [`apart`].
pub fn on_disk() -> Lake {
    apart(Lake::new())
}

/// The lake with its home in `home`, and its tenants next to it.
pub fn apart(mut lake: Lake) -> Lake {
    let place = std::mem::take(&mut lake.config.url);
    (lake.config.url, lake.config.home) = (format!("{place}/of-{{tenant}}/lake"), Some(format!("{place}/home")));
    lake
}

/// The folders of the files of each tenant and of home, by name; home's name is empty.
pub fn places(lake: &Lake) -> BTreeMap<String, PathBuf> {
    let of = |tenant: &str| lake.folder.path().join(format!("of-{}/lake", folder_of(tenant)));
    let tenants = ["acme", "Initech/..", "hooli", "initech"];
    let tenants = tenants.map(|tenant| (tenant.to_string(), of(tenant)));
    [(String::new(), lake.folder.path().join("home"))].into_iter().chain(tenants).collect()
}

/// The versions of the stream that belong to one tenant, or to none.
fn expected(world: &World, table: &str, tenant: &str) -> Vec<String> {
    let versions = world.stream.iter().flat_map(|batch| batch.versions());
    let own = versions.filter(|version| *version.table().name == *table);
    let own = own.filter(|version| version.tenant().unwrap_or_default() == tenant);
    let mut rows: Vec<String> = own
        .map(|version| format!("{} {} {}", version.position(), version.event().name(), version.key().unwrap_or("-")))
        .collect();
    rows.sort();
    rows
}

/// Checks that each tenant has its versions once, for both kinds of readers, and that each of the rows that existed is
/// in one place, once.
pub async fn check(places: &BTreeMap<String, PathBuf>, world: &World) {
    let mut snapshots = Vec::new();
    for (tenant, path) in places {
        let view = View::of(path);
        for table in TABLES {
            let rows = view.agreed(table).await;
            let (old, stream): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.contains(" snapshot "));
            assert_eq!(stream, expected(world, table, tenant), "{table} of {tenant:?}");
            snapshots.extend(old.iter().map(|row| row.rsplit(' ').next().unwrap().to_string()));
        }
        assert_eq!(staged(path), 0, "staged files are left");
    }
    let unique: BTreeSet<&str> = snapshots.iter().map(String::as_str).collect();
    assert_eq!((snapshots.len(), unique), (5, ["100", "101", "102", "103", "104"].into()), "{snapshots:?}");
}

fn staged(place: &Path) -> usize {
    std::fs::read_dir(place.join("_cdc_audit/tmp")).map_or(0, |entries| entries.count())
}
