//! What is written to a lake again and again, with faults in between: two tables, three days, a baseline of three rows.

use std::collections::BTreeSet;

use audit_core::batch::Batch;
use audit_core::sink::{Sink, SinkError};
use audit_testkit::Fixture;

use super::{Lake, identity, roll, start};

pub const TABLES: [&str; 2] = ["public.users", "public.orders"];

/// Two tables, transactions over two days and back again, in batches that divide them.
const STREAM: &str = r#"
    table public.users (id int4 key, name text) full
    table public.orders (id int4 key, total numeric(10,2)) full
    begin at=2026-03-01T23:59:58Z
    insert public.users [1, "Ann"]
    insert public.orders [10, 1.50]
    commit
    ---
    begin at=2026-03-02T00:00:01Z
    insert public.users [2, "Bea"]
    insert public.users [3, "Cid"]
    insert public.orders [11, 2.50]
    commit
    begin at=2026-03-01T23:59:59Z
    update public.users [1, "Ann"] -> [1, "Anna"]
    commit
    ---
    begin at=2026-03-02T00:00:02Z
    delete public.orders [10, 1.50]
    insert public.users [4, "Dan"]
    commit
    begin at=2026-03-03T10:00:00Z
    insert public.orders [12, 3.50]
    commit
    idle 0/9000
"#;

pub const CHUNKS: [&str; 2] = [
    r#"chunk public.users baseline=1 chunk=1 for=lake
       snapshot public.users [100, "Old"]
       snapshot public.users [101, "Older"]"#,
    r#"chunk public.users baseline=1 chunk=2 last for=lake
       snapshot public.users [102, "Oldest"]"#,
];

/// What the runs write. At first, chunks come in the middle of the stream; missing chunks are read again at its end.
pub struct World {
    pub fixture: Fixture,
    pub stream: Vec<Batch>,
    chunks: Vec<Batch>,
    /// The chunks as they are when they are read later.
    again: Vec<String>,
}

impl World {
    pub fn new() -> World {
        World::of(Fixture::default(), STREAM, &CHUNKS, &CHUNKS)
    }

    /// `again` are the chunks' contents when they are read later.
    pub fn of(mut fixture: Fixture, stream: &str, chunks: &[&str], again: &[&str]) -> World {
        let (head, tail) = stream.split_once("---").unwrap();
        let mut stream = fixture.batches(head);
        let chunks = chunks.iter().flat_map(|text| fixture.batches(&read_at(text, 4))).collect();
        stream.extend(fixture.batches(tail));
        World { fixture, stream, chunks, again: again.iter().map(|text| text.to_string()).collect() }
    }
}

pub fn read_at(chunk: &str, day: u32) -> String {
    format!("begin at=2026-03-{day:02}T12:00:00Z\n{chunk}\ncommit")
}

/// The very first run, from the takeover to the end.
pub async fn first_run(lake: &Lake, world: &World, whole: bool) -> Result<(), SinkError> {
    let mut sink = lake.sink();
    sink.take(&identity()).await?;
    sink.begin(start()).await?;
    let stream: Vec<&Batch> = world.stream.iter().collect();
    sink.write(&stream[..1]).await?;
    roll(&mut sink).await?;
    for chunk in &world.chunks {
        sink.write(&[chunk]).await?;
        if whole {
            sink.flush(true).await?;
        }
    }
    sink.write(&stream[1..2]).await?;
    sink.flush(true).await?;
    roll(&mut sink).await?;
    sink.write(&stream[2..]).await?;
    sink.flush(true).await?;
    roll(&mut sink).await
}

/// Another run, which continues after what is stored.
pub async fn next_run(lake: &Lake, world: &mut World, day: u32) -> Result<(), SinkError> {
    let mut sink = lake.sink();
    let stored = sink.take(&identity()).await?;
    let start = stored.checkpoint.as_ref().map_or(start(), |checkpoint| checkpoint.progress());
    sink.begin(start).await?;
    let stream: Vec<&Batch> = world.stream.iter().collect();
    sink.write(&stream).await?;
    let has = stored.baselines.get("public.users").map_or(0, |progress| progress.chunk as usize);
    let missing: Vec<Batch> =
        world.again[has..].iter().flat_map(|text| world.fixture.batches(&read_at(text, day))).collect();
    let missing: Vec<&Batch> = missing.iter().collect();
    sink.write(&missing).await?;
    sink.flush(true).await?;
    roll(&mut sink).await
}

pub fn positions(batches: &[Batch], table: &str) -> Vec<String> {
    let versions = batches.iter().flat_map(|batch| batch.versions());
    let mut rows: Vec<String> = versions
        .filter(|version| *version.table().name == *table)
        .map(|version| format!("{} {} {}", version.position(), version.event().name(), version.key().unwrap_or("-")))
        .collect();
    rows.sort();
    rows
}

pub async fn check(lake: &Lake, world: &World) {
    lake.mirror().await;
    for table in TABLES {
        let rows = lake.agreed(table).await;
        let (snapshot, stream): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.contains(" snapshot "));
        assert_eq!(stream, positions(&world.stream, table));
        let keys: Vec<&str> = snapshot.iter().map(|row| row.rsplit(' ').next().unwrap()).collect();
        let unique: BTreeSet<&str> = keys.iter().copied().collect();
        let expected: BTreeSet<&str> = if table == TABLES[0] { ["100", "101", "102"].into() } else { BTreeSet::new() };
        assert_eq!((keys.len(), unique), (expected.len(), expected), "{snapshot:?}");
    }
    let tmp = lake.path().join("_cdc_audit/tmp");
    let left = std::fs::read_dir(tmp).map_or(0, |entries| entries.count());
    assert_eq!(left, 0, "staged files are left");
}
