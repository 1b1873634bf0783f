//! The replication connection: whether it can be opened, and whether COMMITs would wait for it.

use audit_config::Chain;
use audit_connect::refuse_pooler;
use tokio_postgres::Client;

use super::{Area, Report, Seen};
use crate::config::SourceConfig;
use crate::replication::{ReplicationClient, ReplicationError};
use crate::setup::Found;
use crate::standby;

/// The result of opening a connection.
pub(super) enum Stream {
    /// It opened; with the application name that the server knows it by, which is also that of a running daemon.
    Opens(String),
    /// Why it did not open, and what to do about it.
    Refused(String, String),
    /// The role does not have the right, which is reported elsewhere.
    Unasked,
}

impl Stream {
    /// Opens one as `run` would, and closes it again without using the slot.
    pub(super) async fn look(client: &Client, source: &SourceConfig, found: &Found) -> Stream {
        let refused =
            |error: ReplicationError| Stream::Refused(Chain(&error).to_string(), error.hint().unwrap_or_default());
        if let Err(error) = refuse_pooler(client, &source.endpoint, "cdc-audit check").await {
            return refused(error.into());
        }
        if let Some(holder) = found.slot.as_ref().and_then(|slot| slot.holder.as_ref()) {
            return Stream::Opens(holder.application_name.clone());
        }
        if !found.admin.replication {
            return Stream::Unasked;
        }
        match application_name(source).await {
            Ok(name) => Stream::Opens(name),
            Err(error) => refused(error),
        }
    }
}

async fn application_name(source: &SourceConfig) -> Result<String, ReplicationError> {
    let client = ReplicationClient::connect(&source.endpoint, crate::APPLICATION).await?;
    client.identify_system().await?;
    client.application_name().await
}

pub(super) fn check(report: &mut Report, seen: &Seen) {
    match &seen.stream {
        Stream::Opens(name) => synchronous(report, &seen.found.server.synchronous_standby_names, name),
        Stream::Refused(message, fix) => report.fail(Area::Server, "replication connection", message, fix),
        Stream::Unasked => {}
    }
}

fn synchronous(report: &mut Report, names: &str, application_name: &str) {
    if standby::is_synchronous(names, application_name) {
        let message = format!(
            "{names:?} makes a synchronous standby of the daemon ({application_name}): every COMMIT would wait for the slowest sink"
        );
        report.fail(Area::Server, "synchronous_standby_names", message, standby::FIX);
    }
}
