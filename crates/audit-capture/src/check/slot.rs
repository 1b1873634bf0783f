//! The slot: whether it exists, belongs to us and is usable, how far it lags, and whether it survives a failover.

use super::{Area, Input, Report, Seen, bytes, list};
use crate::APPLICATION;
use crate::setup::slot::unusable;
use crate::slot::{SlotState, WalStatus};

pub(super) fn check(report: &mut Report, seen: &Seen, input: &Input<'_>) {
    let (found, name) = (&seen.found, &input.source.slot);
    let Some(slot) = &found.slot else {
        let message = "it does not exist: no WAL is kept for capture";
        let fix = "run `cdc-audit setup`; if it existed before, `cdc-audit run --accept-gap` records what was lost";
        return report.fail(Area::Slot, name, message, fix);
    };
    if let Some((message, fix)) = unusable(slot, &found.server.database) {
        return report.fail(Area::Slot, name, message, fix);
    }
    if seen.slot_is_older {
        let publication = &input.source.publication;
        let message = format!("it is older than publication {publication}: changes from before cannot be decoded");
        let fix = format!(
            "run SELECT pg_drop_replication_slot('{name}'), then `cdc-audit setup` if nothing was captured yet, \
             else `cdc-audit run --accept-gap`"
        );
        return report.fail(Area::Slot, name, message, fix);
    }
    lag(report, slot);
    if let Some(holder) = slot.holder.as_ref().filter(|holder| !holder.application_name.starts_with(APPLICATION)) {
        let message = format!("it is in use by {holder}: `run` would wait for it");
        report.warn(Area::Slot, name, message, "stop that program, or give this source a slot of its own");
    }
    failover(report, seen, slot);
}

fn lag(report: &mut Report, slot: &SlotState) {
    let lag = bytes(slot.lag_bytes().unwrap_or_default());
    let kept = bytes(slot.retained_bytes().unwrap_or_default());
    let held = match &slot.holder {
        Some(holder) => format!(", in use by {holder}"),
        None => String::new(),
    };
    let message = format!("{lag} behind, {kept} of WAL kept{held}");
    let endangered = slot.wal_status == Some(WalStatus::Unreserved) || slot.safe_wal_size.is_some_and(|left| left <= 0);
    if endangered {
        let message = format!("{message}: more than max_slot_wal_keep_size, the next checkpoint may end the slot");
        report.warn(
            Area::Slot,
            &slot.name,
            message,
            "raise max_slot_wal_keep_size now (a reload is enough) and start the daemon",
        );
    } else {
        report.ok(Area::Slot, &slot.name, message);
    }
}

/// ⚠ If a standby is promoted before it has the last commits, capture would continue from WAL that the new server never
/// had: the server holds changes back only for the standbys that synchronized_standby_slots names.
fn failover(report: &mut Report, seen: &Seen, slot: &SlotState) {
    let server = &seen.found.server;
    let standbys: Vec<&str> = server.standby_slots.iter().map(|standby| standby.name.as_str()).collect();
    if server.major < 17 {
        if !standbys.is_empty() {
            let message = format!("it is lost when a standby ({}) is promoted", list(&standbys));
            let fix = "upgrade to PostgreSQL 17 or later; until then a failover leaves a gap, which is recorded";
            report.warn(Area::Slot, &slot.name, message, fix);
        }
        return;
    }
    if !slot.failover {
        let message = "it is no failover slot: it is lost when a standby is promoted";
        let fix = format!(
            "stop the daemon and run ALTER_REPLICATION_SLOT {} (FAILOVER true) over a replication connection",
            slot.name
        );
        return report.warn(Area::Slot, &slot.name, message, fix);
    }
    let waited: Vec<&str> = server
        .synchronized_standby_slots
        .split(',')
        .map(|name| name.trim().trim_matches('"'))
        .filter(|n| !n.is_empty())
        .collect();
    if waited.is_empty() && !standbys.is_empty() {
        let message = "empty: a standby that is promoted may lack commits that were already captured";
        let fix = format!("set it to the standbys that may be promoted: {}", list(&standbys));
        report.warn(Area::Slot, "synchronized_standby_slots", message, fix);
    }
    for name in waited {
        match server.standby_slots.iter().find(|standby| standby.name == name) {
            Some(standby) if standby.active => {}
            found => {
                let what = if found.is_some() { "is not in use" } else { "does not exist" };
                let message = format!("slot {name} {what}: capture waits for that standby");
                report.warn(Area::Slot, "synchronized_standby_slots", message, "start the standby, or take it out");
            }
        }
    }
}
