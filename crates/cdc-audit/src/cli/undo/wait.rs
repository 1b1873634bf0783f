//! Waits until the trail has what was committed.

use std::time::{Duration, Instant};

use audit_connect::{ConnectError, PgEndpoint, connect};
use audit_core::position::{Lsn, Micros};
use audit_core::search::Wanted;
use audit_core::stored::Record;
use audit_history::Timeline;
use tokio_postgres::Client;

use super::operator::{How, wal_end};
use super::question::Question;
use crate::error::CliError;

/// A commit of our own that the trail will have.
pub struct Waiting<'t> {
    pub question: &'t Question,
    pub span: Duration,
    /// A time before the commit, by the source's clock.
    pub since: Micros,
    pub wanted: Said<'t>,
}

/// What the versions say of themselves. ⚠ Others can have the number of a transaction, after four billion, and on another
/// server that took the place of the source.
pub enum Said<'t> {
    Request { id: &'t str, xid: u32 },
    Plan(&'t str),
}

impl Said<'_> {
    fn is_said_by(&self, record: &Record) -> bool {
        record.context.as_ref().is_some_and(|context| self.is_in(context.get()))
    }

    fn is_in(&self, context: &str) -> bool {
        #[derive(serde::Deserialize)]
        struct Context {
            request_id: Option<String>,
            plan: Option<String>,
        }
        serde_json::from_str::<Context>(context).is_ok_and(|context| match self {
            Said::Request { id, .. } => context.request_id.as_deref() == Some(id),
            Said::Plan(plan) => context.plan.as_deref() == Some(plan),
        })
    }
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
        loop {
            store = store.again(source).await?;
            let head = store.head().map_or(Lsn::ZERO, |head| head.checkpoint.flushed_lsn);
            let versions = self.own(&store).await?;
            if done(head, &versions) || Instant::now() >= until {
                return Ok(versions);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn own(&self, store: &Timeline) -> Result<Vec<Record>, CliError> {
        let source = &self.question.source;
        let (tables, since) = (store.tables(source).await?, Some(Micros(self.since.0 - STEP)));
        let xids = if let Said::Request { xid, .. } = self.wanted { vec![xid] } else { Vec::new() };
        let wanted = Wanted { source: source.clone(), tables, since, xids, ..Wanted::default() };
        let mut versions = store.search(&wanted, &|record| self.wanted.is_said_by(record), usize::MAX).await?;
        versions.sort_by_key(|version| version.position);
        Ok(versions)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_another_request_is_not_our_own() {
        let request = Said::Request { id: "undo-1", xid: 7 };
        assert!(request.is_in(r#"{"request_id":"undo-1"}"#));
        assert!(!request.is_in(r#"{"request_id":"undo-2"}"#) && !request.is_in(r#"{"plan":"undo-1"}"#));
        assert!(Said::Plan("sha256:0").is_in(r#"{"plan":"sha256:0"}"#));
        assert!(!Said::Plan("sha256:0").is_in(r#"{"request_id":"sha256:0"}"#));
    }
}
