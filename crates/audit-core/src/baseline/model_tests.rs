//! A small database, a stream that follows its commits, and a reader that sees commits late, in every order that chance
//! finds: what the stage emits must be what is in the table.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::rows::RawRows;
use super::seen::Seen;
use super::snapshot::{Snapshot, precedes};
use super::watch::{Passed, Watches};
use super::*;
use crate::change::{Cell, Change, Old, Row, Value};
use crate::position::Position;
use crate::rules::Rules;
use crate::shape::{CatalogTable, History, Identity, RelationColumn, TableName};
use crate::table::Table;

/// A physical row. Its key is its first value; in tables without a key only the values identify a row.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    place: u32,
    xmin: u32,
    key: u32,
    value: u32,
}

/// One write, as its effect on physical rows.
#[derive(Clone, Debug)]
enum Write {
    Insert(Stored),
    Update(Stored, Stored),
    Delete(Stored),
    Truncate,
    Watermark(String),
}

#[derive(Clone, Debug)]
struct Transaction {
    xid: u32,
    writes: Vec<Write>,
    visible: bool,
}

fn apply(rows: &mut Vec<Stored>, write: &Write) {
    match write {
        Write::Insert(new) => rows.push(new.clone()),
        Write::Update(old, new) => {
            rows.retain(|row| row != old);
            rows.push(new.clone());
        }
        Write::Delete(old) => rows.retain(|row| row != old),
        Write::Truncate => rows.clear(),
        Write::Watermark(_) => {}
    }
}

/// Number of places in a table; a chunk of a keyless table is a range of them.
const PLACES: u32 = 12;
/// Number of keys in a table; a chunk of a keyed table is a range of them.
const KEYS: u32 = 8;
const CHUNKS: u32 = 3;
const FIRST_XID: u32 = u32::MAX - 12;

struct World {
    keyed: bool,
    before: Vec<Stored>,
    log: Vec<Transaction>,
    open: Vec<u32>,
    next_xid: u32,
    /// With `None`, equal rows are inserted, and nothing else is written.
    next_value: Option<u32>,
    /// What the stage has delivered: a number of transactions, and a number of writes of the next one.
    position: (usize, usize),
    table: Table,
    relation: Relation,
    watches: Watches,
    runner: Runner,
    /// The rows that a replay of the trail has: key and value.
    replayed: Vec<(u32, u32)>,
    emitted: Vec<Stored>,
}

/// The state of the reader.
struct Runner {
    chunk: u32,
    xmax: Option<u32>,
    state: State,
}

enum State {
    Idle,
    Watching(Seen),
    Read(Snapshot, Vec<Stored>),
    Ready { nonce: Nonce, written: bool, rows: Vec<Stored>, outcome: oneshot::Receiver<Outcome> },
}

/// 64-bit number of a transaction: the model begins shortly before the numbers wrap around.
fn wide(xid: u32) -> u64 {
    if xid >= FIRST_XID { u64::from(xid) } else { u64::from(xid) + (1 << 32) }
}

impl World {
    fn new(keyed: bool, before: Vec<Stored>) -> World {
        let identity = if keyed { Identity::Default } else { Identity::Full };
        let column = |name: &str| RelationColumn {
            name: name.to_string(),
            type_oid: 23,
            typmod: -1,
            in_identity: !keyed || name == "id",
        };
        let columns = vec![column("id"), column("v")];
        let relation = Relation { oid: 1, name: TableName::new("public", "t"), identity, columns };
        let shape = History::default().add(&relation, None, Position::default());
        let table = Table::new(shape, &Rules::default().for_table(&relation.name), false).unwrap();
        World {
            keyed,
            next_value: Some(100),
            before,
            log: Vec::new(),
            open: Vec::new(),
            next_xid: FIRST_XID,
            position: (0, 0),
            table,
            relation,
            watches: Watches::default(),
            runner: Runner { chunk: 1, xmax: None, state: State::Idle },
            replayed: Vec::new(),
            emitted: Vec::new(),
        }
    }

    /// The rows after everything that committed.
    fn committed(&self) -> Vec<Stored> {
        let mut rows = self.before.clone();
        self.log.iter().flat_map(|t| &t.writes).for_each(|write| apply(&mut rows, write));
        rows
    }

    /// The rows that a reader sees now.
    fn visible(&self) -> Vec<Stored> {
        let mut rows = self.before.clone();
        self.log.iter().filter(|t| t.visible).flat_map(|t| &t.writes).for_each(|write| apply(&mut rows, write));
        rows
    }

    /// The rows after what the stream has delivered so far.
    fn streamed(&self) -> Vec<Stored> {
        let mut rows = self.before.clone();
        let (whole, part) = self.position;
        self.log[..whole].iter().flat_map(|t| &t.writes).for_each(|write| apply(&mut rows, write));
        if let Some(next) = self.log.get(whole) {
            next.writes[..part].iter().for_each(|write| apply(&mut rows, write));
        }
        rows
    }

    fn snapshot(&self) -> Snapshot {
        let committing = self.log.iter().filter(|t| !t.visible).map(|t| t.xid);
        let running: Vec<u64> = self.open.iter().copied().chain(committing).map(wide).collect();
        let completed = self.log.iter().filter(|t| t.visible).map(|t| wide(t.xid) + 1).max();
        // As in the server, every transaction after the latest completed one counts as running.
        let xmax = completed.unwrap_or(wide(FIRST_XID)).max(wide(FIRST_XID));
        let mut listed: Vec<u64> = running.iter().copied().filter(|xid| *xid < xmax).collect();
        listed.sort_unstable();
        let xmin = listed.first().copied().unwrap_or(xmax);
        let listed: Vec<String> = listed.iter().map(u64::to_string).collect();
        format!("{xmin}:{xmax}:{}", listed.join(",")).parse().unwrap()
    }

    fn xid(&mut self) -> u32 {
        let xid = self.next_xid;
        self.next_xid = self.next_xid.wrapping_add(1).max(3);
        xid
    }

    fn commit(&mut self, which: usize, deeds: &[(u8, u32, u32)]) {
        let xid = if self.open.is_empty() { self.xid() } else { self.open.remove(which % self.open.len()) };
        let mut rows = self.committed();
        let mut writes = Vec::new();
        for (kind, a, b) in deeds {
            let Some(write) = self.write(xid, &rows, *kind, *a, *b) else { continue };
            apply(&mut rows, &write);
            writes.push(write);
        }
        if !writes.is_empty() {
            self.log.push(Transaction { xid, writes, visible: false });
        }
    }

    /// A write that the server would allow. Rows and keys that an invisible transaction changed are locked by it.
    fn write(&mut self, xid: u32, rows: &[Stored], kind: u8, a: u32, b: u32) -> Option<Write> {
        let locked = |row: &Stored| {
            let same = |other: &Stored| if self.keyed { other.key == row.key } else { other == row };
            let holds = |write: &Write| match write {
                Write::Insert(new) => same(new),
                Write::Update(old, new) => same(old) || same(new),
                Write::Delete(old) => same(old),
                Write::Truncate => true,
                Write::Watermark(_) => false,
            };
            self.log.iter().filter(|t| !t.visible).flat_map(|t| &t.writes).any(holds)
        };
        let pick = rows.get(a as usize % rows.len().max(1)).cloned();
        if let Some(value) = &mut self.next_value {
            *value += 1;
        }
        let free =
            (0..PLACES * 4).map(|i| (b + i) % (PLACES * 4)).find(|place| rows.iter().all(|row| row.place != *place))?;
        let key = if self.next_value.is_some() { b % KEYS } else { 0 };
        let new = Stored { place: free, xmin: xid, key, value: self.next_value.unwrap_or(0) };
        let taken = |key: u32| self.keyed && rows.iter().any(|row| row.key == key);
        match if self.next_value.is_some() { kind % 8 } else { 0 } {
            0..3 if !taken(new.key) && !locked(&new) => Some(Write::Insert(new)),
            3..6 => {
                let old = pick.filter(|old| !locked(old))?;
                let moves = kind.is_multiple_of(2) && !taken(new.key) && !locked(&new);
                let key = if moves { new.key } else { old.key };
                Some(Write::Update(old, Stored { key, ..new }))
            }
            6 => pick.filter(|old| !locked(old)).map(Write::Delete),
            7 if b.is_multiple_of(5) && self.log.iter().all(|t| t.visible) => Some(Write::Truncate),
            _ => None,
        }
    }

    fn show(&mut self, which: usize) {
        let hidden: Vec<usize> = (0..self.log.len()).filter(|i| !self.log[*i].visible).collect();
        if let Some(i) = hidden.get(which % hidden.len().max(1)) {
            self.log[*i].visible = true;
        }
    }

    /// Lets the stage process one more write.
    fn stream(&mut self) {
        let (whole, part) = self.position;
        let Some(transaction) = self.log.get(whole).cloned() else { return };
        if part == 0 {
            self.watches.begin(transaction.xid);
        }
        self.deliver(transaction.xid, &transaction.writes[part]);
        self.position = if part + 1 == transaction.writes.len() { (whole + 1, 0) } else { (whole, part + 1) };
        if let Write::Watermark(content) = &transaction.writes[part]
            && let Some(passed) = self.watches.watermark(content.as_bytes())
        {
            self.emit(passed);
        }
    }

    fn deliver(&mut self, xid: u32, write: &Write) {
        let (mut old, mut new) = (None, None);
        match write {
            Write::Insert(row) => new = Some(row),
            Write::Update(before, after) => (old, new) = (Some(before), Some(after)),
            Write::Delete(row) => old = Some(row),
            Write::Truncate => {
                self.replayed.clear();
                return self.watches.change(xid, &self.table, &self.relation.digest(), Change::Truncate);
            }
            Write::Watermark(_) => return,
        }
        if let Some(old) = old {
            let known = (old.key, old.value);
            let same = |row: &(u32, u32)| if self.keyed { row.0 == known.0 } else { *row == known };
            if let Some(at) = self.replayed.iter().position(same) {
                self.replayed.remove(at);
            }
        }
        if let Some(new) = new {
            self.put(new.key, new.value);
        }
        let moved = old.zip(new).is_none_or(|(old, new)| old.key != new.key);
        let (before, after) = (old.map(bytes), new.map(bytes));
        let old = match &before {
            Some((bytes, cells)) if self.keyed && moved => Old::Key(Row::new(bytes, cells)),
            Some((bytes, cells)) if !self.keyed => Old::Full(Row::new(bytes, cells)),
            _ => Old::None,
        };
        let change = match &after {
            None => Change::Delete { old },
            Some((bytes, cells)) if before.is_some() => Change::Update { old, new: Row::new(bytes, cells) },
            Some((bytes, cells)) => Change::Insert { new: Row::new(bytes, cells) },
        };
        self.watches.change(xid, &self.table, &self.relation.digest(), change);
    }

    fn put(&mut self, key: u32, value: u32) {
        if self.keyed {
            self.replayed.retain(|row| row.0 != key);
        }
        self.replayed.push((key, value));
    }

    /// Checks that the rows that the stage emits are in the table now, as the stream has it.
    fn emit(&mut self, passed: Passed) {
        let number = |row: Row<'_>, column| match row.get(column) {
            Value::Text(text) => std::str::from_utf8(text).unwrap().parse::<u32>().unwrap(),
            _ => unreachable!(),
        };
        let rows: Vec<(u32, u32)> = passed.rows().map(|row| (number(row, 0), number(row, 1))).collect();
        let State::Ready { rows: read, .. } = &self.runner.state else { unreachable!() };
        let streamed = self.streamed();
        let mut read = read.clone();
        for (key, value) in &rows {
            let same = |row: &Stored| row.key == *key && row.value == *value;
            let physical = read.remove(read.iter().position(same).unwrap());
            assert!(streamed.contains(&physical), "emitted after its own later change: {physical:?}");
            self.emitted.push(physical);
        }
        rows.into_iter().for_each(|(key, value)| self.put(key, value));
        passed.delivered();
    }

    /// Lets the runner begin, before the stage has processed anything.
    fn begin(&mut self) {
        self.watches.command(Command::Settled(self.snapshot()));
        if !self.keyed {
            let xmax = self.snapshot().xmax() as u32;
            self.watches.command(Command::Follow { tables: vec![("public.t".into(), xmax)] });
            self.runner.xmax = Some(xmax);
        }
    }

    /// Lets the runner take its next step, if it can.
    fn run(&mut self) {
        if self.runner.chunk > CHUNKS {
            return;
        }
        let state = std::mem::replace(&mut self.runner.state, State::Idle);
        self.runner.state = match state {
            State::Idle => self.watch(),
            State::Watching(seen) => {
                let snapshot = self.snapshot();
                let ended = self.runner.xmax.is_none_or(|xmax| snapshot.all_finished(xmax.wrapping_sub(1)));
                if seen.finished_in(&snapshot) && ended {
                    State::Read(snapshot.clone(), self.read(&snapshot))
                } else {
                    State::Watching(seen)
                }
            }
            State::Read(snapshot, rows) => self.hand_over(snapshot, rows),
            State::Ready { nonce, written: false, rows, outcome } => {
                let xid = self.xid();
                let writes = vec![Write::Watermark(nonce.as_str().to_string())];
                self.log.push(Transaction { xid, writes, visible: false });
                State::Ready { nonce, written: true, rows, outcome }
            }
            State::Ready { nonce, written, rows, mut outcome } => match outcome.try_recv() {
                Ok(Outcome::Delivered { .. }) => {
                    self.runner.chunk += 1;
                    State::Idle
                }
                Ok(Outcome::Reread(_) | Outcome::Refused { .. }) => State::Idle,
                Err(_) => State::Ready { nonce, written, rows, outcome },
            },
        };
    }

    fn watch(&mut self) -> State {
        let (reply, mut seen) = oneshot::channel();
        let key = self.keyed.then(|| vec![0]);
        let watch = Watch { table: "public.t".into(), digest: self.relation.digest(), key };
        self.watches.command(Command::Watch { watch, reply });
        State::Watching(seen.try_recv().unwrap())
    }

    /// The rows of the chunk that the reading transaction gets.
    fn read(&self, snapshot: &Snapshot) -> Vec<Stored> {
        let share = |of: u32| of.div_ceil(CHUNKS);
        let chunk = |row: &Stored| {
            let in_chunk = if self.keyed { row.key / share(KEYS) } else { row.place / share(PLACES * 4) };
            in_chunk + 1 == self.runner.chunk
        };
        let recent = |row: &Stored| {
            let round = |xid: u32| xid.wrapping_sub(self.runner.xmax.unwrap_or_default());
            row.xmin >= 3 && self.runner.xmax.is_some() && round(row.xmin) < round(snapshot.xmax() as u32)
        };
        self.visible().into_iter().filter(|row| chunk(row) && !recent(row)).collect()
    }

    fn hand_over(&mut self, snapshot: Snapshot, read: Vec<Stored>) -> State {
        let mut rows = RawRows::new(2);
        for row in &read {
            rows.push(format!("{}\t{}\n", row.key, row.value).as_bytes(), 0).unwrap();
        }
        let mark = ChunkMark {
            table: Arc::from("public.t"),
            baseline: 1,
            chunk: self.runner.chunk,
            last: self.runner.chunk == CHUNKS,
            sinks: Vec::new(),
        };
        let catalog = CatalogTable {
            oid: 1,
            partitioned: false,
            columns: Vec::new(),
            primary_key: Vec::new(),
            types: Vec::new(),
        };
        let chunk = Box::new(RawChunk { mark, relation: self.relation.clone(), catalog, snapshot, rows, large: None });
        let mut random = [0; 16];
        random[..8].copy_from_slice(&wide(self.next_xid).to_be_bytes());
        let nonce = Nonce::new(random);
        let (taken, mut was_taken) = oneshot::channel();
        let (outcome, ended) = oneshot::channel();
        self.watches.command(Command::Ready { nonce: nonce.clone(), chunk, taken, outcome });
        match was_taken.try_recv() {
            Ok(()) => State::Ready { nonce, written: false, rows: read, outcome: ended },
            Err(_) => State::Idle,
        }
    }

    /// Lets everything commit, become visible and be streamed until the baseline is complete.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            (0..self.open.len()).for_each(|_| self.commit(0, &[]));
            self.log.iter_mut().for_each(|t| t.visible = true);
            self.run();
            while self.position.0 < self.log.len() {
                self.stream();
            }
            if self.runner.chunk > CHUNKS {
                return;
            }
        }
        panic!("the baseline does not come to an end");
    }
}

fn bytes(row: &Stored) -> (Vec<u8>, Vec<Cell>) {
    let (key, value) = (row.key.to_string(), row.value.to_string());
    let cells = vec![Cell::text(0, key.len()), Cell::text(key.len(), value.len())];
    ((key + &value).into_bytes(), cells)
}

#[derive(Clone, Debug)]
enum Deed {
    Open,
    Commit(usize, Vec<(u8, u32, u32)>),
    Show(usize),
    Stream(usize),
    Run(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let writes = prop::collection::vec((any::<u8>(), any::<u32>(), any::<u32>()), 1..4);
    let deed = prop_oneof![
        1 => Just(Deed::Open),
        4 => (any::<usize>(), writes).prop_map(|(which, writes)| Deed::Commit(which, writes)),
        3 => any::<usize>().prop_map(Deed::Show),
        4 => (1..4usize).prop_map(Deed::Stream),
        6 => (1..3usize).prop_map(Deed::Run),
    ];
    prop::collection::vec(deed, 0..80)
}

/// `backlog` is what happens between the creation of the slot and the start of the daemon.
fn play(mut world: World, backlog: Vec<Deed>, deeds: Vec<Deed>) -> World {
    let offline = |deed: &Deed| !matches!(deed, Deed::Stream(_) | Deed::Run(_));
    deal(&mut world, backlog.into_iter().filter(offline));
    world.begin();
    deal(&mut world, deeds.into_iter());
    world.finish();
    world
}

fn deal(world: &mut World, deeds: impl Iterator<Item = Deed>) {
    for deed in deeds {
        match deed {
            Deed::Open => {
                let xid = world.xid();
                world.open.push(xid);
            }
            Deed::Commit(which, writes) => world.commit(which, &writes),
            Deed::Show(which) => world.show(which),
            Deed::Stream(count) => (0..count).for_each(|_| world.stream()),
            Deed::Run(count) => (0..count).for_each(|_| world.run()),
        }
    }
}

fn sorted(mut rows: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    rows.sort_unstable();
    rows
}

fn before(count: u32) -> Vec<Stored> {
    // Rows that were frozen long ago, and rows from before the wraparound.
    let xmin = |i: u32| if i.is_multiple_of(2) { 2 } else { FIRST_XID - 5 };
    (0..count).map(|i| Stored { place: i * 3, xmin: xmin(i), key: i, value: i }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn with_a_key_the_trail_replayed_is_the_table(backlog in deeds(), deeds in deeds(), count in 0..KEYS) {
        let world = play(World::new(true, before(count)), backlog, deeds);
        let table = world.committed().iter().map(|row| (row.key, row.value)).collect();
        prop_assert_eq!(sorted(world.replayed.clone()), sorted(table));
    }

    #[test]
    fn equal_rows_are_counted(backlog in deeds(), deeds in deeds(), count in 0..KEYS) {
        let before = before(count).into_iter().map(|row| Stored { key: 0, value: 0, ..row }).collect();
        let mut world = World::new(false, before);
        world.next_value = None;
        let world = play(world, backlog, deeds);
        let keys = world.committed().iter().map(|row| (row.key, row.value)).collect();
        prop_assert_eq!(sorted(world.replayed.clone()), sorted(keys));
    }

    /// Values are never repeated here, so that a replay can tell rows apart.
    #[test]
    fn without_a_key_the_trail_replayed_is_the_table(backlog in deeds(), deeds in deeds(), count in 0..KEYS) {
        let world = play(World::new(false, before(count)), backlog, deeds);
        let table = world.committed().iter().map(|row| (row.key, row.value)).collect();
        prop_assert_eq!(sorted(world.replayed.clone()), sorted(table));
        let from_stream = |row: &&Stored| row.xmin >= 3 && !precedes(row.xmin, FIRST_XID);
        prop_assert_eq!(world.emitted.iter().find(from_stream), None, "created and snapshot");
    }
}
