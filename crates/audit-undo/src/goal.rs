//! What will be written of a net change, before the row is looked at: [`goal`].

use std::collections::BTreeMap;

use audit_core::position::Position;

use crate::Refusal;
use crate::catalog::{Column, Table};
use crate::net::{Cell, Net};
use crate::order::Image;
use crate::text::text_of;

/// What is to become of a row.
#[derive(Debug)]
pub struct Goal {
    pub table: usize,
    pub key: String,
    /// Values of the key where the row is now, or of the row that will be made.
    pub at: Image,
    /// Columns that must have these values still.
    pub expected: Image,
    pub kind: Kind,
    /// The versions that are put back.
    pub versions: Vec<Position>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Delete,
    Update(Image),
    Insert(Image),
}

impl Goal {
    pub fn is_insert(&self) -> bool {
        matches!(self.kind, Kind::Insert(_))
    }

    /// Whether the row gives up its key.
    pub fn leaves(&self, table: &Table) -> bool {
        match &self.kind {
            Kind::Delete => true,
            Kind::Update(set) => table.key.iter().any(|(name, _)| set.contains_key(name)),
            Kind::Insert(_) => false,
        }
    }
}

/// A column that is not put back, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct LeftAlone {
    pub table: String,
    pub column: String,
    pub why: String,
}

/// What the operator narrowed it down to.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only these columns, of updates.
    pub fields: Option<Vec<String>>,
    /// Values after the version need not be known.
    pub force: bool,
}

/// Decides what is written back. Columns that are not are added to `left`.
///
/// # Errors
/// Fails if a value would be needed that the trail does not have.
pub fn goal(net: &Net, table: &Table, wanted: &Wanted, left: &mut Vec<LeftAlone>) -> Result<Goal, Refusal> {
    let row = format!("{} {}", table.name, net.key());
    let at = key_values(table, net.key()).ok_or_else(|| Refusal::new(format!("the key of {row} cannot be read")))?;
    let mut sorted = Sorted { table, row: &row, left, unknown: BTreeMap::new() };
    let (expected, kind) = match (&net.before, &net.after) {
        (None, _) => (sorted.removed(net, wanted), Kind::Delete),
        (Some(_), None) => (Image::new(), Kind::Insert(sorted.inserted(net)?)),
        (Some(_), Some(_)) => {
            let (expected, set) = sorted.updated(net, wanted)?;
            (expected, Kind::Update(set))
        }
    };
    if wanted.fields.is_some() && !matches!(kind, Kind::Update(_)) {
        return Err(Refusal::new(format!(
            "{row} was made or removed as a whole, so that --fields cannot choose columns"
        )));
    }
    sorted.refuse_unknown()?;
    let set = if let Kind::Update(set) = &kind { Some(set) } else { None };
    let versions = net.touching(set).collect();
    Ok(Goal { table: net.table, key: net.key().to_owned(), at, expected, kind, versions })
}

/// The values of the key's columns, as text.
pub fn key_values(table: &Table, key: &str) -> Option<Image> {
    let one = |(name, text): (&String, String)| (name.clone(), Some(text));
    match table.key.as_slice() {
        [(name, _)] => Some([one((name, key.to_owned()))].into()),
        columns => {
            let parts: Vec<&serde_json::value::RawValue> = serde_json::from_str(key).ok()?;
            if parts.len() != columns.len() {
                return None;
            }
            let part = |((name, kind), part): (&(String, _), &&serde_json::value::RawValue)| {
                Some(one((name, text_of(kind, part.get()).ok()??)))
            };
            columns.iter().zip(&parts).map(part).collect()
        }
    }
}

struct Sorted<'a> {
    table: &'a Table,
    row: &'a str,
    left: &'a mut Vec<LeftAlone>,
    /// Columns whose values are missing, and why.
    unknown: BTreeMap<String, String>,
}

impl<'a> Sorted<'a> {
    fn leave(&mut self, column: &str, why: impl Into<String>) {
        let left = LeftAlone { table: self.table.name.clone(), column: column.to_owned(), why: why.into() };
        if !self.left.contains(&left) {
            self.left.push(left);
        }
    }

    /// The columns that are not computed by the server, with their cells.
    fn columns<'n>(&self, net: &'n Net) -> Vec<(&'a Column, Option<&'n (Cell, Cell)>)> {
        let written = self.table.columns.iter().filter(|column| !column.generated);
        written.map(|column| (column, net.columns.get(&column.name))).collect()
    }

    /// What a row must still be that is removed. ⚠ A column that cannot be compared could have been changed since, so the
    /// row is not removed unless that is forced.
    fn removed(&mut self, net: &Net, wanted: &Wanted) -> Image {
        let mut expected = Image::new();
        for (column, cells) in self.columns(net).into_iter().filter(|(column, _)| !column.accompanies) {
            let why = match cells.map(|(_, after)| after) {
                Some(Cell::Known(value)) => {
                    expected.insert(column.name.clone(), value.clone());
                    continue;
                }
                Some(Cell::Unknown(why)) => why.clone(),
                Some(Cell::Withheld(why)) => why.to_string(),
                None => "not in the trail, perhaps added since".to_owned(),
            };
            if !wanted.force {
                let why =
                    format!("cannot be compared with the row, which is to be removed ({why}); --force removes it");
                self.unknown.insert(column.name.clone(), why);
            }
        }
        expected
    }

    fn inserted(&mut self, net: &Net) -> Result<Image, Refusal> {
        let mut image = Image::new();
        for (column, cells) in self.columns(net) {
            let why = match cells.map(|(before, _)| before) {
                Some(Cell::Known(value)) => {
                    image.insert(column.name.clone(), value.clone());
                    continue;
                }
                Some(Cell::Unknown(why)) => {
                    self.unknown.insert(column.name.clone(), why.clone());
                    continue;
                }
                Some(Cell::Withheld(why)) => why,
                None => "not in the trail, perhaps added since: its default is used",
            };
            if column.not_null && !column.has_default {
                return Err(Refusal::new(format!(
                    "{} cannot be put back: column {} must have a value, and the trail has none ({why})",
                    self.row, column.name
                )));
            }
            self.leave(&column.name, why);
        }
        Ok(image)
    }

    fn updated(&mut self, net: &Net, wanted: &Wanted) -> Result<(Image, Image), Refusal> {
        let (mut expected, mut set) = (Image::new(), Image::new());
        for (column, cells) in self.columns(net) {
            let is_wanted = wanted.fields.as_ref().is_none_or(|fields| fields.contains(&column.name));
            let Some((before, after)) = cells.filter(|_| is_wanted) else { continue };
            match (before, after) {
                (before, after) if before == after && matches!(before, Cell::Known(_)) => {}
                (Cell::Withheld(why), _) | (_, Cell::Withheld(why)) => self.leave(&column.name, *why),
                (Cell::Unknown(why), _) => drop(self.unknown.insert(column.name.clone(), why.clone())),
                (_, Cell::Unknown(why)) if !wanted.force => {
                    drop(self.unknown.insert(column.name.clone(), why.clone()));
                }
                (Cell::Known(_), _) if column.always => return Err(self.is_always(column)),
                (Cell::Known(value), after) => {
                    set.insert(column.name.clone(), value.clone());
                    if let (Cell::Known(after), false) = (after, column.accompanies) {
                        expected.insert(column.name.clone(), after.clone());
                    }
                }
            }
        }
        let moved = wanted.fields.is_none() && net.before != net.after;
        if moved && !self.table.key.iter().any(|(name, _)| set.contains_key(name)) && self.unknown.is_empty() {
            return Err(Refusal::new(format!("the key that {} had before is not known", self.row)));
        }
        Ok((expected, set))
    }

    fn is_always(&self, column: &Column) -> Refusal {
        let what = format!(
            "{} cannot be put back: column {} is GENERATED ALWAYS AS IDENTITY and cannot be updated",
            self.row, column.name
        );
        Refusal::new(what).hint("leave the column out with --fields")
    }

    fn refuse_unknown(self) -> Result<(), Refusal> {
        if self.unknown.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.unknown.keys().map(String::as_str).collect();
        let what = format!("{} cannot be put back: old values are not known of {}", self.row, names.join(", "));
        let details = self.unknown.iter().map(|(name, why)| format!("{name}: {why}"));
        Err(Refusal::new(what).details(details).hint(format!(
            "--allow-derived takes them from earlier versions where that is sound, --fields chooses other columns; after \
             `cdc-audit setup --replica-identity full --table {}` the server \
             sends old values of later changes",
            self.table.name
        )))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use audit_core::value::Kind as ValueKind;

    use super::*;

    fn column(name: &str) -> Column {
        Column { name: name.to_owned(), sql: name.to_owned(), type_name: "text".to_owned(), ..Column::default() }
    }

    fn table() -> Table {
        let mut columns = vec![column("id"), column("a"), column("secret"), column("sum")];
        columns[0].not_null = true;
        columns[3].generated = true;
        let key = vec![("id".to_owned(), ValueKind::Int4)];
        Table { name: "public.t".to_owned(), columns, key, ..Table::default() }
    }

    fn known(text: &str) -> Cell {
        Cell::Known(Some(text.to_owned()))
    }

    fn net(before: Option<&str>, after: Option<&str>, cells: &[(&str, Cell, Cell)]) -> Net {
        let columns = cells.iter().map(|(name, old, new)| ((*name).to_owned(), (old.clone(), new.clone()))).collect();
        let key = |key: Option<&str>| key.map(str::to_owned);
        let (versions, between) = (Vec::new(), BTreeSet::new());
        Net { table: 0, before: key(before), after: key(after), columns, versions, between }
    }

    fn decided(table: &Table, net: &Net, wanted: &Wanted) -> (Result<Goal, Refusal>, Vec<String>) {
        let mut left = Vec::new();
        let goal = goal(net, table, wanted, &mut left);
        (goal, left.into_iter().map(|left| left.column).collect())
    }

    #[test]
    fn protected_columns_are_left_alone_and_generated_ones_are_not_written() {
        let hidden = Cell::Withheld("full");
        let cells = [
            ("id", known("1"), known("1")),
            ("a", known("x"), known("y")),
            ("secret", hidden.clone(), hidden),
            ("sum", known("3"), known("4")),
        ];
        let (updated, left) = decided(&table(), &net(Some("1"), Some("1"), &cells), &Wanted::default());
        let updated = updated.unwrap();
        assert_eq!(updated.kind, Kind::Update([("a".to_owned(), Some("x".to_owned()))].into()));
        assert_eq!(updated.expected, [("a".to_owned(), Some("y".to_owned()))].into());
        assert_eq!(left, ["secret"]);
        let (inserted, left) = decided(&table(), &net(Some("1"), None, &cells), &Wanted::default());
        let Kind::Insert(image) = inserted.unwrap().kind else { unreachable!() };
        assert_eq!(
            (image.into_keys().collect::<Vec<_>>(), left),
            (vec!["a".to_owned(), "id".to_owned()], vec!["secret".to_owned()])
        );
        let mut strict = table();
        strict.columns[2].not_null = true;
        let (refused, _) = decided(&strict, &net(Some("1"), None, &cells), &Wanted::default());
        assert!(refused.unwrap_err().to_string().contains("column secret must have a value"));
    }

    #[test]
    fn unknown_values_are_refused_by_name_unless_they_are_not_wanted() {
        let cells = [("a", Cell::Unknown("why".to_owned()), known("y")), ("secret", known("s"), known("t"))];
        let net = net(Some("1"), Some("1"), &cells);
        let (refused, _) = decided(&table(), &net, &Wanted::default());
        let refused = refused.unwrap_err();
        assert!(refused.to_string().ends_with("not known of a"), "{refused}");
        let only = Wanted { fields: Some(vec!["secret".to_owned()]), force: false };
        assert!(decided(&table(), &net, &only).0.is_ok());
    }

    #[test]
    fn an_identity_that_is_always_generated_is_inserted_and_never_updated() {
        let mut table = table();
        table.columns[0].always = true;
        let cells = [("id", known("1"), known("2"))];
        let (refused, _) = decided(&table, &net(Some("1"), Some("2"), &cells), &Wanted::default());
        assert!(refused.unwrap_err().to_string().contains("column id is GENERATED ALWAYS"));
        assert!(decided(&table, &net(Some("1"), None, &cells), &Wanted::default()).0.is_ok());
    }

    #[test]
    fn a_key_of_several_columns_is_read_by_their_kinds() {
        let mut table = table();
        table.key = vec![("a".to_owned(), ValueKind::Text), ("id".to_owned(), ValueKind::Int4)];
        let values = key_values(&table, r#"["x \"y\"",7]"#).unwrap();
        assert_eq!(values["a"].as_deref(), Some(r#"x "y""#));
        assert_eq!(values["id"].as_deref(), Some("7"));
        assert!(key_values(&table, "7").is_none() && key_values(&table, "[7]").is_none());
    }
}
