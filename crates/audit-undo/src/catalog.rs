//! Reads what the database says about the tables: columns, foreign keys, unique constraints ([`Catalog`]).

use audit_core::shape::Shape;
use audit_core::value::Kind;
use tokio_postgres::{Client, Row};

use crate::Error;

/// The tables that are written, and the constraints that touch them.
#[derive(Debug, Default)]
pub struct Catalog {
    pub tables: Vec<Table>,
    pub foreign: Vec<Foreign>,
}

#[derive(Clone, Debug, Default)]
pub struct Table {
    pub oid: u32,
    /// `schema.table`, for people.
    pub name: String,
    /// The same as SQL, with `ONLY` before it if other tables inherit from it.
    pub sql: String,
    pub columns: Vec<Column>,
    /// The columns that name a row in the trail.
    pub key: Vec<(String, Kind)>,
    pub unique: Vec<Unique>,
}

#[derive(Clone, Debug, Default)]
pub struct Column {
    pub name: String,
    /// The name as SQL.
    pub sql: String,
    pub attnum: i16,
    pub type_name: String,
    /// Whether values are compared as numbers, because a float has two zeros.
    pub float: bool,
    pub not_null: bool,
    pub has_default: bool,
    /// The server computes the value.
    pub generated: bool,
    /// `GENERATED ALWAYS AS IDENTITY`: cannot be set by UPDATE.
    pub always: bool,
    /// It accompanies other changes (`ignore_alone`, such as a time of the last change): it is put back, but whoever
    /// changed it alone changed nothing.
    pub accompanies: bool,
    /// The sequence that the column's values come from.
    pub sequence: Option<u32>,
    /// The type without its length or precision, if it has one.
    pub wide: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Unique {
    pub name: String,
    pub columns: Vec<String>,
    pub deferrable: bool,
}

/// What the server does with the children of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// It refuses, at the end of the transaction if the constraint is deferrable.
    #[default]
    None,
    Restrict,
    Cascade,
    /// `SET NULL` and `SET DEFAULT`.
    Set,
}

#[derive(Clone, Debug, Default)]
pub struct Foreign {
    pub name: String,
    pub child: u32,
    /// `schema.table` of the child, as the trail calls it.
    pub child_name: String,
    /// The same as SQL.
    pub child_sql: String,
    pub child_columns: Vec<String>,
    pub parent: u32,
    pub parent_columns: Vec<String>,
    pub on_delete: Action,
    pub on_update: Action,
    pub deferrable: bool,
    /// Row security hides rows of the child from this session.
    pub hidden: bool,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().filter_map(|(name, _)| self.column(name))
    }
}

impl Catalog {
    pub fn by_oid(&self, oid: u32) -> Option<usize> {
        self.tables.iter().position(|table| table.oid == oid)
    }

    /// Adds a table that has this shape in the trail: the one of that name, or else the one of that oid. Returns its
    /// place.
    ///
    /// # Errors
    /// Fails if the server cannot be asked; `Ok(None)` if there is no such table.
    pub async fn add(&mut self, client: &Client, shape: &Shape) -> Result<Option<usize>, Error> {
        let oid = shape.oid.unwrap_or_default();
        let rows = client.query(include_str!("sql/table.sql"), &[&shape.schema, &shape.table, &oid]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let oid: u32 = row.get(0);
        if let Some(known) = self.by_oid(oid) {
            return Ok(Some(known));
        }
        let columns = client.query(include_str!("sql/columns.sql"), &[&oid]).await?;
        let unique = client.query(include_str!("sql/unique.sql"), &[&oid]).await?;
        self.tables.push(Table {
            oid,
            name: row.get(1),
            sql: row.get(2),
            columns: columns.iter().map(column).collect(),
            key: Vec::new(),
            unique: unique
                .iter()
                .map(|row| Unique { name: row.get(0), deferrable: row.get(1), columns: row.get(2) })
                .collect(),
        });
        Ok(Some(self.tables.len() - 1))
    }

    /// Reads the foreign keys from and to the tables.
    ///
    /// # Errors
    /// Fails if the server cannot be asked.
    pub async fn read_foreign(&mut self, client: &Client) -> Result<(), Error> {
        let oids: Vec<u32> = self.tables.iter().map(|table| table.oid).collect();
        let rows = client.query(include_str!("sql/foreign.sql"), &[&oids]).await?;
        self.foreign = rows.iter().map(foreign).collect();
        Ok(())
    }
}

fn column(row: &Row) -> Column {
    Column {
        name: row.get(0),
        sql: row.get(1),
        attnum: row.get(2),
        type_name: row.get(3),
        float: row.get(4),
        not_null: row.get(5),
        has_default: row.get(6),
        generated: row.get(7),
        always: row.get(8),
        sequence: row.get(9),
        wide: row.get(10),
        accompanies: false,
    }
}

fn foreign(row: &Row) -> Foreign {
    let action = |at: usize| match row.get::<_, String>(at).as_str() {
        "r" => Action::Restrict,
        "c" => Action::Cascade,
        "n" | "d" => Action::Set,
        _ => Action::None,
    };
    Foreign {
        name: row.get(0),
        child: row.get(1),
        child_sql: row.get(2),
        child_columns: row.get(3),
        parent: row.get(4),
        parent_columns: row.get(5),
        on_delete: action(6),
        on_update: action(7),
        deferrable: row.get(8),
        hidden: row.get(9),
        child_name: row.get(10),
    }
}

/// How people call a row.
pub fn name(table: &Table, key: &str) -> String {
    format!("{} {key}", table.name)
}
