use std::path::{Path, PathBuf};
use std::process::Command;

use audit_testkit::install::python;
use audit_testkit::shared;
use cdc_audit_tests::lake;
use cdc_audit_tests::trail::{self, Version};
use cdc_audit_tests::world::World;

const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY, account text, total int); ALTER TABLE orders REPLICA IDENTITY FULL; \
                      CREATE TABLE plain (id int PRIMARY KEY); ALTER TABLE plain REPLICA IDENTITY FULL; \
                      INSERT INTO orders SELECT i, CASE WHEN i % 10 > 0 THEN 'T' || i % 3 || '/..' END, i FROM generate_series(1, 300) AS i";

const RULE: &str =
    "[[tables]]\nname = \"*\"\nignore_alone = []\nbaseline = true\ntenant = \"account\"\n[baseline]\nchunk_rows = 40\n";

const CHANGES: &str = "INSERT INTO orders SELECT 1000 + i, 'T' || i % 3 || '/..', i FROM generate_series(1, 30) AS i; \
                       UPDATE orders SET account = 'T0/..' WHERE id % 50 = 1; UPDATE orders SET total = total + 1; \
                       DELETE FROM orders WHERE id >= 1000; INSERT INTO plain VALUES (1); DELETE FROM plain";

/// Lists the home store and the store of each tenant.
fn stores(folder: &Path) -> Vec<(Option<String>, PathBuf)> {
    let tenants = (0..3).map(|n| (Some(format!("T{n}/..")), folder.join(format!("of-T{n}--2f.."))));
    [(None, folder.join("home"))].into_iter().chain(tenants).collect()
}

/// Reads all versions and checks that each is in the right store.
fn all(folder: &Path, read: fn(&Path) -> Vec<Version>) -> Vec<Version> {
    let mut all = Vec::new();
    for (tenant, path) in stores(folder) {
        let own = read(&path);
        let strange = own.iter().find(|version| version.tenant != tenant);
        assert!(strange.is_none(), "{tenant:?} has {}", strange.unwrap().place());
        all.extend(own);
    }
    all.sort_by(|a, b| a.position.cmp(&b.position));
    all
}

/// A daemon that is killed again and again still gives each tenant its own versions, once, and gives them to nobody
/// else.
#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_has_its_own_and_nobody_elses() {
    let server = shared(15).await;
    let folder = tempfile::Builder::new().prefix("cdc-audit-tenants-").tempdir().expect("a temporary folder");
    let root = folder.path().display();
    let keys = format!("url = \"{root}/of-{{tenant}}\"\nhome = \"{root}/home\"");
    let world = World::on(server)
        .sql(TABLES)
        .tables(RULE)
        .lake_in(&keys, Some(folder.path().join("home")))
        .baseline()
        .unwitnessed()
        .build()
        .await;
    assert!(world.succeed(&["check"]).contains("0 tenants are known"));
    for (round, fault) in [
        "lake::after_put=kill@3",
        "lake::before_commit=kill@4",
        "lake::after_commit=kill@6",
        "lake::before_checkpoint=kill@2",
    ]
    .into_iter()
    .enumerate()
    {
        let mut daemon = world.launch().environment("CDC_AUDIT_FAULTS", fault).start();
        server.execute(&world.database, &CHANGES.replace("1000", &format!("{}000", round + 1)));
        assert!(!daemon.wait().success(), "{fault} was never reached");
    }
    world.catch_up().await;
    server.execute(&world.database, CHANGES);
    let is_read = || {
        let log = lake::Snapshot::read(&folder.path().join("home/public.orders"));
        log.transactions.get("shop/chunks_done") == Some(&1)
    };
    if !is_read() {
        let mut daemon = world.launch().start();
        daemon.wait_for("rows that existed are read", |_| is_read());
        assert!(daemon.stop().success(), "{}", daemon.output());
    }
    server.execute(&world.database, "UPDATE orders SET account = 'T1/..' WHERE id = 1");
    world.catch_up().await;

    let recorded = world.recorded().await;
    let (by_log, by_listing) = (all(folder.path(), lake::by_log), all(folder.path(), lake::by_listing));
    let streamed =
        |trail: &[Version]| trail.iter().filter(|version| version.event != "snapshot").cloned().collect::<Vec<_>>();
    let wrong = [
        trail::flaws(&by_log),
        trail::flaws(&by_listing),
        trail::differences("Delta log", &by_log, "listing", &by_listing),
        trail::differences("hot", &streamed(&recorded.hot), "lake", &streamed(&by_log)),
    ];
    assert!(wrong.concat().is_empty(), "{}", wrong.concat().join("\n"));
    let mut keys: Vec<_> = by_log.iter().filter(|version| version.event == "snapshot").map(|v| v.key.clone()).collect();
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count, "a row was read into two stores");

    ask(&world, &by_log);
    // A partition that is still written to is compacted when it has eight files.
    for _ in 0..6 {
        server.execute(&world.database, "UPDATE orders SET total = total + 1 WHERE account = 'T1/..'");
        world.catch_up().await;
    }
    compact(&world, folder.path());
}

/// Compacts the files of one tenant, and of no other.
fn compact(world: &World, folder: &Path) {
    let before = all(folder, lake::by_log);
    let count = |lake: &Path| lake::tables(lake).values().map(|table| lake::files(&table.join("data")).len()).sum();
    let files = || stores(folder).iter().map(|(_, path)| count(path)).collect::<Vec<usize>>();
    let (had, home) = (files(), format!("home = \"{}/home\"", folder.display()));
    assert!(world.command(&["compact", "--tenant", "T1/.."]).status.code() == Some(2), "readers list");
    world.edit_config(&home, &format!("{home}\nlisting_readers = false\ngrace = \"0 s\""));
    let done = world.succeed(&["compact", "--tenant", "T1/..", "--table", "public.orders", "--json"]);
    let done: serde_json::Value = serde_json::from_str(done.trim()).expect("one line of JSON");
    assert_eq!(
        (&done["tenant"], &done["table"], &done["into"]),
        (&"T1/..".into(), &"public.orders".into(), &1.into()),
        "{done}"
    );
    world.succeed(&["compact", "--tenant", "T1/.."]);
    let has = files();
    assert!(has[2] < had[2], "{has:?} after {had:?}");
    assert_eq!((&has[..2], has[3]), (&had[..2], had[3]));
    let after = all(folder, lake::by_log);
    assert!(trail::differences("before", &before, "after", &after).is_empty());
    assert!(trail::differences("before", &before, "listing", &all(folder, lake::by_listing)).is_empty());
    let unknown = world.command(&["compact", "--tenant", "nobody"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("nobody"), "{unknown:?}");
}

/// Checks what the commands and DuckDB show of one tenant.
fn ask(world: &World, versions: &[Version]) {
    let tenant = "T1/..";
    let own = versions.iter().filter(|version| version.tenant.as_deref() == Some(tenant)).count();
    let of_all =
        versions.iter().filter(|version| version.key.as_deref() == Some("1") && version.table == "public.orders");
    let archive = ["--from", "archive"];
    let history = |more: &[&str]| -> usize {
        let asked = [&["history", "public.orders", "1", "--json"], &archive[..], more].concat();
        world.succeed(&asked).lines().count()
    };
    let (all, moved) =
        (of_all.clone().count(), of_all.filter(|version| version.tenant.as_deref() == Some("T0/..")).count());
    assert_eq!(history(&[]), all);
    assert_eq!(history(&["--tenant", "T0/.."]), moved);
    assert!(moved > 0 && moved < all, "{moved} of {all}");
    assert!(world.succeed(&["check"]).contains("3 tenants are known"));

    let to = world.path("handover");
    world.succeed(&["export", "--from", "archive", "--tenant", tenant, "--to", to.to_str().expect("a plain name")]);
    let manifest = std::fs::read_to_string(to.join("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["rows"], own, "{manifest}");
    assert_eq!(manifest["files"][0]["path"], "tenant=T1--2f../public.orders.jsonl", "{manifest}");
    let to = world.path("everything");
    world.succeed(&["export", "--from", "archive", "--to", to.to_str().expect("a plain name")]);
    let manifest = std::fs::read_to_string(to.join("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["rows"], versions.len(), "{manifest}");

    // Hot and lake are not combined, and that is said.
    let to = world.path("from one");
    let output = world.command(&["export", "--strict", "--to", to.to_str().expect("a plain name")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(9) && said.contains("archive was not read, because sinks that keep"),
        "{said}"
    );
    let output = world.command(&["history", "public.orders", "1", "--strict", "--tenant", tenant]);
    assert_eq!(output.status.code(), Some(0), "only the lake keeps tenants apart");

    // DuckDB reads the files of one tenant.
    let statements = world.succeed(&["ddl", "duckdb", "--plain", "--tenant", tenant]);
    let script = "import duckdb, sys\ndb = duckdb.connect()\ndb.execute(sys.argv[1])\n\
                  schema = db.execute(\"select table_schema from information_schema.tables where table_name = 'versions'\").fetchall()\n\
                  print(db.execute(f'select count(*), count(distinct position) from \"{schema[0][0]}\".versions').fetchall())";
    let output = Command::new(python()).args(["-c", script, &statements]).output();
    let output = output.expect("`cargo xtask test` installs the engines");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.trim(), format!("[({own}, {own})]"), "{}", String::from_utf8_lossy(&output.stderr));
}
