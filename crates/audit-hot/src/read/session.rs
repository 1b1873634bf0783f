//! The session of a reader: its statements are counted, and explained if that is asked for ([`Session`]).

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use audit_core::cost::Cost;
use serde_json::Value;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Client, Row};

use super::{ReadError, failed};

/// A session that notes what it is asked.
pub(super) struct Session {
    client: Client,
    /// Whether it is in the transaction of a look.
    pub looks: AtomicBool,
    explains: AtomicBool,
    cost: Mutex<Cost>,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Session {
    pub fn new(client: Client) -> Session {
        Session { client, looks: AtomicBool::new(false), explains: AtomicBool::new(false), cost: Mutex::default() }
    }

    /// Has the server explain each later statement before it is executed.
    pub fn explain(&self) {
        self.explains.store(true, Ordering::Relaxed);
    }

    /// What was asked so far.
    pub fn cost(&self) -> Cost {
        self.cost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Executes a query, and notes it.
    pub async fn read(
        &self,
        doing: &'static str,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, ReadError> {
        self.begin(doing, statement, parameters).await?;
        let rows = self.client.query(statement, parameters).await.map_err(failed(doing))?;
        self.count(doing, rows.len());
        Ok(rows)
    }

    /// Notes a query that is about to be executed.
    pub async fn begin(
        &self,
        doing: &'static str,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<(), ReadError> {
        let mut reads = BTreeMap::new();
        if self.explains.load(Ordering::Relaxed) {
            let explain = format!("EXPLAIN (FORMAT JSON) {statement}");
            let plan = self.client.query_one(&explain, parameters).await.map_err(failed("explaining a statement"))?;
            count_reads(&plan.get::<_, Json<Value>>(0).0, &mut reads);
            reads = self.of_whole_tables(reads).await?;
        }
        let mut cost = self.cost.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = cost.statement(doing);
        noted.times += 1;
        reads.into_iter().for_each(|(how, tables)| *noted.reads.entry(how).or_default() += tables);
        Ok(())
    }

    /// The same by the indexes of which those of partitions are parts.
    async fn of_whole_tables(&self, reads: BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>, ReadError> {
        let statement = "SELECT how, coalesce((SELECT relname::text FROM pg_catalog.pg_class WHERE oid = \
            pg_partition_root(to_regclass(format('cdc_audit.%I', index)))), index) \
            FROM unnest($1::text[]) AS how, LATERAL (SELECT split_part(how, ' by ', 2)) AS named (index)";
        let hows: Vec<&String> = reads.keys().collect();
        let rows = self.client.query(statement, &[&hows]).await.map_err(failed("explaining a statement"))?;
        let mut whole = BTreeMap::new();
        for row in rows {
            let (how, index): (&str, &str) = (row.get(0), row.get(1));
            let kind = how.split(" by ").next().unwrap_or_default();
            let name = if index.is_empty() { kind.to_owned() } else { format!("{kind} by {index}") };
            *whole.entry(name).or_default() += reads.get(how).copied().unwrap_or_default();
        }
        Ok(whole)
    }

    /// Adds rows that a query returned.
    pub fn count(&self, doing: &'static str, rows: usize) {
        let mut cost = self.cost.lock().unwrap_or_else(PoisonError::into_inner);
        cost.statement(doing).rows += rows as u64;
    }
}

/// How a plan reads tables: the kind of each scan, with the index it uses.
fn count_reads(plan: &Value, reads: &mut BTreeMap<String, u64>) {
    match plan {
        Value::Array(nodes) => nodes.iter().for_each(|node| count_reads(node, reads)),
        Value::Object(node) => {
            let text = |name: &str| node.get(name).and_then(Value::as_str);
            let kind = text("Node Type").unwrap_or_default();
            if let Some(index) = text("Index Name") {
                *reads.entry(format!("{kind} by {index}")).or_default() += 1;
            } else if kind == "Seq Scan" {
                *reads.entry(kind.to_owned()).or_default() += 1;
            }
            node.values().for_each(|value| count_reads(value, reads));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_are_counted_by_their_index() {
        let plan = r#"[{"Plan": {"Node Type": "Append", "Plans": [
            {"Node Type": "Seq Scan", "Relation Name": "versions_2026_03"},
            {"Node Type": "Bitmap Heap Scan", "Plans": [{"Node Type": "Bitmap Index Scan", "Index Name": "a"}]},
            {"Node Type": "Bitmap Heap Scan", "Plans": [{"Node Type": "Bitmap Index Scan", "Index Name": "a"}]}]}}]"#;
        let mut reads = BTreeMap::new();
        count_reads(&serde_json::from_str(plan).unwrap(), &mut reads);
        let reads: Vec<(&str, u64)> = reads.iter().map(|(how, count)| (how.as_str(), *count)).collect();
        assert_eq!(reads, [("Bitmap Index Scan by a", 2), ("Seq Scan", 1)]);
    }
}
