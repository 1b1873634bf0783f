//! Locks a row and compares it with what it was after the version: [`look`].

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::catalog::{Column, Table, name};
use crate::error::refused;
use crate::goal::{Goal, Kind};
use crate::order::{Image, Row};
use crate::report::Later;
use crate::sql::{Sql, with_key};
use crate::{Conflict, Error, Refusal};

pub struct Look {
    pub row: Row,
    pub conflicts: Vec<Conflict>,
}

/// Reads the row as it is, and says where it is not as expected. `is_free`: the row that has the key is going to leave it.
pub async fn look(client: &Client, table: &Table, goal: &Goal, is_free: bool, later: Later) -> Result<Look, Error> {
    canonical(client, table, goal, &goal.at).await?;
    let now = match is_free {
        true => None,
        false => read(client, table, &goal.at, Lock::Write).await?,
    };
    let expected = canonical(client, table, goal, &goal.expected).await?;
    let then = match (&goal.kind, &now) {
        (Kind::Delete, _) => None,
        (Kind::Insert(image), _) => Some(canonical(client, table, goal, image).await?),
        (Kind::Update(set), Some(now)) => {
            let mut then = now.clone();
            then.extend(canonical(client, table, goal, set).await?);
            Some(then)
        }
        (Kind::Update(_), None) => None,
    };
    let conflicts = compare(table, goal, now.as_ref(), &expected, then.as_ref(), later);
    Ok(Look { row: Row { table: goal.table, key: goal.key.clone(), now, then }, conflicts })
}

fn compare(
    table: &Table,
    goal: &Goal,
    now: Option<&Image>,
    expected: &Image,
    then: Option<&Image>,
    later: Later,
) -> Vec<Conflict> {
    let whole = |what| Conflict::of_row(&table.name, &goal.key, what);
    let now = match (&goal.kind, now) {
        (Kind::Insert(_), None) => return Vec::new(),
        (Kind::Insert(_), Some(_)) => return vec![whole("another row has this key now")],
        (_, None) => return vec![whole("the row is not there any more, or row security hides it")],
        (_, Some(now)) => now,
    };
    if later == Later::Force {
        return Vec::new();
    }
    // All columns of a row that is removed, or those that are written.
    let is_written = |name: &String| match &goal.kind {
        Kind::Update(set) => set.contains_key(name),
        _ => true,
    };
    let differs = |(name, value): &(&String, &Option<String>)| {
        is_written(name) && table.column(name).is_some_and(|column| !same(column, now.get(*name), value))
    };
    let conflict = |(name, value): (&String, &Option<String>)| Conflict {
        then: value.clone(),
        undone_to: then.and_then(|then| then.get(name).cloned()).flatten(),
        now: now.get(name).cloned().flatten(),
        ..whole("the value was changed later").on(name)
    };
    expected.iter().filter(differs).map(conflict).collect()
}

/// Whether a value is this one; floats are compared as numbers, because not every store keeps the sign of zero.
pub fn same(column: &Column, now: Option<&Option<String>>, value: &Option<String>) -> bool {
    let Some(now) = now else { return false };
    let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<f64>().ok());
    now == value || (column.float && number(now).is_some() && number(now) == number(value))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    Write,
    None,
}

/// The row with this key, without columns that the server computes.
pub async fn read(client: &Client, table: &Table, key: &Image, lock: Lock) -> Result<Option<Image>, Error> {
    let columns: Vec<&Column> = table.columns.iter().filter(|column| !column.generated).collect();
    let list: Vec<String> = columns.iter().map(|column| format!("{}::text", column.sql)).collect();
    let mut sql = Sql::new(format!("SELECT {} FROM {}", list.join(", "), table.sql));
    with_key(&mut sql, table, key);
    sql.text(" LIMIT 2");
    if lock == Lock::Write {
        sql.text(" FOR UPDATE");
    }
    let rows = query(client, &sql, || format!("reading {}", name(table, &shown(table, key)))).await?;
    // ⚠ Nothing in the database need make a key unique that the configuration names, or that was a primary key once.
    if rows.len() > 1 {
        let what = format!("{} names more than one row", name(table, &shown(table, key)));
        return Err(Refusal::new(what).hint("correct the rows by hand, or make the key unique first").into());
    }
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(columns.iter().enumerate().map(|(at, column)| (column.name.clone(), row.get(at))).collect()))
}

fn shown(table: &Table, key: &Image) -> String {
    let values = table.key_columns().map(|column| key.get(&column.name).cloned().flatten().unwrap_or_default());
    values.collect::<Vec<_>>().join(",")
}

/// The texts that the server makes of these values, which also tests whether the columns still take them.
async fn canonical(client: &Client, table: &Table, goal: &Goal, image: &Image) -> Result<Image, Error> {
    if image.is_empty() {
        return Ok(Image::new());
    }
    let columns: Vec<&Column> = table.columns.iter().filter(|column| image.contains_key(&column.name)).collect();
    let mut sql = Sql::new("SELECT ");
    for (at, column) in columns.iter().enumerate() {
        sql.text(if at > 0 { ", " } else { "" });
        sql.value(column, image.get(&column.name).and_then(Option::as_ref)).text("::text");
    }
    for column in &columns {
        let value = image.get(&column.name).and_then(Option::as_ref);
        let Some(wide) = &column.wide else {
            sql.text(", NULL::boolean");
            continue;
        };
        let whole = Column { type_name: wide.clone(), ..(*column).clone() };
        sql.text(", (").value(column, value).text(&format!(")::{wide} <> ")).value(&whole, value);
    }
    let doing = || format!("the columns of {} do not take the values that the trail has", name(table, &goal.key));
    let rows = query(client, &sql, doing).await?;
    let Some(row) = rows.first() else { return Ok(Image::new()) };
    // ⚠ A cast shortens and rounds without a word where the column has become narrower than the value.
    for (at, column) in columns.iter().enumerate() {
        if row.get::<_, Option<bool>>(columns.len() + at) == Some(true) {
            let what =
                format!("{}: the value of column {} is cut by its type {}", doing(), column.name, column.type_name);
            return Err(Refusal::new(what).into());
        }
    }
    Ok(columns.iter().enumerate().map(|(at, column)| (column.name.clone(), row.get(at))).collect())
}

pub async fn query(client: &Client, sql: &Sql, doing: impl Fn() -> String) -> Result<Vec<tokio_postgres::Row>, Error> {
    let values: Vec<&(dyn ToSql + Sync)> = sql.values().iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    client.query(&sql.parametrized(), &values).await.map_err(|error| match error.as_db_error() {
        Some(db) => Error::Refused(refused(&doing(), db)),
        None => Error::Driver(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_compared_as_a_number_and_anything_else_as_text() {
        let text = |text: &str| Some(text.to_owned());
        let column = |float| Column { float, ..Column::default() };
        assert!(same(&column(true), Some(&text("-0")), &text("0")));
        assert!(same(&column(true), Some(&text("NaN")), &text("NaN")));
        assert!(!same(&column(true), Some(&text("1")), &text("2")));
        assert!(!same(&column(false), Some(&text("1.0")), &text("1")));
        assert!(!same(&column(true), Some(&None), &text("0")) && same(&column(false), Some(&None), &None));
    }
}
