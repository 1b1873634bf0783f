//! The types of a lake's columns: [`Type`].

use std::str::FromStr;

/// The type of a lake column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    /// Number of digits, and number of digits after the point.
    Decimal(u8, u8),
    Binary,
    Date,
    /// Microseconds in UTC.
    Timestamp,
    Text,
    TextList,
}

/// The name is not that of a type which a lake writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no type of a lake's column")]
pub struct UnknownType;

impl FromStr for Type {
    type Err = UnknownType;

    /// Parses the name of a primitive type in a Delta schema. `array` means a list of names, the only lists in a lake.
    fn from_str(name: &str) -> Result<Type, UnknownType> {
        Ok(match name {
            "boolean" => Type::Bool,
            "short" => Type::Int16,
            "integer" => Type::Int32,
            "long" => Type::Int64,
            "float" => Type::Float32,
            "double" => Type::Float64,
            "binary" => Type::Binary,
            "date" => Type::Date,
            "timestamp" => Type::Timestamp,
            "string" => Type::Text,
            "array" => Type::TextList,
            _ => {
                let digits = || {
                    let (precision, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
                    Some(Type::Decimal(precision.parse().ok()?, scale.trim().parse().ok()?))
                };
                digits().ok_or(UnknownType)?
            }
        })
    }
}
