//! Checks whether the daemon could write now: [`probe`].

use std::sync::Arc;

use audit_core::batch::{Batch, Transaction};
use audit_core::context::Context;
use audit_core::position::{Lsn, Micros, Position};
use audit_core::sink::SinkError;
use audit_core::table::Table;
use audit_core::version::Event;

use crate::checkpoint;
use crate::config::HotConfig;
use crate::copy;
use crate::encode::{Encoder, FIELD_MAX};
use crate::error::failed;
use crate::session::{Session, check_pooler};

/// Connects, checks tables and rights, looks for the sink's checkpoint, and writes a row in a transaction that is
/// rolled back. It fences no daemon and leaves nothing but this month's partition.
///
/// # Errors
/// Returns the first of these steps that failed, as the sink would report it.
pub async fn probe(config: &HotConfig, source: &str, sink: &str) -> Result<(), SinkError> {
    let mut session = Session::open(config, sink).await?;
    check_pooler(&session.client, &config.endpoint, sink).await?;
    let owner = checkpoint::owner(&session.client, source, sink).await;
    if owner.map_err(|error| failed("reading the checkpoint", error))?.is_none() {
        return Err(checkpoint::missing(source, sink));
    }
    let mut batch = Batch::default();
    let now = Micros::now();
    batch.transaction(Transaction { xid: 0, commit_lsn: Lsn::ZERO, committed_at: now });
    let table = Arc::new(Table::pseudo("cdc_audit.probe"));
    batch.note(
        Event::Error,
        &table,
        Position::default(),
        Lsn::ZERO,
        Context::note(&serde_json::json!({"probe": true})),
    );
    let versions: Vec<_> = batch.versions().collect();

    let probing = |error| failed("writing a probe", error);
    let Session { client, targets, .. } = &mut session;
    let common = targets.common();
    common.partitions.ensure(client, &versions).await.map_err(probing)?;
    let mut encoder = Encoder { source, recorded_at: now, keep: &[], field_max: FIELD_MAX, too_large: 0 };
    let mut copy = copy::begin(client, &common.copy).await.map_err(probing)?;
    copy::send(&mut copy, &mut encoder, &versions).await.map_err(probing)?;
    copy.as_mut().finish().await.map_err(probing)?;
    client.batch_execute("ROLLBACK").await.map_err(probing)
}
