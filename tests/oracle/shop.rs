//! The tables of the shop, and random transactions on them.

use cdc_audit_tests::dice::Dice;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// The triggers, and the tables that they fill.
pub const TRUTH: &str = include_str!("truth.sql");

/// Number of keys of each table. They are few, so that rows are changed, deleted and made again.
pub const KEYS: i64 = 6;

/// The kinds of columns that have random values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Word,
    Money,
    Int,
    Json,
    Time,
    Flag,
    Large,
}

impl Kind {
    const NEW: [Kind; 5] = [Kind::Word, Kind::Money, Kind::Int, Kind::Json, Kind::Time];

    pub fn sql(self) -> &'static str {
        match self {
            Kind::Word | Kind::Large => "text",
            Kind::Money => "numeric(12,2)",
            Kind::Int => "int",
            Kind::Json => "jsonb",
            Kind::Time => "timestamptz",
            Kind::Flag => "bool",
        }
    }

    /// A value as SQL. Few different ones, so that a value comes back.
    fn value(self, dice: &mut Dice) -> String {
        if dice.one_in(6) {
            return "NULL".to_owned();
        }
        match self {
            Kind::Word => format!("'{}'", dice.pick(&WORDS)),
            Kind::Money => format!("{}.{}0", dice.between(-2, 3), dice.below(3)),
            Kind::Int => dice.between(-1, 4).to_string(),
            Kind::Json => format!("'{}'", dice.pick(&DOCUMENTS)),
            Kind::Time => format!("'2026-01-0{} 12:00:00.5+00'", dice.between(1, 4)),
            Kind::Flag => dice.pick(&["true", "false"]).to_string(),
            Kind::Large => format!(
                "(SELECT string_agg(md5((i * {})::text), '') FROM generate_series(1, 90) i)",
                dice.between(1, 3)
            ),
        }
    }
}

/// Words that a reader of JSON, of SQL or of filters might take for something else.
pub const WORDS: [&str; 8] = ["open", "paid", "", "null", "a b", "it''s", "\"q\"", "ünï, ☃"];
const DOCUMENTS: [&str; 5] = [r#"{"a": 1}"#, r#"{"b": [1.50, null], "a": "x"}"#, "null", "[]", "\"text\""];

/// A table, as the next statement finds it.
pub struct Table {
    pub name: &'static str,
    pub key: &'static [&'static str],
    pub columns: Vec<(String, Kind)>,
    pub full: bool,
    /// Whether its columns are added, dropped, renamed and given other types.
    changes: bool,
}

pub struct Shop {
    pub tables: Vec<Table>,
    dice: Dice,
    /// Number of columns that were added or renamed.
    names: u32,
}

fn columns(list: &[(&str, Kind)]) -> Vec<(String, Kind)> {
    list.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect()
}

impl Shop {
    pub fn new(seed: u64) -> Shop {
        let item = [
            ("state", Kind::Word),
            ("total", Kind::Money),
            ("qty", Kind::Int),
            ("doc", Kind::Json),
            ("at", Kind::Time),
            ("done", Kind::Flag),
            ("photo", Kind::Large),
        ];
        let line = [("note", Kind::Word), ("qty", Kind::Int), ("price", Kind::Money)];
        let table = |name, key, list: &[(&str, Kind)], full, changes| Table {
            name,
            key,
            columns: columns(list),
            full,
            changes,
        };
        let tables = vec![
            table("items", &["id"][..], &item[..], false, true),
            // ⚠ Of an update hot keeps only what changed: a column that was added with a default is known to the lake alone.
            table("whole", &["id"], &item, true, false),
            table("lines", &["item", "line"], &line, false, false),
            table("parted", &["id", "part"], &line, false, false),
            table(
                "people",
                &["id"],
                &[
                    ("name", Kind::Word),
                    ("ssn", Kind::Word),
                    ("email", Kind::Word),
                    ("card", Kind::Word),
                    ("pin", Kind::Word),
                ],
                false,
                false,
            ),
        ];
        Shop { tables, dice: Dice::new(seed), names: 0 }
    }

    /// The same tables, whose columns stay what they are.
    pub fn with_fixed_columns(mut self) -> Shop {
        self.tables.iter_mut().for_each(|table| table.changes = false);
        self
    }

    /// The SQL that makes the tables.
    pub fn sql(&self) -> String {
        let table = |table: &Table| {
            let keys = table.key.iter().map(|key| format!("{key} int"));
            let columns = table.columns.iter().map(|(name, kind)| format!("{name} {}", kind.sql()));
            let parts: Vec<String> = keys.chain(columns).collect();
            let key = table.key.join(", ");
            let by = if table.name == "parted" { " PARTITION BY LIST (part)" } else { "" };
            let mut sql = format!("CREATE TABLE {} ({}, PRIMARY KEY ({key})){by};\n", table.name, parts.join(", "));
            for part in 0..if by.is_empty() { 0 } else { KEYS } {
                sql += &format!("CREATE TABLE parted_{part} PARTITION OF parted FOR VALUES IN ({part});\n");
            }
            for (name, _) in table.columns.iter().filter(|(_, kind)| *kind == Kind::Large) {
                sql += &format!("ALTER TABLE {} ALTER {name} SET STORAGE EXTERNAL;\n", table.name);
            }
            if table.full {
                sql += &format!("ALTER TABLE {} REPLICA IDENTITY FULL;\n", table.name);
            }
            let keys: Vec<String> = table.key.iter().map(|key| format!("'{key}'")).collect();
            sql + &format!("SELECT truth.watch('{}', {});\n", table.name, keys.join(", "))
        };
        // A row of `marks` says that everything before it was read.
        let marks = "CREATE TABLE marks (id int PRIMARY KEY); SELECT truth.watch('marks', 'id');\n";
        self.tables.iter().map(table).collect::<String>() + marks
    }

    /// Plays a random transaction, and perhaps changes a table's columns. A statement that fails is rolled back alone, and one transaction in ten as a whole.
    pub async fn transact(&mut self, client: &Client, read: impl AsyncFn()) {
        run(client, "BEGIN").await;
        if !self.dice.one_in(4) {
            run(client, &self.context()).await;
        }
        for _ in 0..self.dice.between(1, 6) {
            let (which, what) = (self.dice.below(self.tables.len() as u64) as usize, self.dice.below(100));
            let statement = self.statement(which, what);
            let undone = self.dice.one_in(12);
            run(client, "SAVEPOINT s").await;
            let failed = client.batch_execute(&statement).await.err();
            if let Some(error) = failed.as_ref().filter(|error| error.code() != Some(&SqlState::UNIQUE_VIOLATION)) {
                panic!("{statement}: {error:?}");
            }
            if failed.is_some() || undone {
                run(client, "ROLLBACK TO s").await;
            }
        }
        let end = if self.dice.one_in(10) { "ROLLBACK" } else { "COMMIT" };
        run(client, end).await;
        if self.dice.one_in(6) {
            let which = self.dice.below(self.tables.len() as u64) as usize;
            if let Some(statement) = self.alter(which) {
                // ⚠ A column has a number only if the catalog is as the stream says when the stream is read.
                read().await;
                run(client, &statement).await;
            }
        }
    }

    /// Says who acts and why, to the program and to the triggers.
    fn context(&mut self) -> String {
        let (actor, reason) = (format!("u{}", self.dice.below(3)), *self.dice.pick(&["sale", "Refund, late", "it''s"]));
        let request = format!("r{}", self.dice.below(5));
        let json = format!(r#"{{"actor_id": "{actor}", "reason": "{reason}", "request_id": "{request}"}}"#);
        let say = match self.dice.one_in(2) {
            true => format!("SELECT cdc_audit.set_context('{json}')"),
            false => format!("SELECT pg_logical_emit_message(true, 'cdc-audit', '{json}')"),
        };
        format!(
            "{say}; SET LOCAL truth.actor = '{actor}'; SET LOCAL truth.reason = '{reason}'; SET LOCAL truth.request = '{request}'"
        )
    }

    fn statement(&mut self, which: usize, what: u64) -> String {
        let (table, dice) = (&self.tables[which], &mut self.dice);
        let (key, other) = (key(table, dice), key(table, dice));
        let name = table.name;
        match what {
            0..30 => insert(table, &key, dice),
            30..65 => {
                let sets = sets(table, dice);
                let few = if dice.one_in(5) { "true" } else { &condition(&key) };
                format!("UPDATE {name} SET {} WHERE {few}", sets.join(", "))
            }
            65..72 => format!("DELETE FROM {name} WHERE {}", condition(&key)),
            72..80 => format!(
                "UPDATE {name} SET {} WHERE {} AND NOT EXISTS (SELECT FROM {name} WHERE {})",
                list(&other, ", "),
                condition(&key),
                condition(&other)
            ),
            // The same row several times: the program must not take a row of the same key for the row.
            80..86 => format!("DELETE FROM {name} WHERE {}; {}", condition(&key), insert(table, &key, dice)),
            86..94 => {
                let (first, second) = (sets(table, dice), sets(table, dice));
                let condition = condition(&key);
                format!(
                    "UPDATE {name} SET {} WHERE {condition}; UPDATE {name} SET {} WHERE {condition}",
                    first.join(", "),
                    second.join(", ")
                )
            }
            94..98 => format!("UPDATE {name} SET {0} = {0}", table.columns[0].0),
            _ => format!("TRUNCATE {name}"),
        }
    }

    /// Changes the columns of a table.
    fn alter(&mut self, which: usize) -> Option<String> {
        let (table, dice) = (&mut self.tables[which], &mut self.dice);
        if !table.changes {
            return None;
        }
        self.names += 1;
        let at = dice.below(table.columns.len() as u64) as usize;
        let (column, kind) = table.columns[at].clone();
        let name = table.name;
        Some(match dice.below(5) {
            0 | 1 if self.names < 40 => {
                let (column, kind) = (format!("more_{}", self.names), *dice.pick(&Kind::NEW));
                let default = if dice.one_in(2) { format!(" DEFAULT {}", kind.value(dice)) } else { String::new() };
                table.columns.push((column.clone(), kind));
                format!("ALTER TABLE {name} ADD COLUMN {column} {}{default}", kind.sql())
            }
            2 if table.columns.len() > 3 && kind != Kind::Large => {
                table.columns.remove(at);
                format!("ALTER TABLE {name} DROP COLUMN {column}")
            }
            3 if kind == Kind::Int => {
                // A change of the type writes new values without telling any trigger.
                table.columns[at].1 = Kind::Money;
                format!("ALTER TABLE {name} ALTER {column} TYPE numeric(12,2) USING {column} + 1")
            }
            _ => {
                let renamed = format!("named_{}", self.names);
                table.columns[at].0.clone_from(&renamed);
                format!("ALTER TABLE {name} RENAME {column} TO {renamed}")
            }
        })
    }
}

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

fn key(table: &Table, dice: &mut Dice) -> Vec<(&'static str, i64)> {
    table.key.iter().map(|column| (*column, dice.between(0, KEYS - 1))).collect()
}

fn list(key: &[(&str, i64)], separator: &str) -> String {
    key.iter().map(|(column, value)| format!("{column} = {value}")).collect::<Vec<_>>().join(separator)
}

fn condition(key: &[(&str, i64)]) -> String {
    list(key, " AND ")
}

fn insert(table: &Table, key: &[(&str, i64)], dice: &mut Dice) -> String {
    let keys = key.iter().map(|(column, value)| ((*column).to_owned(), value.to_string()));
    let values = table.columns.iter().map(|(column, kind)| (column.clone(), kind.value(dice)));
    let (columns, values): (Vec<String>, Vec<String>) = keys.chain(values.collect::<Vec<_>>()).unzip();
    format!("INSERT INTO {} ({}) VALUES ({})", table.name, columns.join(", "), values.join(", "))
}

/// One to three columns and their new values.
fn sets(table: &Table, dice: &mut Dice) -> Vec<String> {
    let mut sets: Vec<(&str, String)> = Vec::new();
    for _ in 0..dice.between(1, 3) {
        let (column, kind) = dice.pick(&table.columns);
        if sets.iter().all(|(known, _)| known != column) {
            sets.push((column, kind.value(dice)));
        }
    }
    sets.into_iter().map(|(column, value)| format!("{column} = {value}")).collect()
}
