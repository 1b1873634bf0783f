//! The truth, as the tables of `truth.sql` have it after a workload.

use std::collections::BTreeMap;

use cdc_audit_tests::value::Text;
use serde_json::Value;
use tokio_postgres::Client;

/// Column, under the name that is shown for it, to value.
pub type Row = BTreeMap<String, Text>;

/// A version that the trail must have.
#[derive(Clone, Debug, Default)]
pub struct Version {
    pub n: i64,
    pub xid: i64,
    pub table: String,
    pub event: String,
    /// `None` for TRUNCATE.
    pub row: Option<i64>,
    pub number: Option<i64>,
    pub key: Option<String>,
    pub old_key: Option<String>,
    pub old: Row,
    pub new: Row,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub request: Option<String>,
    /// The types of the table's columns.
    pub types: BTreeMap<String, String>,
    /// The columns whose old value the trail must know, if the server sent no old row: the version before has it, under
    /// the same type, and nothing can have happened to it in between.
    pub sure: Vec<String>,
    /// The columns whose value after the version the trail must know.
    pub known: Vec<String>,
}

pub struct Truth {
    /// In the order of the stream.
    pub versions: Vec<Version>,
    /// The same, where what looks like the move of a row is told as a deletion and an insertion.
    pub records: Vec<Version>,
    /// The rows that a TRUNCATE ended, with its `n`.
    pub ended: BTreeMap<i64, i64>,
}

const READ: &str = "SELECT n, xid, tab, event, row_id, number, key, old_key, old::text, new::text, actor, reason, request, \
                    types::text FROM truth.versions ORDER BY n";

/// The moments between transactions, each with the last line of the log until then.
pub type Moments = Vec<(String, i64)>;

/// The present moment.
pub async fn moment(client: &Client) -> (String, i64) {
    let asked = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
                 coalesce((SELECT max(n) FROM truth.log), 0)";
    let row = client.query_one(asked, &[]).await.expect("the time");
    (row.get(0), row.get(1))
}

impl Truth {
    /// `full` names the tables of which the server sends whole old rows: there, an update that changes nothing makes no
    /// version.
    pub async fn read(client: &Client, full: &[&str]) -> Truth {
        let full: Vec<String> = full.iter().map(|name| format!("public.{name}")).collect();
        let nothing = "DELETE FROM truth.log WHERE event = 'updated' AND old = new AND tab = ANY($1)";
        client.execute(nothing, &[&full]).await.expect("the log");
        client.query("SELECT truth.tell()", &[]).await.expect("the versions");
        client.execute("INSERT INTO truth.records SELECT * FROM truth.versions", &[]).await.expect("the records");
        let rows = client.query(&READ.replace("truth.versions", "truth.records"), &[]).await.expect("the records");
        let records = rows.iter().map(version).collect();
        client.query("SELECT truth.move('public.parted')", &[]).await.expect("rows that moved");
        client.query("SELECT truth.tell()", &[]).await.expect("the versions");
        let rows = client.query(READ, &[]).await.expect("the versions");
        let mut versions: Vec<Version> = rows.iter().map(version).collect();
        know(&mut versions);
        let ended = client.query("SELECT row_id, n FROM truth.ended", &[]).await.expect("what was truncated");
        Truth { versions, records, ended: ended.iter().map(|row| (row.get(0), row.get(1))).collect() }
    }

    pub fn of<'t>(&'t self, table: &'t str) -> impl DoubleEndedIterator<Item = &'t Version> {
        self.versions.iter().filter(move |version| version.table == table)
    }

    /// The versions of all rows that ever had the key, and the truncations that ended one of them.
    pub fn history<'t>(&'t self, table: &'t str, key: &str) -> Vec<&'t Version> {
        let had = |version: &&Version| [&version.key, &version.old_key].into_iter().flatten().any(|had| had == key);
        let rows: Vec<i64> = self.of(table).filter(had).filter_map(|version| version.row).collect();
        let ends = |n: i64| rows.iter().any(|row| self.ended.get(row) == Some(&n));
        let is_theirs = |version: &&Version| version.row.map_or(ends(version.n), |row| rows.contains(&row));
        self.of(table).filter(is_theirs).collect()
    }

    /// The last version of a row that exists after line `n`.
    pub fn last<'t>(&'t self, table: &'t str, row: i64, n: i64) -> Option<&'t Version> {
        let last = self.of(table).rfind(|version| version.row == Some(row) && version.n <= n)?;
        let there = last.event != "deleted" && self.ended.get(&row).is_none_or(|end| *end > n);
        there.then_some(last)
    }

    /// The row that has the key after line `n`; else the one that had it last, if it has another one then.
    pub fn row<'t>(&'t self, table: &'t str, key: &str, n: i64) -> Option<&'t Version> {
        let versions: Vec<&Version> = self.history(table, key).into_iter().filter(|version| version.n <= n).collect();
        let lasts = versions.iter().filter_map(|version| self.last(table, version.row?, n));
        let newest = || versions.iter().rev().find_map(|version| version.row);
        let here = lasts.filter(|last| last.key.as_deref() == Some(key)).max_by_key(|last| last.n);
        here.or_else(|| self.last(table, newest()?, n))
    }

    /// Whether a value that a row had in a column after a version is still its value after line `n`, as far as the table's
    /// versions show: a column that was dropped, or has another type, was rewritten.
    pub fn stays(&self, version: &Version, column: &str, n: i64) -> bool {
        let later = self.of(&version.table).filter(|later| version.n <= later.n && later.n <= n);
        later.into_iter().all(|later| later.types.get(column) == version.types.get(column))
    }

    /// The version that set the value which a column has after `last`, and whether that is certain.
    pub fn setter<'t>(&'t self, last: &'t Version, column: &str, full: bool) -> Option<(&'t Version, bool)> {
        let mut certain = true;
        let own = self.of(&last.table).rev().filter(|version| version.row == last.row && version.n <= last.n);
        for version in own {
            certain &= full || version.event == "created" || version.sure.iter().any(|sure| sure == column);
            if version.event == "created" || version.old.get(column) != version.new.get(column) {
                return Some((version, certain));
            }
        }
        None
    }
}

fn version(row: &tokio_postgres::Row) -> Version {
    let image = |at: usize| row.get::<_, Option<&str>>(at).map_or_else(Row::new, self::row);
    Version {
        n: row.get(0),
        xid: row.get(1),
        table: row.get(2),
        event: row.get(3),
        row: row.get(4),
        number: row.get(5),
        key: row.get(6),
        old_key: row.get(7),
        old: image(8),
        new: image(9),
        actor: row.get(10),
        reason: row.get(11),
        request: row.get(12),
        types: image(13).into_iter().map(|(column, kind)| (column, kind.unwrap_or_default())).collect(),
        sure: Vec::new(),
        known: Vec::new(),
    }
}

fn row(json: &str) -> Row {
    let values: BTreeMap<String, Value> = serde_json::from_str(json).expect("an object");
    values.into_iter().map(|(column, value)| (column, value.as_str().map(str::to_owned))).collect()
}

/// Finds out which old values follow from the version before. ⚠ A column that was added or got another type in between
/// has a value that no version tells.
fn know(versions: &mut [Version]) {
    // What is known of a living row: the types that its columns have, of those whose values are known.
    let mut rows: BTreeMap<i64, BTreeMap<String, String>> = BTreeMap::new();
    for version in versions {
        let Some(row) = version.row else { continue };
        let known = rows.remove(&row).unwrap_or_default();
        let same = |column: &&String| known.get(*column).is_some_and(|kind| version.types.get(*column) == Some(kind));
        version.sure = version.types.keys().filter(same).cloned().collect();
        // A large value that did not change is not sent again.
        let sent = |column: &String| {
            let is_large =
                version.new.get(column).is_some_and(|value| value.as_ref().is_some_and(|text| text.len() > 2000));
            !is_large || version.event != "updated" || version.old.get(column) != version.new.get(column)
        };
        let known: Vec<String> =
            version.types.keys().filter(|column| version.sure.contains(column) || sent(column)).cloned().collect();
        rows.insert(row, known.iter().map(|column| (column.clone(), version.types[column].clone())).collect());
        version.known = known;
    }
}
