//! The state of a replication slot: [`read`].

use std::fmt;
use std::time::Duration;

use audit_core::position::Lsn;
use serde::Deserialize;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::query::{QueryError, row, rows};

/// What decodes for us.
pub const PLUGIN: &str = "pgoutput";

/// A row of `pg_replication_slots`, and where the WAL stood when it was read. What a major does not have is `None` or
/// false.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SlotState {
    pub name: String,
    /// `None` for a physical slot.
    pub plugin: Option<String>,
    pub database: Option<String>,
    pub temporary: bool,
    /// WAL from here on is kept. `None` once it is not.
    pub restart_lsn: Option<Lsn>,
    /// Everything before here was acknowledged.
    pub confirmed_flush_lsn: Option<Lsn>,
    pub holder: Option<Holder>,
    pub wal_status: Option<WalStatus>,
    /// Bytes that may still be written before the slot is in danger; `None` where nothing limits the slot.
    pub safe_wal_size: Option<i64>,
    /// It conflicted with recovery on a standby (16 and later) and is of no use any more.
    pub conflicting: bool,
    /// Why it is of no use any more (17 and later): `wal_removed`, `rows_removed`, `wal_level_insufficient`, `idle_timeout`.
    pub invalidation_reason: Option<String>,
    #[serde(default)]
    pub two_phase: bool,
    /// It goes along to a standby that is promoted (17 and later).
    #[serde(default)]
    pub failover: bool,
    /// This is the copy on the standby.
    #[serde(default)]
    pub synced: bool,
    /// Where the server writes, or on a standby replays, now.
    pub current: Lsn,
}

/// The session that uses the slot. The server hides what belongs to other roles from whoever is not their member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Holder {
    pub pid: i32,
    #[serde(default)]
    pub application_name: String,
    /// Its address; `None` on a Unix socket.
    pub client: Option<String>,
}

/// `wal_status`: whether the WAL that the slot needs is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalStatus {
    Reserved,
    /// More than `max_wal_size`, but kept.
    Extended,
    /// No longer kept: the next checkpoint of the server may remove it.
    Unreserved,
    Lost,
    #[serde(other)]
    Unknown,
}

impl SlotState {
    /// Bytes of WAL written since what was last acknowledged.
    pub fn lag_bytes(&self) -> Option<u64> {
        self.confirmed_flush_lsn.map(|confirmed| self.current.since(confirmed))
    }

    /// Bytes of WAL that the server keeps for this slot.
    pub fn retained_bytes(&self) -> Option<u64> {
        self.restart_lsn.map(|restart| self.current.since(restart))
    }

    /// Why nothing can be read from it ever again, as far as the server says.
    pub fn lost(&self) -> Option<&str> {
        match &self.invalidation_reason {
            Some(reason) => Some(reason),
            // 16 calls every slot that is lost conflicting; only without its WAL has it no position.
            None if self.conflicting && self.restart_lsn.is_some() => Some("conflict with recovery"),
            None if self.conflicting || self.wal_status == Some(WalStatus::Lost) => Some("wal_removed"),
            None => None,
        }
    }
}

/// `pid 4711 (cdc-audit, 10.0.0.7)`
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        let parts: Vec<&str> = [self.application_name.as_str(), self.client.as_deref().unwrap_or_default()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        if parts.is_empty() { Ok(()) } else { write!(f, " ({})", parts.join(", ")) }
    }
}

/// The statement that makes the slot. From 17 on standbys keep a copy of it, for it to be there after a failover.
pub fn create_sql(major: u32, name: &str) -> String {
    // Names of slots are plain: the configuration was checked.
    let failover = if major >= 17 { ", failover => true" } else { "" };
    format!("SELECT pg_create_logical_replication_slot('{name}', '{PLUGIN}'{failover})")
}

/// The slot of this name; `None` if there is none in the cluster.
pub async fn read(client: &Client, name: &str) -> Result<Option<SlotState>, QueryError> {
    let what = "read the state of the replication slot";
    Ok(rows(client, what, include_str!("sql/slot.sql"), &[&name]).await?.pop())
}

/// Whether the slot, which nobody uses, stands before the publication was made, at changes that cannot be decoded for that.
pub(crate) async fn is_older_than(client: &Client, slot: &str, publication: &str) -> Result<bool, QueryError> {
    // The catalog rows that the slot still needs tell whether that may be; only decoding tells whether it is.
    let may_be = "SELECT to_jsonb(EXISTS (
        SELECT FROM pg_replication_slots s, pg_publication p
        WHERE s.slot_name = $1 AND p.pubname = $2 AND NOT s.active AND age(p.xmin) <= age(s.catalog_xmin)
    ))";
    if !row::<bool>(client, "compare slot and publication", may_be, &[&slot, &publication]).await? {
        return Ok(false);
    }
    let peek = "SELECT count(*) FROM pg_logical_slot_peek_binary_changes($1, NULL, 1000, \
                'proto_version', '1', 'publication_names', quote_ident($2))";
    let peeked = client.query_one(peek, &[&slot, &publication]).await;
    Ok(peeked.is_err_and(|error| error.code() == Some(&SqlState::UNDEFINED_OBJECT)))
}

/// How long the server waits for a sign of life before it ends a replication session of this role; `None`: for ever.
pub async fn wal_sender_timeout(client: &Client) -> Result<Option<Duration>, QueryError> {
    let sql = "SELECT to_jsonb(setting::bigint) FROM pg_settings WHERE name = 'wal_sender_timeout'";
    let millis: u64 = row(client, "read wal_sender_timeout", sql, &[]).await?;
    Ok((millis > 0).then(|| Duration::from_millis(millis)))
}
