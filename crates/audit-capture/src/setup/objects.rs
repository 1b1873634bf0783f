//! Schema `cdc_audit`: the functions that accept an application's context, and the daemon's own tables.

use crate::facts::KeyReader;
use crate::setup::Found;
use crate::step::Plan;

/// A function of the schema.
pub(crate) struct Function {
    pub name: &'static str,
    /// The form in which `DROP FUNCTION` names it.
    pub signature: &'static str,
    why: &'static str,
    sql: &'static str,
    /// Whether applications call it.
    pub public: bool,
}

pub(crate) const FUNCTIONS: [Function; 4] = [
    Function {
        name: "set_context",
        signature: "set_context(jsonb)",
        why: "the function by which applications say who changes something, and why",
        sql: include_str!("../sql/set_context.sql"),
        public: true,
    },
    Function {
        name: "clear_context",
        signature: "clear_context()",
        why: "the function by which they take it back",
        sql: include_str!("../sql/clear_context.sql"),
        public: true,
    },
    Function {
        name: "context_from_settings",
        signature: "context_from_settings()",
        why: "for tables of source.session_context: says what the application's settings say",
        sql: include_str!("../sql/context_from_settings.sql"),
        public: false,
    },
    Function {
        name: "rotate_context_key",
        signature: "rotate_context_key()",
        why: "makes the key that tells a context of set_context from anybody else's message",
        sql: include_str!("../sql/rotate_context_key.sql"),
        public: false,
    },
];

/// The tables, with the privileges that the daemon's role needs on them.
pub(crate) const TABLES: [(&str, &str, &[&str], &str); 6] = [
    (
        "context_keys",
        "keys that set_context signs with; only its owner and the daemon's role read them",
        &["SELECT"],
        include_str!("../sql/context_keys.sql"),
    ),
    (
        "chunks",
        "bounds of the chunks that baselines read; they are raw key values, and so they stay in the source",
        &["SELECT", "INSERT", "UPDATE", "DELETE"],
        include_str!("../sql/chunks.sql"),
    ),
    (
        "captured",
        "which objects were captured under which names, so that one that is new is told from one that was there",
        &["SELECT", "INSERT", "UPDATE", "DELETE"],
        include_str!("../sql/captured.sql"),
    ),
    (
        "captured_names",
        "what tables were called before, and of which tables partitions were part, so that rules for those hold on",
        &["SELECT", "INSERT"],
        include_str!("../sql/captured_names.sql"),
    ),
    (
        "captured_since",
        "from when on everything that is published is accounted for",
        &["SELECT", "INSERT", "UPDATE", "DELETE"],
        include_str!("../sql/captured_since.sql"),
    ),
    (
        "quarantine",
        "changes that sinks refuse and that someone decided to leave out, with who that was",
        &["SELECT", "INSERT (source, sink, position, note, os_user)"],
        include_str!("../sql/quarantine.sql"),
    ),
];

/// Who may create objects in the schema, for statements that the session's role may not run.
pub(super) const SCHEMA_OWNER: &str = "the owner of schema cdc_audit";

/// Adds the columns that record who decided to an earlier version's table. Earlier decisions have no known author.
const QUARANTINE_COLUMNS: [&str; 2] = [
    "ALTER TABLE cdc_audit.quarantine ADD COLUMN os_user text NOT NULL DEFAULT 'unknown', \
     ADD COLUMN db_user text NOT NULL DEFAULT 'unknown'",
    "ALTER TABLE cdc_audit.quarantine ALTER COLUMN os_user DROP DEFAULT, ALTER COLUMN db_user SET DEFAULT session_user",
];

/// Whether a table's privilege is among those that the daemon's role has. For a privilege on a list of columns any
/// column counts.
pub(crate) fn is_granted(granted: &[String], privilege: &str) -> bool {
    let name = privilege.split(" (").next().unwrap_or(privilege);
    granted.iter().any(|has| has == name)
}

/// Says what to do about an object that `setup` did not make. A trigger or a rule holds nothing, belongs to its table,
/// and cannot be moved, so only dropping it leads on.
pub(crate) fn foreign_hint(what: &str) -> &'static str {
    match what.starts_with("trigger ") || what.starts_with("rule ") {
        true => {
            "ask who made it, and look at what it does, because it runs when that table is written; then drop it \
             (DROP TRIGGER … ON …, or DROP RULE … ON …)"
        }
        false => {
            "drop nothing before you know what it is, because a trail may lie in it: ask who uses that role; if it is harmless, give it to the \
             schema's owner (ALTER … OWNER TO), or else move it away (ALTER … SET SCHEMA), which keeps what it holds"
        }
    }
}

/// Refuses objects that someone else created there: they could read the keys of contexts, or run as the daemon.
fn refuse_foreign(plan: &mut Plan, found: &Found) {
    let (objects, me) = (&found.objects, &found.admin.quoted);
    if let Some(owner) = &objects.foreign_schema {
        let message = format!(
            "schema cdc_audit belongs to role {owner}, who could read the keys of contexts and change the tables"
        );
        let hint = format!(
            "drop nothing before you know what it is, because a trail may lie in it: `\\dt+ cdc_audit.*` in psql lists it; if an earlier \
             setup ran as {owner}, run `cdc-audit setup --as URL` with that role; else ask who uses {owner}, and as a superuser run \
             ALTER SCHEMA cdc_audit OWNER TO {me}, or rename the schema, which keeps everything in it"
        );
        plan.refuse(message, hint);
    }
    for what in &objects.foreign {
        plan.refuse(format!("schema cdc_audit holds what setup did not make: {what}"), foreign_hint(what));
    }
}

pub(super) fn create(plan: &mut Plan, found: &Found) {
    let objects = &found.objects;
    refuse_foreign(plan, found);
    match objects.schema {
        true => plan.exists("schema cdc_audit"),
        false => plan.run_if(
            found.admin.may_create,
            "a role that may create schemas in this database",
            "the schema for what cdc-audit keeps in the source",
            "CREATE SCHEMA cdc_audit",
        ),
    }
    let may_create = if objects.schema { objects.may_create } else { found.admin.may_create };
    for function in &FUNCTIONS {
        match objects.functions.get(function.name) {
            Some(there) if function.is_current(there) => {
                plan.exists(format!("function cdc_audit.{}", function.signature));
            }
            _ => plan.run_if(may_create, SCHEMA_OWNER, function.why, function.sql.trim_end()),
        }
    }
    for (name, why, _, sql) in TABLES {
        match objects.tables.contains_key(name) {
            true => plan.exists(format!("table cdc_audit.{name}")),
            false => plan.run_if(may_create, SCHEMA_OWNER, why, sql.trim_end()),
        }
    }
    if objects.quarantine_is_old {
        for sql in QUARANTINE_COLUMNS {
            plan.run_if(objects.owned, SCHEMA_OWNER, "who decided to leave a change out", sql);
        }
    }
    for reader in &objects.key_readers {
        let KeyReader { role, by } = reader;
        match by {
            None => {
                let why = "anyone who reads the keys can sign a context in another's name";
                plan.run_if(may_create, SCHEMA_OWNER, why, reader.revoke());
            }
            Some(by) => {
                let message = format!(
                    "role {role} can read the keys of contexts as a member of {by}, and so sign in another's name"
                );
                plan.note(message, Some(format!("run {} if that need not be", reader.revoke())));
            }
        }
    }
}

impl Function {
    /// Whether the function that exists is the one that this program would create.
    pub fn is_current(&self, there: &crate::facts::Function) -> bool {
        const PATH: &str = "search_path = pg_catalog, pg_temp";
        let settings = self.sql.contains(PATH).then(|| PATH.replacen(" = ", "=", 1));
        self.sql.split("$body$").nth(1).is_some_and(|ours| ours == there.body)
            && there.definer == self.sql.contains("SECURITY DEFINER")
            && there.settings.iter().eq(settings.iter())
    }
}
