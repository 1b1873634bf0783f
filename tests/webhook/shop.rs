//! A source with one table, and what a receiver must have of it.

use std::collections::HashSet;

use audit_testkit::Postgres;
use cdc_audit_tests::receiver::Receiver;
use cdc_audit_tests::world::{Builder, World};
use serde_json::Value;

pub const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, name text); ALTER TABLE t REPLICA IDENTITY FULL";

/// A source with one table, a hot database, and the receiver.
pub fn world<'p>(server: &'p Postgres, receiver: &Receiver, keys: &str) -> Builder<'p> {
    World::on(server).without_lake().unwitnessed().sql(TABLE).sections(&receiver.section(keys))
}

/// Rows that come, change and go: so many versions thrice.
pub fn write(server: &Postgres, world: &World, first: u32, count: u32) {
    let last = first + count - 1;
    let sql = format!(
        "INSERT INTO t SELECT i, 'n' || i FROM generate_series({first}, {last}) AS i; \
         UPDATE t SET name = name || '!' WHERE id BETWEEN {first} AND {last}; DELETE FROM t WHERE id BETWEEN {first} AND {last}"
    );
    server.execute(&world.database, &sql);
}

/// Everything that the hot table has arrived, nothing else did, and but for repeats in the same order.
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
