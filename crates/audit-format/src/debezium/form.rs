//! The form that Debezium gives a column because of its type ([`Form`]), and its Kafka Connect schema.
//!
//! The sources are Debezium's own output (a test sends `tests/debezium/types.sql` through both programs) and its
//! [documentation][1].
//!
//! [1]: https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-data-types

use audit_core::shape::ShapeColumn;
use audit_core::table::Column;
use audit_core::value::{Kind, numeric_modifier, write_json_string};

use crate::config::Decimals;
use crate::stamp::write_number;

/// The way in which a column's values are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    /// `bit(1)`, written as a boolean.
    Bit,
    /// This many bits, written with the least significant byte first and in as few bytes as possible.
    Bits(i32),
    Int16,
    Int32,
    Int64,
    Float,
    Double,
    Decimal {
        precision: u16,
        scale: i16,
    },
    /// `numeric` without a declared scale: each value has its own.
    VariableDecimal,
    Money,
    MoneyText,
    Bytes,
    Date,
    /// Milliseconds since midnight.
    Time,
    MicroTime,
    ZonedTime,
    /// Milliseconds since 1970.
    Timestamp,
    MicroTimestamp,
    /// A text with this many decimals.
    ZonedTimestamp(usize),
    Interval,
    Point,
    Hstore,
    /// PostgreSQL's text, whose schema may have a name.
    Text(Option<&'static str>),
    /// The array's items in storage order, whatever its dimensions.
    Array(Box<Form>),
}

const UUID: &str = "io.debezium.data.Uuid";
const JSON: &str = "io.debezium.data.Json";

/// PostgreSQL's own limit on the length of `bit varying`, which Debezium uses if no length is declared.
const BITS_MAX: i32 = i32::MAX;

impl Form {
    pub fn of(column: &Column, shape: &ShapeColumn, decimals: Decimals) -> Form {
        // A protected value is text.
        if column.protection.is_some() {
            return Form::Text(None);
        }
        let typmod = shape.typmod;
        match shape.type_oid {
            26 => Form::Int64,
            142 => Form::Text(Some("io.debezium.data.Xml")),
            600 => Form::Point,
            790 if decimals == Decimals::String => Form::MoneyText,
            790 => Form::Money,
            1083 => time(typmod),
            1186 => Form::Interval,
            1266 => Form::ZonedTime,
            1560 | 1562 if typmod == 1 => Form::Bit,
            1560 | 1562 => Form::Bits(if typmod > 0 { typmod } else { BITS_MAX }),
            3614 => Form::Text(Some("io.debezium.data.Tsvector")),
            1028 => Form::Int64.array(),
            1183 => time(typmod).array(),
            1270 => Form::ZonedTime.array(),
            _ => Form::of_kind(&column.kind, typmod, &column.type_name, decimals),
        }
    }

    fn of_kind(kind: &Kind, typmod: i32, type_name: &str, decimals: Decimals) -> Form {
        match kind {
            Kind::Bool => Form::Bool,
            Kind::Int2 => Form::Int16,
            Kind::Int4 => Form::Int32,
            Kind::Int8 => Form::Int64,
            Kind::Float4 => Form::Float,
            Kind::Float8 => Form::Double,
            Kind::Numeric(_) if decimals == Decimals::String => Form::Text(None),
            Kind::Numeric(modifier) => match modifier.or_else(|| numeric_modifier(typmod)) {
                Some((precision, scale)) => Form::Decimal { precision, scale },
                None => Form::VariableDecimal,
            },
            Kind::Bytea => Form::Bytes,
            Kind::Date => Form::Date,
            Kind::Timestamp if (0..=3).contains(&typmod) => Form::Timestamp,
            Kind::Timestamp => Form::MicroTimestamp,
            Kind::TimestampTz => Form::ZonedTimestamp(usize::try_from(typmod).unwrap_or(6).min(6)),
            Kind::Uuid => Form::Text(Some(UUID)),
            Kind::Json | Kind::Jsonb => Form::Text(Some(JSON)),
            // Types of extensions are recognised by name, because their OIDs differ between databases.
            Kind::Text => match type_name.rsplit('.').next().unwrap_or_default() {
                "hstore" => Form::Hstore,
                "ltree" => Form::Text(Some("io.debezium.data.Ltree")),
                _ => Form::Text(None),
            },
            Kind::Array(element) => Form::of_kind(element, typmod, "", decimals).array(),
        }
    }

    fn array(self) -> Form {
        Form::Array(Box::new(self))
    }

    /// The form's type in Kafka Connect.
    fn connect_type(&self) -> &'static str {
        match self {
            Form::Bool | Form::Bit => "boolean",
            Form::Int16 => "int16",
            Form::Int32 | Form::Date | Form::Time => "int32",
            Form::Int64 | Form::MicroTime | Form::Timestamp | Form::MicroTimestamp | Form::Interval => "int64",
            Form::Float => "float",
            Form::Double => "double",
            Form::Bits(_) | Form::Decimal { .. } | Form::Money | Form::Bytes => "bytes",
            Form::VariableDecimal | Form::Point => "struct",
            Form::MoneyText | Form::ZonedTime | Form::ZonedTimestamp(_) | Form::Hstore | Form::Text(_) => "string",
            Form::Array(_) => "array",
        }
    }

    /// The schema's name, which says what the type alone does not.
    fn name(&self) -> Option<&'static str> {
        Some(match self {
            Form::Bits(_) => "io.debezium.data.Bits",
            Form::Decimal { .. } | Form::Money => "org.apache.kafka.connect.data.Decimal",
            Form::VariableDecimal => "io.debezium.data.VariableScaleDecimal",
            Form::Date => "io.debezium.time.Date",
            Form::Time => "io.debezium.time.Time",
            Form::MicroTime => "io.debezium.time.MicroTime",
            Form::ZonedTime => "io.debezium.time.ZonedTime",
            Form::Timestamp => "io.debezium.time.Timestamp",
            Form::MicroTimestamp => "io.debezium.time.MicroTimestamp",
            Form::ZonedTimestamp(_) => "io.debezium.time.ZonedTimestamp",
            Form::Interval => "io.debezium.time.MicroDuration",
            Form::Point => "io.debezium.data.geometry.Point",
            Form::Hstore => JSON,
            Form::Text(name) => return *name,
            _ => return None,
        })
    }

    /// Appends the schema as the JSON converter writes it. `field` is the name of the described field, if it is one.
    pub fn write_schema(&self, out: &mut Vec<u8>, optional: bool, field: Option<&str>) {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(self.connect_type().as_bytes());
        out.push(b'"');
        match self {
            Form::Array(element) => {
                out.extend_from_slice(b",\"items\":");
                element.write_schema(out, true, None);
            }
            Form::VariableDecimal => out.extend_from_slice(
                br#","fields":[{"type":"int32","optional":false,"field":"scale"},{"type":"bytes","optional":false,"field":"value"}]"#,
            ),
            Form::Point => out.extend_from_slice(
                br#","fields":[{"type":"double","optional":false,"field":"x"},{"type":"double","optional":false,"field":"y"},{"type":"bytes","optional":true,"field":"wkb"},{"type":"int32","optional":true,"field":"srid"}]"#,
            ),
            _ => {}
        }
        out.extend_from_slice(if optional { b",\"optional\":true" } else { b",\"optional\":false" });
        if let Some(name) = self.name() {
            out.extend_from_slice(b",\"name\":\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\",\"version\":1");
            self.write_parameters(out);
        }
        if let Some(field) = field {
            out.extend_from_slice(b",\"field\":");
            write_json_string(out, field);
        }
        out.push(b'}');
    }

    fn write_parameters(&self, out: &mut Vec<u8>) {
        let mut parameters = |pairs: &[(&str, i64)]| {
            out.extend_from_slice(b",\"parameters\":{");
            for (at, (name, value)) in pairs.iter().enumerate() {
                out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":\"");
                write_number(out, *value);
                out.push(b'"');
            }
            out.push(b'}');
        };
        match self {
            Form::Bits(length) => parameters(&[("length", i64::from(*length))]),
            Form::Money => parameters(&[("scale", 2)]),
            Form::Decimal { precision, scale } => {
                parameters(&[("scale", i64::from(*scale)), ("connect.decimal.precision", i64::from(*precision))])
            }
            Form::VariableDecimal => out.extend_from_slice(b",\"doc\":\"Variable scaled decimal\""),
            Form::Point => out.extend_from_slice(b",\"doc\":\"Geometry (POINT)\""),
            _ => {}
        }
    }
}

/// Returns the form of a `time`: up to three decimals are written in milliseconds, more in microseconds.
fn time(typmod: i32) -> Form {
    if (0..=3).contains(&typmod) { Form::Time } else { Form::MicroTime }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stream has the domain's own OID and no modifier, so its base type is known only by its kind
    /// (docs/formats.md).
    #[test]
    fn a_domain_is_written_by_its_kind() {
        let form = |kind| Form::of_kind(&kind, -1, "public.of_mine", Decimals::Precise);
        assert_eq!(form(Kind::Int4), Form::Int32);
        assert_eq!(form(Kind::Uuid), Form::Text(Some(UUID)));
        assert_eq!(form(Kind::Timestamp), Form::MicroTimestamp, "over timestamp(3) too");
        // Domains over time, timetz, money, interval, xml, bit, point and oid.
        assert_eq!(form(Kind::Text), Form::Text(None));
    }
}
