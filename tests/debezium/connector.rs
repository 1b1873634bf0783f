//! A sink connector that was made for Debezium reads our topics unchanged: the table that it writes equals the
//! source's.

use audit_testkit::{Connect, Kafka, shared};
use cdc_audit_tests::world::World;

/// A table with one column of every kind that the connector can make.
const TABLE: &str = "CREATE TABLE orders (id int8, part text, name text, price numeric(10,2), total numeric, amount int4, small int2, ratio float8, \
     half float4, paid bool, day date, at timestamp, seen timestamptz, clock time, doc jsonb, token uuid, raw bytea, PRIMARY KEY (id, part)); \
     ALTER TABLE orders REPLICA IDENTITY FULL; CREATE SCHEMA side; CREATE TABLE side.notes (id int4 PRIMARY KEY, text text)";

const CHANGES: &str = "INSERT INTO orders SELECT i, 'p' || i % 3, 'name ' || i, i * 1.25, i / 7.0, i, i % 100, i / 3.0, i / 2.0, i % 2 = 0, \
     date '2026-01-01' + i, timestamp '2026-01-01 00:00:00.123456' + i * interval '1 hour', timestamptz '2026-01-01 00:00:00.5+00' + i * interval '1 minute', \
     time '00:00:00.25' + i * interval '1 minute', jsonb_build_object('i', i, 'text', 'é\"'), md5(i::text)::uuid, decode(md5(i::text), 'hex') \
     FROM generate_series(1, 200) AS i; \
     INSERT INTO orders (id, part) SELECT -i, 'null' FROM generate_series(1, 20) AS i; \
     UPDATE orders SET name = upper(name), price = -price WHERE id % 2 = 0; \
     UPDATE orders SET doc = NULL, seen = NULL, price = NULL WHERE id % 5 = 0; \
     UPDATE orders SET id = id + 1000 WHERE id BETWEEN 50 AND 99; \
     UPDATE orders SET part = 'moved' WHERE id BETWEEN 100 AND 120; \
     DELETE FROM orders WHERE id BETWEEN 1 AND 30 OR id = 1099; \
     INSERT INTO orders (id, part, name) VALUES (7, 'p1', 'again'); \
     INSERT INTO side.notes SELECT i, 'note ' || i FROM generate_series(1, 50) AS i; \
     UPDATE side.notes SET id = -id WHERE id < 10; DELETE FROM side.notes WHERE id > 40";

/// Reads a table as text, through the given expressions for its columns.
async fn rows(client: &tokio_postgres::Client, table: &str, columns: &str, order: &str) -> Option<Vec<String>> {
    let statement = format!("SELECT row_to_json(r)::text FROM (SELECT {columns} FROM {table} ORDER BY {order}) AS r");
    let rows = client.query(&statement, &[]).await.ok()?;
    Some(rows.iter().map(|row| row.get(0)).collect())
}

const ORDERS: &str = "id, part, name, price::text, total::float8::text, amount, small, ratio, half, paid, day::text, at::text, \
     seen::timestamptz::text, clock::time::text, doc::jsonb::text, token::text, raw::text";

#[tokio::test(flavor = "multi_thread")]
async fn debeziums_jdbc_sink_reads_our_topics() {
    let (server, kafka) = (shared(15).await, Kafka::shared().await);
    let (target, target_url) = server.new_database();
    let sink = format!(
        "[sinks.events]\ntype = \"kafka\"\nbrokers = [\"{}\"]\nplain_text = true\nformat = \"debezium\"\ncommit_after = \"200 ms\"\n",
        kafka.brokers()
    );
    let world = World::on(server).without_hot().without_lake().unwitnessed().sql(TABLE).sections(&sink).build().await;
    // Half of the changes are there before the connector starts.
    server.execute(&world.database, CHANGES);
    world.catch_up().await;
    let connect = Connect::to_postgres(&kafka.brokers(), "shop\\\\.(public|side)\\\\..*", server.port(), &target);
    server.execute(
        &world.database,
        "UPDATE orders SET amount = amount + 1 WHERE id > 0; DELETE FROM side.notes WHERE id = 20",
    );
    world.catch_up().await;

    let (ours, theirs) = (world.client().await, audit_testkit::connect(&target_url).await);
    let begun = std::time::Instant::now();
    for (source, written, columns, order) in
        [("orders", "shop_public_orders", ORDERS, "id, part"), ("side.notes", "shop_side_notes", "id, text", "id")]
    {
        let expected = rows(&ours, source, columns, order).await.expect("the source's rows");
        assert!(expected.len() > 30);
        loop {
            let found = rows(&theirs, written, columns, order).await;
            if found.as_ref() == Some(&expected) {
                break;
            }
            if begun.elapsed() > std::time::Duration::from_secs(180) {
                let found = found.unwrap_or_default();
                let differ = expected.iter().zip(&found).find(|(expected, found)| expected != found);
                let log = connect.log();
                let log: String =
                    log.lines().filter(|line| line.contains("ERROR") || line.contains("Exception")).take(20).collect();
                panic!("{written}: {} rows of {}, {differ:?}\n{log}", found.len(), expected.len());
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
    drop((connect, ours, theirs));
    server.execute("postgres", &format!("DROP DATABASE {target} WITH (FORCE)"));
}
