//! The slot: the lock that makes one daemon the only reader of its source, and the heartbeat that keeps it moving.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use audit_capture::clock::{self, Skew};
use audit_capture::config::SourceConfig;
use audit_capture::replication::{
    Identity, Receiver, ReplicationClient, ReplicationError, Row, StreamOptions, TimelineFork,
};
use audit_capture::slot::{self, SlotState};
use audit_capture::{APPLICATION, encoding, standby};
use audit_core::position::Lsn;
use audit_core::quarantine::{Quarantine, Quarantined};
use tokio::sync::watch;
use tokio_postgres::Client;
use tracing::{debug, error, info, warn};

use crate::continuity::Server;
use crate::daemon::{Daemon, stopped};
use crate::error::{RunError, sql};
use crate::retry::Backoff;
use crate::status::{Phase, Shared};

/// A slot that this daemon holds, and what the server reported about itself.
pub struct Locked {
    pub receiver: Receiver,
    pub client: Client,
    pub system: Identity,
    pub forks: Vec<TimelineFork>,
    /// The slot's state after the lock was taken; nobody else moves it now.
    pub slot: SlotState,
}

/// Waits for the slot as long as another process holds it. `None` if a stop is requested meanwhile.
pub async fn lock(
    daemon: &Daemon,
    safe: watch::Receiver<Lsn>,
    stream_ends: watch::Receiver<bool>,
    stop: &watch::Receiver<bool>,
) -> Result<Option<Locked>, RunError> {
    let source = &daemon.source;
    let client = audit_connect::connect(&source.endpoint, APPLICATION).await?;
    audit_connect::refuse_pooler(&client, &source.endpoint, APPLICATION).await?;
    if let Some(what) = encoding::complaint(&encoding::read(&client).await?) {
        return Err(RunError::Encoding { what });
    }
    published(source, &client).await?;
    usable_slot(daemon, &client).await?;
    if let Some(complaint) = Skew::measure(&client).await?.complaint() {
        warn!(hint = clock::FIX, "{complaint}");
    }
    let mut backoff = Backoff::default();
    loop {
        let replication = ReplicationClient::connect(&source.endpoint, APPLICATION).await?;
        let system = replication.identify_system().await?;
        let forks = replication.timeline_history(system.timeline).await?;
        let sender = replication.query("SELECT pg_catalog.pg_backend_pid()").await?;
        let options = StreamOptions {
            slot: source.slot.clone(),
            publications: vec![source.publication.clone()],
            status_interval: source.status_interval.get(),
            message_limit: daemon.memory.message_max as usize,
            safe: safe.clone(),
            stop: stream_ends.clone(),
        };
        match replication.start(options).await {
            Ok(receiver) => {
                let slot = read(source, &client).await?;
                if !is_read_by(&slot, &sender) {
                    return Err(RunError::TwoServers { slot: slot.name });
                }
                return Ok(Some(Locked { receiver, client, system, forks, slot }));
            }
            Err(ReplicationError::SlotInUse { .. }) => {
                let holder =
                    read(source, &client).await?.holder.map_or("another process".to_string(), |h| h.to_string());
                if backoff.tries() == 0 {
                    info!(slot = %source.slot, %holder, "the slot is in use; waiting for it");
                }
                daemon.shared.phase(Phase::Waiting { holder });
                tokio::select! {
                    () = tokio::time::sleep(backoff.next().min(SLOT_WAIT)) => {}
                    () = stopped(stop) => return Ok(None),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the slot that one session sees is read by the process that answered on the other one; if not, these are two
/// servers.
fn is_read_by(slot: &SlotState, sender: &[Row]) -> bool {
    let pid = sender.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
    slot.holder.as_ref().map(|holder| holder.pid) == pid && pid.is_some()
}

/// A standby daemon takes over within this time.
const SLOT_WAIT: Duration = Duration::from_secs(2);

async fn read(source: &SourceConfig, client: &Client) -> Result<SlotState, RunError> {
    slot::read(client, &source.slot).await?.ok_or_else(|| RunError::NoSlot { slot: source.slot.clone() })
}

/// Checks that the publication exists. The server itself would notice only with the next change, which it could then
/// never decode.
async fn published(source: &SourceConfig, client: &Client) -> Result<(), RunError> {
    let query = "SELECT FROM pg_catalog.pg_publication WHERE pubname = $1";
    let found =
        client.query_opt(query, &[&source.publication]).await.map_err(|e| sql("look for the publication", e))?;
    found.map(drop).ok_or_else(|| RunError::NoPublication { publication: source.publication.clone() })
}

/// Refuses a slot that cannot be used. If a gap is accepted, it creates a new slot in place of one that is missing or
/// lost.
async fn usable_slot(daemon: &Daemon, client: &Client) -> Result<(), RunError> {
    let name = &daemon.source.slot;
    let accepts = daemon.accept_gap.load(std::sync::atomic::Ordering::Relaxed);
    let found = slot::read(client, name).await?;
    match &found {
        Some(state) if state.plugin.as_deref() != Some(slot::PLUGIN) => {
            return Err(RunError::ForeignSlot { slot: name.clone(), what: "is not a pgoutput slot" });
        }
        Some(state) if state.lost().is_none() => {
            daemon.shared.heard(state.current);
            daemon.shared.acknowledged(state.confirmed_flush_lsn.unwrap_or_default());
            return Ok(());
        }
        Some(state) if !accepts => return Err(lost(state)),
        None if !accepts => return Err(RunError::NoSlot { slot: name.clone() }),
        _ => {}
    }
    warn!(slot = %name, "making the slot anew; the WAL before is lost");
    if found.is_some() {
        client
            .execute("SELECT pg_drop_replication_slot($1)", &[name])
            .await
            .map_err(|e| sql("drop the lost slot", e))?;
    }
    let create = slot::create_sql(audit_capture::major(client).await?, name);
    client.batch_execute(&create).await.map_err(|e| sql("create the replication slot", e))?;
    Ok(())
}

fn lost(slot: &SlotState) -> RunError {
    let why = slot.lost().unwrap_or("wal_removed").to_string();
    let from = slot.confirmed_flush_lsn.unwrap_or_default();
    RunError::LostSlot { slot: slot.name.clone(), why, from, to: slot.current }
}

/// Reads the source as a session would find it, without taking the slot; `None` while another process holds it.
///
/// # Errors
/// Returns [`RunError::LostSlot`] if the slot is lost; fails also if the source cannot be reached or the slot does not
/// exist.
pub async fn look(source: &SourceConfig) -> Result<Option<Server>, RunError> {
    let client = audit_connect::connect(&source.endpoint, APPLICATION).await?;
    let slot = read(source, &client).await?;
    if slot.lost().is_some() {
        return Err(lost(&slot));
    }
    if slot.holder.is_some() {
        return Ok(None);
    }
    let replication = ReplicationClient::connect(&source.endpoint, APPLICATION).await?;
    let system = replication.identify_system().await?;
    let forks = replication.timeline_history(system.timeline).await?;
    Ok(Some(Server::new(&system, forks, &slot)))
}

/// What operators have quarantined, by the name of the sink.
pub type Quarantines = HashMap<String, Quarantine>;

/// Reads what operators have quarantined for this source.
///
/// # Errors
/// Returns [`RunError::Query`] if `cdc_audit.quarantine` cannot be read.
pub async fn quarantines(client: &Client, source: &str) -> Result<Quarantines, RunError> {
    let query = "SELECT sink, position, os_user, db_user::text, to_char(created_at AT TIME ZONE 'UTC', \
                 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), note FROM cdc_audit.quarantine WHERE source = $1";
    let rows = client.query(query, &[&source]).await.map_err(|e| sql("read cdc_audit.quarantine", e))?;
    let mut found = Quarantines::new();
    for row in rows {
        if let Ok(position) = row.get::<_, &str>(1).parse() {
            let decided = Quarantined::new(row.get(2), row.get(3), row.get(4), row.get(5));
            found.entry(row.get(0)).or_default().insert(position, decided);
        }
    }
    Ok(found)
}

/// Reads the same over a connection of its own, for a limited time.
pub async fn quarantines_now(source: &SourceConfig) -> Option<Quarantines> {
    let look = async {
        let client = audit_connect::connect(&source.endpoint, APPLICATION).await?;
        quarantines(&client, &source.name).await
    };
    tokio::time::timeout(QUARANTINE_WAIT, look).await.ok()?.ok()
}

/// If the server has not answered after this time, it is asked again.
const QUARANTINE_WAIT: Duration = Duration::from_secs(30);

/// Writes a small message into the WAL at intervals, so that the slot moves while only untracked tables change.
pub async fn heartbeat(source: SourceConfig) {
    let interval = source.heartbeat.get();
    if interval.is_zero() {
        return;
    }
    let mut client: Option<Client> = None;
    loop {
        tokio::time::sleep(interval).await;
        let Some(open) = reopened(&mut client, &source, "cdc-audit heartbeat").await else { continue };
        // A failure only means a late heartbeat; the stream has its own way to notice a lost server.
        if let Err(error) = open.execute("SELECT pg_logical_emit_message(false, 'cdc-audit-heartbeat', '')", &[]).await
        {
            debug!(error = %error, "no heartbeat");
        }
    }
}

/// The session, opened again if it was lost; `None` if it cannot be opened now.
async fn reopened<'c>(client: &'c mut Option<Client>, source: &SourceConfig, name: &str) -> Option<&'c Client> {
    if client.as_ref().is_none_or(|client| client.is_closed()) {
        *client = audit_connect::connect(&source.endpoint, name).await.ok();
    }
    client.as_ref()
}

/// How often the daemon checks whether COMMITs of the source wait for it.
const STANDBY_POLL: Duration = Duration::from_secs(5);

/// Warns when the server treats the daemon as a synchronous standby, and reports when it no longer does: the setting
/// changes by a reload.
pub async fn watch_standby(source: SourceConfig, shared: Arc<Shared>) {
    let mut client: Option<Client> = None;
    let mut was = false;
    loop {
        // A session that asks for the same application name gets the same name as the walsender.
        if let Some(open) = reopened(&mut client, &source, APPLICATION).await
            && let Ok(row) = open
                .query_one(
                    "SELECT current_setting('synchronous_standby_names'), current_setting('application_name')",
                    &[],
                )
                .await
        {
            let (names, name): (String, String) = (row.get(0), row.get(1));
            let is = standby::is_synchronous(&names, &name);
            match (was, is) {
                (false, true) => error!(
                    synchronous_standby_names = %names, application_name = %name, hint = standby::FIX,
                    "the server takes this daemon for a synchronous standby: every COMMIT of the source waits for the slowest sink"
                ),
                (true, false) => info!("the server does not take this daemon for a synchronous standby any more"),
                _ => {}
            }
            shared.synchronous(is);
            was = is;
        }
        tokio::time::sleep(STANDBY_POLL).await;
    }
}
