//! Expressions for values as text and as JSON text, in each engine's functions.
//!
//! JSON is assembled from texts in the form that the record gives each type (`audit-core/src/value.rs`), so that every
//! engine shows exactly what the hot table shows. The engines' own JSON functions differ in decimals, times, binary
//! values and the order of members.

use crate::engine::Engine;
use crate::engine::Engine::*;
use crate::lake::{Column, Row};
use crate::types::Type;

/// Maximum number of arguments of one `concat`. Synapse accepts 254, Trino 127.
const ARGUMENTS: usize = 50;

/// Concatenates texts, none of which is null.
pub fn concat(engine: Engine, parts: &[String]) -> String {
    if parts.len() <= ARGUMENTS {
        return match (engine, parts) {
            (_, [one]) => one.clone(),
            // Redshift's concat accepts only two arguments.
            (Redshift, parts) => parts.join("\n      || "),
            (_, parts) => format!("concat(\n      {})", parts.join(",\n      ")),
        };
    }
    let size = parts.len().div_ceil(parts.len().div_ceil(ARGUMENTS));
    let chunks: Vec<String> = parts.chunks(size).map(|chunk| concat(engine, chunk)).collect();
    concat(engine, &chunks)
}

/// Concatenates texts; the result is null if one of them is.
pub fn join(engine: Engine, parts: &[&str]) -> String {
    parts.join(if engine == Synapse { " + " } else { " || " })
}

/// Removes the first two characters of a text.
pub fn after_two(engine: Engine, text: &str) -> String {
    match engine {
        Synapse => format!("STUFF({text}, 1, 2, N'')"),
        _ => format!("substr({text}, 3)"),
    }
}

pub fn cast(engine: Engine, value: &str, kind: &Type) -> String {
    match engine {
        Clickhouse => format!("CAST({value}, 'Nullable({})')", engine.type_name(kind).replace('\'', "\\'")),
        _ => format!("CAST({value} AS {})", engine.type_name(kind)),
    }
}

/// Converts a date to the time at which it begins in UTC, whatever the session's time zone. `plain` says that the times
/// are those of plain files.
pub fn midnight(engine: Engine, value: &str, plain: bool) -> String {
    let cast = |value: &str| cast(engine, value, &Type::Timestamp);
    match engine {
        Duckdb => format!("CAST({value} AS TIMESTAMP) AT TIME ZONE 'UTC'"),
        // In Trino the times of plain files have no time zone.
        Trino if plain => format!("CAST({value} AS TIMESTAMP(6))"),
        Trino => format!("with_timezone(CAST({value} AS TIMESTAMP(6)), 'UTC')"),
        Databricks | Spark => format!("timestamp_seconds(CAST(unix_date({value}) AS BIGINT) * 86400)"),
        Snowflake => cast(&format!("TO_TIMESTAMP_LTZ(DATE_PART(EPOCH_SECOND, {value}))")),
        Bigquery => format!("TIMESTAMP({value}, 'UTC')"),
        // These have times without a time zone, or with UTC in their type.
        Athena | Glue | Redshift | Synapse | Clickhouse => cast(value),
    }
}

/// Writes a value as JSON text; null stays null.
pub fn json(engine: Engine, column: &Column, row: &Row) -> String {
    let value = engine.column(&column.name);
    let quoted = |text: &str| {
        let mark = engine.literal("\"");
        join(engine, &[&mark, text, &mark])
    };
    match column.kind {
        // The null of jsonb is a value, so it is written differently from no value.
        Type::Text if row.json => format!(
            "CASE WHEN {value} = {} THEN {} ELSE {value} END",
            engine.literal("null"),
            engine.literal(r#"{"$json": null}"#)
        ),
        Type::Text | Type::TextList => string(engine, &value),
        Type::Float32 | Type::Float64 => float(engine, &value, "\""),
        Type::Binary => quoted(&text(engine, &value, column.kind, row.zone)),
        Type::Decimal(..) | Type::Date | Type::Timestamp => {
            let typed = quoted(&text(engine, &value, column.kind, row.zone));
            format!("COALESCE({typed}, {})", exact(engine, &column.name))
        }
        Type::Bool | Type::Int16 | Type::Int32 | Type::Int64 => text(engine, &value, column.kind, row.zone),
    }
}

/// Writes a value as text, as in JSON but without quotes; null stays null.
pub fn text(engine: Engine, value: &str, kind: Type, zone: bool) -> String {
    match kind {
        Type::Text | Type::TextList => value.to_owned(),
        Type::Bool if engine == Synapse => format!("CASE {value} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END"),
        Type::Bool => format!("CASE WHEN {value} THEN 'true' WHEN NOT {value} THEN 'false' END"),
        Type::Int16 | Type::Int32 | Type::Int64 => plain(engine, value),
        Type::Float32 | Type::Float64 => float(engine, value, ""),
        Type::Decimal(_, scale) => match engine {
            // In the other engines the text of a decimal has all digits of its scale.
            Clickhouse => format!("toDecimalString({value}, {scale})"),
            Bigquery => format!("FORMAT('%.{scale}f', {value})"),
            _ => plain(engine, value),
        },
        Type::Binary => match engine {
            Duckdb => format!("base64({value})"),
            Clickhouse => format!("base64Encode({value})"),
            Bigquery | Athena | Glue | Trino => format!("to_base64({value})"),
            Snowflake => format!("BASE64_ENCODE({value})"),
            Redshift => format!("FROM_VARBYTE({value}, 'base64')"),
            // Synapse has no function for base64, but writes binary values that way in JSON.
            Synapse => format!("JSON_VALUE((SELECT {value} AS b FOR JSON PATH, WITHOUT_ARRAY_WRAPPER), '$.b')"),
            Databricks | Spark => format!("base64({value})"),
        },
        Type::Date => match engine {
            Synapse => format!("CONVERT(VARCHAR(10), {value}, 23)"),
            Snowflake => format!("TO_VARCHAR({value}, 'YYYY-MM-DD')"),
            Redshift => format!("TO_CHAR({value}, 'YYYY-MM-DD')"),
            Clickhouse => format!("toString({value})"),
            _ => plain(engine, value),
        },
        Type::Timestamp => {
            let time = timestamp(engine, value);
            if zone { join(engine, &[&time, &engine.literal("Z")]) } else { time }
        }
    }
}

fn plain(engine: Engine, value: &str) -> String {
    match engine {
        Clickhouse => format!("toString({value})"),
        Synapse => format!("CAST({value} AS VARCHAR(50))"),
        Redshift => format!("CAST({value} AS VARCHAR(64))"),
        _ => format!("CAST({value} AS {})", engine.type_name(&Type::Text)),
    }
}

/// Writes a time in UTC as `YYYY-MM-DDTHH:MM:SS[.ffffff]`, without zeros at the end.
fn timestamp(engine: Engine, value: &str) -> String {
    match engine {
        Duckdb => format!("replace(CAST({value} AT TIME ZONE 'UTC' AS VARCHAR), ' ', 'T')"),
        Bigquery => format!("FORMAT_TIMESTAMP('%E4Y-%m-%dT%H:%M:%E*S', {value}, 'UTC')"),
        Athena | Glue | Trino => {
            format!(r"replace(regexp_replace(CAST({value} AS VARCHAR), '\.?0*( UTC)?$', ''), ' ', 'T')")
        }
        Clickhouse => {
            format!(r"replaceRegexpOne(formatDateTime({value}, '%Y-%m-%dT%H:%i:%S.%f', 'UTC'), '\\.?0*$', '')")
        }
        Databricks | Spark => format!(
            r#"regexp_replace(date_format(to_utc_timestamp({value}, current_timezone()), "yyyy-MM-dd'T'HH:mm:ss.SSSSSS"), '\\.?0*$', '')"#
        ),
        Snowflake => format!(
            r#"REGEXP_REPLACE(TO_VARCHAR(CONVERT_TIMEZONE('UTC', {value}), 'YYYY-MM-DD"T"HH24:MI:SS.FF6'), '\\.?0*$', '')"#
        ),
        Redshift => format!(r#"REGEXP_REPLACE(TO_CHAR({value}, 'YYYY-MM-DD"T"HH24:MI:SS.US'), '\\.?0*$', '')"#),
        Synapse => format!("CONVERT(VARCHAR(26), {value}, 126)"),
    }
}

/// Writes a float. `NaN` and the infinities are enclosed in `mark`s.
fn float(engine: Engine, value: &str, mark: &str) -> String {
    let (nan, infinite) = match engine {
        Duckdb => (format!("isnan({value})"), format!("isinf({value})")),
        Athena | Glue | Trino => (format!("is_nan({value})"), format!("is_infinite({value})")),
        Clickhouse => (format!("isNaN({value})"), format!("isInfinite({value})")),
        Bigquery => (format!("IS_NAN({value})"), format!("IS_INF({value})")),
        Databricks | Spark => (format!("isnan({value})"), format!("abs({value}) = double('Infinity')")),
        Snowflake => (format!("{value} = 'NaN'::FLOAT"), format!("ABS({value}) = 'inf'::FLOAT")),
        Redshift => (format!("{value} = 'NaN'::FLOAT8"), format!("ABS({value}) = 'Infinity'::FLOAT8")),
        // Synapse's floats are always finite.
        Synapse => return format!("CONVERT(VARCHAR(40), {value}, 3)"),
    };
    let literal = |text: &str| engine.literal(&format!("{mark}{text}{mark}"));
    let number = match engine {
        // In these engines a cast of REAL has only seven digits, which are not enough.
        Athena | Glue | Trino => string(engine, value),
        _ => plain(engine, value),
    };
    format!(
        "CASE WHEN {nan} THEN {} WHEN {infinite} THEN CASE WHEN {value} > 0 THEN {} ELSE {} END ELSE {number} END",
        literal("NaN"),
        literal("Infinity"),
        literal("-Infinity")
    )
}

/// Writes a text as a JSON string; null stays null.
fn string(engine: Engine, value: &str) -> String {
    match engine {
        Duckdb => format!("CAST(to_json({value}) AS VARCHAR)"),
        Athena | Glue | Trino => format!("json_format(CAST({value} AS JSON))"),
        Clickhouse => format!("toJSONString({value})"),
        Bigquery => format!("IF({value} IS NULL, NULL, TO_JSON_STRING({value}))"),
        Snowflake => format!("TO_JSON(TO_VARIANT({value}))"),
        Redshift => format!("JSON_SERIALIZE(CAST({value} AS SUPER))"),
        // Make a list of one text and remove its brackets.
        Databricks | Spark => format!(
            "CASE WHEN {value} IS NOT NULL THEN substr(to_json(array({value})), 2, length(to_json(array({value}))) - 2) END"
        ),
        Synapse => format!("N'\"' + STRING_ESCAPE({value}, 'json') + N'\"'"),
    }
}

/// Reads a value that a typed column cannot hold (`infinity`, `NaN`): PostgreSQL's text from `cdc_exact`, as a JSON
/// string.
fn exact(engine: Engine, column: &str) -> String {
    let all = engine.column("cdc_exact");
    match engine {
        Duckdb => format!("CAST(json_extract({all}, '$.\"{column}\"') AS VARCHAR)"),
        Athena | Glue | Trino => format!("json_format(json_extract({all}, '$[\"{column}\"]'))"),
        Clickhouse => format!("nullIf(JSONExtractRaw(ifNull({all}, ''), '{column}'), '')"),
        Bigquery => format!("JSON_QUERY({all}, '$.\"{column}\"')"),
        Snowflake => format!("TO_JSON(GET(PARSE_JSON({all}), '{column}'))"),
        Redshift => string(engine, &format!("NULLIF(JSON_EXTRACT_PATH_TEXT({all}, '{column}', TRUE), '')")),
        Databricks | Spark => string(engine, &format!("get_json_object({all}, '$.{column}')")),
        Synapse => string(engine, &format!("JSON_VALUE({all}, '$.\"{column}\"')")),
    }
}
