//! Statements that are run with parameters and shown with literals: [`Sql`].

use crate::catalog::{Column, Table};
use crate::order::{Image, Step, Write};

/// A statement in pieces: text, and values between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sql {
    texts: Vec<String>,
    values: Vec<Option<String>>,
}

impl Sql {
    pub fn new(text: impl Into<String>) -> Sql {
        Sql { texts: vec![text.into()], values: Vec::new() }
    }

    pub fn text(&mut self, text: &str) -> &mut Sql {
        match self.texts.last_mut() {
            Some(last) => last.push_str(text),
            None => self.texts.push(text.to_owned()),
        }
        self
    }

    /// Adds a value of the column's type.
    pub fn value(&mut self, column: &Column, value: Option<&String>) -> &mut Sql {
        self.values.push(value.cloned());
        self.texts.push(format!("::{}", column.type_name));
        self
    }

    pub fn values(&self) -> &[Option<String>] {
        &self.values
    }

    /// The statement with parameters.
    pub fn parametrized(&self) -> String {
        let mut out = String::new();
        for (at, text) in self.texts.iter().enumerate() {
            if at > 0 {
                out.push_str(&format!("${at}::text"));
            }
            out.push_str(text);
        }
        out
    }

    /// The statement with literals.
    pub fn literal(&self) -> String {
        let mut out = String::new();
        for (at, text) in self.texts.iter().enumerate() {
            if let Some(value) = at.checked_sub(1).and_then(|at| self.values.get(at)) {
                out.push_str(&value.as_deref().map_or_else(|| "NULL".to_owned(), literal));
            }
            out.push_str(text);
        }
        out
    }
}

/// A text as SQL, whatever `standard_conforming_strings` is.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// Appends `column IS NOT DISTINCT FROM value`. Not every type has an equality, and that of some types is not exact: texts
/// are compared, except for floats, which have two zeros.
fn is_still(sql: &mut Sql, column: &Column, value: &Option<String>) {
    match (column.float, value) {
        (_, None) => {
            sql.text(&format!(" AND {} IS NULL", column.sql));
        }
        (true, value) => {
            sql.text(&format!(" AND {} = ", column.sql)).value(column, value.as_ref());
        }
        (false, value) => {
            sql.text(&format!(" AND {}::text = ", column.sql)).value(column, value.as_ref()).text("::text");
        }
    }
}

/// Appends `WHERE` with the key.
pub fn with_key(sql: &mut Sql, table: &Table, key: &Image) {
    sql.text(" WHERE ");
    for (at, column) in table.key_columns().enumerate() {
        sql.text(if at > 0 { " AND " } else { "" }).text(&format!("{} = ", column.sql));
        sql.value(column, key.get(&column.name).and_then(Option::as_ref));
    }
}

/// The statement of a step. `compared` are the columns that must still have the value that they have in the step.
pub fn statement(table: &Table, step: &Step, compared: &[&str]) -> Sql {
    let columns = |image: &Image| -> Vec<Column> {
        table.columns.iter().filter(|column| image.contains_key(&column.name)).cloned().collect()
    };
    let mut sql = match &step.action {
        Write::Insert(image) => return insert(table, &columns(image), image),
        Write::Delete => Sql::new(format!("DELETE FROM {}", table.sql)),
        Write::Update(set) => update(table, &columns(set), set),
    };
    with_key(&mut sql, table, &step.from);
    for column in table.columns.iter().filter(|column| compared.contains(&column.name.as_str())) {
        if let Some(value) = step.from.get(&column.name) {
            is_still(&mut sql, column, value);
        }
    }
    sql
}

fn update(table: &Table, columns: &[Column], set: &Image) -> Sql {
    let mut sql = Sql::new(format!("UPDATE {} SET ", table.sql));
    for (at, column) in columns.iter().enumerate() {
        sql.text(if at > 0 { ", " } else { "" }).text(&format!("{} = ", column.sql));
        sql.value(column, set.get(&column.name).and_then(Option::as_ref));
    }
    sql
}

fn insert(table: &Table, columns: &[Column], image: &Image) -> Sql {
    let names: Vec<&str> = columns.iter().map(|column| column.sql.as_str()).collect();
    let overriding = if columns.iter().any(|column| column.always) { " OVERRIDING SYSTEM VALUE" } else { "" };
    // An insertion never has ONLY.
    let into = table.sql.strip_prefix("ONLY ").unwrap_or(&table.sql);
    let mut sql = Sql::new(format!("INSERT INTO {into} ({}){overriding} VALUES (", names.join(", ")));
    for (at, column) in columns.iter().enumerate() {
        sql.text(if at > 0 { ", " } else { "" });
        sql.value(column, image.get(&column.name).and_then(Option::as_ref));
    }
    sql.text(")");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_run_with_parameters_and_shown_with_literals() {
        let column = |name: &str, type_name: &str| Column {
            name: name.to_owned(),
            sql: name.to_owned(),
            type_name: type_name.to_owned(),
            ..Column::default()
        };
        let table = Table {
            sql: "public.t".to_owned(),
            columns: vec![column("id", "integer"), column("a", "text"), column("b", "text")],
            key: vec![("id".to_owned(), audit_core::value::Kind::Int4)],
            ..Table::default()
        };
        let image = |values: &[(&str, Option<&str>)]| -> Image {
            values.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
        };
        let from = image(&[("id", Some("1")), ("a", Some(r"o'n\e")), ("b", None)]);
        let set = image(&[("a", None), ("b", Some("x"))]);
        let sql = statement(&table, &Step { row: 0, from: from.clone(), action: Write::Update(set) }, &["a", "b"]);
        assert_eq!(
            sql.parametrized(),
            "UPDATE public.t SET a = $1::text::text, b = $2::text::text WHERE id = $3::text::integer \
             AND a::text = $4::text::text::text AND b IS NULL"
        );
        assert_eq!(
            sql.literal(),
            r"UPDATE public.t SET a = NULL::text, b = 'x'::text WHERE id = '1'::integer AND a::text = E'o''n\\e'::text::text AND b IS NULL"
        );
        let insert = statement(&table, &Step { row: 0, from: Image::new(), action: Write::Insert(from) }, &[]);
        assert_eq!(insert.values().len(), 3);
    }
}
