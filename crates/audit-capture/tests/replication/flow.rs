use std::time::{Duration, Instant};

use audit_capture::replication::Frame;
use audit_core::position::Lsn;
use audit_testkit::{Postgres, eventually, eventually_async, shared_db};

use crate::{Counts, Rig, count, receive_until};

/// Two hundred thousand rows in small transactions and one large transaction: every row arrives once.
#[tokio::test]
async fn everything_arrives_once_in_few_chunks() {
    for major in [14, 15, 16, 17, 18].into_iter().filter(|&major| Postgres::installed(major)) {
        let db = shared_db(major).await;
        let rig = Rig::new(db.server, &db.name);
        db.execute("ALTER TABLE t REPLICA IDENTITY FULL");
        let small = "DO $$ BEGIN FOR i IN 1..2000 LOOP
            INSERT INTO t SELECT i * 100 + g, repeat('x', 40) FROM generate_series(0, 99) g; COMMIT; END LOOP; END $$";
        db.execute(small);
        db.execute("INSERT INTO t SELECT g, repeat('y', 40) FROM generate_series(1, 100000) g");
        db.execute("UPDATE t SET v = 'z' WHERE id = 100; DELETE FROM t WHERE id = 101; TRUNCATE t");
        db.execute("SELECT pg_logical_emit_message(true, 'test', 'last')");

        let mut receiver = rig.start(&db.url).await.unwrap();
        let (mut counts, mut ids, mut last) = (Counts::new(), Vec::new(), Lsn::ZERO);
        while !counts.contains_key(&'M') {
            let chunk = receiver.recv().await.unwrap().unwrap();
            crate::count(&chunk, &mut counts);
            for frame in chunk.frames() {
                let Frame::XLogData { wal_start, data, .. } = frame.unwrap() else { continue };
                if data[0] == b'C' {
                    assert!(wal_start > last, "transactions come in order of their commits");
                    last = wal_start;
                }
                if data[0] == b'I' {
                    ids.push(first_column(data));
                }
            }
        }
        let expected: Vec<u32> = (100..200_100).chain(1..100_001).collect();
        assert!(ids == expected, "the rows, in order, on {major}");
        // Empty transactions before version 15, and the last commit, which may be in a later chunk, make these two
        // numbers inexact.
        assert!(counts.remove(&'B') >= Some(2_005) && counts.remove(&'C') >= Some(2_004));
        let expected = [('D', 2), ('I', 300_000), ('M', 1), ('R', 2), ('T', 1), ('U', 2)];
        assert_eq!(counts, Counts::from(expected), "on {major}");
        let traffic = receiver.traffic();
        assert!(traffic.chunks() < 20_000, "{} chunks for 304,012 messages", traffic.chunks());
        assert!(traffic.bytes() > 300_000 * 60 && traffic.reads() > 0 && traffic.last_read_at().is_some());
    }
}

/// The first column of an Insert, which is short text.
fn first_column(insert: &[u8]) -> u32 {
    let length = usize::from(insert[12]);
    std::str::from_utf8(&insert[13..13 + length]).unwrap().parse().unwrap()
}

/// Nothing waits for a later message or for a timer.
#[tokio::test]
async fn at_low_load_each_transaction_is_handed_over_at_once() {
    let db = shared_db(15).await;
    let rig = Rig::new(db.server, &db.name);
    let client = db.client().await;
    let mut receiver = rig.start(&db.url).await.unwrap();
    let (mut counts, mut delays) = (Counts::new(), Vec::new());
    for n in 1..=200 {
        client.execute("INSERT INTO t VALUES (1, 'x')", &[]).await.unwrap();
        let committed = Instant::now();
        receive_until(&mut receiver, &mut counts, 'C', n).await;
        delays.push(committed.elapsed());
    }
    delays.sort();
    let naps = receiver.traffic().naps();
    println!("commit to consumer: median {:?}, p99 {:?}, {naps} naps", delays[100], delays[198]);
}

/// The consumer does nothing for three times `wal_sender_timeout`, with more data under way than all buffers can hold.
#[tokio::test]
async fn a_consumer_that_does_not_read_loses_no_connection() {
    let server = Postgres::builder(15).setting("wal_sender_timeout", "2s").start();
    let rig = Rig::new(&server, "postgres");
    let mut receiver = rig.start(&server.url("postgres")).await.unwrap();
    server.execute("postgres", "INSERT INTO t SELECT g, repeat('x', 2000) FROM generate_series(1, 50000) g");
    let client = audit_testkit::connect(&server.url("postgres")).await;
    let query = "SELECT count(*) FROM pg_stat_replication \
                 WHERE application_name = 'audit-test' AND reply_time > backend_start + interval '6 s'";
    eventually_async("updates come for longer than wal_sender_timeout", async || {
        client.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let before = receiver.traffic().bytes();
    assert!(before < 50_000_000, "back-pressure reaches the server: {before} bytes were read");
    // The acknowledgement of what the sinks have stored gets through as well.
    let safe: Lsn =
        server.execute("postgres", "SELECT confirmed_flush_lsn + 1 FROM pg_replication_slots").parse().unwrap();
    rig.safe.send(safe).unwrap();
    let query = "SELECT flush_lsn::text FROM pg_stat_replication WHERE application_name = 'audit-test'";
    eventually_async("the flush position is reported", async || {
        client.query_one(query, &[]).await.unwrap().get::<_, Option<String>>(0) == Some(safe.to_string())
    })
    .await;
    receive_until(&mut receiver, &mut Counts::new(), 'I', 50_000).await;
}

/// Only what is stored is acknowledged, and soon.
#[tokio::test]
async fn the_server_hears_what_is_safe_and_nothing_more() {
    let db = shared_db(15).await;
    let rig = Rig::new(db.server, &db.name);
    let mut receiver = rig.start(&db.url).await.unwrap();
    let (mut counts, mut received) = (Counts::new(), Vec::new());
    for n in 1..=3 {
        db.execute("INSERT INTO t VALUES (1, 'x')");
        receive_until(&mut receiver, &mut counts, 'C', n).await;
        received.push(receiver.traffic().received());
    }
    let confirmed = format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'", rig.slot);
    assert!(db.execute(&confirmed).parse::<Lsn>().unwrap() < received[0], "received is not stored");
    // The first position is stored, the second is still under way.
    for safe in &received[..2] {
        rig.safe.send(*safe).unwrap();
        eventually("the slot moves to what is safe", || db.execute(&confirmed) == safe.to_string());
    }
}

#[tokio::test]
async fn a_message_of_fifty_megabytes_passes_and_leaves_no_memory() {
    let db = shared_db(15).await;
    let rig = Rig::new(db.server, &db.name);
    db.execute("INSERT INTO t VALUES (1, 'before'), (2, repeat('0123456789', 5000000)), (3, 'after')");
    let mut receiver = rig.start(&db.url).await.unwrap();
    let mut lengths = Vec::new();
    let mut sizes = Vec::new();
    while lengths.len() < 3 {
        let chunk = receiver.recv().await.unwrap().unwrap();
        sizes.push(chunk.size());
        lengths.extend(chunk.frames().filter_map(|frame| match frame.unwrap() {
            Frame::XLogData { data, .. } if data[0] == b'I' => Some(data.len()),
            _ => None,
        }));
    }
    let [before, large, after] = lengths[..] else { panic!("{lengths:?}") };
    assert!(before < 100 && after < 100 && large > 50_000_000, "{lengths:?}");
    assert_eq!(sizes.iter().max(), Some(&(large + 30)), "the buffer is as large as the message and its heads");
}

/// A receiver that is idle still receives requests and answers them.
#[tokio::test]
async fn an_idle_stream_lives_on_under_a_short_timeout() {
    let server = Postgres::builder(15).setting("wal_sender_timeout", "1s").start();
    let rig = Rig::new(&server, "postgres");
    let mut receiver = rig.start(&server.url("postgres")).await.unwrap();
    let begun = Instant::now();
    let mut keep_alives = 0;
    while begun.elapsed() < Duration::from_secs(4) || keep_alives == 0 {
        let Ok(chunk) = tokio::time::timeout(Duration::from_secs(1), receiver.recv()).await else { continue };
        let chunk = chunk.unwrap().unwrap();
        keep_alives += chunk.frames().filter(|frame| matches!(frame, Ok(Frame::KeepAlive { .. }))).count();
    }
}

#[tokio::test]
async fn a_large_message_waits_until_the_one_before_is_let_go_of() {
    let db = shared_db(15).await;
    let mut rig = Rig::new(db.server, &db.name);
    rig.message_limit = 4 << 20;
    db.execute("INSERT INTO t SELECT i, repeat('0123456789', 200000) FROM generate_series(1, 2) AS i");
    let mut receiver = rig.start(&db.url).await.unwrap();
    let (mut counts, mut permit) = (Counts::new(), None);
    while counts.get(&'I') != Some(&1) {
        let mut chunk = receiver.recv().await.unwrap().expect("the stream goes on");
        permit = permit.or(chunk.take_permit());
        count(&chunk, &mut counts);
    }
    assert!(permit.is_some(), "a chunk with a large message has a permit");
    let traffic = receiver.traffic();
    eventually("the second message begins", || traffic.bytes() > 2_200_000);
    db.execute("SELECT 1");
    assert!(traffic.bytes() < 2_500_000, "{} bytes were read", traffic.bytes());
    drop(permit);
    receive_until(&mut receiver, &mut counts, 'C', 1).await;
    assert_eq!(counts, Counts::from([('B', 1), ('R', 1), ('I', 2), ('C', 1)]));
}
