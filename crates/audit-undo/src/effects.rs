//! What was changed beyond what was asked for: rows read again, and the server's own counts.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::Error;
use crate::catalog::{Catalog, Table};
use crate::goal::{Goal, Kind};
use crate::look::{Lock, read, same};
use crate::order::{Image, Row};
use crate::report::Effect;

/// How many rows of a table were added or changed, and how many were removed or changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    added: i64,
    removed: i64,
}

impl Changed {
    pub fn add(&mut self, added: bool, removed: bool) {
        self.added += i64::from(added);
        self.removed += i64::from(removed);
    }
}

/// What this transaction did to each table so far, with the table's name.
pub struct Counts(BTreeMap<u32, (String, Changed)>);

impl Counts {
    pub async fn read(client: &Client) -> Result<Counts, Error> {
        let rows = client.query(include_str!("sql/counts.sql"), &[]).await?;
        let entry =
            |row: &tokio_postgres::Row| (row.get(0), (row.get(1), Changed { added: row.get(2), removed: row.get(3) }));
        Ok(Counts(rows.iter().map(entry).collect()))
    }
}

/// Tables in which more rows were written than the statements and their expected cascades wrote.
pub async fn of_tables(
    client: &Client,
    before: Counts,
    expected: &BTreeMap<u32, Changed>,
) -> Result<Vec<Effect>, Error> {
    let after = Counts::read(client).await?;
    let mut effects = Vec::new();
    for (oid, (table, now)) in after.0 {
        let was = before.0.get(&oid).map_or(Changed::default(), |(_, was)| *was);
        let own = expected.get(&oid).copied().unwrap_or_default();
        let (added, removed) = (now.added - was.added - own.added, now.removed - was.removed - own.removed);
        if added > 0 || removed > 0 {
            let what = format!("further rows were written: {added} added or changed, {removed} removed or changed");
            effects.push(Effect { table, key: None, column: None, what, is_usual: false });
        }
    }
    Ok(effects)
}

/// Rows that are not what the statements made of them.
pub async fn of_rows(client: &Client, catalog: &Catalog, rows: &[Row], goals: &[&Goal]) -> Result<Vec<Effect>, Error> {
    let mut effects = Vec::new();
    for (row, goal) in rows.iter().zip(goals) {
        let table = &catalog.tables[row.table];
        let effect = |column: Option<&String>, what: String| Effect {
            table: table.name.clone(),
            key: Some(row.key.clone()),
            column: column.cloned(),
            what,
            is_usual: column.and_then(|name| table.column(name)).is_some_and(|column| column.accompanies),
        };
        let Some(at) = row.then.as_ref().or(row.now.as_ref()) else { continue };
        match (&row.then, read(client, table, at, Lock::None).await?) {
            (None, None) => {}
            // Another row of the undo has taken its key.
            (None, Some(_)) if rows.iter().any(|other| other.table == row.table && has_key(table, other, at)) => {}
            (None, Some(_)) => effects.push(effect(None, "the row is there again".to_owned())),
            (Some(_), None) => effects.push(effect(None, "the row is not there".to_owned())),
            (Some(then), Some(now)) => {
                for (name, value) in then {
                    let Some(column) = table.column(name) else { continue };
                    if !same(column, now.get(name), value) {
                        effects.push(effect(Some(name), bent(goal, name, value, &now)));
                    }
                }
            }
        }
    }
    Ok(effects)
}

/// Whether a row will have this key.
fn has_key(table: &Table, row: &Row, key: &Image) -> bool {
    let same = |then: &Image| table.key.iter().all(|(name, _)| then.get(name) == key.get(name));
    row.then.as_ref().is_some_and(same)
}

/// ⚠ Values are shown only of columns whose values the trail has, because the rules protect others.
fn bent(goal: &Goal, name: &str, planned: &Option<String>, now: &Image) -> String {
    let shown = match &goal.kind {
        Kind::Update(set) => set.contains_key(name),
        Kind::Insert(image) => image.contains_key(name),
        Kind::Delete => false,
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    match shown {
        true => {
            format!("is {} and not {}", text(&now.get(name).cloned().flatten()), text(planned))
        }
        false => "was changed".to_owned(),
    }
}

/// Sequences that will give out a value that was put back.
pub async fn sequences(client: &Client, catalog: &Catalog, rows: &[Row]) -> Result<Vec<String>, Error> {
    let mut highest: BTreeMap<u32, i64> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.now.is_none()) {
        for column in &catalog.tables[row.table].columns {
            let value = row.then.as_ref().and_then(|then| then.get(&column.name)?.as_ref()?.parse().ok());
            if let (Some(sequence), Some(value)) = (column.sequence, value) {
                let high = highest.entry(sequence).or_insert(value);
                *high = value.max(*high);
            }
        }
    }
    let mut warnings = Vec::new();
    for (sequence, value) in highest {
        for row in client.query(include_str!("sql/sequence.sql"), &[&sequence, &value]).await? {
            let name: String = row.get(0);
            warnings.push(format!("sequence {name} is behind {value}, which was put back: it will give it out again"));
        }
    }
    Ok(warnings)
}
