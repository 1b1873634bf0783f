//! The transactions that have to end before a table can be read: [`Standing`].
//!
//! The stage reports which of the transactions that the stream has delivered a reader may not see yet. But it does not
//! know what was delivered to an earlier process, before this stream began; and the stream never has what a transaction
//! wrote before its table was published. Both kinds of transactions hold a lock on the table until they are visible. So
//! when it is a table's turn, the runner waits once for all transactions that hold such a lock.

use std::collections::{HashMap, HashSet};

use audit_core::baseline::snapshot::Snapshot;
use serde::Deserialize;
use tokio_postgres::Client;

use super::error::BaselineError;
use crate::query::{QueryError, row};

/// The state of the server at one moment.
pub(super) struct Standing {
    pub snapshot: Snapshot,
    /// Virtual transactions that hold a lock for writing, by the oid of the table and of each table that it is a
    /// partition of.
    writers: HashMap<u32, HashSet<String>>,
}

#[derive(Deserialize)]
struct Found {
    writers: Option<Vec<(u32, String)>>,
}

impl Standing {
    /// Reads the locks before the snapshot: a transaction that holds no lock by then is in the snapshot.
    pub async fn read(client: &Client) -> Result<Standing, BaselineError> {
        let sql = include_str!("../sql/writers.sql");
        let found: Found = row(client, "read the locks on tables", sql, &[]).await?;
        let mut writers: HashMap<u32, HashSet<String>> = HashMap::new();
        for (oid, transaction) in found.writers.unwrap_or_default() {
            writers.entry(oid).or_default().insert(transaction);
        }
        Ok(Standing { snapshot: snapshot(client).await?, writers })
    }

    /// The transactions that write to the table now.
    pub fn writers(&self, oid: u32) -> HashSet<String> {
        self.writers.get(&oid).cloned().unwrap_or_default()
    }

    /// Whether none of `before` still writes to the table.
    pub fn has_settled(&self, oid: u32, before: &HashSet<String>) -> bool {
        self.writers.get(&oid).is_none_or(|now| now.is_disjoint(before))
    }
}

/// The snapshot that a reader would have now.
pub(super) async fn snapshot(client: &Client) -> Result<Snapshot, BaselineError> {
    let failed = |error| QueryError::new("read the server's snapshot", error);
    let row = client.query_one("SELECT pg_current_snapshot()::text", &[]).await.map_err(failed)?;
    let text: String = row.try_get(0).map_err(failed)?;
    Ok(text.parse()?)
}
