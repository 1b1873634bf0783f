use audit_testkit::{connect, shared, unique};
use cdc_audit_tests::decoded::{self, Cell, What};
use cdc_audit_tests::tables;
use cdc_audit_tests::workload::random::{Options, Workload, has_xml};
use cdc_audit_tests::{majors, seed};

/// The changes that `test_decoding` saw lead to the tables when they are played back, so a trail can be compared with
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_slot_sees_all_that_happens() {
    let seed = seed();
    for major in majors() {
        let server = shared(major).await;
        let (database, url) = server.new_database();
        let client = connect(&url).await;
        let xml = has_xml(&client).await;
        let mut workload = Workload::new(seed, Options { major, full: true, xml });
        server.execute(&database, &workload.tables());
        let slot = unique("witness");
        decoded::create(&client, &slot).await;
        for _ in 0..60 {
            server.execute(&database, &workload.transaction());
        }
        let roots = decoded::roots(&client).await;
        let mut rows: std::collections::BTreeMap<String, Vec<decoded::Columns>> = Default::default();
        for change in decoded::read(&client, &slot).await.into_iter().flat_map(|transaction| transaction.changes) {
            let table = roots.get(&change.table).unwrap_or(&change.table).to_string();
            let rows = rows.entry(table).or_default();
            let mut take = |old: decoded::Columns| {
                let is = |row: &&decoded::Columns| {
                    let told = |(_, value): &(&String, &Cell)| **value != Cell::Is(None);
                    row.iter().filter(told).eq(old.iter())
                };
                let at = rows.iter().position(|row| is(&row)).unwrap_or_else(|| panic!("{old:?} was not there"));
                rows.swap_remove(at)
            };
            match change.what {
                What::Insert { new } => rows.push(new),
                What::Update { old, new } => {
                    take(old.expect("an old row under FULL"));
                    rows.push(new);
                }
                What::Delete { old } => drop(take(old.expect("an old row under FULL"))),
                What::Truncate => rows.clear(),
            }
        }
        for (name, table) in tables::read(&client).await {
            let mut expected: Vec<_> = table.rows.iter().map(told).collect();
            let mut found: Vec<_> = rows.remove(&name).unwrap_or_default().iter().map(cells).collect();
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{name} on PostgreSQL {major}");
        }
    }
}

/// Returns the values of a row that are not NULL.
fn told(row: &cdc_audit_tests::trail::Row) -> Vec<(String, String)> {
    row.iter().filter_map(|(column, value)| Some((column.clone(), value.clone()?))).collect()
}

fn cells(row: &decoded::Columns) -> Vec<(String, String)> {
    let text = |cell: &Cell| match cell {
        Cell::Is(text) => text.clone(),
        Cell::Unchanged => panic!("an unchanged value"),
    };
    row.iter().filter_map(|(column, cell)| Some((column.clone(), text(cell)?))).collect()
}
