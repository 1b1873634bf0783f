//! The engines, and the way in which each writes names, texts and types.

use crate::types::Type;

/// The name of the subquery from which a view with expressions selects.
pub(crate) const SIDES: &str = "sides";

/// An engine that statements are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Athena,
    Glue,
    Redshift,
    Bigquery,
    Synapse,
    Snowflake,
    Databricks,
    Trino,
    Spark,
    Duckdb,
    Clickhouse,
}

use Engine::*;

impl Engine {
    pub const ALL: [Engine; 11] =
        [Athena, Glue, Redshift, Bigquery, Synapse, Snowflake, Databricks, Trino, Spark, Duckdb, Clickhouse];

    /// The name as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Athena => "Athena",
            Glue => "Glue",
            Redshift => "Redshift",
            Bigquery => "BigQuery",
            Synapse => "Synapse",
            Snowflake => "Snowflake",
            Databricks => "Databricks",
            Trino => "Trino",
            Spark => "Spark",
            Duckdb => "DuckDB",
            Clickhouse => "ClickHouse",
        }
    }

    /// The name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Athena => "athena",
            Glue => "glue",
            Redshift => "redshift",
            Bigquery => "bigquery",
            Synapse => "synapse",
            Snowflake => "snowflake",
            Databricks => "databricks",
            Trino => "trino",
            Spark => "spark",
            Duckdb => "duckdb",
            Clickhouse => "clickhouse",
        }
    }

    /// Maximum length of a statement in bytes, if that is less than about a megabyte.
    pub(crate) fn longest_statement(self) -> Option<usize> {
        match self {
            // Athena has a quota that cannot be raised; for ClickHouse it is the default of max_query_size.
            Athena | Clickhouse => Some(262_144),
            // For Trino it is the default of query.max-length; the others' limits cannot be raised.
            Trino | Bigquery | Snowflake => Some(1_000_000),
            Glue | Redshift | Synapse | Databricks | Spark | Duckdb => None,
        }
    }

    /// Returns the text that begins a comment, and the text that ends a statement.
    pub(crate) fn script(self) -> (&'static str, &'static str) {
        match self {
            Glue => ("#", ""),
            // The statement that creates a view must be alone in its batch.
            Synapse => ("--", "\nGO"),
            _ => ("--", ";"),
        }
    }

    /// Quotes a name. Names here have only ASCII letters, digits and `_`, so that nothing in them needs an escape.
    pub(crate) fn quote(self, name: &str) -> String {
        match self {
            Bigquery | Databricks | Spark | Clickhouse => format!("`{name}`"),
            Synapse => format!("[{name}]"),
            _ => format!("\"{name}\""),
        }
    }

    /// Quotes the name of an object in a schema.
    pub(crate) fn object(self, schema: &str, name: &str) -> String {
        format!("{}.{}", self.quote(schema), self.quote(name))
    }

    /// Names a column of the subquery inside an expression of a view. ClickHouse would take a bare name for the view's
    /// own column of that name.
    pub(crate) fn column(self, name: &str) -> String {
        match self {
            Clickhouse => self.object(SIDES, name),
            _ => self.quote(name),
        }
    }

    /// Writes a text as a literal.
    pub(crate) fn literal(self, text: &str) -> String {
        match self {
            // These engines have escapes in literals.
            Bigquery | Databricks | Spark | Clickhouse | Snowflake => {
                format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
            }
            Redshift => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
            Synapse => format!("N'{}'", text.replace('\'', "''")),
            _ => format!("'{}'", text.replace('\'', "''")),
        }
    }

    /// Returns the engine's name of a type, for a cast or a column.
    pub(crate) fn type_name(self, kind: &Type) -> String {
        let name = match (self, kind) {
            (_, Type::Decimal(precision, scale)) => return self.decimal(*precision, *scale),
            (Bigquery, Type::Bool) | (Clickhouse, Type::Bool) => {
                if self == Bigquery {
                    "BOOL"
                } else {
                    "Bool"
                }
            }
            (Synapse, Type::Bool) => "BIT",
            (_, Type::Bool) => "BOOLEAN",
            (Bigquery, Type::Int16 | Type::Int32 | Type::Int64) => "INT64",
            (Clickhouse, Type::Int16) => "Int16",
            (Clickhouse, Type::Int32) => "Int32",
            (Clickhouse, Type::Int64) => "Int64",
            (_, Type::Int16) => "SMALLINT",
            (Databricks | Spark | Synapse, Type::Int32) => "INT",
            (_, Type::Int32) => "INTEGER",
            (_, Type::Int64) => "BIGINT",
            (Bigquery, Type::Float32 | Type::Float64) => "FLOAT64",
            (Clickhouse, Type::Float32) => "Float32",
            (Clickhouse, Type::Float64) => "Float64",
            (Athena | Glue | Trino | Redshift | Synapse, Type::Float32) => "REAL",
            (_, Type::Float32) => "FLOAT",
            (Redshift, Type::Float64) => "DOUBLE PRECISION",
            (Snowflake | Synapse, Type::Float64) => "FLOAT",
            (_, Type::Float64) => "DOUBLE",
            (Bigquery, Type::Binary) => "BYTES",
            (Athena | Glue | Trino, Type::Binary) => "VARBINARY",
            (Redshift, Type::Binary) => "VARBYTE(1024000)",
            (Synapse, Type::Binary) => "VARBINARY(MAX)",
            (Duckdb, Type::Binary) => "BLOB",
            (Clickhouse, Type::Binary | Type::Text) => "String",
            (_, Type::Binary) => "BINARY",
            (Clickhouse, Type::Date) => "Date32",
            (_, Type::Date) => "DATE",
            (Trino, Type::Timestamp) => "TIMESTAMP(6) WITH TIME ZONE",
            (Synapse, Type::Timestamp) => "DATETIME2(6)",
            (Snowflake, Type::Timestamp) => "TIMESTAMP_LTZ(6)",
            (Duckdb, Type::Timestamp) => "TIMESTAMPTZ",
            (Clickhouse, Type::Timestamp) => "DateTime64(6, 'UTC')",
            (_, Type::Timestamp) => "TIMESTAMP",
            (Bigquery | Databricks | Spark, Type::Text) => "STRING",
            (Redshift, Type::Text) => "VARCHAR(65535)",
            // UTF-8, compared byte by byte like the lake's own statistics.
            (Synapse, Type::Text) => "VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8",
            (_, Type::Text) => "VARCHAR",
            (Bigquery | Databricks | Spark, Type::TextList) => "ARRAY<STRING>",
            (Athena | Glue | Trino, Type::TextList) => "ARRAY(VARCHAR)",
            (Redshift, Type::TextList) => "SUPER",
            // Synapse returns a list as JSON text.
            (Synapse, Type::TextList) => "VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8",
            (Snowflake, Type::TextList) => "ARRAY",
            (Clickhouse, Type::TextList) => "Array(Nullable(String))",
            (Duckdb, Type::TextList) => "VARCHAR[]",
        };
        name.to_owned()
    }

    fn decimal(self, precision: u8, scale: u8) -> String {
        match self {
            // NUMERIC has 29 digits before the point and 9 after it.
            Bigquery if scale <= 9 && precision - scale <= 29 => format!("NUMERIC({precision}, {scale})"),
            Bigquery => format!("BIGNUMERIC({precision}, {scale})"),
            Clickhouse => format!("Decimal({precision}, {scale})"),
            Snowflake => format!("NUMBER({precision}, {scale})"),
            _ => format!("DECIMAL({precision}, {scale})"),
        }
    }

    /// Returns the type of a column that may be null, in the engine's own statements.
    pub(crate) fn column_type(self, kind: &Type) -> String {
        match (self, kind) {
            (Clickhouse, Type::TextList) => self.type_name(kind),
            (Clickhouse, _) => format!("Nullable({})", self.type_name(kind)),
            _ => self.type_name(kind),
        }
    }

    /// Returns the type as Hive writes it, for the statements of Athena and Glue that use Hive's syntax.
    pub(crate) fn hive_type(kind: &Type) -> String {
        match kind {
            Type::Bool => "boolean".to_owned(),
            Type::Int16 => "smallint".to_owned(),
            Type::Int32 => "int".to_owned(),
            Type::Int64 => "bigint".to_owned(),
            Type::Float32 => "float".to_owned(),
            Type::Float64 => "double".to_owned(),
            Type::Decimal(precision, scale) => format!("decimal({precision},{scale})"),
            Type::Binary => "binary".to_owned(),
            Type::Date => "date".to_owned(),
            Type::Timestamp => "timestamp".to_owned(),
            Type::Text => "string".to_owned(),
            Type::TextList => "array<string>".to_owned(),
        }
    }
}
