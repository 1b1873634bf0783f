//! Teardown drops what setup made, and nothing else.

use audit_capture::{apply, teardown};
use audit_core::rules::Rules;
use audit_testkit::{eventually_async, shared_db};

use crate::{hold, majors, notes, open, session, set_up, source, statements};

#[tokio::test]
async fn everything_that_setup_made_is_dropped() {
    for major in majors() {
        let db = shared_db(major).await;
        db.execute("CREATE TABLE t (id int PRIMARY KEY)");
        let (client, source) = (session(&db).await, source(&db.url));
        set_up(&source, &Rules::default(), Some(&[])).await;
        let plan = teardown::plan(&client, &source, "postgres").await.unwrap();
        assert_eq!(plan.refusals, []);
        assert_eq!(statements(&plan).len(), 13);
        assert!(notes(&plan)[0].starts_with("1 tables have REPLICA IDENTITY FULL and keep it"));
        apply(&plan, &client, None, |_| {}).await.unwrap();
        let left = db.execute(
            "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) +
                    (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc_audit')",
        );
        assert_eq!(left, "0");
        let again = teardown::plan(&client, &source, "postgres").await.unwrap();
        assert_eq!(statements(&again), [""; 0]);
    }
}

#[tokio::test]
async fn what_others_made_stays() {
    let db = shared_db(15).await;
    let (client, source) = (session(&db).await, source(&db.url));
    set_up(&source, &Rules::default(), None).await;
    db.execute("CREATE TABLE cdc_audit.versions (position text)");
    let plan = teardown::plan(&client, &source, "postgres").await.unwrap();
    assert_eq!(notes(&plan), ["schema cdc_audit stays: it holds 1 other objects"]);
    apply(&plan, &client, None, |_| {}).await.unwrap();
    assert_eq!(db.execute("SELECT relname FROM pg_class WHERE relnamespace = 'cdc_audit'::regnamespace"), "versions");
    // A slot of the same name that does not belong to us.
    db.execute(&format!("SELECT pg_create_logical_replication_slot('{}', 'test_decoding')", source.slot));
    let plan = teardown::plan(&client, &source, "postgres").await.unwrap();
    assert_eq!(statements(&plan), [""; 0]);
    assert!(notes(&plan)[0].ends_with("is not of this source and stays"));
}

#[tokio::test]
async fn a_slot_in_use_is_not_dropped() {
    let db = shared_db(15).await;
    let (client, source) = (open(&db.url).await, source(&db.url));
    set_up(&source, &Rules::default(), None).await;
    let _holding = hold(&db.url, &source.slot, "pgoutput", "cdc-audit");
    eventually_async("the slot is in use", async || {
        let plan = teardown::plan(&client, &source, "postgres").await.unwrap();
        plan.refusals.first().is_some_and(|refusal| {
            refusal.message.contains("is in use by pid") && refusal.message.contains("(cdc-audit, 127.0.0.1)")
        })
    })
    .await;
}
