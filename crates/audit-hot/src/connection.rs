//! A connection to the hot database, before anything is checked, and statements that other sessions may block.

use std::time::Duration;

use audit_connect::{PgEndpoint, connect};
use audit_core::sink::SinkError;
use tokio_postgres::Client;

use crate::error::{failed, not_connected};

/// Begins a transaction that is on the server's disk when its COMMIT returns, whatever the defaults of role and
/// database are. The setting is made in each transaction, because the next transaction may run in another session.
pub(crate) const BEGIN: &str = "BEGIN; SET LOCAL synchronous_commit = on";

pub(crate) async fn open(endpoint: &PgEndpoint, sink: &str) -> Result<Client, SinkError> {
    connect(endpoint, &format!("cdc-audit {sink}")).await.map_err(not_connected)
}

/// How long another session may lock the checkpoint's row before we end that session. Our own transactions hold the row
/// only as long as a commit takes.
const BLOCKED_AFTER: Duration = Duration::from_secs(2);

/// How often blocking sessions are ended before the sink returns an error and is retried.
const BLOCKED_MAX: u32 = 5;

/// Waits for `statement`, which runs in the session with server process `pid`. A session that blocks it and runs under
/// the same role is ended: it belongs to a daemon that was paused in the middle of a commit, while we hold the
/// replication slot, which is the lock.
pub(crate) async fn unblocked<T>(
    endpoint: &PgEndpoint,
    sink: &str,
    pid: i32,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, SinkError> {
    tokio::pin!(statement);
    for _ in 0..BLOCKED_MAX {
        match tokio::time::timeout(BLOCKED_AFTER, &mut statement).await {
            Ok(done) => return done.map_err(|error| failed("taking the checkpoint", error)),
            Err(_) => end_blockers(endpoint, sink, pid).await?,
        }
    }
    Err(SinkError::retry("somebody holds the sink's checkpoint in an open transaction")
        .hint("find the session with pg_blocking_pids() in the hot database, and end it"))
}

async fn end_blockers(endpoint: &PgEndpoint, sink: &str, pid: i32) -> Result<(), SinkError> {
    let second = open(endpoint, sink).await?;
    let statement = "SELECT pid, application_name, pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE pid = ANY (pg_blocking_pids($1)) AND usename = current_user";
    let rows = second
        .query(statement, &[&pid])
        .await
        .map_err(|error| failed("looking for who holds the checkpoint", error))?;
    for row in rows {
        let (pid, application): (i32, String) = (row.get(0), row.get(1));
        tracing::warn!(sink, pid, application, "ended a session that held this sink's checkpoint");
    }
    Ok(())
}
