//! The server: its version, its settings, room for one more slot and session, its clock.

use super::{Area, Input, Report, Seen, State, bytes};
use crate::clock::{self, Skew};
use crate::encoding;
use crate::facts::Server;
use crate::setup::MAJORS;

pub(super) fn check(report: &mut Report, seen: &Seen, input: &Input<'_>) {
    let server = &seen.found.server;
    let name = input.source.endpoint.describe();
    report.ok(Area::Server, name, format!("PostgreSQL {}, database {}", server.version, server.database));
    if server.major > *MAJORS.end() {
        let message = format!("PostgreSQL {} is newer than what cdc-audit was tried with", server.major);
        report.warn(Area::Server, "version", message, "look for a newer cdc-audit");
    }
    if let Some(message) = encoding::complaint(&server.encoding) {
        report.fail(Area::Server, "server_encoding", message, encoding::FIX);
    } else if server.encoding != "UTF8" {
        let message = format!("{}: the stream ends at a value that has no form in UTF-8", server.encoding);
        report.warn(Area::Server, "server_encoding", message, encoding::FIX);
    }
    if server.in_recovery {
        let message = "the server is a standby, and capture writes to the source";
        report.fail(Area::Server, "recovery", message, "connect to the primary");
    }
    wal_level(report, server);
    room(report, seen, server);
    limits(report, server);
    messages(report, seen);
    clock(report, seen.skew);
}

/// Reports who may write messages into the WAL.
fn messages(report: &mut Report, seen: &Seen) {
    const FUNCTION: &str = "pg_logical_emit_message";
    let (emit, daemon) = (&seen.found.objects.emit, &seen.found.admin.quoted);
    if !emit.daemon {
        let message = "the daemon's role may not write messages into the WAL: no heartbeat, no baseline";
        report.fail(Area::Server, FUNCTION, message, format!("as a superuser run {}", emit.grant(daemon)));
    }
    let owner = emit.owner.as_deref().filter(|owner| *owner != daemon);
    if let Some(owner) = owner.filter(|_| !emit.owner_may) {
        let message = format!("{owner}, the owner of cdc_audit.set_context, may not call it: set_context fails");
        report.fail(Area::Server, FUNCTION, message, format!("as a superuser run {}", emit.grant(owner)));
    }
    if emit.public {
        let message = "every login may call it, and so write a context, though never a verified one";
        let roles = [Some(daemon.as_str()), owner].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let fix = format!(
            "if applications call only cdc_audit.set_context, as a superuser run {}; {}",
            emit.grant(&roles),
            emit.revoke()
        );
        report.push(Area::Server, FUNCTION, State::Ok, message, Some(fix));
    }
}

fn wal_level(report: &mut Report, server: &Server) {
    match server.wal_level.as_str() {
        "logical" => report.ok(Area::Server, "wal_level", "logical"),
        level => {
            let message = format!("wal_level is {level}, and changes can only be decoded from logical");
            let fix = "run ALTER SYSTEM SET wal_level = logical, then restart the server";
            report.fail(Area::Server, "wal_level", message, fix);
        }
    }
}

/// Checks that there is room for the slot, if it does not exist yet, and for the session that reads from it, if there
/// is none yet.
fn room(report: &mut Report, seen: &Seen, server: &Server) {
    let slot = seen.found.slot.as_ref();
    let needs_sender = slot.is_none_or(|slot| slot.holder.is_none());
    for (name, used, max, needed) in [
        ("max_replication_slots", server.replication_slots, server.max_replication_slots, slot.is_none()),
        ("max_wal_senders", server.wal_senders, server.max_wal_senders, needs_sender),
    ] {
        if needed && used >= max {
            let fix = format!("raise {name}, then restart the server");
            report.fail(Area::Server, name, format!("all {max} are in use"), fix);
        } else {
            report.ok(Area::Server, name, format!("{used} of {max} in use"));
        }
    }
}

fn limits(report: &mut Report, server: &Server) {
    match u64::try_from(server.max_slot_wal_keep_mb) {
        Ok(mb) => {
            let message = format!("a slot may keep {}; capture that is further behind loses changes", bytes(mb << 20));
            report.ok(Area::Server, "max_slot_wal_keep_size", message);
        }
        Err(_) => {
            let message = "without limit: while capture stands still, WAL fills the disk and then the database stops";
            let fix = "set it to what the disk can spare, and alert on the slot's lag";
            report.warn(Area::Server, "max_slot_wal_keep_size", message, fix);
        }
    }
    if server.wal_sender_timeout_ms == 0 {
        let message = "off: a connection that died unseen holds the slot, and nobody else can capture";
        report.warn(Area::Server, "wal_sender_timeout", message, "set it to 60s");
    }
    if let Some(timeout) = &server.idle_slot_timeout {
        let message = format!("{timeout}: a slot that nobody reads for so long is invalidated, and changes are lost");
        let fix = "set it to 0, and limit the WAL by max_slot_wal_keep_size instead";
        report.warn(Area::Server, "idle_replication_slot_timeout", message, fix);
    }
}

fn clock(report: &mut Report, skew: Skew) {
    match skew.complaint() {
        None => report.ok(Area::Server, "clock", "agrees with this machine's"),
        Some(message) => report.warn(Area::Server, "clock", message, clock::FIX),
    }
}
