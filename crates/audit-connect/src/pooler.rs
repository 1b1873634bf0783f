//! Whether a pooler stands in front of a server and shares sessions between transactions ([`refuse_pooler`]).
//!
//! Such a pool breaks what a session of ours rests on: its settings, prepared statements, and that a process of the server is the same one
//! in the next transaction. A pool in session mode breaks nothing.

use tokio_postgres::Client;

use crate::endpoint::PgEndpoint;
use crate::error::ConnectError;
use crate::session::connect;

/// How often it is tried: another client of the pool may take the session that was free a moment ago.
const TRIES: u32 = 3;

/// Refuses an endpoint at which the session of `client`, between two of its transactions, is given to another client.
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

/// What tells the server's process from all others. None where it cannot be asked: then the session's own work will say why.
async fn session(client: &Client, before: &str) -> Option<String> {
    let sql =
        "SELECT pid || ' ' || backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()";
    let answers = client.simple_query(&format!("{before}{sql}")).await.ok()?;
    answers.iter().find_map(|answer| match answer {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}
