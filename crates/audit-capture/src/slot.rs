//! The state of a replication slot: [`read`].

use std::fmt;
use std::time::Duration;

use audit_core::position::Lsn;
use serde::Deserialize;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::query::{QueryError, row, rows};

/// The output plugin that decodes the WAL for us.
pub const PLUGIN: &str = "pgoutput";

/// A row of `pg_replication_slots`, and the WAL position of the server when it was read. What a major version does not
/// have is `None` or false.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SlotState {
    pub name: String,
    /// The output plugin; `None` for a physical slot.
    pub plugin: Option<String>,
    pub database: Option<String>,
    pub temporary: bool,
    /// The server keeps the WAL from here on. `None` once it does not.
    pub restart_lsn: Option<Lsn>,
    /// Everything before this position was acknowledged.
    pub confirmed_flush_lsn: Option<Lsn>,
    pub holder: Option<Holder>,
    pub wal_status: Option<WalStatus>,
    /// Bytes that may still be written before the slot is in danger; `None` if nothing limits the slot.
    pub safe_wal_size: Option<i64>,
    /// Whether it conflicted with recovery on a standby (16 and later), so that it can no longer be used.
    pub conflicting: bool,
    /// Why it can no longer be used (17 and later): `wal_removed`, `rows_removed`, `wal_level_insufficient`,
    /// `idle_timeout`.
    pub invalidation_reason: Option<String>,
    #[serde(default)]
    pub two_phase: bool,
    /// Whether standbys keep a copy of it, which can be used after a promotion (17 and later).
    #[serde(default)]
    pub failover: bool,
    /// Whether this is the copy on a standby.
    #[serde(default)]
    pub synced: bool,
    /// The position that the server writes now, or that a standby replays.
    pub current: Lsn,
}

/// The session that uses the slot. The server hides the sessions of other roles from a role that is not a member of
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Holder {
    pub pid: i32,
    #[serde(default)]
    pub application_name: String,
    /// The client's address; `None` on a Unix socket.
    pub client: Option<String>,
}

/// `wal_status`: whether the WAL that the slot needs still exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalStatus {
    Reserved,
    /// Larger than `max_wal_size`, but kept.
    Extended,
    /// No longer kept: the server's next checkpoint may remove it.
    Unreserved,
    Lost,
    #[serde(other)]
    Unknown,
}

impl SlotState {
    /// Bytes of WAL written since the last acknowledgement.
    pub fn lag_bytes(&self) -> Option<u64> {
        self.confirmed_flush_lsn.map(|confirmed| self.current.since(confirmed))
    }

    /// Bytes of WAL that the server keeps for this slot.
    pub fn retained_bytes(&self) -> Option<u64> {
        self.restart_lsn.map(|restart| self.current.since(restart))
    }

    /// Why nothing can ever be read from it again, as far as the server says.
    pub fn lost(&self) -> Option<&str> {
        match &self.invalidation_reason {
            Some(reason) => Some(reason),
            // Version 16 reports every lost slot as conflicting; only one whose WAL was removed has no position.
            None if self.conflicting && self.restart_lsn.is_some() => Some("conflict with recovery"),
            None if self.conflicting || self.wal_status == Some(WalStatus::Lost) => Some("wal_removed"),
            None => None,
        }
    }
}

/// Prints, for example, `pid 4711 (cdc-audit, 10.0.0.7)`.
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

/// The statement that creates the slot. From version 17 on standbys keep a copy of it, so that it exists after a
/// failover.
pub fn create_sql(major: u32, name: &str) -> String {
    // Slot names need no quoting, because the configuration was checked.
    let failover = if major >= 17 { ", failover => true" } else { "" };
    format!("SELECT pg_create_logical_replication_slot('{name}', '{PLUGIN}'{failover})")
}

/// The slot of this name; `None` if there is none in the cluster.
///
/// # Errors
/// Returns a [`QueryError`] if the server cannot answer the query.
pub async fn read(client: &Client, name: &str) -> Result<Option<SlotState>, QueryError> {
    let what = "read the state of the replication slot";
    Ok(rows(client, what, include_str!("sql/slot.sql"), &[&name]).await?.pop())
}

/// Whether the slot, which nobody uses, is at a position before the publication existed, where changes cannot be
/// decoded.
pub(crate) async fn is_older_than(client: &Client, slot: &str, publication: &str) -> Result<bool, QueryError> {
    // The catalog rows that the slot still needs show whether that is possible; only decoding shows whether it is true.
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

/// How long the server waits for a message before it ends a replication session of this role; `None` means for ever.
///
/// # Errors
/// Returns a [`QueryError`] if the server cannot answer the query.
pub async fn wal_sender_timeout(client: &Client) -> Result<Option<Duration>, QueryError> {
    let sql = "SELECT to_jsonb(setting::bigint) FROM pg_settings WHERE name = 'wal_sender_timeout'";
    let millis: u64 = row(client, "read wal_sender_timeout", sql, &[]).await?;
    Ok((millis > 0).then(|| Duration::from_millis(millis)))
}
