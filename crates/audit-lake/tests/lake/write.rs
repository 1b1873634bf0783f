use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_core::batch::Batch;
use audit_core::quarantine::Quarantined;
use audit_core::sink::Sink;
use audit_lake::LakeSink;
use audit_testkit::Fixture;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use crate::common::{Lake, identity, row_at, start, write};

const USERS: &str = "table public.users (id int4 key, name text, price numeric(18,4)) full\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_there_once_for_both_kinds_of_readers() {
    let lake = Lake::new();
    let batches = Fixture::of(&format!(
        "{USERS}
         begin
         insert public.users [1, \"Ann\", 2.5]
         insert public.users [2, \"Bea\", null]
         commit
         begin
         update public.users [1, \"Ann\", 2.5] -> [1, \"Ann\", 3.5]
         delete public.users [2, \"Bea\", null]
         commit"
    ));
    let mut sink = lake.write(&batches).await;
    let rows = lake.agreed("public.users").await;
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert_eq!(sink.durable(), batches[0].progress);
    assert_eq!(sink.held_bytes(), 0);
    let update = row_at(&lake.listed_batches("public.users"), 1);
    assert_eq!(update["cdc_changes"], r#"{"price": ["2.5", "3.5"]}"#);
    assert_eq!(update["price"], "3.5000");
    // A repeat changes nothing.
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(lake.agreed("public.users").await, rows);
    // A repeat after a restart changes nothing either.
    lake.write(&batches).await;
    assert_eq!(lake.agreed("public.users").await, rows);
}

/// Inserts into `public.users`, each in its own transaction.
fn inserts(fixture: &mut Fixture, keys: std::ops::Range<u32>) -> Vec<Batch> {
    let insert = |key| format!("begin\ninsert public.users [{key}, \"n\", 1]\ncommit\n");
    fixture.batches(&keys.map(insert).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_close_by_rows_size_and_age() {
    let mut lake = Lake::new();
    lake.config.file_rows = 5000;
    let (mut sink, _) = lake.taken().await;
    let mut fixture = Fixture::default();
    let mut batches = fixture.batches(USERS);
    batches.extend(inserts(&mut fixture, 0..10_000));
    sink.write(&batches.iter().collect::<Vec<_>>()).await.unwrap();
    // Rows are encoded some thousands at a time: a file closes after the first of these steps that reaches its limit.
    let closed = lake.agreed("public.users").await.len();
    assert!((5000..10_000).contains(&closed), "{closed}");
    assert!(sink.held_bytes() > 0);

    // By age: `due` returns the time, and `flush` closes the file then and no earlier.
    let due = sink.due().unwrap();
    assert!(due > Instant::now());
    sink.flush(false).await.unwrap();
    assert_eq!(lake.delta_files("public.users").await.len(), 1);
    drop(sink);
    lake.config.file_age = Duration::ZERO.into();
    let (mut sink, _) = lake.taken().await;
    sink.write(&batches.iter().collect::<Vec<_>>()).await.unwrap();
    assert!(sink.due().unwrap() <= Instant::now());
    sink.flush(false).await.unwrap();
    assert_eq!(lake.agreed("public.users").await.len(), 10_000);
    assert_eq!(sink.due(), None);
    drop(sink);

    // By size, in several row groups and an upload in parts.
    lake.config.file_rows = 1_000_000;
    lake.config.file_bytes = audit_config::ByteSize::mib(12);
    lake.config.row_group_rows = 4096;
    let (mut sink, _) = lake.taken().await;
    let mut random = 1u64;
    let mut text = String::from("begin\n");
    for key in 0..16_384u32 {
        // Hex digits, which zstd compresses to half.
        let noise: String = (0..120)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                format!("{random:016x}")
            })
            .collect();
        text.push_str(&format!("insert public.users [{}, \"{noise}\", 1]\n", 20_000 + key));
    }
    let batches = fixture.batches(&format!("{text}commit"));
    sink.write(&batches.iter().collect::<Vec<_>>()).await.unwrap();
    let rows = lake.agreed("public.users").await.len();
    assert!((10_000..26_384).contains(&rows), "{rows}");
    let largest = lake.listed_files("public.users").iter().map(|path| path.metadata().unwrap().len()).max().unwrap();
    assert!((8 << 20..20 << 20).contains(&largest), "{largest}");
    sink.flush(true).await.unwrap();
    assert_eq!(lake.agreed("public.users").await.len(), 26_384);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_may_lag_behind_the_tables_never_lead() {
    let lake = Lake::new();
    let mut fixture = Fixture::default();
    let batches = fixture.batches(
        "table public.a (id int4 key) full
         table public.b (id int4 key) full
         begin
         insert public.a [1]
         commit
         ---
         begin
         insert public.b [1]
         insert public.b [2]
         commit
         ---
         begin
         insert public.a [2]
         commit",
    );
    let (mut sink, stored) = lake.taken().await;
    assert!(stored.checkpoint.is_none());
    assert_eq!(sink.durable(), start());
    for batch in &batches {
        sink.write(&[batch]).await.unwrap();
        assert_eq!(sink.durable(), start(), "nothing is committed yet");
    }
    sink.flush(true).await.unwrap();
    assert_eq!(sink.durable(), batches[2].progress);
    let (_, stored) = lake.taken().await;
    assert_eq!(stored.checkpoint.unwrap().progress(), batches[2].progress);
    let mut tables: Vec<String> = stored.shapes.iter().map(|shape| shape.name().to_string()).collect();
    tables.sort();
    assert_eq!(tables, ["public.a", "public.b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_last_ten_checkpoints_are_kept() {
    let lake = Lake::new();
    let (mut sink, _) = lake.taken().await;
    let mut fixture = Fixture::default();
    for at in 0..30 {
        let batches = fixture.batches(&format!("idle 1/{at:X}000"));
        write(&mut sink, &batches).await.unwrap();
        assert_eq!(sink.durable(), batches[0].progress);
    }
    let kept: Vec<_> = std::fs::read_dir(lake.path().join("_cdc_audit/checkpoint")).unwrap().collect();
    assert_eq!(kept.len(), 10);
    assert_eq!(lake.taken().await.1.checkpoint.unwrap().progress(), fixture.progress());
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_positions_are_stored_rarely() {
    let lake = Lake::new();
    let (mut sink, _) = lake.taken().await;
    let batches = Fixture::of("idle 1/1000");
    sink.write(&[&batches[0]]).await.unwrap();
    sink.flush(false).await.unwrap();
    assert_eq!(sink.durable(), start());
    let due = sink.due().unwrap();
    assert!(due > Instant::now() + Duration::from_secs(3000), "idle WAL is stored after file_age");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tables_share_the_memory_and_the_least_recent_closes_first() {
    let lake = Lake::new();
    let budget = 3 << 20;
    let mut sink = LakeSink::new("lake", &lake.config, budget).unwrap();
    sink.take(&identity()).await.unwrap();
    sink.begin(start()).await.unwrap();
    let mut fixture = Fixture::default();
    let noise = "0123456789abcdef".repeat(64);
    let mut expected = 0;
    for round in 0..3 {
        for table in 0..60 {
            let mut text = String::new();
            if round == 0 {
                text.push_str(&format!("table public.t{table} (id int4 key, name text) full\n"));
            }
            text.push_str("begin\n");
            for row in 0..50 {
                text.push_str(&format!("insert public.t{table} [{row}, \"{noise}\"]\n"));
            }
            let batches = fixture.batches(&format!("{text}commit"));
            sink.write(&[&batches[0]]).await.unwrap();
            assert!(sink.held_bytes() <= budget, "{}", sink.held_bytes());
            if round == 0 {
                expected += 50;
            }
        }
    }
    // The table that was written last still waits; the first one was closed to make room for it.
    assert!(lake.agreed("public.t59").await.len() < 150);
    assert!(lake.agreed("public.t0").await.len() >= 50);
    sink.flush(true).await.unwrap();
    let mut rows = 0;
    for table in 0..60 {
        rows += lake.agreed(&format!("public.t{table}")).await.len();
    }
    assert_eq!(rows, expected * 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_has_a_table_of_its_own_and_a_refused_version_stays_in_its_table() {
    let lake = Lake::new();
    let mut fixture = Fixture::default();
    let batches = fixture.batches(&format!(
        "{USERS}
         begin
         insert public.users [1, \"Ann\", 2.5]
         insert public.users [2, \"Bea\", 2.5]
         commit
         gap {{\"lost\": \"0/1000 to 0/2000\"}}"
    ));
    let (mut sink, _) = lake.taken().await;
    let refused = batches[0].versions().nth(1).unwrap().position();
    sink.quarantine(Arc::new([(refused, Quarantined::default())].into()));
    write(&mut sink, &batches).await.unwrap();
    let rows = lake.agreed("public.users").await;
    assert!(rows[0].ends_with("created 1") && rows[1].ends_with("error 2"), "{rows:?}");
    let row = row_at(&lake.listed_batches("public.users"), 1);
    assert!(!row.contains_key("name") && row["cdc_context"].contains("quarantined"), "{row:?}");
    let gaps = lake.agreed("cdc_audit.gap").await;
    assert!(gaps.len() == 1 && gaps[0].ends_with("gap -"), "{gaps:?}");
    assert_eq!(row_at(&lake.listed_batches("cdc_audit.gap"), 0)["cdc_context"], r#"{"lost":"0/1000 to 0/2000"}"#);
    assert!(lake.taken().await.1.shapes.iter().all(|shape| shape.schema == "public"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_by_the_oldest_readers_and_says_what_is_in_the_files() {
    let lake = Lake::new();
    let batches = Fixture::of(&format!(
        "{USERS}
         begin at=2026-03-01T10:00:00.123456Z
         insert public.users [1, \"Ann\", 2.5]
         insert public.users [20, null, -12345678901234.5]
         commit"
    ));
    lake.write(&batches).await;
    let log = lake.path().join("public.users/_delta_log/00000000000000000000.json");
    let text = std::fs::read_to_string(log).unwrap();
    let actions: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let action = |name: &str| actions.iter().find_map(|action| action.get(name)).unwrap();
    assert_eq!(action("protocol"), &serde_json::json!({"minReaderVersion": 1, "minWriterVersion": 2}));
    assert_eq!(action("metaData")["partitionColumns"], serde_json::json!(["year", "month", "day"]));
    assert_eq!(action("add")["partitionValues"], serde_json::json!({"year": "2026", "month": "3", "day": "1"}));
    let path = action("add")["path"].as_str().unwrap();
    assert!(path.starts_with("data/year=2026/month=03/day=01/0001-"), "{path}");
    let stats: Value = serde_json::from_str(action("add")["stats"].as_str().unwrap()).unwrap();
    assert_eq!(stats["numRecords"], 2);
    assert_eq!((&stats["minValues"]["id"], &stats["maxValues"]["id"]), (&1.into(), &20.into()));
    assert_eq!((&stats["minValues"]["cdc_key"], &stats["maxValues"]["cdc_key"]), (&"1".into(), &"20".into()));
    assert_eq!(stats["nullCount"]["name"], 1);
    assert_eq!(stats["maxValues"]["cdc_committed_at"], "2026-03-01T10:00:00.123456Z");
    let raw = action("add")["stats"].as_str().unwrap();
    assert!(raw.contains(r#""price":-12345678901234.5000"#), "{raw}");
    let txns: Vec<&str> = actions.iter().filter_map(|action| action.get("txn")?.get("appId")?.as_str()).collect();
    assert!(
        txns.contains(&"shop/epoch")
            && txns.contains(&"shop/lsn")
            && txns.contains(&"shop/seq")
            && txns.contains(&"shop/owner")
    );
}

/// Delta checkpoints are written automatically; the log can be read from one without the commits before it.
#[tokio::test(flavor = "multi_thread")]
async fn delta_checkpoints_are_written_and_positions_survive_log_clean_up() {
    let lake = Lake::new();
    let (mut sink, _) = lake.taken().await;
    let mut fixture = Fixture::default();
    let mut all = Vec::new();
    for key in 0..60u32 {
        let text = if key == 0 { USERS } else { "" };
        let batches = fixture.batches(&format!("{text}begin\ninsert public.users [{key}, \"n\", 1]\ncommit"));
        write(&mut sink, &batches).await.unwrap();
        all.extend(batches);
    }
    let log = lake.path().join("public.users/_delta_log");
    assert!(log.join("00000000000000000049.checkpoint.parquet").exists());
    assert!(log.join("_last_checkpoint").exists());
    // What the clean-up of the log removes after some time.
    for version in 0..49 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    lake.write(&all).await;
    assert_eq!(lake.agreed("public.users").await.len(), 60);
}

/// A dictionary and statistics would each keep copies of a large value.
#[tokio::test(flavor = "multi_thread")]
async fn large_rows_are_in_files_that_were_opened_for_them() {
    let mut lake = Lake::new();
    lake.config.keep_before = true;
    let mut fixture = Fixture::default();
    let mut batches = fixture.batches(USERS);
    // Enough rows that a file for small rows is being written.
    batches.extend(inserts(&mut fixture, 0..10_000));
    let large = "0123456789abcdef".repeat(512 << 10);
    let snapshots = |keys: std::ops::Range<u32>| -> String {
        keys.map(|key| format!("snapshot public.users [{key}, \"n\", 1]\n")).collect()
    };
    batches.extend(fixture.batches(&format!(
        "begin
         insert public.users [10000, \"{large}\", 1]
         update public.users [10000, \"{large}\", 1] -> [10000, \"{large}!\", 1]
         commit
         ---
         begin
         chunk public.users baseline=1 chunk=1 for=lake
         {}
         commit
         ---
         begin
         chunk public.users baseline=1 chunk=2 last for=lake
         {}
         snapshot public.users [30000, \"{large}\", 1]
         commit",
        snapshots(0..9_000),
        snapshots(9_000..18_000),
    )));
    let mut sink = LakeSink::new("lake", &lake.config, 256 << 20).unwrap();
    sink.take(&identity()).await.unwrap();
    sink.begin(start()).await.unwrap();
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(lake.agreed("public.users").await.len(), 28_003);
    let mut lean = 0;
    for path in lake.listed_files("public.users") {
        let file = std::fs::File::open(&path).unwrap();
        let footer = SerializedFileReader::new(file).unwrap().metadata().clone();
        let longest = footer.row_groups().iter().flat_map(|group| group.columns()).map(|c| c.uncompressed_size()).max();
        let texts = footer.row_groups().iter().flat_map(|group| group.columns()).filter(|column| {
            ["name", "cdc_before.name", "cdc_changes"].contains(&column.column_path().string().as_str())
        });
        for column in texts.filter(|_| longest.unwrap() > large.len() as i64) {
            assert!(column.dictionary_page_offset().is_none() && column.statistics().is_none(), "{column:?}");
            lean += 1;
        }
    }
    assert_eq!(lean, 6, "one file of the stream, one of the baseline");
}
