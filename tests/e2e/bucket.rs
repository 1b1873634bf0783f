use audit_testkit::{Fault, FaultProxy, ObjectKind, ObjectServer, shared, unique};
use cdc_audit_tests::world::World;

const TABLE: &str = "CREATE TABLE items (id int PRIMARY KEY, name text); ALTER TABLE items REPLICA IDENTITY FULL";

const CHANGES: &str = "INSERT INTO items SELECT i, 'n' || i FROM generate_series(1, 50) AS i; \
                       UPDATE items SET name = 'x' WHERE id = 7; DELETE FROM items WHERE id = 7";

/// Lists the events of a history in JSON, newest first.
fn events(json_lines: &str) -> Vec<String> {
    let event = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).expect("a record");
        record["event"].as_str().expect("an event").to_owned()
    };
    json_lines.lines().map(event).collect()
}

/// Compares the lake with everything that is known of the source: the objects are files, which the tests' own readers
/// read.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_in_a_bucket_has_everything_once() {
    for kind in [ObjectKind::S3, ObjectKind::Gcs] {
        compared(kind).await;
    }
}

async fn compared(kind: ObjectKind) {
    let (server, store) = (shared(15).await, ObjectServer::shared(kind).await);
    let prefix = unique("lake");
    let keys = store.lake(&prefix, store.port());
    let world = World::on(server).sql(TABLE).lake_in(&keys, Some(store.folder(&prefix))).build().await;
    for _ in 0..3 {
        server.execute(&world.database, CHANGES);
        server.execute(&world.database, "DELETE FROM items");
        world.catch_up().await;
    }
    world.check().await;
    let said = world.succeed(&["history", "public.items", "7", "--from", "archive", "--json"]);
    assert_eq!(events(&said), ["deleted", "updated", "created"].repeat(3));
}

/// The program works the same with every cloud: it checks, writes, answers queries and exports.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_in_any_bucket_answers() {
    for kind in ObjectKind::ALL {
        let (server, store) = (shared(15).await, ObjectServer::shared(kind).await);
        let keys = store.lake(&unique("lake"), store.port());
        let world = World::on(server).sql(TABLE).without_hot().unwitnessed().lake_in(&keys, None).build().await;
        assert!(world.succeed(&["check"]).contains("`cdc-audit run` would start"));
        server.execute(&world.database, CHANGES);
        world.catch_up().await;
        let said = world.succeed(&["history", "public.items", "7", "--json"]);
        assert_eq!(events(&said), ["deleted", "updated", "created"], "{kind:?}");
        let rules: serde_json::Value = serde_json::from_str(&world.succeed(&["lifecycle"])).expect("rules");
        assert!(rules.to_string().contains("/public.items/data/\""), "{kind:?}: {rules}");
        let to = world.path("handover");
        world.succeed(&["export", "--table", "public.items", "--to", to.to_str().expect("a plain name")]);
        let lines = std::fs::read_to_string(to.join("public.items.jsonl")).expect("an export");
        assert_eq!(lines.lines().count(), 52, "{kind:?}");
    }
}

/// ⚠ On a store that ignores conditions two daemons would overwrite each other: `check` fails, and `run` does not
/// start.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_conditional_puts_is_refused() {
    let (server, store) = (shared(15).await, ObjectServer::shared(ObjectKind::Gcs).await);
    let proxy = FaultProxy::to(store.port());
    proxy.plan(|_, _| Some(Fault::Unconditional));
    let keys = store.lake(&unique("lake"), proxy.port());
    let world = World::on(server).sql(TABLE).without_hot().unwitnessed().lake_in(&keys, None).build().await;
    let checked = world.command(&["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success() && said.contains("the store ignores conditional puts"), "{said}");
    let mut daemon = world.launch().start();
    assert!(!daemon.wait().success());
    assert!(daemon.output().contains("the store ignores conditional puts"), "{}", daemon.output());
}
