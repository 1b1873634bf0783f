//! The key store and the access log: tables next to those of the versions.
//!
//! ```text
//! cdc_audit.data_keys      wrapped keys of the classes                   the daemon may SELECT, INSERT
//! cdc_audit.subject_keys   wrapped keys of data subjects                 SELECT, INSERT
//! cdc_audit.access_log     every value that was decrypted or refused,    INSERT, but not into `at` and `db_user`
//!                          and every key that was destroyed
//! ```
//!
//! Only the owner can change or delete a row: keys are rewrapped and destroyed under the role that `--as` names.

use super::{SetupOptions, Statement, push};
use crate::quote::ident;

pub(super) fn tables(list: &mut Vec<Statement>) {
    push(list, "wrapped keys; one place on purpose, so back it up", include_str!("keys.sql"));
    push(
        list,
        "a class has one key for tokens and one for its data subjects",
        "CREATE UNIQUE INDEX IF NOT EXISTS data_keys_lasting ON cdc_audit.data_keys (source, class, kind) \
         WHERE kind <> 'data' AND destroyed_at IS NULL",
    );
    push(list, "wrapped keys of data subjects, found by an HMAC of who that is", include_str!("subject_keys.sql"));
    push(list, "who opened which value, and who destroyed which key", include_str!("access_log.sql"));
    for (why, index) in LOG_INDEXES {
        push(list, *why, *index);
    }
}

const LOG_INDEXES: &[(&str, &str)] = &[
    ("what was opened at some time", "CREATE INDEX IF NOT EXISTS access_log_at ON cdc_audit.access_log (at)"),
    (
        "what somebody opened",
        "CREATE INDEX IF NOT EXISTS access_log_user ON cdc_audit.access_log (db_user, os_user, at)",
    ),
    (
        "who saw a row's values",
        "CREATE INDEX IF NOT EXISTS access_log_key ON cdc_audit.access_log (table_name, left(key, 200), at)",
    ),
];

/// A role that decrypts values adds rows to the log, but can set neither the role name nor the time in them.
const LOGS: &str =
    "INSERT (os_user, requested_by, action, purpose, source, table_name, key, position, field, key_id, success)";

pub(super) fn grants(options: &SetupOptions, list: &mut Vec<Statement>) {
    let others = |role: &&String| Some(*role) != options.owner.as_ref();
    if let Some(writer) = options.writer.as_ref().filter(others) {
        let name = ident(writer);
        let sql = format!("GRANT SELECT, INSERT ON cdc_audit.data_keys, cdc_audit.subject_keys TO {name}");
        push(list, "the daemon's role adds keys; it cannot change or remove one", sql);
        push(list, "what it opens is logged", format!("GRANT {LOGS} ON cdc_audit.access_log TO {name}"));
    }
    if let Some(reader) = options.reader.as_ref().filter(others) {
        let name = ident(reader);
        push(list, "who reads the trail", format!("GRANT USAGE ON SCHEMA cdc_audit TO {name}"));
        let sql = format!("GRANT SELECT ON cdc_audit.data_keys, cdc_audit.subject_keys TO {name}");
        push(list, "sees wrapped keys, which the key service alone unwraps", sql);
        push(list, "and logs what it opens", format!("GRANT {LOGS} ON cdc_audit.access_log TO {name}"));
    }
    if let Some(auditor) = options.auditor.as_ref().filter(others) {
        let name = ident(auditor);
        push(list, "who audits the audit", format!("GRANT USAGE ON SCHEMA cdc_audit TO {name}"));
        push(list, "sees who opened and destroyed what", format!("GRANT SELECT ON cdc_audit.access_log TO {name}"));
        for (table, columns) in [
            ("data_keys", "key_id, source, class, kind, master, created_at, rewrapped_at, retired_at, destroyed_at"),
            ("subject_keys", "key_id, source, class, generation, under, created_at, destroyed_at"),
        ] {
            let sql = format!("GRANT SELECT ({columns}) ON cdc_audit.{table} TO {name}");
            push(list, "and which keys there are, without what is wrapped", sql);
        }
    }
}
