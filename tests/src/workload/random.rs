//! A random workload: tables of every type, and transactions on them, the same for the same seed.

use std::fmt::Write as _;

use crate::dice::Dice;
use crate::workload::values::{self, Type, identifier};

/// The properties of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub major: u16,
    /// True for REPLICA IDENTITY FULL on every table; then some tables have no key.
    pub full: bool,
    pub xml: bool,
}

/// The tables, and the state of the random choices.
pub struct Workload {
    options: Options,
    dice: Dice,
    tables: Vec<Table>,
    /// Number of columns that were added.
    added: u32,
}

struct Table {
    /// The name as SQL.
    name: String,
    /// The key's columns; empty if there is none.
    key: Vec<&'static str>,
    columns: Vec<(String, &'static Type)>,
    partitioned: bool,
}

/// Number of keys. They are few, so that rows are created, changed, moved and deleted again and again.
const KEYS: u64 = 40;

impl Workload {
    pub fn new(seed: u64, options: Options) -> Workload {
        let mut dice = Dice::new(seed);
        let mut types: Vec<&'static Type> = values::TYPES.iter().collect();
        types.extend(options.xml.then_some(&values::XML));
        types.extend(values::SINCE_15.iter().filter(|_| options.major >= 15));
        let every = types.iter().map(|kind| (format!("c_{}", kind.name), *kind)).collect();
        let mut some = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), *dice.pick(&types))).collect();
        let mut tables = vec![
            Table { name: "every_type".to_owned(), key: vec!["id"], columns: every, partitioned: false },
            Table {
                name: identifier("a \"b\".c 😀"),
                key: vec!["k1", "K 2"],
                columns: some(&["x", "X", "x y", "ä\"ö", "select"]),
                partitioned: false,
            },
            Table { name: "parted".to_owned(), key: vec!["id", "part"], columns: some(&["v", "w"]), partitioned: true },
            Table {
                name: "\"Other Schema\".items".to_owned(),
                key: vec!["id"],
                columns: some(&["v", "w", "z"]),
                partitioned: false,
            },
        ];
        if options.full {
            tables.push(Table {
                name: "keyless".to_owned(),
                key: Vec::new(),
                columns: some(&["v", "w"]),
                partitioned: false,
            });
        }
        Workload { options, dice, tables, added: 0 }
    }

    /// Writes the SQL that makes the tables.
    pub fn tables(&self) -> String {
        let mut sql = format!("{}CREATE SCHEMA \"Other Schema\";\n", values::PRELUDE);
        for table in &self.tables {
            let keys = table.key.iter().map(|column| format!("{} int", identifier(column)));
            let others = table.columns.iter().map(|(column, kind)| format!("{} {}", identifier(column), kind.sql));
            let primary = (!table.key.is_empty()).then(|| {
                let names: Vec<String> = table.key.iter().map(|column| identifier(column)).collect();
                format!("PRIMARY KEY ({})", names.join(", "))
            });
            let parts: Vec<String> = keys.chain(others).chain(primary).collect();
            let partition = if table.partitioned { " PARTITION BY LIST (part)" } else { "" };
            let _ = writeln!(sql, "CREATE TABLE {} ({}){partition};", table.name, parts.join(", "));
            for part in 0..if table.partitioned { 3 } else { 0 } {
                let _ = writeln!(sql, "CREATE TABLE {0}_{part} PARTITION OF {0} FOR VALUES IN ({part});", table.name);
                if self.options.full {
                    let _ = writeln!(sql, "ALTER TABLE {}_{part} REPLICA IDENTITY FULL;", table.name);
                }
            }
            if self.options.full {
                let _ = writeln!(sql, "ALTER TABLE {} REPLICA IDENTITY FULL;", table.name);
            }
        }
        sql
    }

    /// Writes the next whole transaction as SQL. Statements may find no row, but none fails.
    pub fn transaction(&mut self) -> String {
        let mut sql = "BEGIN;\n".to_owned();
        if self.dice.one_in(3) {
            let message = format!(
                r#"{{"actor_id": "u{}", "reason": "chance", "n": {}}}"#,
                self.dice.below(5),
                self.dice.below(9)
            );
            let _ = writeln!(sql, "SELECT pg_logical_emit_message(true, 'cdc-audit', '{message}');");
        }
        for _ in 0..self.dice.between(1, 6) {
            self.statement(&mut sql);
        }
        // One in ten is rolled back.
        sql.push_str(if self.dice.one_in(10) { "ROLLBACK;\n" } else { "COMMIT;\n" });
        sql
    }

    fn statement(&mut self, sql: &mut String) {
        let which = self.dice.below(self.tables.len() as u64) as usize;
        match self.dice.below(100) {
            0..35 => self.insert(sql, which),
            35..65 => self.update(sql, which),
            65..80 => self.delete(sql, which),
            80..88 => self.move_key(sql, which),
            88..94 => {
                sql.push_str("SAVEPOINT s;\n");
                self.insert(sql, which);
                self.update(sql, which);
                sql.push_str(if self.dice.one_in(2) { "ROLLBACK TO s;\n" } else { "RELEASE s;\n" });
            }
            94..96 => {
                let _ = writeln!(sql, "TRUNCATE {};", self.tables[which].name);
            }
            96..98 => self.add_column(sql, which),
            _ => {
                let _ = writeln!(
                    sql,
                    "UPDATE {} SET {1} = {1};",
                    self.tables[which].name,
                    identifier(&self.tables[which].columns[0].0)
                );
            }
        }
    }

    fn insert(&mut self, sql: &mut String, which: usize) {
        let rows = if self.dice.one_in(5) { self.dice.between(2, 12) } else { 1 };
        let table = &self.tables[which];
        let names: Vec<String> =
            table.key.iter().map(|c| identifier(c)).chain(table.columns.iter().map(|(c, _)| identifier(c))).collect();
        let mut tuples = Vec::new();
        for _ in 0..rows {
            let keys = keys(table, &mut self.dice);
            let values = table.columns.iter().map(|(_, kind)| kind.value(&mut self.dice));
            let tuple: Vec<String> = keys.into_iter().map(|(_, key)| key.to_string()).chain(values).collect();
            tuples.push(format!("({})", tuple.join(", ")));
        }
        let conflict = match (table.key.is_empty(), rows, self.dice.below(2)) {
            (true, ..) => String::new(),
            // A statement may not change the row that it has just inserted.
            (_, 1, 0) => {
                let column = identifier(&table.columns[0].0);
                let key: Vec<String> = table.key.iter().map(|column| identifier(column)).collect();
                format!(" ON CONFLICT ({}) DO UPDATE SET {column} = excluded.{column}", key.join(", "))
            }
            _ => " ON CONFLICT DO NOTHING".to_owned(),
        };
        let _ =
            writeln!(sql, "INSERT INTO {} ({}) VALUES {}{conflict};", table.name, names.join(", "), tuples.join(", "));
    }

    fn update(&mut self, sql: &mut String, which: usize) {
        let table = &self.tables[which];
        let mut sets = Vec::new();
        for _ in 0..self.dice.between(1, 3) {
            let (column, kind) = self.dice.pick(&table.columns);
            if sets.iter().all(|(known, _)| known != column) {
                sets.push((column.clone(), kind.value(&mut self.dice)));
            }
        }
        let sets: Vec<String> =
            sets.iter().map(|(column, value)| format!("{} = {value}", identifier(column))).collect();
        let which = condition(table, &mut self.dice);
        let _ = writeln!(sql, "UPDATE {} SET {}{which};", table.name, sets.join(", "));
    }

    fn delete(&mut self, sql: &mut String, which: usize) {
        let table = &self.tables[which];
        let which = condition(table, &mut self.dice);
        let _ = writeln!(sql, "DELETE FROM {}{which};", table.name);
    }

    /// Gives a row another key, in a partitioned table another partition, unless the key is in use.
    fn move_key(&mut self, sql: &mut String, which: usize) {
        let table = &self.tables[which];
        if table.key.is_empty() {
            return;
        }
        let (from, to) = (keys(table, &mut self.dice), keys(table, &mut self.dice));
        let list = |keys: &[(String, u64)], separator: &str| {
            keys.iter().map(|(column, key)| format!("{column} = {key}")).collect::<Vec<_>>().join(separator)
        };
        let _ = writeln!(
            sql,
            "UPDATE {0} SET {1} WHERE {2} AND NOT EXISTS (SELECT FROM {0} WHERE {3});",
            table.name,
            list(&to, ", "),
            list(&from, " AND "),
            list(&to, " AND ")
        );
    }

    /// Adds a column in the middle of a transaction. A table cannot be altered while triggers are pending; there are
    /// none.
    fn add_column(&mut self, sql: &mut String, which: usize) {
        if self.added >= 6 {
            return;
        }
        self.added += 1;
        let kind = self.dice.pick(values::TYPES);
        let column = format!("added {}", self.added);
        // It may never commit, so nothing later may rely on it.
        let table = &self.tables[which];
        let _ =
            writeln!(sql, "ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {};", table.name, identifier(&column), kind.sql);
        let value = kind.value(&mut self.dice);
        let which = condition(table, &mut self.dice);
        let _ = writeln!(sql, "UPDATE {} SET {} = {value}{which};", table.name, identifier(&column));
    }
}

fn keys(table: &Table, dice: &mut Dice) -> Vec<(String, u64)> {
    let key = |(at, column): (usize, &&str)| {
        let limit = if *column == "part" {
            3
        } else if at == 0 {
            KEYS
        } else {
            4
        };
        (identifier(column), dice.below(limit))
    };
    table.key.iter().enumerate().map(key).collect()
}

/// Writes a condition for few rows, or for those of a key, or sometimes for many.
fn condition(table: &Table, dice: &mut Dice) -> String {
    if table.key.is_empty() {
        return format!(" WHERE ctid IN (SELECT ctid FROM {} ORDER BY ctid LIMIT {})", table.name, dice.between(1, 3));
    }
    let keys = keys(table, dice);
    match dice.below(8) {
        0 => format!(" WHERE {} % 7 = {}", keys[0].0, keys[0].1 % 7),
        _ => format!(" WHERE {} = {}", keys[0].0, keys[0].1),
    }
}

/// Tells whether the server was built with `xml`.
pub async fn has_xml(client: &tokio_postgres::Client) -> bool {
    client.batch_execute("SELECT '<a/>'::xml").await.is_ok()
}
