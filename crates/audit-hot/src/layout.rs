//! The columns of the tables: one list for what `setup` makes, what the writer fills, and what both check.
//!
//! All text is `COLLATE "C"`: positions then sort as they do everywhere else, and an index needs no locale, which a new
//! version of the C library could change under it.

/// A column, with its type as `format_type` prints it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub name: &'static str,
    pub sql_type: &'static str,
    /// What follows the type in CREATE TABLE.
    pub rest: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub name: &'static str,
    pub columns: &'static [Column],
}

const fn column(name: &'static str, sql_type: &'static str, rest: &'static str) -> Column {
    Column { name, sql_type, rest }
}

/// The version record, in its order. The writer fills all of them, in this order.
pub(crate) const VERSIONS: Table = Table {
    name: "versions",
    columns: &[
        column("source", "text", "NOT NULL"),
        column("position", "text", "NOT NULL"),
        column("table_name", "text", "NOT NULL"),
        column("item_type", "text", "NOT NULL"),
        column("key", "text", ""),
        column("old_key", "text", ""),
        column("event", "text", "NOT NULL"),
        column("changes", "jsonb", ""),
        column("before", "jsonb", ""),
        column("after", "jsonb", ""),
        column("changed", "text[]", ""),
        column("before_known", "boolean", "NOT NULL"),
        column("unknown", "text[]", ""),
        column("carried", "text[]", ""),
        column("included", "jsonb", ""),
        column("actor_id", "text", ""),
        column("actor", "jsonb", ""),
        column("reason", "text", ""),
        column("context", "jsonb", ""),
        column("actor_source", "text", ""),
        column("context_verified", "boolean", ""),
        column("xid", "bigint", "NOT NULL"),
        column("commit_lsn", "pg_lsn", "NOT NULL"),
        column("lsn", "pg_lsn", "NOT NULL"),
        column("seq", "bigint", "NOT NULL"),
        column("committed_at", "timestamp with time zone", "NOT NULL"),
        column("recorded_at", "timestamp with time zone", "NOT NULL DEFAULT clock_timestamp()"),
        column("schema_version", "integer", "NOT NULL"),
        column("baseline", "integer", ""),
        column("tenant", "text", ""),
    ],
};

/// Which table beside the common one holds versions of which table, and of which tenant: empty where that makes no difference. `wanted` is the
/// configured name with its placeholders filled; `name` is that, or the like where it cannot be a name or is another's.
pub(crate) const VERSIONS_TABLES: Table = Table {
    name: "versions_tables",
    columns: &[
        column("source", "text", "NOT NULL"),
        column("table_name", "text", "NOT NULL"),
        column("tenant", "text", "NOT NULL"),
        column("wanted", "text", "NOT NULL"),
        column("name", "text", "NOT NULL"),
        column("since", "timestamp with time zone", "NOT NULL DEFAULT clock_timestamp()"),
    ],
};

/// What one sink has of one source. `position` and what belongs to it are null before the first write.
pub(crate) const CHECKPOINTS: Table = Table {
    name: "checkpoints",
    columns: &[
        column("source", "text", "NOT NULL"),
        column("sink", "text", "NOT NULL"),
        column("owner_epoch", "bigint", "NOT NULL DEFAULT 0"),
        column("owner", "text", ""),
        column("system_id", "bigint", ""),
        column("timeline", "bigint", ""),
        column("position", "text", ""),
        column("change_lsn", "pg_lsn", ""),
        column("flushed_lsn", "pg_lsn", ""),
        column("timeline_start", "pg_lsn", ""),
        column("updated_at", "timestamp with time zone", "NOT NULL DEFAULT clock_timestamp()"),
    ],
};

/// How far each table's baseline is. A row of its own for each table, so that a chunk rewrites one small row and not a
/// document of ten thousand.
pub(crate) const BASELINES: Table = Table {
    name: "baselines",
    columns: &[
        column("source", "text", "NOT NULL"),
        column("sink", "text", "NOT NULL"),
        column("table_name", "text", "NOT NULL"),
        column("baseline", "bigint", "NOT NULL"),
        column("chunk", "bigint", "NOT NULL"),
        column("done", "boolean", "NOT NULL"),
    ],
};

/// Every state a table has been in, as [`audit_core::shape::Shape`] writes itself.
pub(crate) const SHAPES: Table = Table {
    name: "shapes",
    columns: &[
        column("source", "text", "NOT NULL"),
        column("table_name", "text", "NOT NULL"),
        column("schema_version", "integer", "NOT NULL"),
        column("digest", "text", "NOT NULL"),
        column("shape", "jsonb", "NOT NULL"),
    ],
};

/// Those for versions first, then those that any checkpoint needs.
pub(crate) const TABLES: [Table; 5] = [VERSIONS, VERSIONS_TABLES, CHECKPOINTS, BASELINES, SHAPES];
pub(crate) const FOR_VERSIONS: usize = 2;

impl Table {
    /// `"name" type collation rest, …` as CREATE TABLE takes it.
    pub fn definition(&self) -> String {
        let line = |column: &Column| {
            let collation = if column.sql_type.starts_with("text") { " COLLATE \"C\"" } else { "" };
            let rest = if column.rest.is_empty() { String::new() } else { format!(" {}", column.rest) };
            format!("  {} {}{collation}{rest}", column.name, column.sql_type)
        };
        self.columns.iter().map(line).collect::<Vec<_>>().join(",\n")
    }

    /// `name, name, …`
    pub fn names(&self) -> String {
        self.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
    }
}
