//! The columns of the tables. `setup` makes the tables from this list, the writer fills its columns, and both check
//! against it.
//!
//! All text is `COLLATE "C"`: positions then sort as they do everywhere else, and no index depends on a locale, whose
//! order a new version of the C library could change.

/// A column, with its type as `format_type` prints it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub name: &'static str,
    pub sql_type: &'static str,
    /// The rest of the column's definition in CREATE TABLE, after the type.
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

/// The columns of the version record, in order. The writer fills all of them, in this order.
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

/// Registers which table in addition to the common one holds the versions of which table and tenant; `tenant` is empty
/// if the tenant makes no difference. `wanted` is the configured name with its placeholders filled in. `name` is the
/// same, or a similar name if `wanted` cannot be a table's name or is already taken.
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

/// What one sink has stored of one source. `position` and the columns that belong to it are null before the first
/// write. `began` is the position from which on the sink has every version.
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
        column("began", "text", ""),
        column("updated_at", "timestamp with time zone", "NOT NULL DEFAULT clock_timestamp()"),
    ],
};

/// How far each table's baseline is. Each table has its own row, so that a chunk rewrites one small row and not a
/// document about ten thousand tables.
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

/// Every shape that a table has had, as [`audit_core::shape::Shape`] serialises itself.
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

/// All tables: first those for versions, then those that any checkpoint needs.
pub(crate) const TABLES: [Table; 5] = [VERSIONS, VERSIONS_TABLES, CHECKPOINTS, BASELINES, SHAPES];
pub(crate) const FOR_VERSIONS: usize = 2;

impl Table {
    /// The columns as CREATE TABLE takes them: `"name" type collation rest, …`.
    pub fn definition(&self) -> String {
        let line = |column: &Column| {
            let collation = if column.sql_type.starts_with("text") { " COLLATE \"C\"" } else { "" };
            let rest = if column.rest.is_empty() { String::new() } else { format!(" {}", column.rest) };
            format!("  {} {}{collation}{rest}", column.name, column.sql_type)
        };
        self.columns.iter().map(line).collect::<Vec<_>>().join(",\n")
    }

    /// The names of the columns, separated by commas: `name, name, …`.
    pub fn names(&self) -> String {
        self.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
    }
}
