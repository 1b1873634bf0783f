//! Values in canonical form: [`Value`].

use std::borrow::Cow;
use std::collections::HashMap;

use audit_core::json::unquote;
use audit_core::jsonb;
use audit_core::shape::Shape;
use audit_core::value::Kind as ColumnKind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Null = 0x00,
    Bool = 0x01,
    /// In decimal, as PostgreSQL's `numeric` prints it.
    Number = 0x02,
    /// IEEE 754, four bytes.
    Float4 = 0x03,
    /// IEEE 754, eight bytes.
    Float8 = 0x04,
    Text = 0x05,
    Bytes = 0x06,
    /// As `jsonb` prints it.
    Json = 0x07,
    /// Names, each after its length.
    Names = 0x08,
    /// Fields, each with name, kind and value.
    Fields = 0x09,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Null,
        Kind::Bool,
        Kind::Number,
        Kind::Float4,
        Kind::Float8,
        Kind::Text,
        Kind::Bytes,
        Kind::Json,
        Kind::Names,
        Kind::Fields,
    ];

    pub(crate) fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A value with its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

impl Value {
    pub fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    pub fn text(text: &str) -> Value {
        Value { kind: Kind::Text, bytes: storable(text).into_owned().into_bytes() }
    }

    pub fn number(number: impl ToString) -> Value {
        Value { kind: Kind::Number, bytes: number.to_string().into_bytes() }
    }

    pub fn bool(value: bool) -> Value {
        Value { kind: Kind::Bool, bytes: vec![u8::from(value)] }
    }

    pub fn names(names: &[String]) -> Value {
        let mut bytes = Vec::new();
        names.iter().for_each(|name| write_bytes(&mut bytes, storable(name).as_bytes()));
        Value { kind: Kind::Names, bytes }
    }

    /// The value of a JSON text, by its own type.
    pub fn json(json: &str) -> Value {
        let printed = jsonb::print(&jsonb::fit(json));
        match printed.as_bytes().first() {
            Some(b'n') => Value { kind: Kind::Null, bytes: Vec::new() },
            Some(b't' | b'f') => Value::bool(printed == "true"),
            Some(b'"') => Value::text(&unquote(&printed)),
            Some(b'{' | b'[') => Value { kind: Kind::Json, bytes: printed.into_bytes() },
            _ => Value { kind: Kind::Number, bytes: printed.into_bytes() },
        }
    }

    /// The value of a column, from the form that the version record gives it. What the column's type does not explain,
    /// as what protection left of it, is a value by its own type.
    pub fn of_column(kind: Option<&ColumnKind>, json: &str) -> Value {
        let value = Value::json(json);
        let special = match kind {
            Some(ColumnKind::Float4) => float4(&value, json),
            Some(ColumnKind::Float8) => float8(&value, json),
            Some(ColumnKind::Bytea) => binary(&value),
            _ => None,
        };
        special.unwrap_or(value)
    }
}

/// Appends a length in eight bytes, and the bytes.
pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// PostgreSQL's text cannot hold the character U+0000, so a store replaces it.
pub(crate) fn storable(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// The text of a float: that of the number, or the name of a value that is no number. ⚠ The number is the one that was
/// stored: a printed one is exact too, but has hundreds of digits.
fn float<'v>(value: &'v Value, json: &'v str) -> Option<&'v str> {
    match (value.kind, value.bytes.as_slice()) {
        (Kind::Number, _) => Some(json.trim()),
        (Kind::Text, b"NaN") => Some("NaN"),
        (Kind::Text, b"Infinity") => Some("inf"),
        (Kind::Text, b"-Infinity") => Some("-inf"),
        _ => None,
    }
}

fn float4(value: &Value, json: &str) -> Option<Value> {
    let float: f32 = float(value, json)?.parse().ok()?;
    // There is one NaN, and adding zero makes -0 to 0.
    let float = if float.is_nan() { f32::NAN } else { float + 0.0 };
    Some(Value { kind: Kind::Float4, bytes: float.to_bits().to_be_bytes().to_vec() })
}

fn float8(value: &Value, json: &str) -> Option<Value> {
    let float: f64 = float(value, json)?.parse().ok()?;
    let float = if float.is_nan() { f64::NAN } else { float + 0.0 };
    Some(Value { kind: Kind::Float8, bytes: float.to_bits().to_be_bytes().to_vec() })
}

/// The bytes of a `bytea`, which the version record holds in base64.
fn binary(value: &Value) -> Option<Value> {
    let bytes = Some(&value.bytes).filter(|_| value.kind == Kind::Text)?;
    STANDARD.decode(bytes).ok().map(|bytes| Value { kind: Kind::Bytes, bytes })
}

/// The types of a table's columns in one of its shapes, as far as they matter to the canonical form. They are those of
/// the source, also where protection has left something else.
#[derive(Clone, Debug, Default)]
pub struct Kinds(HashMap<String, ColumnKind>);

impl Kinds {
    pub fn of(shape: &Shape) -> Kinds {
        let matters = |kind: &ColumnKind| matches!(kind, ColumnKind::Float4 | ColumnKind::Float8 | ColumnKind::Bytea);
        let columns = shape.columns.iter().filter(|column| matters(&column.kind));
        Kinds(columns.map(|column| (column.name.clone(), column.kind.clone())).collect())
    }

    pub(crate) fn get(&self, column: &str) -> Option<&ColumnKind> {
        self.0.get(column)
    }
}
