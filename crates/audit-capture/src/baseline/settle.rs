//! What has to end before a table can be read: [`Standing`].
//!
//! Of the transactions that the stream has delivered the stage says which a reader may not see yet. But what was delivered before this
//! stream began, to an earlier process, it does not know; nor what a transaction wrote before its table was published, which the stream
//! never has. Both hold a lock on the table until they are visible: so whoever holds one when a table's turn comes is waited for, once.

use std::collections::{HashMap, HashSet};

use audit_core::baseline::snapshot::Snapshot;
use serde::Deserialize;
use tokio_postgres::Client;

use super::error::BaselineError;
use crate::query::{QueryError, row};

/// The server at one moment.
pub(super) struct Standing {
    pub snapshot: Snapshot,
    /// Virtual transactions that hold a lock for writing, by the table's oid and that of each table that it is a partition of.
    writers: HashMap<u32, HashSet<String>>,
}

#[derive(Deserialize)]
struct Found {
    writers: Option<Vec<(u32, String)>>,
}

impl Standing {
    /// The locks are looked at first: who holds none by then is in the snapshot.
    pub async fn read(client: &Client) -> Result<Standing, BaselineError> {
        let sql = include_str!("../sql/writers.sql");
        let found: Found = row(client, "read the locks on tables", sql, &[]).await?;
        let mut writers: HashMap<u32, HashSet<String>> = HashMap::new();
        for (oid, transaction) in found.writers.unwrap_or_default() {
            writers.entry(oid).or_default().insert(transaction);
        }
        Ok(Standing { snapshot: snapshot(client).await?, writers })
    }

    /// Who writes to the table now.
    pub fn writers(&self, oid: u32) -> HashSet<String> {
        self.writers.get(&oid).cloned().unwrap_or_default()
    }

    /// Whether none of `before` writes to the table any more.
    pub fn has_settled(&self, oid: u32, before: &HashSet<String>) -> bool {
        self.writers.get(&oid).is_none_or(|now| now.is_disjoint(before))
    }
}

/// What a reader would see now.
pub(super) async fn snapshot(client: &Client) -> Result<Snapshot, BaselineError> {
    let failed = |error| QueryError::new("read the server's snapshot", error);
    let row = client.query_one("SELECT pg_current_snapshot()::text", &[]).await.map_err(failed)?;
    let text: String = row.try_get(0).map_err(failed)?;
    Ok(text.parse()?)
}
