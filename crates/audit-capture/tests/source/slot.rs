//! A slot's state, in use, idle and lost.

use audit_capture::slot::{self, WalStatus};
use audit_testkit::{Postgres, eventually_async, shared_db, unique};

use crate::{hold, majors, open, session};

#[tokio::test]
async fn a_slots_state_is_read_on_every_major() {
    for major in majors() {
        let db = shared_db(major).await;
        let client = session(&db).await;
        let name = unique("slot");
        assert_eq!(slot::read(&client, &name).await.unwrap(), None);
        db.execute(&format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')"));
        let state = slot::read(&client, &name).await.unwrap().unwrap();
        assert_eq!(state.plugin.as_deref(), Some("pgoutput"));
        assert_eq!(state.database.as_deref(), Some(db.name.as_str()));
        assert_eq!((state.wal_status, state.lost(), &state.holder), (Some(WalStatus::Reserved), None, &None));
        assert!(!state.failover && !state.synced && !state.two_phase && !state.temporary);
        db.execute("SELECT pg_logical_emit_message(true, 'test', repeat('x', 100000))");
        let later = slot::read(&client, &name).await.unwrap().unwrap();
        assert!(later.lag_bytes().unwrap() >= state.lag_bytes().unwrap() + 100_000);
        assert!(later.retained_bytes() >= later.lag_bytes());
    }
}

#[tokio::test]
async fn a_failover_slot_is_known_as_one() {
    for major in majors().filter(|&major| major >= 17) {
        let db = shared_db(major).await;
        let name = unique("slot");
        db.execute(&format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput', false, false, true)"));
        assert!(slot::read(&session(&db).await, &name).await.unwrap().unwrap().failover);
    }
}

#[tokio::test]
async fn the_holder_is_named() {
    let db = shared_db(15).await;
    let (client, name) = (session(&db).await, unique("slot"));
    db.execute(&format!("SELECT pg_create_logical_replication_slot('{name}', 'test_decoding')"));
    let _holding = hold(&db.url, &name, "test_decoding", "other program");
    eventually_async("somebody holds the slot", async || {
        slot::read(&client, &name).await.unwrap().is_some_and(|state| state.holder.is_some())
    })
    .await;
    let holder = slot::read(&client, &name).await.unwrap().unwrap().holder.unwrap();
    assert_eq!(holder.application_name, "other program");
    assert_eq!(holder.to_string(), format!("pid {} (other program, 127.0.0.1)", holder.pid));
}

#[tokio::test]
async fn a_slot_that_fell_too_far_behind_is_lost() {
    for major in majors() {
        let server = Postgres::builder(major)
            .setting("max_slot_wal_keep_size", "1MB")
            .setting("min_wal_size", "32MB")
            .setting("max_wal_size", "32MB")
            .start();
        let client = open(&server.url("postgres")).await;
        server.execute("postgres", "SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
        let state = slot::read(&client, "s").await.unwrap().unwrap();
        assert!(state.safe_wal_size.is_some());
        for _ in 0..4 {
            server.execute("postgres", "SELECT pg_logical_emit_message(false, 'x', 'x'); SELECT pg_switch_wal();");
        }
        server.execute("postgres", "CHECKPOINT");
        let state = slot::read(&client, "s").await.unwrap().unwrap();
        assert_eq!((state.wal_status, state.lost()), (Some(WalStatus::Lost), Some("wal_removed")), "{major}");
    }
}

#[tokio::test]
async fn the_servers_patience_is_read() {
    let db = shared_db(15).await;
    let timeout = slot::wal_sender_timeout(&session(&db).await).await.unwrap();
    assert_eq!(timeout, Some(std::time::Duration::from_secs(60)));
}
