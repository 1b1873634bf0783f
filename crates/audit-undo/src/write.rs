//! Runs the statements, each after the children that it would touch were counted: [`write`].

use std::collections::BTreeMap;

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::catalog::{Action, Catalog, Foreign, Table, name};
use crate::effects::Changed;
use crate::error::Dependents;
use crate::error::refused;
use crate::goal::{Goal, Kind};
use crate::look::{Lock, query, read};
use crate::order::{Image, Ordered, Row, Step, Write};
use crate::report::{Later, Statement};
use crate::sql::{Sql, statement};
use crate::{Conflict, Error, Refusal};

/// What is written, and what was written so far.
pub struct Written<'a> {
    client: &'a Client,
    catalog: &'a Catalog,
    rows: &'a [Row],
    goals: &'a [&'a Goal],
    later: Later,
    pub statements: Vec<Statement>,
    counts: BTreeMap<u32, Changed>,
}

impl<'a> Written<'a> {
    pub fn new(
        client: &'a Client,
        catalog: &'a Catalog,
        rows: &'a [Row],
        goals: &'a [&'a Goal],
        later: Later,
    ) -> Written<'a> {
        Written { client, catalog, rows, goals, later, statements: Vec::new(), counts: BTreeMap::new() }
    }

    fn table(&self, row: usize) -> &'a Table {
        &self.catalog.tables[self.rows[row].table]
    }

    fn name(&self, row: usize) -> String {
        name(self.table(row), &self.rows[row].key)
    }

    /// The statements, before any of them is run.
    pub fn planned(&self, steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| self.statement(step).literal()).collect()
    }

    fn statement(&self, step: &Step) -> Sql {
        statement(self.table(step.row), step, &compared(self, step))
    }

    /// How many rows of each table were written, cascades onto rows of the undo among them.
    pub fn counts(&self, ordered: &Ordered) -> BTreeMap<u32, Changed> {
        let mut counts = self.counts.clone();
        for row in &ordered.cascaded {
            counts.entry(self.table(*row).oid).or_default().add(true, true);
        }
        counts
    }
}

/// Runs the steps in their order.
pub async fn write(written: &mut Written<'_>, steps: &[Step]) -> Result<(), Error> {
    for step in steps {
        let mut guards = Vec::new();
        for foreign in &written.catalog.foreign {
            guards.extend(no_cascade(written, step, foreign).await?);
        }
        let table = written.table(step.row);
        let sql = written.statement(step);
        let rows = execute(written, step, &sql).await?;
        written.statements.push(Statement { sql: sql.literal(), row: written.name(step.row), rows, guards });
        if rows > 1 {
            return Err(Refusal::new(format!(
                "{} names {rows} rows, and one was to be written",
                written.name(step.row)
            ))
            .into());
        }
        if rows == 0 && !reached(written, step).await? {
            return Err(Error::Conflict(vec![untouched(written, step)]));
        }
        let (adds, removes) = (!matches!(step.action, Write::Delete), !matches!(step.action, Write::Insert(_)));
        written.counts.entry(table.oid).or_default().add(adds, removes);
    }
    Ok(())
}

fn untouched(written: &Written<'_>, step: &Step) -> Conflict {
    let what = "a trigger, a rule or row security kept the statement from writing the row";
    Conflict::of_row(&written.table(step.row).name, &written.rows[step.row].key, what)
}

/// The columns that the statement compares.
fn compared<'g>(written: &'g Written<'_>, step: &'g Step) -> Vec<&'g str> {
    if written.later == Later::Force {
        return Vec::new();
    }
    match (&written.goals[step.row].kind, &step.action) {
        (Kind::Delete, Write::Delete) => written.goals[step.row].expected.keys().map(String::as_str).collect(),
        (_, Write::Update(set)) => {
            let table = written.table(step.row);
            let compares = |name: &&String| table.column(name).is_some_and(|column| !column.accompanies);
            set.keys().filter(compares).map(String::as_str).collect()
        }
        _ => Vec::new(),
    }
}

async fn execute(written: &Written<'_>, step: &Step, sql: &Sql) -> Result<u64, Error> {
    let values: Vec<&(dyn ToSql + Sync)> = sql.values().iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    written.client.execute(&sql.parametrized(), &values).await.map_err(|error| match error.as_db_error() {
        Some(db) => {
            let verb = match step.action {
                Write::Delete => "removing",
                Write::Update(_) => "changing",
                Write::Insert(_) => "putting back",
            };
            Error::Refused(refused(&format!("{verb} {}", written.name(step.row)), db))
        }
        None => Error::Driver(error),
    })
}

/// Whether a trigger has already made of the row what the step would have made of it.
async fn reached(written: &Written<'_>, step: &Step) -> Result<bool, Error> {
    let table = written.table(step.row);
    let mut at = step.from.clone();
    if let Write::Update(set) | Write::Insert(set) = &step.action {
        at.extend(set.clone());
    }
    let now = read(written.client, table, &at, Lock::None).await?;
    Ok(match (&step.action, now) {
        (Write::Delete, now) => now.is_none(),
        (Write::Update(set) | Write::Insert(set), Some(now)) => {
            set.iter().all(|(name, value)| now.get(name) == Some(value))
        }
        (_, None) => false,
    })
}

/// ⚠ Refuses a statement whose cascade would touch rows of other transactions. Returns the question that found none, for
/// those who run the statement later.
async fn no_cascade(written: &Written<'_>, step: &Step, foreign: &Foreign) -> Result<Option<String>, Error> {
    let table = written.table(step.row);
    let moves = |set: &Image| foreign.parent_columns.iter().any(|column| set.contains_key(column));
    let action = match &step.action {
        Write::Delete => foreign.on_delete,
        Write::Update(set) if moves(set) => foreign.on_update,
        _ => return Ok(None),
    };
    let touches = matches!(action, Action::Cascade | Action::Set) || written.later == Later::With;
    if table.oid != foreign.parent || !touches {
        return Ok(None);
    }
    let row = written.name(step.row);
    if foreign.hidden {
        return Err(
            Refusal::new(format!("{} of {} could touch rows that row security hides", foreign.name, row)).into()
        );
    }
    let Some(sql) = children(written, step, foreign) else { return Ok(None) };
    let found = query(written.client, &sql, || format!("counting the rows that belong to {row}")).await?;
    let count: i64 = found.first().map_or(0, |row| row.get(0));
    if count == 0 {
        return Ok(Some(sql.literal()));
    }
    let keys: Option<Vec<String>> = found.first().and_then(|row| row.get(1));
    let of = foreign.child_sql.clone();
    let what = format!("{count} rows of {of} that belong to {row} would be changed with it, by {}", foreign.name);
    let refusal = Refusal::new(what)
        .details(keys.into_iter().flatten().map(|key| format!("{of} {key}")))
        .hint("undo what made these rows first, or --with-later");
    Err(match written.later {
        Later::With => Error::Dependents(Dependents::new(foreign, step, refusal)),
        _ => refusal.into(),
    })
}

impl Dependents {
    fn new(foreign: &Foreign, step: &Step, refusal: Refusal) -> Dependents {
        let pairs = foreign.child_columns.iter().zip(&foreign.parent_columns);
        let value = |(own, of_parent): (&String, &String)| {
            (own.clone(), step.from.get(of_parent).cloned().flatten().unwrap_or_default())
        };
        let (table, sql) = (foreign.child_name.clone(), foreign.child_sql.clone());
        Dependents { table, sql, columns: pairs.map(value).collect(), refusal }
    }
}

/// Counts the children that are not part of the undo; `None` if the parent's values are NULL.
fn children(written: &Written<'_>, step: &Step, foreign: &Foreign) -> Option<Sql> {
    let parent = written.table(step.row);
    let known = written.catalog.by_oid(foreign.child);
    let child = known.map(|at| &written.catalog.tables[at]);
    let keys: Vec<&str> =
        child.map_or_else(Vec::new, |child| child.key_columns().map(|key| key.sql.as_str()).collect());
    let key: Vec<String> = keys.iter().map(|key| format!("{key}::text")).collect();
    let shown = match key.is_empty() {
        true => "NULL::text[]".to_owned(),
        false => format!("(array_agg(concat_ws(',', {})))[1:11]", key.join(", ")),
    };
    let mut sql = Sql::new(format!("SELECT count(*), {shown} FROM {} WHERE true", foreign.child_sql));
    for (own, of_parent) in foreign.child_columns.iter().zip(&foreign.parent_columns) {
        let column = parent.column(of_parent)?;
        let value = step.from.get(of_parent)?.as_ref()?;
        let own = child.and_then(|child| child.column(own)).map_or_else(|| quoted(own), |own| own.sql.clone());
        sql.text(&format!(" AND {own} = ")).value(column, Some(value));
    }
    let Some(child) = child else { return Some(sql) };
    for row in written.rows.iter().filter(|row| Some(row.table) == known) {
        let Some(now) = &row.now else { continue };
        // ⚠ A row that would still belong to the parent is touched by the cascade, whatever else is put back in it.
        let belongs = |then: &Image| {
            let mut pairs = foreign.child_columns.iter().zip(&foreign.parent_columns);
            pairs.all(|(own, of_parent)| then.get(own) == step.from.get(of_parent))
        };
        if row.then.as_ref().is_some_and(belongs) {
            continue;
        }
        sql.text(" AND NOT (true");
        for column in child.key_columns() {
            sql.text(&format!(" AND {} = ", column.sql)).value(column, now.get(&column.name).and_then(Option::as_ref));
        }
        sql.text(")");
    }
    Some(sql)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
