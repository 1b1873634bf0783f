//! Random filters, each as the program takes it and as SQL says the same over `truth.records`.

use cdc_audit_tests::dice::Dice;

use crate::shop::Kind;
use crate::truth::Moments;

pub struct Filter {
    pub words: Vec<String>,
    pub sql: String,
    /// Whether it asks about values, which the trail may not know.
    pub about_columns: bool,
}

/// The columns of a table that had the same name all the time.
pub type Columns = Vec<(String, Kind)>;

impl Filter {
    /// Up to three conditions about one table or all.
    pub fn random(dice: &mut Dice, tables: &[(&str, Columns)], moments: &Moments) -> Filter {
        let (mut words, mut sql, mut about_columns) = (Vec::new(), vec!["true".to_owned()], false);
        let (table, columns) = dice.pick(tables);
        let one_table = !dice.one_in(4);
        if one_table {
            words.push((*table).to_owned());
            sql.push(format!("tab = 'public.{table}'"));
        }
        for _ in 0..dice.between(1, 2) {
            let not = dice.one_in(4);
            let is_about_column = one_table && dice.one_in(2);
            let (word, condition) = match is_about_column {
                true => column(dice, columns),
                false => attribute(dice, moments),
            };
            about_columns |= is_about_column;
            words.push(format!("{}{word}", if not { "-" } else { "" }));
            sql.push(format!("{}({condition}) IS TRUE", if not { "NOT " } else { "" }));
        }
        Filter { words, sql: sql.join(" AND "), about_columns }
    }
}

fn attribute(dice: &mut Dice, moments: &Moments) -> (String, String) {
    match dice.below(8) {
        0 => {
            let actor = dice.below(3);
            (format!("actor:u{actor}"), format!("actor = 'u{actor}'"))
        }
        1 => ("actor:null".to_owned(), "actor IS NULL".to_owned()),
        2 => ("event:deleted,created".to_owned(), "event IN ('deleted', 'created')".to_owned()),
        3 => ("reason~LATE,sal".to_owned(), "reason ILIKE '%late%' OR reason ILIKE '%sal%'".to_owned()),
        4 => {
            let request = dice.below(5);
            (format!("request:r{request}"), format!("request = 'r{request}'"))
        }
        5 => ("event:updated".to_owned(), "event = 'updated'".to_owned()),
        6 => {
            let (time, n) = dice.pick(moments);
            (format!("since:{time}"), format!("n > {n}"))
        }
        _ => {
            let (time, n) = dice.pick(moments);
            (format!("until:{time}"), format!("n <= {n}"))
        }
    }
}

/// A condition on a column. ⚠ Of an update, only what it changed is asked about.
fn column(dice: &mut Dice, columns: &Columns) -> (String, String) {
    let (name, kind) = dice.pick(columns);
    let (old, new) = (format!("(old ->> '{name}')"), format!("(new ->> '{name}')"));
    let has = format!("coalesce(new, old) ? '{name}'");
    let changed = format!("{has} AND (event <> 'updated' OR {old} IS DISTINCT FROM {new})");
    let set = format!("{has} AND (event = 'created' OR event = 'updated' AND {old} IS DISTINCT FROM {new})");
    let (given, sql) = value(dice, *kind);
    let is = |side: &str| match (&sql, kind) {
        (None, _) => format!("{side} IS NULL"),
        (Some(sql), Kind::Money | Kind::Int) => format!("{side}::numeric = {sql}"),
        (Some(sql), _) => format!("{side} = {sql}"),
    };
    // The side of a version on which there is a row.
    let (from, to) = (format!("event <> 'created' AND {}", is(&old)), format!("event <> 'deleted' AND {}", is(&new)));
    match dice.below(5) {
        0 => (format!(".{name}:"), set),
        1 => (format!(".{name}:->{given}"), format!("{changed} AND {to}")),
        2 => (format!(".{name}:{given}->"), format!("{changed} AND {from}")),
        3 if matches!(kind, Kind::Money | Kind::Int) => {
            let (sign, bound) = (dice.pick(&["<", "<=", ">", ">="]), dice.between(-1, 3));
            (
                format!(".{name}{sign}{bound}"),
                format!("{changed} AND ({old}::numeric {sign} {bound} OR {new}::numeric {sign} {bound})"),
            )
        }
        3 => (format!(".{name}~e"), format!("{changed} AND ({old} ILIKE '%e%' OR {new} ILIKE '%e%')")),
        _ => (format!(".{name}:{given}"), format!("{changed} AND ({from} OR {to})")),
    }
}

/// A value as a filter has it and as SQL has it; `None` is NULL.
fn value(dice: &mut Dice, kind: Kind) -> (String, Option<String>) {
    if dice.one_in(5) {
        return ("null".to_owned(), None);
    }
    match kind {
        Kind::Int => {
            let value = dice.between(-1, 4);
            (value.to_string(), Some(value.to_string()))
        }
        Kind::Money => {
            let value = format!("{}.{}", dice.between(-2, 3), dice.below(3));
            (value.clone(), Some(value))
        }
        _ => {
            let word = *dice.pick(&["open", "paid", "", "null", "a b", "ünï, ☃"]);
            (format!("\"{word}\""), Some(format!("'{word}'")))
        }
    }
}
