use audit_testkit::{connect, shared, unique};
use cdc_audit_tests::decoded::{self, Cell, What};
use cdc_audit_tests::tables;
use cdc_audit_tests::workload::random::{Options, Workload, has_xml};
use cdc_audit_tests::world::World;
use cdc_audit_tests::{majors, seed};

/// What `test_decoding` saw, played back by itself, leads to the tables: so it can be held against a trail.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_slot_sees_all_that_happens() {
    let seed = seed();
    for major in majors() {
        let server = shared(major).await;
        let (database, url) = server.new_database();
        let client = connect(&url).await;
        let xml = has_xml(&client).await;
        let mut workload = Workload::new(seed, Options { major, full: true, keyless: true, xml });
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

/// What is lost, or comes twice, or is another value, is found: else no test here would mean anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_was_tampered_with_is_refused() {
    let server = shared(15).await;
    let tables = "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL";
    let world = std::sync::Arc::new(World::on(server).full(true).sql(tables).build().await);
    server.execute(&world.database, "INSERT INTO t SELECT i, 'v' FROM generate_series(1, 20) AS i; UPDATE t SET v = 'w' WHERE id < 5");
    world.catch_up().await;
    world.check().await;
    let some = "position = (SELECT position FROM cdc_audit.versions ORDER BY position OFFSET 7 LIMIT 1)";
    let again = "INSERT INTO cdc_audit.versions SELECT * FROM taken";
    for tampering in [
        format!("DELETE FROM cdc_audit.versions WHERE {some}"),
        "INSERT INTO cdc_audit.versions SELECT * FROM taken LIMIT 1".to_owned(),
        format!("UPDATE cdc_audit.versions SET after = jsonb_set(after, '{{v}}', '\"x\"') WHERE {some}"),
        "UPDATE cdc_audit.versions SET changes = jsonb_set(changes, '{v,1}', '\"x\"') WHERE event = 'updated'".to_owned(),
        format!("UPDATE cdc_audit.versions SET key = '99' WHERE {some}"),
        format!("UPDATE cdc_audit.versions SET event = 'snapshot' WHERE {some}"),
        "UPDATE cdc_audit.versions SET actor_id = 'x' WHERE key = '3'".to_owned(),
        "TRUNCATE cdc_audit.versions".to_owned(),
    ] {
        let hot = world.hot().await;
        hot.batch_execute(&format!("CREATE TABLE taken AS SELECT * FROM cdc_audit.versions; {tampering}")).await.expect(&tampering);
        let checked = std::sync::Arc::clone(&world);
        let refused = tokio::spawn(async move { drop(checked.check().await) }).await.is_err();
        assert!(refused, "nobody noticed: {tampering}");
        hot.batch_execute(&format!("TRUNCATE cdc_audit.versions; {again}; DROP TABLE taken")).await.expect("as it was");
        world.check().await;
    }
    let files = cdc_audit_tests::lake::files(&world.lake);
    assert!(!files.is_empty());
    for file in files {
        let other = file.with_extension("hidden");
        std::fs::rename(&file, &other).expect("a file is hidden");
        let checked = std::sync::Arc::clone(&world);
        assert!(tokio::spawn(async move { drop(checked.check().await) }).await.is_err(), "nobody missed {}", file.display());
        std::fs::rename(&other, &file).expect("a file comes back");
    }
}

/// The values of a row that are not NULL.
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
