//! Reads what happened from the server's own `test_decoding`, through a second slot that is made before the workload.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::trail::lsn;
use crate::value::Text;

/// A table's name as its two parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub schema: String,
    pub table: String,
}

/// Shows the name as the version record writes it: `schema.table`, quoted if a part contains a dot or a quote.
impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |part: &str| match part.is_empty() || part.contains(['.', '"']) {
            true => format!("\"{}\"", part.replace('"', "\"\"")),
            false => part.to_owned(),
        };
        write!(f, "{}.{}", part(&self.schema), part(&self.table))
    }
}

/// One row event.
#[derive(Clone, Debug)]
pub struct Change {
    pub xid: i64,
    pub lsn: u64,
    pub table: Name,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Insert { new: Columns },
    Update { old: Option<Columns>, new: Columns },
    Delete { old: Option<Columns> },
    Truncate,
}

/// Columns in the server's text. An unchanged TOAST value is [`Cell::Unchanged`]; NULLs are absent from an old row.
pub type Columns = BTreeMap<String, Cell>;

#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Is(Text),
    Unchanged,
}

/// A transaction's changes, in order.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub xid: i64,
    /// Where its commit record ends.
    pub end: u64,
    pub changes: Vec<Change>,
}

/// Makes the second slot.
pub async fn create(client: &Client, slot: &str) {
    let sql = "SELECT pg_create_logical_replication_slot($1, 'test_decoding')";
    client.execute(sql, &[&slot]).await.expect("a second slot");
}

/// Reads all committed transactions since the slot was made, in commit order. The slot does not advance.
pub async fn read(client: &Client, slot: &str) -> Vec<Transaction> {
    client.batch_execute(OUTPUT).await.expect("settings of the session");
    let sql = format!(
        "SELECT lsn, xid, data FROM pg_logical_slot_peek_changes('{slot}', NULL, NULL, 'include-xids', 'on', \
         'skip-empty-xacts', 'off')"
    );
    let mut transactions: Vec<Transaction> = Vec::new();
    for message in client.simple_query(&sql).await.expect("the second slot is read") {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let field = |at: usize| row.get(at).expect("no NULL");
        let (at, xid, data) = (lsn(field(0)), field(1).parse().expect("an xid"), field(2));
        if data.starts_with("BEGIN") {
            transactions.push(Transaction { xid, end: 0, changes: Vec::new() });
        } else if data.starts_with("table ") {
            let changes = parse(data, xid, at).unwrap_or_else(|| panic!("cannot be read: {data}"));
            transactions.last_mut().expect("a change lies in a transaction").changes.extend(changes);
        } else if data.starts_with("COMMIT") {
            transactions.last_mut().expect("what commits has begun").end = at;
        }
    }
    transactions
}

/// The settings that decide how values are written as text.
pub const OUTPUT: &str = "SET DateStyle TO 'ISO, YMD'; SET IntervalStyle TO 'postgres'; SET TimeZone TO 'UTC'; \
    SET bytea_output TO 'hex'; SET extra_float_digits TO 3; SET lc_monetary TO 'C'; SET xmlbinary TO 'base64'; \
    SET search_path TO pg_catalog";

struct Reader<'a>(&'a str);

fn parse(data: &str, xid: i64, lsn: u64) -> Option<Vec<Change>> {
    let mut reader = Reader(data.strip_prefix("table ")?);
    let mut tables = vec![reader.name()?];
    while reader.take(", ") {
        tables.push(reader.name()?);
    }
    let change = |table, what| Change { xid, lsn, table, what };
    if reader.take(": TRUNCATE:") {
        return Some(tables.into_iter().map(|table| change(table, What::Truncate)).collect());
    }
    let what = if reader.take(": INSERT:") {
        What::Insert { new: reader.columns(false)? }
    } else if reader.take(": UPDATE:") {
        let old = if reader.take(" old-key:") { Some(reader.columns(true)?) } else { None };
        // Without an old key, no word comes before the new row.
        reader.take(" new-tuple:");
        What::Update { old, new: reader.columns(false)? }
    } else if reader.take(": DELETE:") {
        let none = reader.0 == " (no-tuple-data)";
        What::Delete { old: if none { None } else { Some(reader.columns(true)?) } }
    } else {
        return None;
    };
    Some(vec![change(tables.remove(0), what)])
}

impl<'a> Reader<'a> {
    fn take(&mut self, text: &str) -> bool {
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn name(&mut self) -> Option<Name> {
        let schema = self.identifier(&['.'])?;
        self.take(".");
        Some(Name { schema, table: self.identifier(&[':', ','])? })
    }

    /// Reads an identifier: plain up to one of `ends`, or quoted.
    fn identifier(&mut self, ends: &[char]) -> Option<String> {
        let Some(mut rest) = self.0.strip_prefix('"') else {
            let end = self.0.find(ends)?;
            let (name, rest) = self.0.split_at(end);
            self.0 = rest;
            return Some(name.to_owned());
        };
        let mut name = String::new();
        loop {
            let end = rest.find('"')?;
            name.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(after) => {
                    name.push('"');
                    rest = after;
                }
                None => break,
            }
        }
        self.0 = rest;
        Some(name)
    }

    /// Reads ` name[type]:value …` up to the end or to the new row.
    fn columns(&mut self, old: bool) -> Option<Columns> {
        let mut columns = Columns::new();
        while !(self.0.is_empty() || old && self.0.starts_with(" new-tuple:")) {
            if !self.take(" ") {
                return None;
            }
            let name = self.identifier(&['['])?;
            let end = self.0.find("]:")?;
            let kind = &self.0[1..end];
            self.0 = &self.0[end + 2..];
            let value = self.value(kind)?;
            columns.insert(name, value);
        }
        Some(columns)
    }

    fn value(&mut self, kind: &str) -> Option<Cell> {
        if self.take("unchanged-toast-datum") {
            return Some(Cell::Unchanged);
        }
        if let Some(quoted) = self.0.strip_prefix('\'').or_else(|| self.0.strip_prefix("B'")) {
            let mut text = String::new();
            let mut rest = quoted;
            loop {
                let end = rest.find('\'')?;
                text.push_str(&rest[..end]);
                rest = &rest[end + 1..];
                match rest.strip_prefix('\'') {
                    Some(after) => {
                        text.push('\'');
                        rest = after;
                    }
                    None => break,
                }
            }
            self.0 = rest;
            return Some(Cell::Is(Some(text)));
        }
        let end = self.0.find(' ').unwrap_or(self.0.len());
        let (text, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(Cell::Is(match text {
            "null" => None,
            "true" if kind == "boolean" => Some("t".to_owned()),
            "false" if kind == "boolean" => Some("f".to_owned()),
            other => Some(other.to_owned()),
        }))
    }
}

/// Reads the partitions and the roots by whose names they are captured.
pub async fn roots(client: &Client) -> HashMap<Name, Name> {
    let sql = "SELECT ln.nspname, leaf.relname, rn.nspname, root.relname \
               FROM pg_class leaf JOIN pg_namespace ln ON ln.oid = leaf.relnamespace \
               JOIN pg_class root ON root.oid = pg_partition_root(leaf.oid) \
               JOIN pg_namespace rn ON rn.oid = root.relnamespace WHERE leaf.relispartition";
    let rows = client.query(sql, &[]).await.expect("the partitions");
    let name = |schema: String, table: String| Name { schema, table };
    rows.iter().map(|row| (name(row.get(0), row.get(1)), name(row.get(2), row.get(3)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(data: &str) -> Change {
        parse(data, 7, 1).unwrap_or_else(|| panic!("cannot be read: {data}")).remove(0)
    }

    #[test]
    fn lines_of_test_decoding_are_read() {
        let is = |text: &str| Cell::Is(Some(text.to_owned()));
        let What::Update { old: Some(old), new } = one(
            "table public.\"od\"\"d t\": UPDATE: old-key: id[integer]:1 name[text]:'it''s new-tuple: ' new-tuple: id[integer]:2 \
             name[text]:'x y' tags[text[]]:'{a,\"b c\"}' ok[boolean]:true b[bit]:B'101' n[numeric]:null big[text]:unchanged-toast-datum \
             \"a b[\"[timestamp with time zone]:'2026-01-01 00:00:00+00'",
        )
        .what
        else {
            panic!("not an update")
        };
        assert_eq!(old["name"], is("it's new-tuple: "));
        assert_eq!((&new["id"], &new["name"], &new["ok"], &new["b"]), (&is("2"), &is("x y"), &is("t"), &is("101")));
        assert_eq!((&new["n"], &new["big"]), (&Cell::Is(None), &Cell::Unchanged));
        assert_eq!(new["a b["], is("2026-01-01 00:00:00+00"));
        assert_eq!(one("table public.\"od\"\"d t\": DELETE: (no-tuple-data)").table.table, "od\"d t");
        let both = parse("table a.b, a.\"c, d\": TRUNCATE: restart_seqs cascade", 7, 1).unwrap();
        assert_eq!(both.iter().map(|change| change.table.to_string()).collect::<Vec<_>>(), ["a.b", "a.c, d"]);
        let What::Update { old: None, new } = one("table a.b: UPDATE: id[integer]:1").what else {
            panic!("not an update")
        };
        assert_eq!(new["id"], is("1"));
    }
}
