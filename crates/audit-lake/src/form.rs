//! The forms in which lake columns hold values: [`Form`].

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use audit_core::value::Kind;
use serde_json::{Value, json};

/// The form of a lake column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    Bool,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Decimal(u8, i8),
    Binary,
    Date,
    /// Microseconds in UTC. Without `zone` the source's column had no time zone: its wall clock is treated as UTC.
    Timestamp {
        zone: bool,
    },
    /// PostgreSQL's text.
    Text,
    /// JSON text: jsonb as it is, a list in the form that the record gives its kind.
    Json(Kind),
    TextList,
}

/// The highest precision that Arrow and Delta can hold.
const DECIMAL_PRECISION_MAX: u16 = 38;

impl Form {
    pub fn of(kind: &Kind) -> Form {
        match kind {
            Kind::Bool => Form::Bool,
            Kind::Int2 => Form::Int16,
            Kind::Int4 => Form::Int32,
            Kind::Int8 => Form::Int64,
            Kind::Float4 => Form::Float32,
            Kind::Float8 => Form::Float64,
            // In PostgreSQL, but not in Arrow, the scale may exceed the precision.
            Kind::Numeric(Some((precision, scale @ 0..)))
                if *precision.max(&(*scale as u16)) <= DECIMAL_PRECISION_MAX =>
            {
                Form::Decimal(*precision.max(&(*scale as u16)) as u8, *scale as i8)
            }
            Kind::Bytea => Form::Binary,
            Kind::Date => Form::Date,
            Kind::Timestamp => Form::Timestamp { zone: false },
            Kind::TimestampTz => Form::Timestamp { zone: true },
            Kind::Jsonb | Kind::Array(_) => Form::Json(kind.clone()),
            Kind::Numeric(_) | Kind::Uuid | Kind::Json | Kind::Text => Form::Text,
        }
    }

    pub fn arrow(&self) -> DataType {
        match self {
            Form::Bool => DataType::Boolean,
            Form::Int16 => DataType::Int16,
            Form::Int32 => DataType::Int32,
            Form::Int64 => DataType::Int64,
            Form::Float32 => DataType::Float32,
            Form::Float64 => DataType::Float64,
            Form::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Form::Binary => DataType::Binary,
            Form::Date => DataType::Date32,
            Form::Timestamp { .. } => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Form::Text | Form::Json(_) => DataType::Utf8,
            Form::TextList => DataType::List(Arc::new(list_item())),
        }
    }

    /// Bytes that each row takes in an array of this form, whether it has a value or not. The contents of texts come on
    /// top of this.
    pub fn width(&self) -> usize {
        match self {
            Form::Bool => 1,
            Form::Int16 => 2,
            Form::Int32 | Form::Float32 | Form::Date => 4,
            Form::Int64 | Form::Float64 | Form::Timestamp { .. } => 8,
            Form::Decimal(..) => 16,
            // The offset at which the text begins.
            Form::Binary | Form::Text | Form::Json(_) | Form::TextList => 4,
        }
    }

    /// Whether its values differ in length.
    pub fn is_text(&self) -> bool {
        matches!(self, Form::Binary | Form::Text | Form::Json(_) | Form::TextList)
    }

    pub fn delta(&self) -> Value {
        match self {
            Form::Bool => json!("boolean"),
            Form::Int16 => json!("short"),
            Form::Int32 => json!("integer"),
            Form::Int64 => json!("long"),
            Form::Float32 => json!("float"),
            Form::Float64 => json!("double"),
            Form::Decimal(precision, scale) => json!(format!("decimal({precision},{scale})")),
            Form::Binary => json!("binary"),
            Form::Date => json!("date"),
            Form::Timestamp { .. } => json!("timestamp"),
            Form::Text | Form::Json(_) => json!("string"),
            Form::TextList => json!({"type": "array", "elementType": "string", "containsNull": true}),
        }
    }
}

/// The items of a list of names.
pub fn list_item() -> Field {
    Field::new("element", DataType::Utf8, true)
}
