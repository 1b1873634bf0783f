//! Taking old months out of the hot tables: what `setup` makes for it.
//!
//! ```text
//! cdc_audit.archive                                   what was proved, detached and dropped; SELECT
//! cdc_audit.archive_prove(source, partition, …)       notes that a lake has every version of a partition
//! cdc_audit.archive_detach(id)                        takes a proved partition out of its table, and keeps it
//! cdc_audit.archive_verify(id)                        fails if it does not hold as many versions as were proved
//! cdc_audit.archive_attach(id)                        puts it back
//! cdc_audit.archive_drop(id)                          drops it, after the time of grace
//! ```
//!
//! All of them are SECURITY DEFINER. A role of its own may EXECUTE them, the archiver: the functions believe what it says
//! about the lake, so the daemon's role, which can only add versions, has no right to them. They count the versions
//! themselves, and the time of grace is a part of the function and not an argument.

use audit_config::Span;

use super::{SetupOptions, Statement, push};
use crate::quote::ident;

/// Time to wait for a lock. Everybody else waits behind that wait, so it is short, and the caller tries again.
const LOCK_TIMEOUT: &str = "100ms";

const FUNCTIONS: [(&str, &str); 5] = [
    ("archive_prove(text, text, bigint, jsonb, text)", include_str!("archive/prove.sql")),
    ("archive_detach(bigint)", include_str!("archive/detach.sql")),
    ("archive_verify(bigint)", include_str!("archive/verify.sql")),
    ("archive_attach(bigint)", include_str!("archive/attach.sql")),
    ("archive_drop(bigint)", include_str!("archive/drop.sql")),
];

pub(super) fn make(grace: Span, list: &mut Vec<Statement>) {
    push(list, "which months left the hot tables", include_str!("archive/table.sql"));
    let grace = format!("{} seconds", grace.get().as_secs());
    for (function, text) in FUNCTIONS {
        let text = text.replace("{lock_timeout}", LOCK_TIMEOUT).replace("{grace}", &grace);
        push(list, "takes them out", text);
        push(list, "for the archiver alone", format!("REVOKE ALL ON FUNCTION cdc_audit.{function} FROM PUBLIC"));
    }
}

pub(super) fn grants(options: &SetupOptions, list: &mut Vec<Statement>) {
    let others = |role: &&String| Some(*role) != options.owner.as_ref();
    for role in options.reader.iter().chain(&options.auditor).filter(others) {
        let sql = format!("GRANT SELECT ON cdc_audit.archive TO {}", ident(role));
        push(list, "sees which months left the hot tables", sql);
    }
    if let Some(archiver) = options.archiver.as_ref().filter(others) {
        let name = ident(archiver);
        push(list, "who takes months out", format!("GRANT USAGE ON SCHEMA cdc_audit TO {name}"));
        let sql = format!(
            "GRANT SELECT ON cdc_audit.versions, cdc_audit.versions_tables, cdc_audit.checkpoints, cdc_audit.baselines, \
             cdc_audit.shapes, cdc_audit.archive TO {name}"
        );
        push(list, "reads what is compared with a lake", sql);
        let functions = FUNCTIONS.map(|(function, _)| format!("cdc_audit.{function}")).join(", ");
        push(list, "and takes it out", format!("GRANT EXECUTE ON FUNCTION {functions} TO {name}"));
    }
}

/// The partitions that were detached and not dropped go, too.
const DETACHED: &str = "\
DO $do$ DECLARE kept bigint; BEGIN
  IF pg_catalog.to_regclass('cdc_audit.archive') IS NOT NULL THEN
    FOR kept IN SELECT id FROM cdc_audit.archive WHERE state = 'detached' LOOP
      EXECUTE pg_catalog.format('DROP TABLE IF EXISTS cdc_audit.%I', 'archived_' || kept);
    END LOOP;
  END IF;
END $do$";

pub(super) fn teardown(list: &mut Vec<Statement>) {
    push(list, "months that left the hot tables and were kept", DETACHED);
    let functions = FUNCTIONS.map(|(function, _)| format!("cdc_audit.{function}")).join(", ");
    push(list, "what took them out", format!("DROP FUNCTION IF EXISTS {functions}"));
    push(list, "which they were", "DROP TABLE IF EXISTS cdc_audit.archive");
}
