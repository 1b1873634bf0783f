use super::*;
use crate::baseline::rows::RawRows;
use crate::baseline::seen::Seen;
use crate::change::Cell;
use crate::position::Position;
use crate::rules::Rules;
use crate::shape::{CatalogTable, History, Identity, Relation, RelationColumn, TableName};

/// A row's values: text, `None` for NULL, `"?"` for unknown.
type Values<'a> = &'a [Option<&'a str>];

struct Buffer {
    bytes: Vec<u8>,
    cells: Vec<Cell>,
}

fn buffer(values: Values<'_>) -> Buffer {
    let mut buffer = Buffer { bytes: Vec::new(), cells: Vec::new() };
    for value in values {
        let start = buffer.bytes.len();
        buffer.cells.push(match value {
            None => Cell::NULL,
            Some("?") => Cell::UNKNOWN,
            Some(text) => {
                buffer.bytes.extend_from_slice(text.as_bytes());
                Cell::text(start, text.len())
            }
        });
    }
    buffer
}

impl Buffer {
    fn row(&self) -> Row<'_> {
        Row::new(&self.bytes, &self.cells)
    }
}

fn relation(identity: Identity, columns: &[&str]) -> Relation {
    let column = |name: &&str| RelationColumn {
        name: name.to_string(),
        type_oid: 25,
        typmod: -1,
        in_identity: identity == Identity::Full || *name == "id",
    };
    Relation {
        oid: 16400,
        name: TableName::new("public", "t"),
        identity,
        columns: columns.iter().map(column).collect(),
    }
}

fn catalog() -> CatalogTable {
    CatalogTable { oid: 16400, partitioned: false, columns: Vec::new(), primary_key: Vec::new(), types: Vec::new() }
}

fn table(relation: &Relation) -> Table {
    let shape = History::default().add(relation, None, Position::default());
    Table::new(shape, &Rules::default().for_table(&relation.name), false).unwrap()
}

/// One chunk of a table with two columns, from its watch to its end.
struct Chunk {
    watches: Watches,
    table: Table,
    relation: Relation,
    snapshot: &'static str,
    rows: &'static str,
    outcome: Option<oneshot::Receiver<Outcome>>,
}

impl Chunk {
    fn keyed(snapshot: &'static str, rows: &'static str) -> Chunk {
        Chunk::new(Identity::Default, Some(vec![0]), snapshot, rows)
    }

    fn keyless(snapshot: &'static str, rows: &'static str) -> Chunk {
        Chunk::new(Identity::Full, None, snapshot, rows)
    }

    fn new(identity: Identity, key: Option<Vec<usize>>, snapshot: &'static str, rows: &'static str) -> Chunk {
        let relation = relation(identity, &["id", "v"]);
        let mut watches = Watches::default();
        let (reply, mut seen) = oneshot::channel();
        let watch = Watch { table: "public.t".into(), digest: relation.digest(), key };
        watches.command(Command::Watch { watch, reply });
        assert_eq!(seen.try_recv().unwrap(), Seen::default());
        Chunk { watches, table: table(&relation), relation, snapshot, rows, outcome: None }
    }

    fn change(&mut self, xid: u32, change: Change<'_>) {
        self.watches.change(xid, &self.table, &self.relation.digest(), change);
    }

    fn insert(&mut self, xid: u32, new: Values<'_>) {
        self.change(xid, Change::Insert { new: buffer(new).row() });
    }

    /// Sends an update without an old row.
    fn update(&mut self, xid: u32, new: Values<'_>) {
        self.change(xid, Change::Update { old: Old::None, new: buffer(new).row() });
    }

    fn delete(&mut self, xid: u32, old: Values<'_>) {
        self.change(xid, Change::Delete { old: Old::Full(buffer(old).row()) });
    }

    /// Hands over the rows that were read. Returns whether the stage took them.
    fn ready(&mut self) -> bool {
        let mut rows = RawRows::new(2);
        for line in self.rows.split_inclusive('\n') {
            rows.push(line.as_bytes(), 0).unwrap();
        }
        let mark = ChunkMark { table: "public.t".into(), baseline: 1, chunk: 1, last: true, sinks: Vec::new() };
        let chunk = RawChunk {
            mark,
            relation: self.relation.clone(),
            catalog: catalog(),
            snapshot: self.snapshot.parse().unwrap(),
            rows,
            large: None,
        };
        let (taken, mut was_taken) = oneshot::channel();
        let (outcome, ended) = oneshot::channel();
        self.outcome = Some(ended);
        let nonce = Nonce::new([7; 16]);
        self.watches.command(Command::Ready { nonce, chunk: Box::new(chunk), taken, outcome });
        was_taken.try_recv().is_ok()
    }

    /// Lets the watermark pass. Returns the rows that are emitted, or why none are.
    fn pass(&mut self) -> Result<Vec<String>, Reread> {
        assert!(self.watches.watermark(b"somebody else's").is_none());
        let passed = self.watches.watermark(Nonce::new([7; 16]).as_str().as_bytes());
        let text = |row: Row<'_>| {
            let values = (0..row.len()).map(|column| match row.get(column) {
                Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Value::Null => "NULL".to_string(),
                Value::Unknown => "?".to_string(),
            });
            values.collect::<Vec<_>>().join(" ")
        };
        let rows = passed.map(|passed| {
            let rows = passed.rows().map(text).collect::<Vec<_>>();
            passed.delivered();
            rows
        });
        match (rows, self.outcome.take().unwrap().try_recv().unwrap()) {
            (Some(rows), Outcome::Delivered { rows: count }) => {
                assert_eq!(count, rows.len() as u64);
                Ok(rows)
            }
            (None, Outcome::Reread(why)) => Err(why),
            (_, outcome) => panic!("{outcome:?}"),
        }
    }
}

const THREE: &str = "1\ta\n2\tb\n3\tc\n";

#[test]
fn rows_whose_key_changed_since_the_low_watermark_are_left_out() {
    for before_ready in [true, false] {
        let mut chunk = Chunk::keyed("100:100:", THREE);
        if !before_ready {
            assert!(chunk.ready());
        }
        chunk.update(90, &[Some("2"), Some("z")]);
        chunk.insert(91, &[Some("4"), Some("d")]);
        if before_ready {
            assert!(chunk.ready());
        }
        assert_eq!(chunk.pass().unwrap(), ["1 a", "3 c"]);
    }
}

#[test]
fn both_keys_of_an_update_that_changes_the_key_count() {
    let mut chunk = Chunk::keyed("100:100:", THREE);
    assert!(chunk.ready());
    let (old, new) = (buffer(&[Some("1"), None]), buffer(&[Some("3"), Some("?")]));
    chunk.change(120, Change::Update { old: Old::Key(old.row()), new: new.row() });
    assert_eq!(chunk.pass().unwrap(), ["2 b"]);
}

#[test]
fn a_large_key_that_is_not_sent_again_is_taken_from_the_old_row() {
    let mut chunk = Chunk::keyed("100:100:", THREE);
    assert!(chunk.ready());
    let (old, new) = (buffer(&[Some("1"), None]), buffer(&[Some("?"), Some("z")]));
    chunk.change(120, Change::Update { old: Old::Key(old.row()), new: new.row() });
    assert_eq!(chunk.pass().unwrap(), ["2 b", "3 c"]);
}

#[test]
fn a_key_that_nobody_knows_spoils_the_chunk_unless_the_snapshot_has_the_change() {
    for (xid, expected) in [(99, Ok(3)), (100, Err(Reread::RowUnknown))] {
        let mut chunk = Chunk::keyed("100:100:", THREE);
        chunk.delete(xid, &[None, Some("a")]);
        assert_eq!(chunk.ready(), expected.is_ok());
        assert_eq!(chunk.pass().map(|rows| rows.len()), expected);
    }
}

#[test]
fn a_truncate_that_the_snapshot_does_not_see_empties_the_chunk() {
    for (xid, expected) in [(99, 3), (100, 0)] {
        for before_ready in [true, false] {
            let mut chunk = Chunk::keyed("100:100:", THREE);
            if before_ready {
                chunk.change(xid, Change::Truncate);
            }
            assert!(chunk.ready());
            if !before_ready {
                chunk.change(xid, Change::Truncate);
            }
            assert_eq!(chunk.pass().unwrap().len(), expected);
        }
    }
}

#[test]
fn a_change_in_another_shape_spoils_the_chunk() {
    for before_ready in [true, false] {
        let mut chunk = Chunk::keyed("100:100:", THREE);
        assert!(before_ready || chunk.ready());
        let other = table(&relation(Identity::Default, &["id", "v", "w"]));
        let new = buffer(&[Some("9"), None, None]);
        chunk.watches.change(90, &other, "", Change::Insert { new: new.row() });
        assert!(!before_ready || !chunk.ready());
        assert_eq!(chunk.pass(), Err(Reread::ShapeChanged));
    }
}

#[test]
fn more_changes_than_are_remembered_spoil_the_chunk_but_only_until_its_rows_are_there() {
    for (before_ready, expected) in [(true, Err(Reread::TooManyChanges)), (false, Ok(3))] {
        let mut chunk = Chunk::keyed("100:100:", THREE);
        assert!(before_ready || chunk.ready());
        for id in 0..=CHANGES_MAX {
            chunk.update(120, &[Some(&format!("x{id}")), None]);
        }
        if before_ready {
            chunk.ready();
        }
        assert_eq!(chunk.pass().map(|rows| rows.len()), expected);
    }
}

#[test]
fn without_a_key_a_change_that_may_have_hit_a_row_of_the_chunk_spoils_it() {
    let rows = "1\ta\n1\ta\n2\t\\N\n";
    for (xid, old, expected) in [
        (120, [Some("1"), Some("a")], Err(Reread::RowChanged)),
        (120, [Some("2"), None], Err(Reread::RowChanged)),
        // The snapshot sees this change: the row that was deleted is not in the chunk.
        (99, [Some("1"), Some("a")], Ok(3)),
        (120, [Some("1"), None], Ok(3)),
        (120, [Some("2"), Some("")], Ok(3)),
    ] {
        for before_ready in [true, false] {
            let mut chunk = Chunk::keyless("100:100:", rows);
            assert!(before_ready || chunk.ready());
            chunk.delete(xid, &old);
            assert!(!before_ready || chunk.ready() == expected.is_ok());
            assert_eq!(chunk.pass().map(|rows| rows.len()), expected);
        }
    }
}

#[test]
fn without_a_key_an_old_row_that_was_not_sent_whole_may_be_any() {
    let mut chunk = Chunk::keyless("100:100:", THREE);
    chunk.update(99, &[Some("5"), None]);
    assert!(chunk.ready());
    chunk.update(100, &[Some("5"), None]);
    assert_eq!(chunk.pass(), Err(Reread::RowUnknown));
}

#[test]
fn rows_that_the_stream_created_while_the_baseline_was_about_to_begin_are_left_out_once_each() {
    let mut chunk = Chunk::keyless("100:100:", "1\ta\n1\ta\n2\tb\n3\tc\n");
    chunk.watches.command(Command::Follow { tables: vec![("public.t".into(), 95)] });
    chunk.insert(90, &[Some("1"), Some("a")]);
    chunk.insert(90, &[Some("2"), Some("b")]);
    // The new row was deleted again, so the row 2 of the chunk is an older one.
    chunk.delete(91, &[Some("2"), Some("b")]);
    // The reader skips rows of later transactions, so the row 3 of the chunk is another one.
    chunk.insert(95, &[Some("3"), Some("c")]);
    assert!(chunk.ready());
    assert_eq!(chunk.pass().unwrap(), ["1 a", "2 b", "3 c"]);
}

#[test]
fn what_is_given_up_is_not_emitted() {
    let mut chunk = Chunk::keyed("100:100:", THREE);
    assert!(chunk.ready());
    let (reply, mut gone) = oneshot::channel();
    chunk.watches.command(Command::Unwatch { table: "public.t".into(), reply });
    assert_eq!(gone.try_recv(), Ok(()));
    assert!(chunk.watches.watermark(Nonce::new([7; 16]).as_str().as_bytes()).is_none() && chunk.watches.is_idle());
    assert!(!chunk.ready());
    assert_eq!(chunk.pass(), Err(Reread::NotWatched));
}

#[test]
fn a_watch_says_what_the_stream_delivered_before() {
    let mut watches = Watches::default();
    watches.begin(101);
    let watch = |watches: &mut Watches| {
        let (reply, mut seen) = oneshot::channel();
        let watch = Watch { table: "public.t".into(), digest: String::new(), key: None };
        watches.command(Command::Watch { watch, reply });
        seen.try_recv().unwrap()
    };
    assert!(!watch(&mut watches).finished_in(&"101:103:101".parse().unwrap()));
    watches.command(Command::Settled("102:103:".parse().unwrap()));
    assert_eq!(watch(&mut watches), Seen::default());
}

#[test]
fn no_value_is_printed() {
    let mut chunk = Chunk::keyed("100:100:", "1\tsecret\n");
    chunk.ready();
    let passed = chunk.watches.watermark(Nonce::new([7; 16]).as_str().as_bytes()).unwrap();
    let printed = format!("{passed:?} {:?} {:?}", passed.chunk(), Nonce::new([7; 16]));
    assert!(!printed.contains("secret") && !printed.contains("0707"), "{printed}");
}
