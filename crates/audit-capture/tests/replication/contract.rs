use std::collections::BTreeMap;

use audit_capture::replication::{Frame, Receiver};
use audit_core::change::{Row, Value};
use audit_pgoutput::{Message, Scratch, decode};
use audit_testkit::{Postgres, shared_db};

use crate::Rig;

/// Passes each message to `each` until a transaction has ended, whole (`C`) or as a stream (`c`). Returns the number of
/// messages of each kind.
async fn transaction(receiver: &mut Receiver, mut each: impl FnMut(Message<'_>)) -> BTreeMap<char, u64> {
    let mut counts = BTreeMap::new();
    while !counts.contains_key(&'C') && !counts.contains_key(&'c') {
        let chunk = receiver.recv().await.unwrap().expect("the stream goes on");
        for frame in chunk.frames() {
            let Frame::XLogData { data, .. } = frame.unwrap() else { continue };
            *counts.entry(char::from(data[0])).or_default() += 1;
            if let Ok(message) = decode(data, &mut Scratch::default()) {
                each(message);
            }
        }
    }
    counts
}

/// ⚠ Transactions arrive when they have committed, and whole, whatever their size: what a rolled-back savepoint wrote
/// is not in them. In the parts of a transaction in progress nobody could know that.
#[tokio::test]
async fn a_transaction_comes_whole_and_without_what_was_rolled_back() {
    let server = Postgres::builder(15).setting("logical_decoding_work_mem", "64kB").start();
    let (name, url) = server.new_database();
    let rig = Rig::new(&server, &name);
    let mut receiver = rig.start(&url).await.unwrap();
    let (say, rows) = (
        "SELECT pg_logical_emit_message(true, 'cdc-audit',",
        "INSERT INTO t SELECT i, 'v' FROM generate_series(1, 5000) i;",
    );
    server.execute(
        &name,
        &format!("BEGIN; {say} 'kept'); {rows} SAVEPOINT s; {say} 'lost'); {rows} ROLLBACK TO s; {rows} {say} 'last'); COMMIT"),
    );
    let mut said = Vec::new();
    let counts = transaction(&mut receiver, |message| {
        if let Message::Logical { content, .. } = message {
            said.push(String::from_utf8(content.to_vec()).unwrap());
        }
    })
    .await;
    assert_eq!(said, ["kept", "last"]);
    assert_eq!(counts, BTreeMap::from([('B', 1), ('M', 2), ('R', 1), ('I', 10_000), ('C', 1)]));
}

/// ⚠ Columns arrive as text, also those of extensions, and the text is the same whatever settings the database has.
#[tokio::test]
async fn values_come_as_text_under_pinned_settings() {
    let db = shared_db(15).await;
    db.execute(&format!(
        "ALTER DATABASE {0} SET DateStyle = 'SQL, DMY'; ALTER DATABASE {0} SET bytea_output = 'escape';
         ALTER DATABASE {0} SET TimeZone = 'Asia/Kolkata'; ALTER DATABASE {0} SET IntervalStyle = 'iso_8601';
         ALTER DATABASE {0} SET extra_float_digits = 0; ALTER DATABASE {0} SET xmlbinary = 'hex'",
        db.name
    ));
    let rig = Rig::new(db.server, &db.name);
    db.execute(
        "CREATE EXTENSION hstore; CREATE EXTENSION citext;
         CREATE TABLE typed (i int, f float8, b bytea, d date, at timestamptz, span interval, h hstore, c citext)",
    );
    let mut receiver = rig.start(&db.url).await.unwrap();
    db.execute(
        "INSERT INTO typed VALUES (7, 0.1::float8 + 0.2, '\\x00ff', '2026-03-01', '2026-03-01 09:30:00+02', '1 day 02:00', 'a=>1', 'Ann')",
    );
    let text = |row: Row<'_>| -> Vec<String> {
        let value = |column: usize| match row.get(column) {
            Value::Text(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            _ => panic!("column {column} is no text"),
        };
        (0..row.len()).map(value).collect()
    };
    let mut rows = Vec::new();
    while rows.is_empty() {
        let counts = transaction(&mut receiver, |message| {
            if let Message::Insert { new, .. } = message {
                rows.push(text(new));
            }
        })
        .await;
        assert_eq!(counts.get(&'I').copied().unwrap_or_default(), rows.len() as u64, "what came is no text");
    }
    let expected = [
        "7",
        "0.30000000000000004",
        "\\x00ff",
        "2026-03-01",
        "2026-03-01 07:30:00+00",
        "1 day 02:00:00",
        "\"a\"=>\"1\"",
        "Ann",
    ];
    assert_eq!(rows, [expected.map(str::to_owned).to_vec()]);
}
