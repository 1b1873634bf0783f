use audit_testkit::shared;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdc_audit_tests::receiver::{Receiver, Request, messages};
use cdc_audit_tests::world::World;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::shop::{TABLE, compare, world, write};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn header<'r>(request: &'r Request, name: &str) -> &'r str {
    request.headers[name].to_str().unwrap()
}

/// Verifies a request as a receiver does according to the specification.
fn is_signed(request: &Request) -> bool {
    let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.", header(request, "webhook-id"), header(request, "webhook-timestamp")).as_bytes());
    mac.update(&request.body);
    let signature = header(request, "webhook-signature").strip_prefix("v1,").unwrap();
    mac.verify_slice(&STANDARD.decode(signature).unwrap()).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_arrives_signed_and_in_order() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&secret, SECRET).unwrap();
    let keys =
        format!("secret = {{ file = \"{}\" }}\nbatch_rows = 40\nbatch_bytes = \"8 KiB\"", secret.path().display());
    let world = world(server, &receiver, &keys).build().await;
    let said = world.succeed(&["check"]);
    assert!(said.contains("http://127.0.0.1") && said.contains("answers; the checkpoint lies in"), "{said}");
    assert_eq!(receiver.requests().len(), 0, "check sends no version");
    write(server, &world, 1, 100);
    world.catch_up().await;
    compare(&world, &receiver).await;
    let requests = receiver.requests();
    assert!(requests.len() >= 8, "{}", requests.len());
    for request in &requests {
        assert!(is_signed(request));
        let positions: Vec<String> =
            messages(request).iter().map(|message| message["position"].as_str().unwrap().to_owned()).collect();
        let id = format!("shop/hook/{}-{}/", positions.first().unwrap(), positions.last().unwrap());
        let key = header(request, "idempotency-key");
        assert!(key.starts_with(&id) && key.len() == id.len() + 16, "{key}");
        assert_eq!(header(request, "webhook-id"), key);
        assert!(
            positions.len() <= 40 && request.body.len() <= 8 << 10,
            "{} in {}",
            positions.len(),
            request.body.len()
        );
        assert_eq!(header(request, "content-type"), "application/json");
    }
    // Messages that were accepted and are in the checkpoint are not sent again.
    world.catch_up().await;
    assert_eq!(receiver.requests().len(), requests.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_in_lines_or_lists() {
    let server = shared(15).await;
    for (keys, content_type, shown) in [
        ("body = \"lines\"", "application/x-ndjson", "/event"),
        ("format = \"cloudevents\"", "application/cloudevents-batch+json", "/data/event"),
        ("format = \"cloudevents\"\nbody = \"lines\"", "application/x-ndjson", "/data/event"),
        ("format = \"debezium\"", "application/json", "/payload/op"),
        ("format = \"debezium\"\ninline_schema = false\nbody = \"lines\"", "application/x-ndjson", "/op"),
    ] {
        let receiver = Receiver::start().await;
        let world = world(server, &receiver, keys).build().await;
        write(server, &world, 1, 3);
        world.catch_up().await;
        let requests = receiver.requests();
        assert!(requests.iter().all(|request| request.headers["content-type"] == content_type), "{keys}");
        let mut events: Vec<Value> =
            receiver.taken().iter().map(|message| message.pointer(shown).expect(keys).clone()).collect();
        assert_eq!(events.len(), 9, "{keys}");
        events.dedup();
        let expected = if keys.contains("debezium") { ["c", "u", "d"] } else { ["created", "updated", "deleted"] };
        assert_eq!(events, expected, "{keys}");
        if let Some(database) = receiver.taken()[0].pointer("/payload/source/db") {
            assert_eq!(database, world.database.as_str());
        }
    }
}

/// Without a hot sink the checkpoint is in the source, and the daemon's role needs only the privileges that setup
/// grants.
#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_can_lie_in_the_source() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    let role = audit_testkit::unique("hook");
    server.execute("postgres", &format!("CREATE ROLE {role} LOGIN REPLICATION"));
    let (name, url) = server.new_database();
    let own = url.replace("postgres@", &format!("{role}@"));
    let world = World::on(server)
        .source(&name, &own)
        .without_hot()
        .without_lake()
        .unwitnessed()
        .sql(&format!("{TABLE}; GRANT SELECT ON t TO {role}"))
        .sections(&receiver.section(""))
        .not_set_up()
        .build()
        .await;
    let planned = world.succeed(&["setup", "--as", &url, "--dry-run"]);
    assert!(planned.contains("cdc_audit.checkpoints") && !planned.contains("cdc_audit.versions"), "{planned}");
    world.succeed(&["setup", "--as", &url]);
    world.succeed(&["setup", "--as", &url]);
    world.succeed(&["check"]);
    server.execute(&world.database, "INSERT INTO t SELECT i, 'n' FROM generate_series(1, 10) AS i");
    world.catch_up().await;
    assert_eq!(receiver.taken().len(), 10);
    server.execute(&world.database, "DELETE FROM t");
    world.catch_up().await;
    assert_eq!(receiver.taken().len(), 20);
    let denied = world.command(&["history", "public.t", "1"]);
    assert!(String::from_utf8_lossy(&denied.stderr).contains("there is no sink to read from"), "{denied:?}");
    world.succeed(&["teardown", "--as", &url, "--yes"]);
    server.execute("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
    server.execute("postgres", &format!("DROP ROLE {role}"));
}

/// Rows that existed before capture are delivered too.
#[tokio::test(flavor = "multi_thread")]
async fn a_baseline_arrives() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    let world = world(server, &receiver, "batch_rows = 30")
        .sql("INSERT INTO t SELECT i, 'n' FROM generate_series(1, 100) AS i")
        .baseline()
        .build()
        .await;
    let mut daemon = world.launch().start();
    daemon.wait_for("the baseline", |_| receiver.taken().len() >= 100);
    assert!(daemon.stop().success());
    let taken = receiver.taken();
    assert!(taken.iter().all(|message| message["event"] == "snapshot" && message["baseline"] == 1), "{taken:?}");
    let mut daemon = world.launch().start();
    server.execute(&world.database, "INSERT INTO t VALUES (101, 'n')");
    daemon.wait_for("the next version", |_| receiver.taken().len() >= 101);
    assert!(daemon.stop().success());
    assert_eq!(receiver.taken().len(), 101, "no row came twice");
}
