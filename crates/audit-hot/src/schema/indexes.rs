//! The indexes of the tables of versions, and how a database that was set up by an earlier release gets them.
//!
//! `setup` makes each index on the partitioned table alone, which takes a moment. Partitions that are made later have it
//! from the beginning. Those that are there already get it one by one, without a lock that a writer would wait for, after
//! the transaction of `setup`: [`index_statements`]. Until all have it the server calls the index of the partitioned table
//! invalid, which is how a later run finds what is left to do.

use std::collections::HashMap;

use tokio_postgres::{Client, Error, Row};

use super::{Statement, push};
use crate::quote::{ident, literal};

/// An index: name, purpose, and definition.
pub(super) type Index = (&'static str, &'static str, &'static str);

/// What each index costs: CPU time of the server for one row of a wide table (20 columns), in addition to the COPY
/// itself. Measured with `examples/measure.rs` on PostgreSQL 15 and a machine that was busy with other work. No
/// transaction had an actor, and no key changed.
///
/// | | updates, changes alone | inserts, whole rows | bytes a row |
/// | --- | --- | --- | --- |
/// | COPY without an index | 4.2 µs | 17.4 µs | |
/// | `versions_key` | 2.3 µs | 3.6 µs | 130 |
/// | `versions_old_key` | 0.3 µs | 0.4 µs | 0 |
/// | `versions_actor` | 0.4 µs | none seen | 0 |
/// | on `committed_at` alone, which `versions_table_at` replaces | 0.7 µs | 0.9 µs | 7 |
/// | all of these | 3.3 µs | 3.5 µs | 139 |
/// | not made: unique `(source, position, committed_at)` | 1.2 µs more | 1.3 µs more | 69 |
/// | not made: GIN on `changes` | 8.0 µs more | 0.6 µs more | 261 and 29 |
///
/// `versions_table_at` costs as much where a transaction changes one table, and 2 to 4 µs where each of its rows belongs
/// to another table; `versions_place` costs less than the noise (`benches/README.md`).
pub(super) const INDEXES: &[Index] = &[
    (
        "versions_key",
        "the trail of one row; keys of any length fit",
        "USING btree (table_name, left(key, 200), position)",
    ),
    (
        "versions_old_key",
        "the same through changes of its key; holds only those",
        "USING btree (table_name, left(old_key, 200), position) WHERE old_key IS NOT NULL",
    ),
    (
        "versions_actor",
        "what somebody did; holds only what has an actor",
        "USING btree (actor_id, committed_at) WHERE actor_id IS NOT NULL",
    ),
    (
        "versions_gaps",
        "what is missing; holds only that",
        "USING btree (source, position) WHERE event IN ('gap', 'error')",
    ),
    ("versions_table_at", "the newest versions of a table", "USING btree (table_name, committed_at)"),
    (
        "versions_place",
        "what one transaction did, and where a time begins; next to no room",
        "USING brin (position, committed_at, xid) WITH (autosummarize = on, pages_per_range = 32)",
    ),
];

/// The index that `versions_table_at` and `versions_place` replace: its name, and its definition as the server prints it.
const REPLACED: (&str, &str) = ("versions_committed_at", "USING btree (committed_at)");

/// The definition of the index `i`, as it can be repeated for another table.
const DEFINITION: &str = "\
(SELECT format('USING %s (%s)%s%s', method.amname,
   (SELECT string_agg(pg_get_indexdef(i.indexrelid, n, false), ', ' ORDER BY n) FROM generate_series(1, i.indnatts) AS n),
   ' WITH (' || array_to_string(index.reloptions, ', ') || ')', ' WHERE ' || pg_get_expr(i.indpred, i.indrelid))
 FROM pg_catalog.pg_class AS index JOIN pg_catalog.pg_am AS method ON method.oid = index.relam WHERE index.oid = i.indexrelid)";

/// The common table of versions and the further ones, as `tables (oid)`.
const TABLES: &str = "tables (oid) AS (SELECT 'cdc_audit.versions'::regclass::oid UNION
   SELECT to_regclass(format('cdc_audit.%I', name))::oid FROM cdc_audit.versions_tables)";

/// Makes the indexes of the partitioned tables. The registry of further tables must be there.
pub(super) fn of_tables(list: &mut Vec<Statement>) {
    for (name, why, definition) in INDEXES {
        push(list, *why, format!("CREATE INDEX IF NOT EXISTS {name} ON ONLY cdc_audit.versions {definition}"));
    }
    push(list, "further tables have the same indexes", of_further_tables());
}

fn of_further_tables() -> String {
    let names: Vec<String> = INDEXES.iter().map(|(name, ..)| literal(name)).collect();
    format!(
        "DO $do$ DECLARE missing record; BEGIN\n\
           FOR missing IN\n\
             WITH defined AS (SELECT i.indrelid, named.relname AS name, {DEFINITION} AS definition\n\
               FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS named ON named.oid = i.indexrelid\n\
               WHERE i.indrelid = 'cdc_audit.versions'::regclass\n\
                  OR i.indrelid IN (SELECT to_regclass(format('cdc_audit.%I', name)) FROM cdc_audit.versions_tables))\n\
             SELECT own.name, common.definition FROM (SELECT DISTINCT name FROM cdc_audit.versions_tables) AS own\n\
             JOIN defined AS common ON common.indrelid = 'cdc_audit.versions'::regclass\n\
               AND common.name IN ({names})\n\
             WHERE to_regclass(format('cdc_audit.%I', own.name)) IS NOT NULL\n\
               AND NOT EXISTS (SELECT FROM defined WHERE defined.definition = common.definition\n\
                   AND defined.indrelid = to_regclass(format('cdc_audit.%I', own.name)))\n\
           LOOP\n\
             EXECUTE pg_catalog.format('CREATE INDEX ON ONLY cdc_audit.%I %s', missing.name, missing.definition);\n\
           END LOOP;\n\
         END $do$",
        names = names.join(", ")
    )
}

/// A table below a table of versions, for one index that is not complete.
struct Place {
    /// Index of the table of versions, and its definition.
    root: u32,
    definition: String,
    table: u32,
    name: String,
    above: Option<u32>,
    is_partitioned: bool,
    bytes: i64,
    /// Its index with that definition, if it has one; whether that is complete, and whether it is attached.
    index: Option<String>,
    is_valid: bool,
    is_attached: bool,
}

impl Place {
    fn of(row: &Row) -> Place {
        Place {
            root: row.get(0),
            definition: row.get(1),
            table: row.get(2),
            name: row.get(3),
            above: row.get(4),
            is_partitioned: row.get(5),
            bytes: row.get(6),
            index: row.get(7),
            is_valid: row.get(8),
            is_attached: row.get(9),
        }
    }

    /// The name of its index: the one that it has, or one that no other index has.
    fn index_name(&self) -> String {
        self.index.clone().unwrap_or_else(|| {
            let hash = crate::names::hash(&format!("{}:{}", self.name, self.definition));
            format!("{}_{hash}", &self.name[..self.name.floor_char_boundary(crate::names::INDEXED_MAX)])
        })
    }
}

/// What is left to do for the indexes after the transaction of [`super::setup_statements`], in order: each statement must
/// run by itself, outside a transaction. None is left in a new database. After an interruption the rest is found again.
///
/// # Errors
/// Fails if the database cannot be read.
pub async fn index_statements(client: &Client, owner: Option<&str>) -> Result<Vec<Statement>, Error> {
    let mut list = Vec::new();
    if client.query_one("SELECT to_regclass('cdc_audit.versions_tables') IS NULL", &[]).await?.get(0) {
        return Ok(list);
    }
    complete(&places(client).await?, &mut list);
    for row in client.query(&replaced(), &[]).await? {
        let sql = format!("DROP INDEX IF EXISTS cdc_audit.{}", ident(row.get(0)));
        push(&mut list, "other indexes do the work of this one; it is dropped between two questions", patiently(&sql));
    }
    if let Some(owner) = owner.filter(|_| !list.is_empty()) {
        let own = |sql: String| Statement { why: "what belongs to the owner".into(), sql };
        list.insert(0, own(format!("SET ROLE {}", ident(owner))));
        list.push(own("RESET ROLE".to_owned()));
    }
    Ok(list)
}

/// The tables below those of versions, for each index that is not complete; a table comes before its partitions.
async fn places(client: &Client) -> Result<Vec<Place>, Error> {
    let statement = format!(
        "WITH RECURSIVE {TABLES}, places AS (
           SELECT i.indexrelid AS root, {DEFINITION} AS definition, i.indrelid AS relation, NULL::oid AS above, 0 AS depth
           FROM pg_catalog.pg_index AS i JOIN tables ON tables.oid = i.indrelid WHERE NOT i.indisvalid
           UNION ALL
           SELECT root, definition, inhrelid, relation, depth + 1
           FROM places JOIN pg_catalog.pg_inherits ON inhparent = relation)
         SELECT root, definition, relation, relname::text, above, relkind = 'p', pg_catalog.pg_table_size(relation),
                own.name, coalesce(own.is_valid, false), coalesce(own.is_attached, false)
         FROM places JOIN pg_catalog.pg_class ON pg_class.oid = relation
         LEFT JOIN LATERAL (
           SELECT named.relname::text AS name, i.indisvalid AS is_valid, named.relispartition AS is_attached
           FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS named ON named.oid = i.indexrelid
           WHERE i.indrelid = relation AND {DEFINITION} = places.definition
           ORDER BY is_attached DESC, is_valid DESC LIMIT 1) AS own ON true
         ORDER BY root, depth, relname"
    );
    Ok(client.query(&statement, &[]).await?.iter().map(Place::of).collect())
}

/// Indexes of the tables of versions that others have replaced; only once those are complete.
fn replaced() -> String {
    let (name, definition) = (literal(REPLACED.0), literal(REPLACED.1));
    format!(
        "WITH {TABLES} SELECT named.relname::text FROM pg_catalog.pg_index AS i JOIN tables ON tables.oid = i.indrelid
         JOIN pg_catalog.pg_class AS named ON named.oid = i.indexrelid
         WHERE {DEFINITION} = {definition} AND (named.relname = {name} OR i.indrelid <> 'cdc_audit.versions'::regclass)"
    )
}

/// ⚠ A partition's index is built CONCURRENTLY: the writer does not wait for it.
fn complete(places: &[Place], list: &mut Vec<Statement>) {
    let names: HashMap<(u32, u32), String> =
        places.iter().map(|place| ((place.root, place.table), place.index_name())).collect();
    for place in places.iter().filter(|place| place.is_partitioned && place.index.is_none()) {
        let (name, table) = (ident(&place.index_name()), ident(&place.name));
        let sql = format!("CREATE INDEX {name} ON ONLY cdc_audit.{table} {}", place.definition);
        push(list, "an index that partitions get one by one", sql);
    }
    // Partitions before the tables that they belong to: an index is complete with the last of its parts.
    for place in places.iter().rev() {
        let (name, table) = (ident(&place.index_name()), ident(&place.name));
        if place.index.is_some() && !place.is_valid && !place.is_partitioned && !place.is_attached {
            push(list, "what an interrupted run left", format!("DROP INDEX CONCURRENTLY IF EXISTS cdc_audit.{name}"));
        }
        if !place.is_valid && !place.is_partitioned {
            let sql = format!("CREATE INDEX CONCURRENTLY {name} ON cdc_audit.{table} {}", place.definition);
            push(list, format!("writers and readers go on meanwhile; {}", duration(place.bytes)), sql);
        }
        let above = place.above.and_then(|above| names.get(&(place.root, above)));
        if let Some(above) = above.filter(|_| !place.is_attached) {
            let sql = format!("ALTER INDEX cdc_audit.{} ATTACH PARTITION cdc_audit.{name}", ident(above));
            push(list, "part of the index of the whole table", patiently(&sql));
        }
    }
}

/// Bytes of a table that are read twice and indexed in a second, on a slow machine.
const BYTES_PER_SECOND: i64 = 20 << 20;

fn duration(bytes: i64) -> String {
    let (megabytes, minutes) = (bytes >> 20, bytes / BYTES_PER_SECOND / 60);
    match minutes {
        0 => format!("{megabytes} MB, less than a minute"),
        minutes => format!("{megabytes} MB, up to {} minutes", minutes + 1),
    }
}

/// Waits for a lock in short turns. While a statement waits for a lock that others have, everybody who comes later waits,
/// too.
fn patiently(sql: &str) -> String {
    format!(
        "DO $do$ BEGIN\n  \
           FOR turn IN 1..60 LOOP\n    \
             BEGIN\n      \
               SET LOCAL lock_timeout = '500ms';\n      \
               {sql};\n      \
               RETURN;\n    \
             EXCEPTION WHEN lock_not_available THEN\n      \
               PERFORM pg_catalog.pg_sleep(0.5);\n    \
             END;\n  \
           END LOOP;\n  \
           RAISE EXCEPTION 'a question that is being answered keeps a table of versions locked'\n    \
             USING HINT = 'nothing is lost: run setup again when it is answered, and it goes on here';\n\
         END $do$"
    )
}
