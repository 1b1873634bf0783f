//! Tables that take versions instead of the common one: what `setup` makes for them.
//!
//! ```text
//! cdc_audit.versions_tables    which table holds which versions; the writer has no right to it, the reader may SELECT
//! cdc_audit.ensure_versions_table(source, table, tenant, wanted, names)    SECURITY DEFINER; EXECUTE
//! cdc_audit.share_versions_table(name)    its view, `name_trail`, and the same rights as in the common table; the
//!                                         owner alone may execute it
//! ```
//!
//! Such a table is made `LIKE` the common one, so that columns, defaults, compression and indexes are the same, and it
//! is partitioned in the same way by the same function. A constraint ensures that a tenant's table takes no row of
//! another tenant.

use super::{SetupOptions, Statement, TRAIL, push};
use crate::layout::VERSIONS_TABLES;
use crate::quote::{ident, literal};

const ENSURE: &str = include_str!("ensure_versions_table.sql");
const SHARE: &str = include_str!("share_versions_table.sql");

const ENSURE_ARGUMENTS: &str = "cdc_audit.ensure_versions_table(text, text, text, text, text[])";
const SHARE_ARGUMENTS: &str = "cdc_audit.share_versions_table(text)";

pub(super) fn registry(list: &mut Vec<Statement>) {
    push(
        list,
        "which table holds which versions, beside the common one",
        format!(
            "CREATE TABLE IF NOT EXISTS cdc_audit.versions_tables (\n{},\n  PRIMARY KEY (source, table_name, tenant, wanted)\n)",
            VERSIONS_TABLES.definition()
        ),
    );
}

pub(super) fn functions(list: &mut Vec<Statement>) {
    let share = SHARE.replace("{trail}", TRAIL.trim_end());
    push(list, "gives a further table of versions the view and the rights of the common one", share);
    push(list, "for the owner alone", format!("REVOKE ALL ON FUNCTION {SHARE_ARGUMENTS} FROM PUBLIC"));
    push(list, "makes a further table of versions; the only way in which the daemon's role can", ENSURE);
    push(list, "for the daemon alone", format!("REVOKE ALL ON FUNCTION {ENSURE_ARGUMENTS} FROM PUBLIC"));
}

pub(super) fn grant_to_writer(writer: &str, list: &mut Vec<Statement>) {
    push(list, "and further tables", format!("GRANT EXECUTE ON FUNCTION {ENSURE_ARGUMENTS} TO {}", ident(writer)));
}

/// Gives further tables the rights that roles got in the common table since those tables were made.
pub(super) fn share(options: &SetupOptions, list: &mut Vec<Statement>) {
    if !options.checkpoints_alone {
        push(
            list,
            "further tables give the same rights",
            "SELECT cdc_audit.share_versions_table(name) FROM (SELECT DISTINCT name FROM cdc_audit.versions_tables\n  \
               WHERE pg_catalog.to_regclass(pg_catalog.format('cdc_audit.%I', name)) IS NOT NULL) AS own",
        );
    }
}

/// Executes `statement`, in which `own` is the table's name, for each table that exists.
fn for_each(statement: &str) -> String {
    format!(
        "DO $do$ DECLARE own text; BEGIN\n  \
           IF pg_catalog.to_regclass('cdc_audit.versions_tables') IS NOT NULL THEN\n    \
             FOR own IN SELECT DISTINCT name FROM cdc_audit.versions_tables\n             \
                 WHERE pg_catalog.to_regclass(pg_catalog.format('cdc_audit.%I', name)) IS NOT NULL LOOP\n      \
               {statement};\n    \
             END LOOP;\n  \
           END IF;\n\
         END $do$"
    )
}

pub(super) fn revoke(writer: &str, list: &mut Vec<Statement>) {
    let revoke = format!("EXECUTE pg_catalog.format('REVOKE ALL ON cdc_audit.%I FROM %I', own, {})", literal(writer));
    push(list, "nor to further tables", for_each(&revoke));
}

pub(super) fn teardown(list: &mut Vec<Statement>) {
    let drop = "EXECUTE pg_catalog.format('DROP VIEW IF EXISTS cdc_audit.%I', own || '_trail');\n      \
                EXECUTE pg_catalog.format('DROP TABLE cdc_audit.%I', own)";
    push(list, "further tables of versions, with their views", for_each(drop));
    push(list, "what made them", format!("DROP FUNCTION IF EXISTS {ENSURE_ARGUMENTS}, {SHARE_ARGUMENTS}"));
    push(list, "where they were", "DROP TABLE IF EXISTS cdc_audit.versions_tables");
}
