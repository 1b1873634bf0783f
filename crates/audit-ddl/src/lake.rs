//! The description of a lake from which the statements are made.

use audit_config::visible;

use crate::names;
use crate::place::Place;
use crate::types::Type;

/// A lake as its Delta logs describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lake {
    /// The source's name.
    pub source: String,
    /// The sink's name, if there are several lakes.
    pub sink: Option<String>,
    /// The tenant to which the versions belong, if tenants have their own stores.
    pub tenant: Option<String>,
    pub place: Place,
    pub tables: Vec<Table>,
    /// True if these are all tables of the lake. Only then the view over all of them is made.
    pub whole: bool,
}

/// A table of the lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub schema: String,
    pub table: String,
    /// The table's folder, relative to the lake's.
    pub folder: String,
    pub layout: Layout,
    /// The year of its oldest partition.
    pub first_year: i32,
    /// True if it has a file that readers find by listing.
    pub listed: bool,
    /// The columns in the order of the Delta schema, without the partition columns.
    pub columns: Vec<Column>,
    /// Every `schema_version` that the table has had, ascending.
    pub versions: Vec<u32>,
}

/// A lake column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Type,
    /// The column of the source's row; `None` for the record's own columns.
    pub row: Option<Row>,
}

/// A column of the source, as one lake column stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The column's name at the source.
    pub source: String,
    /// True if its text is JSON (`jsonb`, arrays).
    pub json: bool,
    /// True if its times are of type `timestamptz`.
    pub zone: bool,
    /// The values of `schema_version` whose shape has the source column, ascending.
    pub versions: Vec<u32>,
    /// The names that columns have now which had this name, each with the shapes in which it is that column. Empty if
    /// the name has always meant one column, which has it still.
    pub names: Vec<(String, Vec<u32>)>,
}

/// The partition columns of a table, which are in the paths and in the Delta log, not in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// One column `date` in place of the integers `year`, `month` and `day`.
    pub date: bool,
    /// An integer `hour` follows.
    pub hour: bool,
}

impl Layout {
    pub const DAYS: Layout = Layout { date: false, hour: false };

    /// Recognises the layout by the names of the partition columns. `None` if none of our lakes has such columns.
    pub fn of(columns: &[&str]) -> Option<Layout> {
        let (columns, hour) = match columns {
            [days @ .., "hour"] => (days, true),
            days => (days, false),
        };
        match columns {
            ["year", "month", "day"] => Some(Layout { date: false, hour }),
            ["date"] => Some(Layout { date: true, hour }),
            _ => None,
        }
    }

    /// Lists names and types in the order of the folders.
    pub fn columns(self) -> Vec<(&'static str, Type)> {
        let mut columns = match self.date {
            true => vec![("date", Type::Date)],
            false => vec![("year", Type::Int32), ("month", Type::Int32), ("day", Type::Int32)],
        };
        if self.hour {
            columns.push(("hour", Type::Int32));
        }
        columns
    }
}

impl Lake {
    /// Names the schema, database or dataset that contains everything. No two sources, lakes or tenants share one.
    pub(crate) fn schema(&self) -> String {
        let schema = names::lake(&self.source, self.sink.as_deref());
        match &self.tenant {
            Some(tenant) if self.sink.is_none() => names::object(&self.source, &format!("tenant_{tenant}")),
            Some(tenant) => names::object(&schema, &format!("tenant_{tenant}")),
            None => schema,
        }
    }

    /// Returns the partition columns if all tables have the same.
    pub(crate) fn layout(&self) -> Option<Layout> {
        let first = self.tables.first()?.layout;
        self.tables.iter().all(|table| table.layout == first).then_some(first)
    }
}

impl Table {
    /// Writes `schema.table` for people.
    pub(crate) fn shown(&self) -> String {
        let part = |part: &str| match part.contains(['.', '"']) || visible(part) != part {
            true => format!("{part:?}"),
            false => part.to_owned(),
        };
        format!("{}.{}", part(&self.schema), part(&self.table))
    }

    /// Names the view.
    pub(crate) fn view(&self) -> String {
        names::object(&self.schema, &self.table)
    }

    /// Names the table under the view. No view's name begins with `lake__`.
    pub(crate) fn base(&self) -> String {
        format!("lake__{}", self.view())
    }

    /// Lists the columns of the files, then the partition columns.
    pub(crate) fn all_columns(&self) -> Vec<(String, Type)> {
        let own = self.columns.iter().map(|column| (column.name.clone(), column.kind));
        own.chain(self.layout.columns().into_iter().map(|(name, kind)| (name.to_owned(), kind))).collect()
    }
}
