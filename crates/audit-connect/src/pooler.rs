//! Detects a pooler in front of a server that shares sessions between transactions ([`refuse_pooler`]).
//!
//! Such a pool breaks what our sessions rely on: their settings, their prepared statements, and that the next
//! transaction runs in the same process of the server. A pool in session mode breaks nothing.

use tokio_postgres::Client;

use crate::endpoint::PgEndpoint;
use crate::error::ConnectError;
use crate::session::connect;

/// Number of tries. Several are needed because another client of the pool may take the session that was just free.
const TRIES: u32 = 3;

/// Refuses an endpoint where a pooler gives the session of `client` to another client between two transactions.
///
/// # Errors
/// Fails with [`ConnectError::Pooler`] if it does, or if a second session cannot be opened.
pub async fn refuse_pooler(client: &Client, endpoint: &PgEndpoint, application_name: &str) -> Result<(), ConnectError> {
    let second = connect(endpoint, application_name).await?;
    for _ in 0..TRIES {
        let ours = session(client, "").await;
        let others = session(&second, "BEGIN;").await;
        let _ = second.batch_execute("ROLLBACK").await;
        if ours.is_some() && ours == others {
            let what = "it gives a session to another client after each transaction";
            return Err(ConnectError::Pooler { endpoint: endpoint.describe(), what });
        }
    }
    Ok(())
}

/// Returns a text that identifies the server's process. `None` if the query fails: then the next statement of the
/// session will report the reason.
async fn session(client: &Client, before: &str) -> Option<String> {
    let sql =
        "SELECT pid || ' ' || backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()";
    let answers = client.simple_query(&format!("{before}{sql}")).await.ok()?;
    answers.iter().find_map(|answer| match answer {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}
