//! Joins the lake columns of a source column, its present type and former types, into one column ([`stored`]), and those
//! of its former names as well ([`joined`]).

use crate::lake::{Column, Row, Table};
use crate::types::Type;

/// One column of the source, with every form that it has had.
pub struct Joined<'t> {
    pub name: String,
    /// The column's name at the source.
    pub source: &'t str,
    /// The type of the joined column.
    pub kind: Type,
    pub forms: Vec<Form<'t>>,
}

/// A lake column as a form of a source column.
pub struct Form<'t> {
    pub column: &'t Column,
    pub row: &'t Row,
    /// The shapes in which it is that column; `None` if it never was another.
    pub versions: Option<&'t [u32]>,
}

/// Lists the source's columns under the names that versions have, in the order in which they were added.
pub fn stored(table: &Table) -> Vec<Joined<'_>> {
    let rows = table.columns.iter().filter_map(|column| Some((column, column.row.as_ref()?)));
    let forms = rows.map(|(column, row)| (row.source.as_str(), Form { column, row, versions: None }));
    grouped(forms)
}

/// Lists the source's columns under the names that they have now, in the order in which they were added.
pub fn joined(table: &Table) -> Vec<Joined<'_>> {
    let rows = table.columns.iter().filter_map(|column| Some((column, column.row.as_ref()?)));
    let forms = rows.flat_map(|(column, row)| {
        let only = match row.names.as_slice() {
            [] => vec![(row.source.as_str(), None)],
            [(name, _)] => vec![(name.as_str(), None)],
            names => names.iter().map(|(name, versions)| (name.as_str(), Some(versions.as_slice()))).collect(),
        };
        only.into_iter().map(move |(name, versions)| (name, Form { column, row, versions }))
    });
    let mut columns = grouped(forms);
    name(&mut columns);
    columns
}

fn grouped<'t>(forms: impl Iterator<Item = (&'t str, Form<'t>)>) -> Vec<Joined<'t>> {
    let mut columns: Vec<Joined<'_>> = Vec::new();
    for (source, form) in forms {
        match columns.iter_mut().find(|known| known.source == source) {
            Some(known) => {
                known.kind = common(known.kind, form.column.kind);
                known.forms.push(form);
            }
            None => columns.push(Joined {
                name: form.column.name.clone(),
                source,
                kind: form.column.kind,
                forms: vec![form],
            }),
        }
    }
    columns
}

/// Names each column after the lake column that has its name. One that was dropped, and whose name another has taken,
/// is told from that.
fn name(columns: &mut [Joined<'_>]) {
    let own = |column: &Joined<'_>| {
        let form = column.forms.iter().find(|form| form.row.source == column.source);
        form.map(|form| form.column.name.clone())
    };
    let mut taken: Vec<String> = columns.iter().filter_map(own).collect();
    for column in columns {
        column.name = own(column).unwrap_or_else(|| {
            let plain = &column.name;
            let dropped =
                |number: u32| if number == 1 { "__dropped".to_owned() } else { format!("__dropped_{number}") };
            let numbered = (1..).map(|number| format!("{plain}{}", dropped(number)));
            let is_free = |name: &String| !taken.iter().any(|known| known.eq_ignore_ascii_case(name));
            let name = std::iter::once(plain.clone()).chain(numbered).find(is_free).unwrap_or_default();
            taken.push(name.clone());
            name
        });
    }
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
