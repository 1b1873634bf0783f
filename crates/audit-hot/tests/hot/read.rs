//! The trail is read back.

use audit_core::position::{Lsn, Micros};
use audit_core::stored::Record;
use audit_hot::{HotReader, Selection};
use audit_testkit::Fixture;
use futures::{StreamExt, TryStreamExt};

use crate::fixture::{Hot, write};

fn shown(history: &[Record]) -> Vec<String> {
    history.iter().map(|v| format!("{} {} {}", v.position.seq, v.event, v.key.as_deref().unwrap_or("-"))).collect()
}

async fn history(reader: &HotReader, key: &str) -> Vec<String> {
    shown(&reader.history("shop", "public.t", key, 100).await.unwrap())
}

#[tokio::test]
async fn a_row_is_followed_through_the_changes_of_its_key() {
    let hot = Hot::new().await;
    let batches = Fixture::of(
        r#"table public.t (id int4 key, a text)
           begin
           insert public.t [1, "x"]
           insert public.t [5, "other"]
           update public.t [1, "x"] -> [2, "x"]
           update public.t [2, "x"] -> [2, "y"]
           insert public.t [1, "new row"]
           update public.t [2, "y"] -> [3, "y"]
           delete public.t [1, "new row"]
           insert public.t [2, "a third"]
           delete public.t [3, "y"]
           insert public.t [3, "a fourth"]
           commit"#,
    );
    write(&mut hot.taken().await, &batches).await.unwrap();
    let reader = hot.reader().await;
    // Asked for by its last key: the row that had it, and also the other row that has it now.
    let row = ["8 deleted 3", "5 updated 3", "3 updated 2", "2 updated 2", "0 created 1"];
    assert_eq!(history(&reader, "3").await, [&["9 created 3"], &row[..]].concat());
    assert_eq!(history(&reader, "2").await, [&row[..1], &["7 created 2"], &row[1..]].concat());
    assert_eq!(
        history(&reader, "1").await,
        [&row[..1], &["6 deleted 1"], &row[1..2], &["4 created 1"], &row[2..]].concat()
    );
    assert_eq!(history(&reader, "5").await, ["1 created 5"]);
    assert_eq!(history(&reader, "7").await, [""; 0]);
    let newest = reader.history("shop", "public.t", "3", 2).await.unwrap();
    assert_eq!(shown(&newest), ["9 created 3", "8 deleted 3"]);
    assert!(reader.history("other", "public.t", "1", 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_key_that_comes_back_is_no_endless_path() {
    let hot = Hot::new().await;
    let swap = "update public.t [1, \"x\"] -> [2, \"x\"]\nupdate public.t [2, \"x\"] -> [1, \"x\"]\n";
    let text =
        format!("table public.t (id int4 key, a text)\nbegin\ninsert public.t [1, \"x\"]\n{}commit", swap.repeat(5));
    write(&mut hot.taken().await, &Fixture::of(&text)).await.unwrap();
    let reader = hot.reader().await;
    for key in ["1", "2"] {
        let found = reader.history("shop", "public.t", key, 100).await.unwrap();
        let seqs: Vec<u32> = found.iter().map(|version| version.position.seq).collect();
        assert_eq!(seqs, (0..=10).rev().collect::<Vec<u32>>(), "{key}");
    }
}

#[tokio::test]
async fn a_truncation_ends_the_rows_that_were_there() {
    let hot = Hot::new().await;
    let batches = Fixture::of(
        r#"table public.t (id int4 key, a text)
           begin
           truncate public.t
           insert public.t [1, "x"]
           truncate public.t
           truncate public.t
           insert public.t [1, "y"]
           delete public.t [1, "y"]
           truncate public.t
           commit"#,
    );
    write(&mut hot.taken().await, &batches).await.unwrap();
    let reader = hot.reader().await;
    assert_eq!(history(&reader, "1").await, ["5 deleted 1", "4 created 1", "2 truncated -", "1 created 1"]);
    assert_eq!(
        shown(&reader.history("shop", "public.t", "1", 3).await.unwrap()),
        ["5 deleted 1", "4 created 1", "2 truncated -"]
    );
    let newest = reader.history("shop", "public.t", "1", 1).await.unwrap();
    assert_eq!(newest[0].summary, "A was y and id was 1.");
}

#[tokio::test]
async fn a_record_comes_back_whole() {
    let hot = Hot::new().await;
    let batches = Fixture::of(
        r#"table public.t (id int4 key, a jsonb, b text) default
           begin at=2026-03-01T09:30:00.000001Z lsn=0/5000 xid=4000000000
           context {"actor_id": "u1", "actor": {"n": 1}, "reason": "why"}
           insert public.t [1, "{\"n\": 12345678901234567890.10}", null]
           update public.t -> [1, "[]", {}]
           commit
           ---
           chunk public.t chunk=1
           begin
           snapshot public.t [2, null, null]
           commit"#,
    );
    write(&mut hot.taken().await, &batches).await.unwrap();
    let reader = hot.reader().await;
    let found = reader.history("shop", "public.t", "1", 10).await.unwrap();
    let text = serde_json::to_string(&Record { recorded_at: Micros(0), ..found[1].clone() }).unwrap();
    let expected = r#"{"source":"shop","position":"0001:0000000000005000:0000000000","table_name":"public.t","item_type":"t","key":"1","old_key":null,"event":"created","changes":{"a": [null, {"n": 12345678901234567890.10}], "b": [null, null], "id": [null, 1]},"before":null,"after":{"a": {"n": 12345678901234567890.10}, "b": null, "id": 1},"changed":null,"before_known":true,"unknown":[],"carried":[],"included":null,"actor_id":"u1","actor":{"n": 1},"reason":"why","context":{"actor": {"n": 1}, "reason": "why", "actor_id": "u1"},"actor_source":"context","context_verified":false,"xid":4000000000,"commit_lsn":"0/5000","lsn":"0/5008","seq":0,"committed_at":"2026-03-01T09:30:00.000001Z","recorded_at":"1970-01-01T00:00:00.000000Z","schema_version":1,"baseline":null,"tenant":null,"summary":"A set to {\"n\":1.2345678901234567e19} and id set to 1."}"#;
    let summary_at = |text: &str| text.split(",\"summary\"").next().unwrap().to_owned();
    assert_eq!(summary_at(&text), summary_at(expected));
    assert!(!found[0].before_known);
    assert_eq!(found[0].unknown, ["b"]);
    assert_eq!(found[0].summary, "Updated; what changed is not known.");
    let snapshot = &reader.history("shop", "public.t", "2", 10).await.unwrap()[0];
    assert_eq!((snapshot.event.as_str(), snapshot.baseline), ("snapshot", Some(1)));
}

#[tokio::test]
async fn an_export_is_in_order_of_position_and_within_its_bounds() {
    let hot = Hot::new().await;
    let transaction = |month: u32, table: &str| {
        format!(
            "begin at=2026-{month:02}-15T00:00:00Z\ninsert public.{table} [{month}]\ninsert public.{table} [{}]\ncommit\n",
            month + 100
        )
    };
    // Commit times need not follow the order of the WAL.
    let text: String = [5, 3, 7, 4].iter().map(|month| transaction(*month, "t")).collect();
    let text = format!("table public.t (id int4 key)\ntable public.u (id int4 key)\n{text}{}", transaction(6, "u"));
    write(&mut hot.taken().await, &Fixture::of(&text)).await.unwrap();
    let reader = hot.reader().await;
    let keys = async |selection: Selection| {
        let count = reader.count(&selection).await.unwrap();
        let rows: Vec<Record> = reader.export(&selection).await.unwrap().try_collect().await.unwrap();
        assert_eq!(rows.len() as u64, count);
        assert!(rows.is_sorted_by_key(|version| version.position));
        rows.into_iter().filter_map(|version| version.key).collect::<Vec<_>>().join(" ")
    };
    let all = Selection { source: "shop".into(), ..Selection::default() };
    assert_eq!(keys(all.clone()).await, "5 105 3 103 7 107 4 104 6 106");
    assert_eq!(keys(Selection { tables: vec!["public.u".into()], ..all.clone() }).await, "6 106");
    // 2026-04-15 and 2026-06-15.
    let (since, until) = (Some(Micros(1_776_211_200_000_000)), Some(Micros(1_781_481_600_000_000)));
    assert_eq!(keys(Selection { since, until, ..all.clone() }).await, "5 105 4 104");
    assert_eq!(keys(Selection { since, until, tables: vec!["public.u".into(), "x".into()], ..all.clone() }).await, "");
    assert_eq!(keys(Selection { since, ..all.clone() }).await, "5 105 7 107 4 104 6 106");
    assert_eq!(keys(Selection { source: "none".into(), ..all }).await, "");
}

/// Rows that were not read yet stay on the server.
#[tokio::test]
async fn an_export_gathers_nothing() {
    let hot = Hot::new().await;
    hot.sql(
        "INSERT INTO cdc_audit.versions (source, position, table_name, item_type, event, before_known, xid, commit_lsn, lsn, seq, \
           committed_at, schema_version, after) \
         SELECT 'shop', '0001:0000000000000001:' || lpad(i::text, 10, '0'), 't', 't', 'created', true, 1, '0/1', '0/1', i, \
           date_trunc('month', now()), 1, jsonb_build_object('v', repeat('x', 100000)) FROM generate_series(1, 2000) i",
    );
    let reader = hot.reader().await;
    let selection = Selection { source: "shop".into(), ..Selection::default() };
    let mut rows = Box::pin(reader.export(&selection).await.unwrap());
    assert!(rows.next().await.unwrap().is_ok());
    let before = resident();
    // The server has sent what fits into the socket, and waits.
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite' AND datname = current_database()";
    audit_testkit::eventually_async("the server waits for us", async || hot.sql(waiting) == "1").await;
    let after = resident();
    assert!(after.saturating_sub(before) < 50 << 20, "{before} {after}");
    assert_eq!(rows.count().await, 1999);
}

/// Within a look the session answers a question while the rows of another answer are still to come.
#[tokio::test]
async fn questions_of_a_look_do_not_wait_for_each_other() {
    let hot = Hot::new().await;
    hot.sql(
        "INSERT INTO cdc_audit.versions (source, position, table_name, item_type, key, event, before_known, xid, commit_lsn, lsn, seq, \
           committed_at, schema_version, after) \
         SELECT 'shop', '0001:0000000000000001:' || lpad(i::text, 10, '0'), 't', 't', i::text, 'created', true, 1, '0/1', '0/1', i, \
           date_trunc('month', now()), 1, jsonb_build_object('v', repeat('x', 10000)) FROM generate_series(1, 3000) i",
    );
    let reader = hot.reader().await;
    reader.pin("shop").await.unwrap();
    let selection = Selection { source: "shop".into(), tables: vec!["t".into()], ..Selection::default() };
    let mut first = Box::pin(reader.export(&selection).await.unwrap());
    let mut second = Box::pin(reader.export(&selection).await.unwrap());
    let mut read = 0;
    while let Some(record) = first.next().await {
        let record = record.unwrap();
        assert_eq!(second.next().await.unwrap().unwrap().position, record.position);
        if read % 500 == 0 {
            let trail = reader.history("shop", "t", record.key.as_deref().unwrap(), 10).await.unwrap();
            assert_eq!(trail.len(), 1);
        }
        read += 1;
    }
    assert_eq!(read, 3000);
    reader.unpin().await.unwrap();
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    pages * 4096
}

#[tokio::test]
async fn sinks_are_shown_without_taking_them() {
    let hot = Hot::new().await;
    let reader = hot.reader().await;
    let fresh = reader.sinks("shop").await.unwrap();
    assert_eq!((fresh.len(), fresh[0].sink.as_str(), fresh[0].owner_epoch), (1, "hot", 0));
    assert!(fresh[0].checkpoint.is_none() && fresh[0].owner.is_none());
    let mut sink = hot.taken().await;
    write(&mut sink, &Fixture::of("idle 0/9000")).await.unwrap();
    let used = &reader.sinks("shop").await.unwrap()[0];
    assert_eq!(used.owner_epoch, 1);
    assert!(used.owner.as_ref().unwrap().starts_with(&format!("process {} (", std::process::id())), "{used:?}");
    assert_eq!(used.checkpoint.as_ref().unwrap().flushed_lsn, Lsn(0x9000));
    assert!(used.updated_at > Micros(0));
    write(&mut sink, &Fixture::of("idle 0/9999")).await.unwrap();
}

#[tokio::test]
async fn a_table_altered_by_hand_is_no_reason_to_panic() {
    let hot = Hot::new().await;
    hot.sql("DROP VIEW cdc_audit.trail; ALTER TABLE cdc_audit.versions ALTER COLUMN seq TYPE text");
    let Err(error) = HotReader::connect(&hot.config.endpoint).await else { panic!("it must be seen") };
    assert!(error.to_string().contains("column seq is text, not bigint"), "{error}");
    assert!(error.hint().is_some());
}
