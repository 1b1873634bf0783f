//! Waits until the trail has what was committed.

use std::time::{Duration, Instant};

use audit_connect::{ConnectError, PgEndpoint, connect};
use audit_core::position::{Lsn, Micros};
use audit_core::stored::Record;
use audit_history::Commit;
use tokio_postgres::Client;

use super::operator::{How, wal_end};
use super::question::Question;
use crate::error::CliError;

/// A commit of our own that the trail will have.
pub struct Waiting<'t> {
    pub question: &'t Question,
    pub span: Duration,
    pub xid: u32,
    /// When the transaction began, by the source's clock.
    pub began: Micros,
}

/// Clocks of servers step back by less.
const STEP: i64 = 60_000_000;

const PAUSE: Duration = Duration::from_millis(250);

impl Waiting<'_> {
    /// The versions, as soon as the sink has everything up to now; those that it has when the time is over.
    pub async fn versions(&self, client: &Client) -> Result<Vec<Record>, CliError> {
        if self.span.is_zero() {
            return Ok(Vec::new());
        }
        let end = wal_end(client).await?;
        self.until(|head, versions| head >= end || versions.last().is_some_and(|last| head > last.commit_lsn)).await
    }

    /// The same without the source.
    pub async fn seen(&self) -> Result<Vec<Record>, CliError> {
        self.until(|head, versions| versions.last().is_some_and(|last| head > last.commit_lsn)).await
    }

    async fn until(&self, done: impl Fn(Lsn, &[Record]) -> bool) -> Result<Vec<Record>, CliError> {
        let Question { store, source, .. } = self.question;
        let mut store = store.clone();
        let until = Instant::now() + self.span;
        let since = Micros(self.began.0 - STEP);
        loop {
            store = store.again(source).await?;
            let head = store.head().map_or(Lsn::ZERO, |head| head.checkpoint.flushed_lsn);
            let versions = store.commit(source, Commit::Xid(self.xid), Some(since)).await?;
            if done(head, &versions) || Instant::now() >= until {
                return Ok(versions);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl How {
    /// Opens a session like the one that was lost.
    pub async fn again(login: &PgEndpoint) -> Result<Client, ConnectError> {
        connect(login, "cdc-audit undo").await
    }
}

/// Whether a transaction was committed; `None` if it is not known.
pub async fn committed(client: &Client, xid: &str) -> Option<bool> {
    for _ in 0..40 {
        let row = client.query_one("SELECT pg_xact_status($1::text::xid8)", &[&xid]).await.ok()?;
        match row.get::<_, Option<String>>(0).as_deref() {
            Some("committed") => return Some(true),
            Some("aborted") => return Some(false),
            Some(_) => tokio::time::sleep(PAUSE).await,
            None => return None,
        }
    }
    None
}
