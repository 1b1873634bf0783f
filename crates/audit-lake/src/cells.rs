//! Collects the values of one column for an Arrow array, parsed directly from PostgreSQL's text.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int16Builder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder,
};
use audit_core::value::{Kind, write_json_value};

use crate::form::{Form, list_item};
use crate::parse;

/// A builder for each form.
#[derive(Debug)]
pub enum Cells {
    Bool(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder, bool),
    Text(StringBuilder),
    Json(StringBuilder, Kind),
    TextList(ListBuilder<StringBuilder>),
}

/// What happened to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Whole,
    /// The type cannot hold the value exactly: null was appended instead.
    Inexact,
}

/// Largest value in bytes. Arrow's text arrays use 32-bit offsets. One value may fill half of that range, which is
/// PostgreSQL's own limit; rows leave their builders long before together they come near the whole of it.
pub const VALUE_MAX: usize = i32::MAX as usize / 2;

/// How many times longer than PostgreSQL's text its JSON form can be, because every character may become an escape.
const JSON_GROWTH: usize = 8;

impl Cells {
    pub fn new(form: &Form) -> Cells {
        match form {
            Form::Bool => Cells::Bool(BooleanBuilder::with_capacity(0)),
            Form::Int16 => Cells::Int16(Int16Builder::with_capacity(0)),
            Form::Int32 => Cells::Int32(Int32Builder::with_capacity(0)),
            Form::Int64 => Cells::Int64(Int64Builder::with_capacity(0)),
            Form::Float32 => Cells::Float32(Float32Builder::with_capacity(0)),
            Form::Float64 => Cells::Float64(Float64Builder::with_capacity(0)),
            Form::Decimal(_, scale) => {
                Cells::Decimal(Decimal128Builder::with_capacity(0).with_data_type(form.arrow()), *scale as u8)
            }
            Form::Binary => Cells::Binary(BinaryBuilder::with_capacity(0, 0)),
            Form::Date => Cells::Date(Date32Builder::with_capacity(0)),
            Form::Timestamp { zone } => {
                Cells::Timestamp(TimestampMicrosecondBuilder::with_capacity(0).with_timezone("UTC"), *zone)
            }
            Form::Text => Cells::Text(StringBuilder::with_capacity(0, 0)),
            Form::Json(kind) => Cells::Json(StringBuilder::with_capacity(0, 0), kind.clone()),
            Form::TextList => {
                let items = StringBuilder::with_capacity(0, 0);
                Cells::TextList(ListBuilder::with_capacity(items, 0).with_field(Arc::new(list_item())))
            }
        }
    }

    pub fn append_null(&mut self) {
        match self {
            Cells::Bool(cells) => cells.append_null(),
            Cells::Int16(cells) => cells.append_null(),
            Cells::Int32(cells) => cells.append_null(),
            Cells::Int64(cells) => cells.append_null(),
            Cells::Float32(cells) => cells.append_null(),
            Cells::Float64(cells) => cells.append_null(),
            Cells::Decimal(cells, _) => cells.append_null(),
            Cells::Binary(cells) => cells.append_null(),
            Cells::Date(cells) => cells.append_null(),
            Cells::Timestamp(cells, _) => cells.append_null(),
            Cells::Text(cells) | Cells::Json(cells, _) => cells.append_null(),
            Cells::TextList(cells) => cells.append_null(),
        }
    }

    /// Whether an array can hold the value.
    pub fn fits(&self, text: &str, scratch: &mut Vec<u8>) -> bool {
        match self {
            Cells::Json(_, kind) if *kind != Kind::Jsonb && text.len() > VALUE_MAX / JSON_GROWTH => {
                scratch.clear();
                write_json_value(scratch, kind, text);
                scratch.len() <= VALUE_MAX
            }
            _ => text.len() <= VALUE_MAX,
        }
    }

    /// Appends a value in PostgreSQL's text form. The caller has checked that it fits.
    pub fn append(&mut self, text: &str, scratch: &mut Vec<u8>) -> Taken {
        let taken = match self {
            Cells::Bool(cells) => boolean(text).map(|value| cells.append_value(value)),
            Cells::Int16(cells) => text.parse().ok().map(|value| cells.append_value(value)),
            Cells::Int32(cells) => text.parse().ok().map(|value| cells.append_value(value)),
            Cells::Int64(cells) => text.parse().ok().map(|value| cells.append_value(value)),
            Cells::Float32(cells) => text.parse().ok().map(|value| cells.append_value(value)),
            Cells::Float64(cells) => text.parse().ok().map(|value| cells.append_value(value)),
            Cells::Decimal(cells, scale) => parse::decimal(text, *scale).map(|value| cells.append_value(value)),
            Cells::Binary(cells) => {
                scratch.clear();
                parse::bytea(text, scratch).map(|()| cells.append_value(&*scratch))
            }
            Cells::Date(cells) => parse::date(text).map(|value| cells.append_value(value)),
            Cells::Timestamp(cells, zone) => parse::timestamp(text, *zone).map(|value| cells.append_value(value)),
            Cells::Text(cells) => {
                cells.append_value(text);
                Some(())
            }
            // The text of jsonb is JSON already. Its `null` is text like any other, because an SQL NULL is not a value
            // at all.
            Cells::Json(cells, Kind::Jsonb) if !text.is_empty() => {
                cells.append_value(text);
                Some(())
            }
            Cells::Json(cells, kind) => {
                scratch.clear();
                write_json_value(scratch, kind, text);
                std::str::from_utf8(scratch).ok().map(|json| cells.append_value(json))
            }
            Cells::TextList(_) => None,
        };
        match taken {
            Some(()) => Taken::Whole,
            None => {
                self.append_null();
                Taken::Inexact
            }
        }
    }

    pub fn finish(&mut self) -> ArrayRef {
        match self {
            Cells::Bool(cells) => Arc::new(cells.finish()),
            Cells::Int16(cells) => Arc::new(cells.finish()),
            Cells::Int32(cells) => Arc::new(cells.finish()),
            Cells::Int64(cells) => Arc::new(cells.finish()),
            Cells::Float32(cells) => Arc::new(cells.finish()),
            Cells::Float64(cells) => Arc::new(cells.finish()),
            Cells::Decimal(cells, _) => Arc::new(cells.finish()),
            Cells::Binary(cells) => Arc::new(cells.finish()),
            Cells::Date(cells) => Arc::new(cells.finish()),
            Cells::Timestamp(cells, _) => Arc::new(cells.finish()),
            Cells::Text(cells) | Cells::Json(cells, _) => Arc::new(cells.finish()),
            Cells::TextList(cells) => Arc::new(cells.finish()),
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    }
}
