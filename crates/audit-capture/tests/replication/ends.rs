use audit_capture::replication::{Receiver, ReplicationError};
use audit_connect::Outcome;
use audit_core::position::Lsn;
use audit_testkit::{Postgres, Shutdown, eventually, shared_db};

use crate::{Counts, Rig, connect, receive_until, refused, text};

async fn to_the_end(receiver: &mut Receiver) -> Result<(), ReplicationError> {
    while receiver.recv().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn told_to_stop_it_reports_once_more_and_frees_the_slot() {
    let db = shared_db(15).await;
    let rig = Rig::new(db.server, &db.name);
    db.execute("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g");
    let mut receiver = rig.start(&db.url).await.unwrap();
    receive_until(&mut receiver, &mut Counts::new(), 'C', 1).await;
    let safe = receiver.traffic().received();
    // Both are sent at once, without time for an update in between.
    rig.safe.send(safe).unwrap();
    rig.stop.send(true).unwrap();
    to_the_end(&mut receiver).await.unwrap();
    assert!(receiver.recv().await.unwrap().is_none(), "and stays ended");
    let query = format!(
        "SELECT active_pid IS NULL AND confirmed_flush_lsn = '{safe}' FROM pg_replication_slots WHERE slot_name = '{}'",
        rig.slot
    );
    eventually("the slot is free and stands at what is safe", || db.execute(&query) == "t");
}

/// However far it lags, nobody has to read the backlog first.
#[tokio::test]
async fn told_to_stop_it_stops_in_the_middle_of_a_backlog() {
    let db = shared_db(15).await;
    let rig = Rig::new(db.server, &db.name);
    db.execute("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 200000) g");
    let mut receiver = rig.start(&db.url).await.unwrap();
    let mut counts = Counts::new();
    receive_until(&mut receiver, &mut counts, 'I', 1).await;
    rig.stop.send(true).unwrap();
    while let Some(chunk) = receiver.recv().await.unwrap() {
        crate::count(&chunk, &mut counts);
    }
    assert!(counts[&'I'] < 200_000, "{counts:?}");
}

#[tokio::test]
async fn a_dropped_receiver_frees_the_slot() {
    let db = shared_db(15).await;
    let rig = Rig::new(db.server, &db.name);
    let query = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{}'", rig.slot);
    let receiver = rig.start(&db.url).await.unwrap();
    assert_eq!(db.execute(&query), "t");
    drop(receiver);
    eventually("the slot is free", || db.execute(&query) == "f");
    // A client that never streamed ends just as quietly.
    let client = connect(&db.url).await.unwrap();
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND datname = current_database()";
    assert_eq!(db.execute(sessions), "1");
    drop(client);
    eventually("the connection is closed", || db.execute(sessions) == "0");
}

#[tokio::test]
async fn a_slot_in_use_names_who_uses_it() {
    let db = shared_db(15).await;
    let rig = Rig::new(db.server, &db.name);
    let _first = rig.start(&format!("{}?application_name=first", db.url)).await.unwrap();
    let error = refused(rig.start(&db.url).await);
    let pid = db.execute(&format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}'", rig.slot));
    assert_eq!(error.to_string(), format!("replication slot {} is in use by process {pid} (first)", rig.slot));
    assert!(matches!(error, ReplicationError::SlotInUse { .. }));
    assert_eq!(error.outcome(), Outcome::Retry);
}

#[tokio::test]
async fn what_is_missing_is_somebodys_to_fix() {
    let db = shared_db(15).await;
    let rig = Rig::new(db.server, &db.name);
    let mut options = rig.options();
    options.slot = "absent".to_owned();
    let error = refused(connect(&db.url).await.unwrap().start(options).await);
    assert_eq!(
        text(&error).split(" [").next(),
        Some("the server refused START_REPLICATION: replication slot \"absent\" does not exist (SQLSTATE 42704)")
    );
    assert_eq!(error.outcome(), Outcome::Fix);

    // pgoutput looks up its publications when it decodes.
    let mut options = rig.options();
    options.publications = vec!["it's \"absent\"".to_owned()];
    let mut receiver = connect(&db.url).await.unwrap().start(options).await.unwrap();
    db.execute("INSERT INTO t VALUES (1, 'x')");
    let error = refused(to_the_end(&mut receiver).await);
    assert_eq!(
        text(&error),
        "the server ended the stream: publication \"it's \"absent\"\" does not exist (SQLSTATE 42704) [these changes were made while there was no publication, and PostgreSQL cannot decode them: drop the slot (pg_drop_replication_slot), then `cdc-audit run --accept-gap` makes it anew, goes on, and records a gap in every sink]"
    );
    assert_eq!(error.outcome(), Outcome::Fix);
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_stream_after_what_came_before() {
    let db = shared_db(15).await;
    let mut rig = Rig::new(db.server, &db.name);
    rig.message_limit = 1 << 20;
    db.execute("INSERT INTO t VALUES (1, 'before'), (2, repeat('0123456789', 200000))");
    let mut receiver = rig.start(&db.url).await.unwrap();
    let mut counts = Counts::new();
    let error = loop {
        match receiver.recv().await {
            Ok(chunk) => crate::count(&chunk.unwrap(), &mut counts),
            Err(error) => break error,
        }
    };
    assert_eq!(counts, Counts::from([('B', 1), ('R', 1), ('I', 1)]));
    let ReplicationError::MessageTooLarge { lsn, length, limit } = error else { panic!("{error}") };
    assert!(lsn > Lsn::ZERO && length > 2_000_000 && limit == 1 << 20);
    assert_eq!(error.outcome(), Outcome::Fix);
    assert!(receiver.recv().await.unwrap().is_none(), "the error comes once");
}

#[tokio::test]
async fn a_killed_server_and_a_killed_walsender_are_tried_again() {
    let server = Postgres::start(15);
    let rig = Rig::new(&server, "postgres");
    let url = server.url("postgres");
    let mut receiver = rig.start(&url).await.unwrap();
    server.execute("postgres", "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots");
    let error = refused(to_the_end(&mut receiver).await);
    assert_eq!(
        (error.sqlstate().map(|code| code.code()), error.outcome()),
        (Some("57P01"), Outcome::Retry),
        "{}",
        text(&error)
    );

    eventually("the slot is free", || server.execute("postgres", "SELECT active FROM pg_replication_slots") == "f");
    let mut receiver = rig.start(&url).await.unwrap();
    server.kill9();
    let error = refused(to_the_end(&mut receiver).await);
    assert_eq!(error.outcome(), Outcome::Retry, "{}", text(&error));
    assert_eq!(refused(connect(&url).await).outcome(), Outcome::Retry);
}

/// A server waits for its walsenders until everything is acknowledged, which may never be the case.
#[tokio::test]
async fn a_server_that_shuts_down_is_not_held_up() {
    let server = Postgres::start(15);
    let rig = Rig::new(&server, "postgres");
    let mut receiver = rig.start(&server.url("postgres")).await.unwrap();
    server.execute("postgres", "INSERT INTO t VALUES (1, 'x')");
    receive_until(&mut receiver, &mut Counts::new(), 'C', 1).await;
    // Something is acknowledged, but not all: the position before the last commit.
    let safe: Lsn =
        server.execute("postgres", "SELECT confirmed_flush_lsn + 1 FROM pg_replication_slots").parse().unwrap();
    rig.safe.send(safe).unwrap();
    let query = format!("SELECT flush_lsn = '{safe}' FROM pg_stat_replication");
    eventually("the server knows", || server.execute("postgres", &query) == "t");
    let stopping = tokio::task::spawn_blocking(move || {
        server.stop(Shutdown::Fast);
        server
    });
    let error = refused(to_the_end(&mut receiver).await);
    assert!(matches!(error, ReplicationError::ShuttingDown), "{}", text(&error));
    assert_eq!(error.outcome(), Outcome::Retry);
    let server = stopping.await.unwrap();
    server.start_again();
    let mut receiver = rig.start(&server.url("postgres")).await.unwrap();
    receive_until(&mut receiver, &mut Counts::new(), 'C', 1).await;
}

/// If everything is stored, the server ends the stream by itself.
#[tokio::test]
async fn a_server_that_shuts_down_ends_a_stream_that_is_acknowledged() {
    let server = Postgres::start(15);
    let rig = Rig::new(&server, "postgres");
    let mut receiver = rig.start(&server.url("postgres")).await.unwrap();
    let stopping = tokio::task::spawn_blocking(move || server.stop(Shutdown::Fast));
    let error = loop {
        match receiver.recv().await {
            // This consumer stores everything as soon as it arrives.
            Ok(_) => drop(rig.safe.send(receiver.traffic().received())),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, ReplicationError::Ended { source: None } | ReplicationError::Lost { .. }),
        "{}",
        text(&error)
    );
    assert_eq!(error.outcome(), Outcome::Retry);
    stopping.await.unwrap();
}
