//! Folds the versions of a row to its one net change: [`fold`].

use std::collections::{BTreeMap, BTreeSet};

use audit_core::position::Position;

use crate::order::Image;

/// One side of a column, as far as the trail knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// PostgreSQL's text form; `None` for NULL.
    Known(Option<String>),
    /// The trail does not have the value, for this reason.
    Unknown(String),
    /// The rules protect the value, or do not record it: it is left alone.
    Withheld(&'static str),
}

/// What a version did to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Created,
    Updated,
    Deleted,
}

/// A version, with its values under the names that the columns have in the database now.
#[derive(Clone, Debug)]
pub struct Change {
    pub position: Position,
    /// The table's place in the catalog.
    pub table: usize,
    pub event: Event,
    pub key: String,
    pub old_key: Option<String>,
    /// Each column's value before and after.
    pub columns: BTreeMap<String, (Cell, Cell)>,
}

impl Change {
    /// The key that the row had before.
    fn known_as(&self) -> &str {
        self.old_key.as_ref().unwrap_or(&self.key)
    }
}

/// What several versions together did to one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    pub table: usize,
    /// The row's key before the first version; `None` if there was no row.
    pub before: Option<String>,
    /// The row's key after the last version; `None` if there is no row.
    pub after: Option<String>,
    pub columns: BTreeMap<String, (Cell, Cell)>,
    /// The versions, oldest first, and the columns that each of them changed.
    pub versions: Vec<(Position, BTreeSet<String>)>,
    /// Columns that were changed between the versions, by others.
    pub between: BTreeSet<String>,
}

impl Net {
    /// The key by which people know the row.
    pub fn key(&self) -> &str {
        self.after.as_deref().or(self.before.as_deref()).unwrap_or_default()
    }

    fn of(change: &Change) -> Net {
        Net {
            table: change.table,
            before: (change.event != Event::Created).then(|| change.known_as().to_owned()),
            after: None,
            columns: change.columns.clone(),
            versions: Vec::new(),
            between: BTreeSet::new(),
        }
    }

    fn add(&mut self, change: &Change) {
        // ⚠ A row that was made where one was, or changed where none was, has versions that are not named.
        let replaced = self.after.is_some() == (change.event == Event::Created);
        for (name, (old, new)) in &change.columns {
            let differs = |known: &Cell| matches!((known, old), (Cell::Known(known), Cell::Known(old)) if known != old);
            match self.columns.get_mut(name) {
                Some((_, known)) => {
                    if replaced || (change.event != Event::Created && differs(known)) {
                        self.between.insert(name.clone());
                    }
                    *known = new.clone();
                }
                None => drop(self.columns.insert(name.clone(), (old.clone(), new.clone()))),
            }
        }
    }

    /// The versions that changed one of these columns; all of them if the row is made or removed as a whole.
    pub fn touching<'n>(&'n self, columns: Option<&'n Image>) -> impl Iterator<Item = Position> + 'n {
        let touches = move |changed: &BTreeSet<String>| {
            columns.is_none_or(|columns| changed.iter().any(|name| columns.contains_key(name)))
        };
        self.versions.iter().filter(move |(_, changed)| touches(changed)).map(|(position, _)| *position)
    }

    fn is_something(&self) -> bool {
        let differ = |(before, after): &(Cell, Cell)| before != after || matches!(before, Cell::Unknown(_));
        match (&self.before, &self.after) {
            (None, None) => false,
            (Some(_), Some(_)) if !self.between.is_empty() => true,
            (Some(before), Some(after)) => before != after || self.columns.values().any(differ),
            _ => true,
        }
    }
}

/// Folds versions, oldest first, to one net change for each row, in the order in which the rows were last changed. Rows
/// that were made and removed again are left out, and so are those that became what they had been.
pub fn fold(changes: &[Change]) -> Vec<Net> {
    let mut all: Vec<Net> = Vec::new();
    // The place of each row in the list, by the key that it has so far.
    let mut places: BTreeMap<(usize, String), usize> = BTreeMap::new();
    for change in changes {
        let at = match places.remove(&(change.table, change.known_as().to_owned())) {
            Some(at) => {
                all[at].add(change);
                at
            }
            None => {
                all.push(Net::of(change));
                all.len() - 1
            }
        };
        all[at].after = (change.event != Event::Deleted).then(|| change.key.clone());
        all[at].versions.push((change.position, change.columns.keys().cloned().collect()));
        places.insert((change.table, change.key.clone()), at);
    }
    all.retain(Net::is_something);
    all
}

#[cfg(test)]
mod tests {
    use audit_core::position::Lsn;

    use super::*;

    fn known(text: &str) -> Cell {
        Cell::Known(Some(text.to_owned()))
    }

    fn change(seq: u32, event: Event, key: &str, values: &[(&str, &str, &str)]) -> Change {
        let cell = |text: &str| if text.is_empty() { Cell::Known(None) } else { known(text) };
        let columns = values.iter().map(|(name, old, new)| ((*name).to_owned(), (cell(old), cell(new)))).collect();
        let position = Position::new(1, Lsn(1), seq);
        Change { position, table: 0, event, key: key.to_owned(), old_key: None, columns }
    }

    fn shown(changes: &[Change]) -> Vec<String> {
        let cell = |cell: &Cell| match cell {
            Cell::Known(text) => text.clone().unwrap_or_else(|| "∅".to_owned()),
            Cell::Unknown(_) => "?".to_owned(),
            Cell::Withheld(_) => "●".to_owned(),
        };
        let shown = |net: Net| {
            let columns = net.columns.iter().map(|(name, (old, new))| format!("{name} {}→{}", cell(old), cell(new)));
            let columns: Vec<String> = columns.collect();
            format!("{:?} {:?} {}", net.before, net.after, columns.join(", "))
        };
        fold(changes).into_iter().map(shown).collect()
    }

    #[test]
    fn versions_of_a_row_become_one() {
        let created = change(0, Event::Created, "1", &[("id", "", "1"), ("a", "", "x")]);
        let updated = change(1, Event::Updated, "1", &[("a", "x", "y")]);
        let deleted = change(2, Event::Deleted, "1", &[("id", "1", ""), ("a", "y", "")]);
        let again = change(3, Event::Created, "1", &[("id", "", "1"), ("a", "", "z")]);
        let all = [created, updated, deleted, again];
        assert_eq!(shown(&all[..2]), [r#"None Some("1") a ∅→y, id ∅→1"#]);
        assert_eq!(shown(&all[..3]), [""; 0]);
        assert_eq!(shown(&all[1..3]), [r#"Some("1") None a x→∅, id 1→∅"#]);
        assert_eq!(shown(&all[1..]), [r#"Some("1") Some("1") a x→z, id 1→1"#]);
        assert_eq!(shown(&all), [r#"None Some("1") a ∅→z, id ∅→1"#]);
    }

    #[test]
    fn a_row_is_followed_through_its_keys() {
        let moved = |seq, from: &str, to: &str| Change {
            old_key: Some(from.to_owned()),
            ..change(seq, Event::Updated, to, &[("id", from, to)])
        };
        // Two rows exchange their keys.
        let swapped = [moved(0, "1", "0"), moved(1, "2", "1"), moved(2, "0", "2")];
        assert_eq!(shown(&swapped), [r#"Some("1") Some("2") id 1→2"#, r#"Some("2") Some("1") id 2→1"#]);
        assert_eq!(shown(&[moved(0, "1", "2"), moved(1, "2", "1")]), [""; 0]);
    }

    #[test]
    fn a_gap_between_versions_is_noted_and_an_unknown_value_is_kept() {
        let (first, second) =
            (change(0, Event::Updated, "1", &[("a", "x", "y")]), change(1, Event::Updated, "1", &[("a", "z", "w")]));
        let between = |changes: &[Change]| fold(changes)[0].between.iter().cloned().collect::<Vec<_>>().join(",");
        assert_eq!(between(&[first.clone(), second]), "a");
        // The row was removed, and another one was made with its key.
        let other = change(1, Event::Created, "1", &[("a", "", "y")]);
        assert_eq!(between(&[first.clone(), other.clone()]), "a");
        let removed = change(1, Event::Deleted, "1", &[("a", "y", "")]);
        assert_eq!(between(&[first.clone(), removed.clone(), other]), "");
        assert_eq!(between(&[removed, first]), "a");
        let mut unknown = change(0, Event::Updated, "1", &[]);
        unknown.columns.insert("a".to_owned(), (Cell::Unknown("no".to_owned()), known("x")));
        assert_eq!(shown(&[unknown.clone()]), [r#"Some("1") Some("1") a ?→x"#]);
        let later = change(1, Event::Updated, "1", &[("a", "x", "y")]);
        assert_eq!(shown(&[unknown, later]), [r#"Some("1") Some("1") a ?→y"#]);
    }
}
