//! Makes batches from a text, for tests of sinks and their readers: [`Fixture`].
//!
//! A fixture takes the role of the source: it assembles, makes versions and protects them with the core, as the daemon
//! does. Each line is one event:
//!
//! ```text
//! table public.users (id int4 key, "a b" text, price numeric(18,4)) full    identity: full (default), default, nothing
//! begin                                 or: begin at=2026-03-01T09:30:00Z lsn=0/5000 xid=7 (`at` also in microseconds)
//! context {"actor_id": "u1"}             a logical message; `context {}` clears
//! insert public.users [1, "Ann", 2.5]    values as JSON: text, numbers, true and false, null, {} for "not sent"
//! update public.users [1, "Ann", 2.5] -> [1, "Bea", 2.5]
//! update public.users key [1, null, null] -> [2, "Bea", 2.5]
//! update public.users -> [2, "Bea", {}]
//! delete public.users [2, "Bea", 2.5]
//! truncate public.users
//! commit
//! idle 0/9000                            a keep-alive
//! gap {"lost": "…"}                      a gap record
//! ---                                    ends the batch
//! chunk public.users baseline=1 chunk=1 last for=hot,lake         what follows in this batch is a chunk
//! snapshot public.users [1, "Ann", 2.5]
//! ```
//!
//! Everything that is left out is the same in every run: positions count up, transactions commit one second apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use audit_core::assemble::Assembler;
use audit_core::batch::{Batch, ChunkMark, Progress, Transaction};
use audit_core::change::{Cell, Change, Old, Row};
use audit_core::context::Context;
use audit_core::position::{Lsn, Micros, Position};
use audit_core::protect::Policy;
use audit_core::rules::Rules;
use audit_core::shape::{CatalogColumn, CatalogTable, History, Identity, Relation, RelationColumn, TableName};
use audit_core::table::Table;
use audit_core::value::Kind;
use audit_core::version::{Event, version};

/// A source that makes the changes in a text. Its position, tables and rules stay from one [`Fixture::batches`] to the
/// next.
pub struct Fixture {
    rules: Rules,
    policy: Policy,
    /// The epoch of the transactions that begin from now on.
    epoch: u16,
    assembler: Assembler,
    tables: BTreeMap<String, (History, Arc<Table>)>,
    lsn: u64,
    micros: i64,
    xid: u32,
}

/// 2026-03-01T00:00:00Z in microseconds since 1970.
const FIRST_COMMIT: i64 = 1_772_323_200_000_000;

impl Default for Fixture {
    fn default() -> Fixture {
        Fixture {
            rules: Rules::default(),
            policy: Policy::default(),
            epoch: 1,
            assembler: Assembler::new(Progress { position: Position::new(1, Lsn(0), 0), ..Progress::default() }),
            tables: BTreeMap::new(),
            lsn: 0x1000,
            micros: FIRST_COMMIT,
            xid: 700,
        }
    }
}

impl Fixture {
    /// Makes the batches of a text with a new source.
    #[track_caller]
    pub fn of(text: &str) -> Vec<Batch> {
        Fixture::default().batches(text)
    }

    /// Makes a source with these rules and keys.
    pub fn under(rules: Rules, policy: Policy) -> Fixture {
        Fixture { rules, policy, ..Fixture::default() }
    }

    /// Makes the batches of the next lines.
    #[track_caller]
    pub fn batches(&mut self, text: &str) -> Vec<Batch> {
        let mut batches = vec![Batch::default()];
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line == "---" {
                batches.last_mut().expect("one batch at least").progress = self.assembler.progress();
                batches.push(Batch::default());
                continue;
            }
            let batch = batches.last_mut().expect("one batch at least");
            self.line(batch, line).unwrap_or_else(|| panic!("not a line of a fixture: {line}"));
        }
        batches.last_mut().expect("one batch at least").progress = self.assembler.progress();
        batches
    }

    /// The source's present progress.
    pub fn progress(&self) -> Progress {
        self.assembler.progress()
    }

    /// The table's present state.
    #[track_caller]
    pub fn table(&self, name: &str) -> &Arc<Table> {
        &self.tables.get(name).unwrap_or_else(|| panic!("the fixture has no table {name}")).1
    }

    /// Continues in another epoch, from this position in its WAL.
    pub fn epoch(&mut self, epoch: u16, lsn: Lsn) {
        let position = Position::new(epoch, Lsn(0), 0);
        self.assembler = Assembler::new(Progress { position, change_lsn: Lsn(0), flushed_lsn: lsn });
        (self.epoch, self.lsn) = (epoch, lsn.0);
    }

    fn line(&mut self, batch: &mut Batch, line: &str) -> Option<()> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match verb {
            "table" => self.declare(rest)?,
            "begin" => self.begin(batch, rest)?,
            "context" => self.assembler.context(Context::parse(rest.as_bytes())).ok()?,
            "commit" => {
                self.lsn += 0x100;
                self.assembler.commit(Lsn(self.lsn)).ok()?;
            }
            "idle" => {
                self.lsn = rest.parse::<Lsn>().ok()?.0;
                self.assembler.idle(Lsn(self.lsn));
            }
            "gap" => {
                let note = Context::note(&serde_json::from_str(rest).ok()?);
                let position = Position::new(self.epoch, Lsn(self.lsn - 1), 0);
                let lost = Transaction { xid: 0, commit_lsn: position.commit_lsn, committed_at: Micros(self.micros) };
                batch.transaction(lost);
                batch.note(Event::Gap, &Arc::new(Table::pseudo("cdc_audit.gap")), position, position.commit_lsn, note);
                self.assembler.stand_at(position);
            }
            "chunk" => batch.chunk = Some(chunk(rest)?),
            "insert" | "update" | "delete" | "truncate" | "snapshot" => self.change(batch, verb, rest)?,
            _ => return None,
        }
        Some(())
    }

    fn begin(&mut self, batch: &mut Batch, options: &str) -> Option<()> {
        self.lsn += 0x100;
        self.micros += 1_000_000;
        self.xid += 1;
        for (name, value) in
            options.split_whitespace().map(|option| option.split_once('=')).collect::<Option<Vec<_>>>()?
        {
            match name {
                "at" => self.micros = value.parse().ok().or_else(|| micros(value))?,
                "lsn" => self.lsn = value.parse::<Lsn>().ok()?.0,
                "xid" => self.xid = value.parse().ok()?,
                _ => return None,
            }
        }
        let transaction = Transaction { xid: self.xid, commit_lsn: Lsn(self.lsn), committed_at: Micros(self.micros) };
        batch.transaction(transaction);
        self.assembler.begin(self.epoch, transaction).ok()
    }

    /// Makes a change and lets the core process it completely.
    fn change(&mut self, batch: &mut Batch, verb: &str, rest: &str) -> Option<()> {
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let table = self.table(name).clone();
        let (rest, key) = match rest.trim().strip_prefix("key ") {
            Some(rest) => (rest, true),
            None => (rest.trim(), false),
        };
        let (old, new) = match (verb, rest.split_once("->")) {
            ("update", Some((old, new))) => (values(old)?, values(new)?),
            ("delete", None) => (values(rest)?, None),
            ("insert" | "snapshot", None) => (None, values(rest)?),
            ("truncate", None) => (None, None),
            _ => return None,
        };
        let row = |values: &'_ Option<Values>| values.as_ref().map(|v| v.1.len()).unwrap_or(0);
        for side in [&old, &new] {
            assert!(side.is_none() || row(side) == table.shape.columns.len(), "{name}: {} values", row(side));
        }
        let old = match &old {
            None => Old::None,
            Some((bytes, cells)) if key => Old::Key(Row::new(bytes, cells)),
            Some((bytes, cells)) => Old::Full(Row::new(bytes, cells)),
        };
        let new = new.as_ref().map(|(bytes, cells)| Row::new(bytes, cells));
        let change = match (verb, new) {
            ("insert", Some(new)) => Change::Insert { new },
            ("update", Some(new)) => Change::Update { old, new },
            ("snapshot", Some(row)) => Change::Snapshot { row },
            ("delete", None) => Change::Delete { old },
            ("truncate", None) => Change::Truncate,
            _ => return None,
        };
        self.lsn += 8;
        let place = self.assembler.change(Lsn(self.lsn)).ok()?;
        let mut changed = Vec::new();
        if let Some(raw) = version(&table, change, &mut changed) {
            let context = self.assembler.current_context();
            self.policy.seal(batch, &table, &raw, place, context).expect("the version is sealed");
        }
        Some(())
    }

    /// Declares a table's first or next state.
    fn declare(&mut self, text: &str) -> Option<()> {
        let (name, rest) = text.split_once('(')?;
        let (columns, identity) = rest.rsplit_once(')')?;
        let (schema, table) = name.trim().split_once('.')?;
        let columns = columns_of(columns)?;
        let identity = match identity.trim() {
            "" | "full" => Identity::Full,
            "default" => Identity::Default,
            "nothing" => Identity::Nothing,
            _ => return None,
        };
        let (relation, catalog) = describe(TableName::new(schema, table), identity, &columns);
        let mut history = self.tables.remove(name.trim()).map(|known| known.0).unwrap_or_default();
        let first = self.assembler.next_position();
        let shape = history.add(&relation, Some(&catalog), first);
        let rules = self.rules.for_table(&relation.name);
        let table = Table::new(shape, &rules, self.policy.row_key.is_some()).expect("the rules fit the table");
        self.tables.insert(name.trim().to_owned(), (history, Arc::new(table)));
        Some(())
    }
}

type Values = (Vec<u8>, Vec<Cell>);

/// Makes a row in PostgreSQL's text form from a JSON list; an empty text gives no row.
fn values(text: &str) -> Option<Option<Values>> {
    if text.trim().is_empty() {
        return Some(None);
    }
    let (mut bytes, mut cells) = (Vec::new(), Vec::new());
    for value in serde_json::from_str::<Vec<serde_json::Value>>(text).ok()? {
        let text = match value {
            serde_json::Value::Null => {
                cells.push(Cell::NULL);
                continue;
            }
            serde_json::Value::Object(_) => {
                cells.push(Cell::UNKNOWN);
                continue;
            }
            serde_json::Value::Bool(value) => if value { "t" } else { "f" }.to_owned(),
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        cells.push(Cell::text(bytes.len(), text.len()));
        bytes.extend_from_slice(text.as_bytes());
    }
    Some(Some((bytes, cells)))
}

struct ColumnText {
    name: String,
    kind: Kind,
    key: bool,
}

fn columns_of(text: &str) -> Option<Vec<ColumnText>> {
    let (mut depth, mut quoted) = (0, false);
    let parts = text.split(|c: char| {
        quoted ^= c == '"';
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0 && !quoted
    });
    parts
        .map(|part| {
            let part = part.trim();
            let (name, rest) = match part.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => part.split_once(char::is_whitespace)?,
            };
            let mut words = rest.split_whitespace();
            let (kind, key) = (words.next()?, words.next());
            Some(ColumnText { name: name.to_owned(), kind: kind.parse().ok()?, key: key == Some("key") })
        })
        .collect()
}

/// Describes a table as the stream and the catalog would.
fn describe(name: TableName, identity: Identity, columns: &[ColumnText]) -> (Relation, CatalogTable) {
    // Tables are distinguished by name, so any number that stays the same will do.
    let oid = name.to_string().bytes().fold(20_000, |oid: u32, b| oid.wrapping_mul(31) + u32::from(b));
    let in_identity = |column: &ColumnText| match identity {
        Identity::Full => true,
        Identity::Nothing => false,
        Identity::Default | Identity::Index => column.key,
    };
    let relation_columns = columns.iter().map(|column| {
        let (type_oid, typmod) = type_of(&column.kind);
        RelationColumn { name: column.name.clone(), type_oid, typmod, in_identity: in_identity(column) }
    });
    let catalog_columns = columns.iter().enumerate().map(|(i, column)| {
        let (type_oid, typmod) = type_of(&column.kind);
        let (name, kind, type_name) = (column.name.clone(), column.kind.clone(), column.kind.to_string());
        CatalogColumn {
            name,
            attnum: i as i16 + 1,
            type_oid,
            typmod,
            type_name,
            holds: Vec::new(),
            kind,
            published: true,
        }
    });
    let primary_key = columns.iter().enumerate().filter(|(_, c)| c.key).map(|(i, _)| i as i16 + 1).collect();
    let catalog =
        CatalogTable { oid, partitioned: false, columns: catalog_columns.collect(), primary_key, types: Vec::new() };
    (Relation { oid, name, identity, columns: relation_columns.collect() }, catalog)
}

fn type_of(kind: &Kind) -> (u32, i32) {
    if let Kind::Numeric(Some((precision, scale))) = kind {
        return (1700, ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4);
    }
    let built_in = (16..4100).chain(6150..6160).find(|oid| Kind::of(*oid, -1).as_ref() == Some(kind));
    // Use `text`, not the first of the many types that are sent as text.
    (if *kind == Kind::Text { 25 } else { built_in.unwrap_or(25) }, -1)
}

fn chunk(text: &str) -> Option<ChunkMark> {
    let mut words = text.split_whitespace();
    let mut mark =
        ChunkMark { table: words.next()?.into(), baseline: 1, chunk: 1, last: false, sinks: vec!["hot".into()] };
    for word in words {
        match word.split_once('=') {
            None if word == "last" => mark.last = true,
            Some(("baseline", number)) => mark.baseline = number.parse().ok()?,
            Some(("chunk", number)) => mark.chunk = number.parse().ok()?,
            Some(("for", sinks)) => mark.sinks = sinks.split(',').map(Arc::from).collect(),
            _ => return None,
        }
    }
    Some(mark)
}

fn micros(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|time| time.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_batches_as_the_daemon_makes_them() {
        let batches = Fixture::of(
            r#"table public.users (id int4 key, name text, price numeric(18,4))
               begin at=2026-04-01T00:00:00Z
               context {"actor_id": "u1"}
               insert public.users [1, "Ann", 2.5]
               update public.users [1, "Ann", 2.5] -> [1, "Ann", 2.5]
               update public.users [1, "Ann", 2.5] -> [2, "Bea", 2.5]
               ---
               delete public.users [2, "Bea", 2.5]
               truncate public.users
               commit"#,
        );
        let seen: Vec<_> = batches
            .iter()
            .flat_map(|batch| batch.versions())
            .map(|v| (v.position().seq, v.event().name(), v.key().map(str::to_owned), v.old_key().map(str::to_owned)))
            .collect();
        let (one, two) = (Some("1".to_owned()), Some("2".to_owned()));
        let expected = [
            (0, "created", one.clone(), None),
            (2, "updated", two.clone(), one),
            (3, "deleted", two, None),
            (4, "truncated", None, None),
        ];
        assert_eq!(seen, expected);
        assert_eq!(batches[0].versions().next().and_then(|v| v.actor_id().map(str::to_owned)).as_deref(), Some("u1"));
        assert!(batches[0].progress.position < batches[1].progress.position);
    }
}
