//! Puts known secrets into every protected column while everything goes wrong that can. Then every byte that the daemon
//! has written anywhere is searched for them.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

// Tables, rules, and the secrets in them.
mod secrets;

use std::path::Path;

use audit_testkit::{Kafka, Launch, Postgres, shared};
use cdc_audit_tests::traces::Traces;
use cdc_audit_tests::world::World;

use crate::secrets::{RULES, Secrets, TABLES};

/// Makes inserts, updates, deletes, changed keys and rollbacks, each with new secrets.
fn write(server: &Postgres, world: &World, secrets: &mut Secrets) {
    for _ in 0..3 {
        let (first, second, third) = (secrets.row(), secrets.row(), secrets.row());
        let sql = format!(
            "BEGIN; SELECT cdc_audit.set_context('{context}'); INSERT INTO people VALUES ({first}); COMMIT;
             INSERT INTO people VALUES ({second});
             UPDATE people SET ({columns}) = ROW({third}) WHERE id = '{key}';
             BEGIN; INSERT INTO people VALUES ({lost}); ROLLBACK;
             DELETE FROM people WHERE id = '{second_key}';",
            context = secrets.context(),
            first = first.values(),
            second = second.values(),
            third = third.values(),
            columns = secrets::COLUMNS,
            key = first.key(),
            second_key = second.key(),
            lost = secrets.row().values(),
        );
        server.execute(&world.database, &sql);
    }
}

/// Launches a daemon that logs everything, with its own temporary folder.
fn loud(world: &World, temporary: &Path) -> Launch {
    world.launch().environment("TMPDIR", temporary.to_str().expect("a plain name"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_secret_leaves_the_daemon() {
    let server = shared(15).await;
    let hot = Postgres::start(15);
    let kafka = Kafka::start();
    let mut secrets = Secrets::default();
    let stream = format!(
        "brokers = [\"{}\"]\nplain_text = true\ncompression = \"none\"\nformat = \"debezium\"\ntombstones = true",
        kafka.brokers()
    );
    let folder = tempfile::tempdir().expect("a folder");
    let keys = secrets.keys(&folder.path().join("hash"), &folder.path().join("rows"));
    let world = World::on(server)
        .protection(&keys)
        .sql(TABLES)
        .sql(&format!("INSERT INTO people VALUES ({})", secrets.row().values()))
        .tables(RULES)
        .lake("file_age = \"1 s\"\ncompression = \"none\"\nkeep_before = true")
        .hot("keep = [\"before\", \"after\"]")
        .hot_url(&hot.new_database().1)
        .kafka(&kafka.brokers(), &stream)
        .sections("[log]\nlevel = \"trace\"")
        .unwitnessed()
        .listening()
        .baseline()
        .build()
        .await;
    let temporary = world.path("temporary");
    std::fs::create_dir(&temporary).expect("a folder");
    let mut traces = Traces::default();

    // The daemon is killed at fault points, and gets errors from the lake.
    for fault in [
        "hot::before_commit=kill@2",
        "lake::after_put=kill@1",
        "kafka::before_commit=kill@1",
        "lake::before_checkpoint=kill@1",
    ] {
        write(server, &world, &mut secrets);
        let mut daemon = loud(&world, &temporary).environment("CDC_AUDIT_FAULTS", fault).start();
        traces.while_it_runs(&world, &mut daemon);
        traces.output(fault, daemon);
        traces.folder("temporary files", &temporary);
    }
    for fault in ["lake::before_put=50%return", "lake::after_commit=50%return"] {
        write(server, &world, &mut secrets);
        let mut daemon = loud(&world, &temporary).environment("FAILPOINTS", fault).start();
        traces.while_it_runs(&world, &mut daemon);
        traces.output(fault, daemon);
    }
    // The disk seems to be full: no file can become larger than 32 KiB.
    write(server, &world, &mut secrets);
    let full = ["bash", "-c", "trap '' XFSZ; ulimit -f 32; exec \"$@\"", "bash"];
    let mut daemon = loud(&world, &temporary).through(&full).start();
    traces.while_it_runs(&world, &mut daemon);
    traces.output("a full disk", daemon);

    // A version that the hot database refuses is quarantined.
    let rule = "ALTER TABLE cdc_audit.versions ADD CONSTRAINT mine CHECK (event <> 'truncated') NOT VALID";
    world.hot().await.batch_execute(rule).await.expect("a constraint");
    server.execute(&world.database, "TRUNCATE other");
    server.execute(
        &world.database,
        &format!("INSERT INTO other VALUES (1, '{}'); TRUNCATE other", secrets.word("refused")),
    );
    let mut daemon = loud(&world, &temporary).start();
    let line = daemon.wait_for_line("the sink refuses a version and waits");
    let position =
        line.split("--quarantine ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a position");
    world.succeed(&["resume", "--sink", "hot", "--quarantine", position]);
    daemon.wait_for_line("the version is quarantined");
    traces.while_it_runs(&world, &mut daemon);
    traces.output("a refused version", daemon);
    world
        .hot()
        .await
        .batch_execute("ALTER TABLE cdc_audit.versions DROP CONSTRAINT mine")
        .await
        .expect("no constraint");

    // The daemon runs undisturbed to the end, and then the commands run.
    write(server, &world, &mut secrets);
    world.catch_up().await;
    for arguments in [
        &["check"][..],
        &["plan"],
        &["config", "--effective"],
        &["history", "public.people", secrets.a_key()],
        &["history", "public.people", secrets.a_key(), "--json", "--from", "archive"],
        &["export", "--table", "public.people", "--to", world.path("export").to_str().expect("a plain name")],
        &["ddl", "duckdb"],
    ] {
        traces.command(arguments, &world.command(arguments));
    }
    traces.folder("exported files", &world.path("export"));
    traces.folder("temporary files", &temporary);
    traces.lake(&world.lake);
    traces.kafka(&kafka.brokers());
    traces.database(&world.hot().await).await;
    hot.stop(audit_testkit::Shutdown::Fast);
    traces.folder("the hot server's files", &hot.data_dir());
    assert!(traces.bytes() > 1 << 20, "there is too little to search: {} bytes", traces.bytes());
    // Each sink contains what protection left.
    let sinks = ["table cdc_audit", "values of", "the lake", "topic"];
    traces.hold(&sinks, &["hmac-sha256:k1:", "z***@example.com", "[REDACTED]", "paid with ****"]);

    let mut found = traces.search(&secrets.forms());
    // `history` repeats the key in its argument.
    found.retain(|(what, place)| place != "what history prints" || !secrets.is_a_key_of_a_row(what));
    assert!(found.is_empty(), "{} places, among them:\n{:#?}", found.len(), &found[..found.len().min(12)]);
}
