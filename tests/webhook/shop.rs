//! A source with one table, and what a receiver must have got from it.

use std::collections::HashSet;

use audit_testkit::Postgres;
use cdc_audit_tests::receiver::Receiver;
use cdc_audit_tests::world::{Builder, World};
use serde_json::Value;

pub const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, name text); ALTER TABLE t REPLICA IDENTITY FULL";

/// Makes a source with one table, a hot database, and the receiver as a sink.
pub fn world<'p>(server: &'p Postgres, receiver: &Receiver, keys: &str) -> Builder<'p> {
    World::on(server).without_lake().unwitnessed().sql(TABLE).sections(&receiver.section(keys))
}

/// Inserts, updates and deletes `count` rows, which makes three times as many versions.
pub fn write(server: &Postgres, world: &World, first: u32, count: u32) {
    let last = first + count - 1;
    let sql = format!(
        "INSERT INTO t SELECT i, 'n' || i FROM generate_series({first}, {last}) AS i; \
         UPDATE t SET name = name || '!' WHERE id BETWEEN {first} AND {last}; DELETE FROM t WHERE id BETWEEN {first} AND {last}"
    );
    server.execute(&world.database, &sql);
}

/// Checks that everything in the hot table has arrived, that nothing else did, and that the order is the same except
/// for repeats.
pub async fn compare(world: &World, receiver: &Receiver) {
    let positions = |taken: &[Value]| -> Vec<String> {
        let mut seen = HashSet::new();
        let position = |message: &Value| message["position"].as_str().unwrap().to_owned();
        taken.iter().map(position).filter(|position| seen.insert(position.clone())).collect()
    };
    let statement = "SELECT position FROM cdc_audit.versions ORDER BY position";
    let rows = world.hot().await.query(statement, &[]).await.unwrap();
    let stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let arrived = positions(&receiver.taken());
    assert_eq!(arrived.len(), stored.len());
    assert!(arrived == stored, "the order is another");
}
