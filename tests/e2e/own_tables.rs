use audit_testkit::shared;
use cdc_audit_tests::trail::Version;
use cdc_audit_tests::world::World;

const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY, account text, total int); ALTER TABLE orders REPLICA IDENTITY FULL; \
                      CREATE TABLE items (id int PRIMARY KEY, note text); ALTER TABLE items REPLICA IDENTITY FULL; \
                      CREATE TABLE plain (id int PRIMARY KEY); ALTER TABLE plain REPLICA IDENTITY FULL";

const RULES: &str = "[[tables]]\nname = \"*\"\nignore_alone = []\nbaseline = false\n\
                     [[tables]]\nname = \"public.orders\"\ntenant = \"account\"\nversions_table = \"tenant_{tenant}_versions\"\n\
                     [[tables]]\nname = \"public.items\"\nversions_table = \"{table}_versions\"\n";

const CHANGES: &str = "INSERT INTO orders SELECT 1000 + i, CASE WHEN i % 7 > 0 THEN 'T' || i % 3 || '/..' END, i FROM generate_series(1, 60) AS i; \
                       INSERT INTO items SELECT 1000 + i, 'x' FROM generate_series(1, 60) AS i; \
                       BEGIN; UPDATE orders SET account = 'T0/..' WHERE id % 10 = 1; INSERT INTO plain VALUES (1000); \
                       UPDATE items SET note = 'y' WHERE id % 2 = 0; COMMIT; UPDATE orders SET total = total + 1; DELETE FROM plain";

/// Each version of a row is once in the table that the rules name, whatever is killed; the commands find it there.
#[tokio::test(flavor = "multi_thread")]
async fn versions_lie_in_the_tables_that_the_rules_name() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLES).tables(RULES).hot("batch_rows = 25").full(true).build().await;
    for (round, fault) in
        ["hot::after_copy=kill@2", "hot::before_commit=kill@4", "hot::after_commit=kill@3"].into_iter().enumerate()
    {
        let mut daemon = world.launch().environment("CDC_AUDIT_FAULTS", fault).start();
        server.execute(&world.database, &CHANGES.replace("1000", &format!("{}000", round + 1)));
        assert!(!daemon.wait().success(), "{fault} was never reached");
    }
    world.catch_up().await;
    let hot = world.check().await.hot;

    let client = world.hot().await;
    let names = "SELECT name, table_name, tenant FROM cdc_audit.versions_tables ORDER BY name";
    let names: Vec<(String, String, String)> = client
        .query(names, &[])
        .await
        .expect("the registry")
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let tenant = |n: u32| (format!("tenant_T{n}/.._versions"), "public.orders".to_owned(), format!("T{n}/.."));
    let items = ("items_versions".to_owned(), "public.items".to_owned(), String::new());
    assert_eq!(names, [items, tenant(0), tenant(1), tenant(2)]);
    let strange = "SELECT count(*) FROM cdc_audit.versions WHERE table_name = 'public.items' OR tenant IS NOT NULL";
    assert_eq!(client.query_one(strange, &[]).await.expect("a count").get::<_, i64>(0), 0);
    ask(&world, &hot);
}

/// Checks what the commands print.
fn ask(world: &World, versions: &[Version]) {
    let of_row: Vec<&Version> = versions
        .iter()
        .filter(|version| version.table == "public.orders" && version.key.as_deref() == Some("1001"))
        .collect();
    let history = |more: &[&str]| -> usize {
        world.succeed(&[&["history", "public.orders", "1001", "--json"], more].concat()).lines().count()
    };
    let tenant = "T0/..";
    let own = |version: &&&Version| version.tenant.as_deref() == Some(tenant);
    let moved = of_row.iter().filter(own).count();
    assert!(moved > 0 && moved < of_row.len(), "{moved} of {}", of_row.len());
    assert_eq!(history(&[]), of_row.len());
    assert_eq!(history(&["--tenant", tenant]), moved);

    let exported = |more: &[&str], folder: &str| -> usize {
        let to = world.path(folder);
        let to = to.to_str().expect("temporary folders have plain names");
        let manifest = world.succeed(&[&["export", "--json", "--to", to], more].concat());
        let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("a manifest");
        manifest["rows"].as_u64().expect("a number") as usize
    };
    assert_eq!(exported(&[], "all"), versions.len());
    let of_tenant = versions.iter().filter(|version| version.tenant.as_deref() == Some(tenant)).count();
    assert_eq!(exported(&["--tenant", tenant], "one"), of_tenant);

    let planned = world.succeed(&["plan"]);
    assert!(planned.contains("public.orders, in hot sinks in cdc_audit.tenant_{tenant}_versions\n"), "{planned}");
    assert!(planned.contains("public.items, in hot sinks in cdc_audit.items_versions\n"), "{planned}");
    let unknown = world.command(&["history", "public.orders", "1001", "--tenant", "T9"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("no table of its own holds versions of tenant T9"), "{said}");
}
