use audit_testkit::{Postgres, shared};
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::workload::random::{Options, Workload, has_xml};
use cdc_audit_tests::world::World;
use cdc_audit_tests::{majors, seed, thorough};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_is_recorded_under_full() {
    let seed = seed();
    for major in majors() {
        check(shared(major).await, seed, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_is_recorded_under_the_default_identity() {
    let seed = seed();
    for major in majors() {
        check(shared(major).await, seed, false).await;
    }
}

async fn check(server: &'static Postgres, seed: u64, full: bool) {
    let (name, url) = server.new_database();
    let xml = has_xml(&audit_testkit::connect(&url).await).await;
    let options = Options { major: server.major(), full, xml };
    let mut workload = Workload::new(seed, options);
    let mut builder = World::on(server).source(&name, &url).full(full).sql(&workload.tables());
    if full {
        // In tables without a key, only the row before identifies a row.
        builder = builder.keep_rows();
    }
    let world = builder.build().await;
    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    for _ in 0..if thorough() { 600 } else { 80 } {
        server.execute(&world.database, &workload.transaction());
    }
    assert!(daemon.stop().success(), "{}", daemon.output());
    // The rest is read after the catalog has changed.
    for _ in 0..20 {
        server.execute(&world.database, &workload.transaction());
    }
    world.catch_up().await;
    world.check().await;
}

/// Sessions wait for each other, fail because of each other's locks, and commit in an arbitrary order.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_sessions_are_recorded_in_the_order_of_their_commits() {
    let seed = seed();
    let server = shared(15).await;
    let tables = "CREATE TABLE accounts (id int PRIMARY KEY, balance int, note text); \
                  CREATE TABLE transfers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, source int, target int, amount int)";
    for full in [false, true] {
        let identity = if full {
            "ALTER TABLE accounts REPLICA IDENTITY FULL; ALTER TABLE transfers REPLICA IDENTITY FULL"
        } else {
            ""
        };
        let world = World::on(server).full(full).sql(&format!("{tables};{identity}")).build().await;
        server.execute(&world.database, "INSERT INTO accounts SELECT i, 100, '' FROM generate_series(0, 19) AS i");
        let mut daemon = world.launch().start();
        let mut dice = Dice::new(seed);
        let sessions = (0..6).map(|_| {
            let (url, mut dice) = (world.url.clone(), dice.fork());
            tokio::spawn(async move {
                let client = audit_testkit::connect(&url).await;
                for _ in 0..150 {
                    transfer(&client, &mut dice).await;
                }
            })
        });
        for session in sessions.collect::<Vec<_>>() {
            session.await.expect("a session ends well");
        }
        assert!(daemon.stop().success(), "{}", daemon.output());
        world.catch_up().await;
        world.check().await;
    }
}

/// Makes one transfer; a deadlock may roll it back, which is part of the test.
async fn transfer(client: &tokio_postgres::Client, dice: &mut Dice) {
    let (source, target, amount) = (dice.below(20), dice.below(20), dice.below(50));
    let end = if dice.one_in(8) { "ROLLBACK" } else { "COMMIT" };
    let sql = format!(
        "BEGIN; UPDATE accounts SET balance = balance - {amount} WHERE id = {source}; \
         INSERT INTO transfers (source, target, amount) VALUES ({source}, {target}, {amount}); \
         SAVEPOINT s; UPDATE accounts SET note = note || 'x' WHERE id = {amount}; ROLLBACK TO s; \
         UPDATE accounts SET balance = balance + {amount} WHERE id = {target}; {end}"
    );
    if client.batch_execute(&sql).await.is_err() {
        client.batch_execute("ROLLBACK").await.expect("the session lives");
    }
}
