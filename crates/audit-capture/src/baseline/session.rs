//! Sessions of a baseline: opened when needed, and opened again when lost.

use std::sync::Arc;

use audit_connect::{PgEndpoint, connect};
use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::error::BaselineError;
use crate::query::QueryError;

/// The `application_name` of these sessions.
const APPLICATION_NAME: &str = "cdc-audit baseline";

/// A session that reads chunks, for one table at a time.
pub(super) struct Reader {
    endpoint: PgEndpoint,
    open: Option<(Client, i32)>,
}

impl Reader {
    pub fn new(endpoint: PgEndpoint) -> Reader {
        Reader { endpoint, open: None }
    }

    /// The session and the process id of its backend.
    pub async fn get(&mut self) -> Result<(&Client, i32), BaselineError> {
        let open = match self.open.take().filter(|(client, _)| !client.is_closed()) {
            Some(open) => open,
            None => {
                let client = connect(&self.endpoint, APPLICATION_NAME).await?;
                let lost = |error| QueryError::new("ask for the session's process", error);
                let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(lost)?.get(0);
                (client, pid)
            }
        };
        let (client, pid) = self.open.insert(open);
        Ok((client, *pid))
    }

    /// Drops a session that may be in the middle of something.
    pub fn close(&mut self) {
        self.open = None;
    }
}

/// The session for short statements: bounds, watermarks, snapshots. It is shared, because its statements do not depend
/// on one another.
pub(super) struct Control {
    endpoint: PgEndpoint,
    open: Mutex<Option<Arc<Client>>>,
}

impl Control {
    pub fn new(endpoint: PgEndpoint) -> Control {
        Control { endpoint, open: Mutex::new(None) }
    }

    pub async fn get(&self) -> Result<Arc<Client>, BaselineError> {
        let mut open = self.open.lock().await;
        if let Some(client) = open.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let client = connect(&self.endpoint, APPLICATION_NAME).await?;
        // A watermark has to be in the WAL, not on standbys: otherwise a standby that is down would stop the baseline.
        // A look-up that waits for a lock delays all tables, so it fails early and is tried again.
        let failed = |error| QueryError::new("prepare a session", error);
        client.batch_execute("SET synchronous_commit TO local; SET lock_timeout TO '5s'").await.map_err(failed)?;
        Ok(open.insert(Arc::new(client)).clone())
    }
}
