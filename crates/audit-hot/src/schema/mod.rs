//! What `setup` makes in the hot database, as a list of statements: [`setup_statements`].
//!
//! ```text
//! cdc_audit.versions     one row a version, partitioned by month (or by table, then month); the writer may INSERT
//! cdc_audit.checkpoints  one row for each source and sink, made here: the writer may SELECT and UPDATE
//! cdc_audit.baselines    how far each table's baseline is                 SELECT, INSERT, UPDATE
//! cdc_audit.shapes       the states that tables have been in              SELECT, INSERT
//! cdc_audit.trail        the record as readers see it (view)
//! cdc_audit.gaps         lost stretches of WAL, and changes that were quarantined (view)
//! cdc_audit.ensure_partition(table, month, name)     SECURITY DEFINER; EXECUTE
//! cdc_audit.archive      which months left the hot tables ([`archive`])
//! ```
//!
//! Together with these it makes the function and the registry for further tables of versions ([`own`]) and, if values
//! are encrypted, the key store ([`keys`]).
//!
//! Nobody needs to be superuser. If an owner role is named, it owns everything, and the writer can neither change nor
//! delete what it wrote, nor drop a partition: this is why a function makes the partitions. Without an owner role, the
//! role that runs `setup` owns everything, and a daemon that logs in as that role could rewrite its own trail.
//!
//! The list can be executed any number of times. It needs one session and, since DDL is transactional, should run in
//! one transaction.
//!
//! Indexes of an existing database are completed after that transaction ([`indexes`]).
//!
//! The tables have neither a unique index nor a primary key on the position: exactly-once follows from the checkpoint,
//! which moves in the same transaction as the rows, and such an index would cost more than a third of what the four
//! indexes that serve queries cost.
//!
//! The daemon skips every table of schema `cdc_audit` in the stream, so that nothing loops if these tables are in the
//! source database and its publication is FOR ALL TABLES.

mod archive;
mod indexes;
mod keys;
mod own;

use std::borrow::Cow;

use audit_config::Span;

use crate::config::Partitioning;
use crate::layout::{BASELINES, CHECKPOINTS, SHAPES, VERSIONS};
use crate::names;
use crate::quote::{ident, literal};

/// A statement, and its purpose as `setup` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub why: Cow<'static, str>,
    pub sql: String,
}

/// The owner of the tables, and the roles and sinks that use them.
#[derive(Clone, Debug, Default)]
pub struct SetupOptions {
    pub source: String,
    /// Names of the sinks whose checkpoint is stored in this database.
    pub sinks: Vec<String>,
    /// None of the sinks stores versions here.
    pub checkpoints_alone: bool,
    /// The key store and the access log are in this database.
    pub keys: bool,
    pub partitioning: Partitioning,
    /// How long a month that left the hot tables is kept before it can be dropped.
    pub archive_grace: Span,
    /// Owns the tables. The role is made (NOLOGIN) if it is missing, for which the role that runs `setup` needs
    /// CREATEROLE. `None` means the role that runs `setup`.
    pub owner: Option<String>,
    /// The daemon's role, which must exist. `None` means the owner.
    pub writer: Option<String>,
    /// May read what was recorded, and decrypt values as far as the key service allows it. The role must exist.
    pub reader: Option<String>,
    /// May read who decrypted and destroyed what, how far each sink is, and which changes are missing; no versions and
    /// no keys. The role must exist.
    pub auditor: Option<String>,
    /// May read what was recorded, and take months out of the hot tables. The role must exist.
    pub archiver: Option<String>,
}

pub use indexes::index_statements;

const ENSURE_PARTITION: &str = include_str!("ensure_partition.sql");
pub(crate) const TRAIL: &str = include_str!("trail.sql");

/// All statements of `setup` for the hot database, in order.
pub fn setup_statements(options: &SetupOptions) -> Vec<Statement> {
    let mut list = Vec::new();
    owner_role(options, &mut list);
    if !options.checkpoints_alone {
        versions(options, &mut list);
    }
    if !options.sinks.is_empty() {
        checkpoints(options, &mut list);
    }
    if options.keys {
        keys::tables(&mut list);
    }
    if !options.checkpoints_alone {
        reading(&mut list);
        archive::make(options.archive_grace, &mut list);
    }
    rows(options, &mut list);
    grants(options, &mut list);
    list
}

fn push(list: &mut Vec<Statement>, why: impl Into<Cow<'static, str>>, sql: impl Into<String>) {
    list.push(Statement { why: why.into(), sql: sql.into().trim_end().to_owned() });
}

fn owner_role(options: &SetupOptions, list: &mut Vec<Statement>) {
    let authorization = options.owner.as_ref().map(|owner| format!(" AUTHORIZATION {}", ident(owner)));
    if let Some(owner) = &options.owner {
        let (name, text) = (ident(owner), literal(owner));
        push(
            list,
            "the role that owns the tables; nobody logs in as it",
            format!(
                "DO $do$ BEGIN\n  \
                   IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {text}) THEN\n    \
                     CREATE ROLE {name} NOLOGIN;\n  \
                   END IF;\n\
                 END $do$"
            ),
        );
        push(
            list,
            "whoever runs this must be able to act as the owner",
            format!(
                "DO $do$ BEGIN\n  \
                   IF NOT pg_catalog.pg_has_role({text}, CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000\n      \
                       THEN 'SET' ELSE 'MEMBER' END) THEN\n    \
                     GRANT {name} TO CURRENT_USER;\n  \
                   END IF;\n\
                 END $do$"
            ),
        );
    }
    push(list, "nothing of somebody else's is taken for ours", only_ours(options));
    push(
        list,
        "the schema of everything below",
        format!(
            "DO $do$ BEGIN\n  \
               IF pg_catalog.to_regnamespace('cdc_audit') IS NULL THEN\n    \
                 CREATE SCHEMA cdc_audit{};\n  \
               END IF;\n\
             END $do$",
            authorization.unwrap_or_default()
        ),
    );
    if let Some(owner) = &options.owner {
        let name = ident(owner);
        // If the source's own setup made the schema, another role may own it.
        push(
            list,
            "the owner makes the tables there",
            format!(
                "DO $do$ BEGIN\n  \
                   IF NOT pg_catalog.has_schema_privilege({}, 'cdc_audit', 'CREATE, USAGE') THEN\n    \
                     GRANT CREATE, USAGE ON SCHEMA cdc_audit TO {name};\n  \
                   END IF;\n\
                 END $do$",
                literal(owner)
            ),
        );
        push(list, "what follows belongs to the owner", format!("SET ROLE {name}"));
    }
}

/// Fails if the schema, or an object in it with one of our names, belongs to a role that could not have made it for us:
/// that role could read what is written there, or have the daemon run its code. Membership in the role proves nothing,
/// because that role may have granted it itself.
fn only_ours(options: &SetupOptions) -> String {
    let roles =
        options.owner.iter().chain(&options.writer).map(|role| format!(", {}", literal(role))).collect::<String>();
    let names = names::OURS.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    include_str!("only_ours.sql").replace("{roles}", &roles).replace("{names}", &names)
}

fn versions(options: &SetupOptions, list: &mut Vec<Statement>) {
    let (strategy, by) = match options.partitioning {
        Partitioning::Month => ("r", "RANGE (committed_at)"),
        Partitioning::TableAndMonth => ("l", "LIST (table_name)"),
    };
    push(
        list,
        "partitioning is decided once",
        format!(
            "DO $do$ BEGIN\n  \
               IF EXISTS (SELECT FROM pg_catalog.pg_partitioned_table\n             \
                   WHERE partrelid = pg_catalog.to_regclass('cdc_audit.versions') AND partstrat <> '{strategy}') THEN\n    \
                 RAISE EXCEPTION 'cdc_audit.versions exists and is partitioned in another way than configured'\n      \
                   USING HINT = 'set the other value of `partitioning`: the tables that exist cannot be changed';\n  \
               END IF;\n\
             END $do$"
        ),
    );
    let versions = VERSIONS.definition();
    push(
        list,
        "the audit table: one row a version",
        format!("CREATE TABLE IF NOT EXISTS cdc_audit.versions (\n{versions}\n) PARTITION BY {by}"),
    );
    push(list, "whole rows are compressed by LZ4 where the server has it: faster than its own method", LZ4);
    own::registry(list);
    indexes::of_tables(list);
}

/// Makes a column that earlier releases did not make. Where their sinks began is the position of the first version that
/// is there. The versions are read before the column is made, because from then on the daemon waits.
const BEGAN: &str = "\
DO $do$ DECLARE own record; found jsonb; firsts jsonb := '{}'; BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
             WHERE attrelid = 'cdc_audit.checkpoints'::regclass AND attname = 'began') THEN
    IF pg_catalog.to_regclass('cdc_audit.versions') IS NOT NULL THEN
      FOR own IN SELECT 'versions' AS name UNION SELECT name FROM cdc_audit.versions_tables
                 WHERE pg_catalog.to_regclass(pg_catalog.format('cdc_audit.%I', name)) IS NOT NULL LOOP
        EXECUTE pg_catalog.format('SELECT jsonb_object_agg(source, least(first, $1 ->> source)) FROM
            (SELECT source, min(position) AS first FROM cdc_audit.%I GROUP BY source) AS firsts', own.name)
          INTO found USING firsts;
        firsts := firsts || coalesce(found, '{}');
      END LOOP;
    END IF;
    ALTER TABLE cdc_audit.checkpoints ADD COLUMN began text COLLATE \"C\";
    UPDATE cdc_audit.checkpoints SET began = firsts ->> source WHERE position IS NOT NULL;
  END IF;
END $do$";

/// The same where the database holds no versions.
const BEGAN_ALONE: &str = "\
DO $do$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
             WHERE attrelid = 'cdc_audit.checkpoints'::regclass AND attname = 'began') THEN
    ALTER TABLE cdc_audit.checkpoints ADD COLUMN began text COLLATE \"C\";
  END IF;
END $do$";

fn checkpoints(options: &SetupOptions, list: &mut Vec<Statement>) {
    push(
        list,
        "how far each sink is: one row each, updated in place",
        format!(
            "CREATE TABLE IF NOT EXISTS cdc_audit.checkpoints (\n{},\n  PRIMARY KEY (source, sink)\n) WITH (fillfactor = 20)",
            CHECKPOINTS.definition()
        ),
    );
    push(
        list,
        "a column that earlier releases did not make",
        "DO $do$ BEGIN\n  \
           IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute\n             \
               WHERE attrelid = 'cdc_audit.checkpoints'::regclass AND attname = 'timeline_start') THEN\n    \
             ALTER TABLE cdc_audit.checkpoints ADD COLUMN timeline_start pg_lsn;\n  \
           END IF;\n\
         END $do$",
    );
    if options.checkpoints_alone {
        push(list, "where each sink began", BEGAN_ALONE);
    } else {
        push(list, "where each sink began; in a database of an earlier release this reads all versions, once", BEGAN);
    }
    push(
        list,
        "how far each table's baseline is",
        format!(
            "CREATE TABLE IF NOT EXISTS cdc_audit.baselines (\n{},\n  PRIMARY KEY (source, sink, table_name)\n)",
            BASELINES.definition()
        ),
    );
    push(
        list,
        "the states that tables have been in",
        format!(
            "CREATE TABLE IF NOT EXISTS cdc_audit.shapes (\n{},\n  PRIMARY KEY (source, table_name, schema_version)\n)",
            SHAPES.definition()
        ),
    );
}

fn reading(list: &mut Vec<Statement>) {
    let trail = format!("CREATE OR REPLACE VIEW cdc_audit.trail AS\n{}\nFROM cdc_audit.versions", TRAIL.trim_end());
    push(list, "the record as readers see it", trail);
    push(list, "what is missing, for those who may not read the rest", GAPS);
    push(list, "an earlier form of the next", "DROP FUNCTION IF EXISTS cdc_audit.ensure_partition(text, date)");
    push(list, "makes partitions; the only way in which the daemon's role can", ENSURE_PARTITION);
    push(
        list,
        "for the daemon alone",
        "REVOKE ALL ON FUNCTION cdc_audit.ensure_partition(text, date, text) FROM PUBLIC",
    );
    own::functions(list);
}

const GAPS: &str = "\
CREATE OR REPLACE VIEW cdc_audit.gaps AS
SELECT source, position, event, table_name, committed_at, recorded_at, context
FROM cdc_audit.versions WHERE event IN ('gap', 'error')";

const LZ4: &str = "\
DO $do$ DECLARE plain name; BEGIN
  IF 'lz4' = ANY (SELECT unnest(enumvals) FROM pg_catalog.pg_settings WHERE name = 'default_toast_compression') THEN
    FOR plain IN SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = 'cdc_audit.versions'::regclass
                 AND atttypid = 'jsonb'::regtype AND attcompression <> 'l' LOOP
      EXECUTE pg_catalog.format('ALTER TABLE cdc_audit.versions ALTER COLUMN %I SET COMPRESSION lz4', plain);
    END LOOP;
  END IF;
END $do$";

fn rows(options: &SetupOptions, list: &mut Vec<Statement>) {
    if options.partitioning == Partitioning::Month && !options.checkpoints_alone {
        push(
            list,
            "partitions for this month and the next; the daemon makes the others",
            "SELECT cdc_audit.ensure_partition(NULL,\n  \
             (pg_catalog.date_trunc('month', pg_catalog.now() AT TIME ZONE 'UTC') + ahead * interval '1 month')::date)\n\
             FROM pg_catalog.generate_series(0, 1) AS ahead",
        );
    }
    for sink in &options.sinks {
        push(
            list,
            "the sink's checkpoint",
            format!(
                "INSERT INTO cdc_audit.checkpoints (source, sink) VALUES ({}, {}) ON CONFLICT DO NOTHING",
                literal(&options.source),
                literal(sink)
            ),
        );
    }
}

fn grants(options: &SetupOptions, list: &mut Vec<Statement>) {
    if let Some(writer) = options.writer.as_ref().filter(|writer| Some(*writer) != options.owner.as_ref()) {
        let name = ident(writer);
        push(list, "the daemon's role", format!("GRANT USAGE ON SCHEMA cdc_audit TO {name}"));
        if !options.checkpoints_alone {
            push(
                list,
                "it adds versions; it cannot change or remove one",
                format!("GRANT INSERT ON cdc_audit.versions TO {name}"),
            );
            push(
                list,
                "it has partitions made",
                format!("GRANT EXECUTE ON FUNCTION cdc_audit.ensure_partition(text, date, text) TO {name}"),
            );
            own::grant_to_writer(writer, list);
        }
        if !options.sinks.is_empty() {
            push(list, "it moves its checkpoint", format!("GRANT SELECT, UPDATE ON cdc_audit.checkpoints TO {name}"));
            push(list, "and its baselines'", format!("GRANT SELECT, INSERT, UPDATE ON cdc_audit.baselines TO {name}"));
            push(list, "it adds shapes", format!("GRANT SELECT, INSERT ON cdc_audit.shapes TO {name}"));
        }
    }
    let reader = options.reader.as_ref().filter(|_| !options.checkpoints_alone);
    if let Some(reader) = reader.filter(|reader| Some(*reader) != options.owner.as_ref()) {
        let name = ident(reader);
        push(list, "who reads the trail", format!("GRANT USAGE ON SCHEMA cdc_audit TO {name}"));
        push(
            list,
            "reads everything",
            format!(
                "GRANT SELECT ON cdc_audit.versions, cdc_audit.versions_tables, cdc_audit.trail, cdc_audit.checkpoints, \
                 cdc_audit.baselines, cdc_audit.shapes TO {name}"
            ),
        );
    }
    if let Some(auditor) = options.auditor.as_ref().filter(|auditor| Some(*auditor) != options.owner.as_ref()) {
        let name = ident(auditor);
        push(list, "who audits the audit", format!("GRANT USAGE ON SCHEMA cdc_audit TO {name}"));
        let gaps = if options.checkpoints_alone { "" } else { "cdc_audit.gaps, " };
        if !options.sinks.is_empty() {
            let sql = format!("GRANT SELECT ON {gaps}cdc_audit.checkpoints, cdc_audit.baselines TO {name}");
            push(list, "sees how far each sink is, and what is missing", sql);
        }
    }
    own::share(options, list);
    if !options.checkpoints_alone {
        archive::grants(options, list);
    }
    if options.keys {
        keys::grants(options, list);
    }
    if options.owner.is_some() {
        push(list, "back to the role that runs this", "RESET ROLE");
    }
}

/// Statements that remove what [`setup_statements`] made, except the key store: versions in lakes and topics can only
/// be read with its keys. With `keep_history` everything that was recorded stays readable, and the daemon's role loses
/// its rights. Without it everything is removed, including the history; this is refused if the same tables hold another
/// source's history. Roles stay, because they may own other objects.
pub fn teardown_statements(options: &SetupOptions, keep_history: bool) -> Vec<Statement> {
    let mut list = Vec::new();
    if let Some(owner) = &options.owner {
        push(&mut list, "the tables are the owner's", format!("SET ROLE {}", ident(owner)));
    }
    if keep_history {
        if let Some(writer) = options.writer.as_ref().filter(|writer| Some(*writer) != options.owner.as_ref()) {
            push(
                &mut list,
                "the daemon's role writes no more",
                format!(
                    "DO $do$ BEGIN\n  \
                       IF pg_catalog.to_regclass('cdc_audit.{}') IS NOT NULL THEN\n    \
                         REVOKE ALL ON {}cdc_audit.checkpoints, cdc_audit.baselines, cdc_audit.shapes FROM {};\n  \
                       END IF;\n\
                     END $do$",
                    if options.checkpoints_alone { "checkpoints" } else { "versions" },
                    if options.checkpoints_alone { "" } else { "cdc_audit.versions, " },
                    ident(writer)
                ),
            );
            own::revoke(writer, &mut list);
        }
    } else {
        push(
            &mut list,
            "other sources keep their history",
            format!(
                "DO $do$ BEGIN\n  \
                   IF pg_catalog.to_regclass('cdc_audit.checkpoints') IS NOT NULL THEN\n    \
                     IF EXISTS (SELECT FROM cdc_audit.checkpoints WHERE source <> {}) THEN\n      \
                       RAISE EXCEPTION 'other sources store their history in the same tables'\n        \
                         USING HINT = 'tear them down first, or delete this source''s rows by hand';\n    \
                     END IF;\n  \
                   END IF;\n\
                 END $do$",
                literal(&options.source)
            ),
        );
        push(&mut list, "the views", "DROP VIEW IF EXISTS cdc_audit.trail, cdc_audit.gaps");
        archive::teardown(&mut list);
        own::teardown(&mut list);
        push(&mut list, "the function", "DROP FUNCTION IF EXISTS cdc_audit.ensure_partition(text, date, text)");
        push(
            &mut list,
            "the history, every partition of it",
            "DROP TABLE IF EXISTS cdc_audit.versions, cdc_audit.checkpoints, cdc_audit.baselines, cdc_audit.shapes",
        );
    }
    if options.owner.is_some() {
        push(&mut list, "back to the role that runs this", "RESET ROLE");
    }
    if !keep_history {
        push(
            &mut list,
            "the schema, where nothing else is in it",
            "DO $do$ BEGIN\n  \
               IF pg_catalog.to_regnamespace('cdc_audit') IS NOT NULL THEN\n    \
                 DROP SCHEMA cdc_audit;\n  \
               END IF;\n\
             EXCEPTION WHEN dependent_objects_still_exist THEN NULL;\n\
             END $do$",
        );
    }
    list
}
