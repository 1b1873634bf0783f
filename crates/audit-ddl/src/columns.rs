//! Joins the lake columns of a source column, its present type and former types, into one column.

use crate::lake::{Column, Row, Table};
use crate::types::Type;

/// One column of the source, with every form that it has had.
pub struct Joined<'t> {
    /// The lake name of the first form.
    pub name: &'t str,
    pub source: &'t str,
    /// The type of the joined column.
    pub kind: Type,
    pub forms: Vec<(&'t Column, &'t Row)>,
}

/// Lists the source's columns in the order in which they were added.
pub fn joined(table: &Table) -> Vec<Joined<'_>> {
    let mut columns: Vec<Joined<'_>> = Vec::new();
    for column in &table.columns {
        let Some(row) = &column.row else { continue };
        match columns.iter_mut().find(|known| known.source == row.source) {
            Some(known) => {
                known.kind = common(known.kind, column.kind);
                known.forms.push((column, row));
            }
            None => columns.push(Joined {
                name: &column.name,
                source: &row.source,
                kind: column.kind,
                forms: vec![(column, row)],
            }),
        }
    }
    columns
}

/// Returns the narrowest type that holds every value of both types, or text if there is none.
fn common(one: Type, other: Type) -> Type {
    use Type::*;
    match (one, other) {
        (one, other) if one == other => one,
        (Int16, Int32) | (Int32, Int16) => Int32,
        (Int16 | Int32 | Int64, Int64) | (Int64, Int16 | Int32) => Int64,
        (Float32 | Float64 | Int16 | Int32, Float64) | (Float64, Float32 | Int16 | Int32) => Float64,
        // A float of 32 bits holds integers of only 24 bits.
        (Int16 | Int32, Float32) | (Float32, Int16 | Int32) => Float64,
        (Date, Timestamp) | (Timestamp, Date) => Timestamp,
        (one, other) => decimal(one, other).unwrap_or(Text),
    }
}

fn decimal(one: Type, other: Type) -> Option<Type> {
    let digits = |kind| match kind {
        Type::Int16 => Some((5, 0)),
        Type::Int32 => Some((10, 0)),
        Type::Int64 => Some((19, 0)),
        Type::Decimal(precision, scale) => Some((precision - scale, scale)),
        _ => None,
    };
    let ((whole, scale), (other_whole, other_scale)) = (digits(one)?, digits(other)?);
    let (whole, scale) = (whole.max(other_whole), scale.max(other_scale));
    (whole + scale <= 38).then_some(Type::Decimal(whole + scale, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_type_holds_every_value_of_both() {
        use Type::*;
        for (one, other, both) in [
            (Int16, Int64, Int64),
            (Int32, Float32, Float64),
            (Int64, Float64, Text),
            (Int32, Decimal(5, 2), Decimal(12, 2)),
            (Decimal(10, 2), Decimal(6, 4), Decimal(12, 4)),
            (Decimal(38, 0), Decimal(38, 10), Text),
            (Int64, Decimal(38, 30), Text),
            (Date, Timestamp, Timestamp),
            (Bool, Int32, Text),
            (Binary, Text, Text),
            (Text, Text, Text),
        ] {
            assert_eq!(common(one, other), both, "{one:?} {other:?}");
            assert_eq!(common(other, one), both, "{other:?} {one:?}");
        }
    }
}
