//! A lake that is put back to an earlier state while a daemon runs.

use std::path::Path;

use audit_core::batch::{Batch, Progress};
use audit_core::position::{Lsn, Position};
use audit_core::sink::{Action, Sink, SinkError};
use audit_testkit::Fixture;

use crate::common::{Lake, identity, write};

fn went_back(error: &SinkError, path: &str) {
    assert_eq!(error.action, Action::Restart, "{error}");
    assert!(error.message.contains("went back to an earlier state than this process has stored"), "{error}");
    assert!(error.message.contains(path) && error.hint.is_some(), "{error}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

fn put_back(lake: &Lake, from: &Path) {
    for entry in std::fs::read_dir(lake.path()).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    copy(from, lake.path());
}

/// One row for each of these tables, in a transaction.
fn rows(fixture: &mut Fixture, tables: &[&str], id: u32) -> Vec<Batch> {
    let rows: String = tables.iter().map(|table| format!("insert public.{table} [{id}]\n")).collect();
    fixture.batches(&format!("begin\n{rows}commit"))
}

/// Progress that was reported as durable was acknowledged, and will not be sent again by itself. The log of the table
/// that is written to may be complete: then the checkpoint shows what another table has lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_was_put_back_is_not_written_on() {
    for (lost, more, tells) in [
        (["a"].as_slice(), ["a"].as_slice(), "public.a/_delta_log/00000000000000000001.json"),
        (&["a"], &["b"], "_cdc_audit/checkpoint/"),
        (&["c"], &["c"], "public.c/_delta_log/00000000000000000000.json"),
        (&[], &["a"], "_cdc_audit/checkpoint/"),
    ] {
        let lake = Lake::new();
        let mut fixture = Fixture::default();
        fixture.batches(
            "table public.a (id int4 key) full\ntable public.b (id int4 key) full\ntable public.c (id int4 key) full",
        );
        let mut sink = lake.write(&rows(&mut fixture, &["a", "b"], 1)).await;
        let earlier = tempfile::tempdir().unwrap();
        copy(lake.path(), earlier.path());
        let lost = rows(&mut fixture, lost, 2);
        write(&mut sink, &lost).await.unwrap();
        let stood = sink.durable();
        put_back(&lake, earlier.path());

        let more = rows(&mut fixture, more, 3);
        went_back(&write(&mut sink, &more).await.unwrap_err(), tells);
        assert_eq!(sink.durable(), stood);
        // After a new takeover the sink reports what is stored; versions that are sent again are stored once.
        let (mut sink, stored) = lake.taken().await;
        assert!(stored.checkpoint.unwrap().flushed_lsn < stood.flushed_lsn);
        write(&mut sink, &lost).await.unwrap();
        write(&mut sink, &more).await.unwrap();
        let mut keys = Vec::new();
        for table in ["a", "b", "c"] {
            keys.extend(lake.agreed(&format!("public.{table}")).await);
        }
        let expected = 2 + lost.iter().chain(&more).map(Batch::len).sum::<usize>();
        assert_eq!(keys.len(), expected, "{keys:?}");
    }
}

/// ⚠ Then the checkpoint is intact. It goes back with the tables, so that no later takeover takes for stored what they have
/// lost: neither what the table that shows it has lost, nor what another one has.
#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_goes_back_with_a_table_that_was_put_back_alone() {
    let (lake, earlier) = (Lake::new(), tempfile::tempdir().unwrap());
    let mut fixture = Fixture::default();
    fixture.batches(
        "table public.a (id int4 key) full\ntable public.b (id int4 key) full\ntable public.c (id int4 key) full",
    );
    let mut sink = lake.write(&rows(&mut fixture, &["b", "c"], 1)).await;
    copy(&lake.path().join("public.b"), &earlier.path().join("public.b"));
    let kept = rows(&mut fixture, &["a"], 2);
    write(&mut sink, &kept).await.unwrap();
    copy(&lake.path().join("public.a"), &earlier.path().join("public.a"));
    let lost = rows(&mut fixture, &["a", "b", "c"], 3);
    write(&mut sink, &lost).await.unwrap();
    let stood = sink.durable();
    for table in ["public.a", "public.b"] {
        std::fs::remove_dir_all(lake.path().join(table)).unwrap();
        copy(&earlier.path().join(table), &lake.path().join(table));
    }

    let more = rows(&mut fixture, &["a"], 4);
    went_back(&write(&mut sink, &more).await.unwrap_err(), "public.a/_delta_log/00000000000000000001.json");
    assert_eq!(sink.durable(), stood);
    for _ in 0..2 {
        let (_, stored) = lake.taken().await;
        let progress = stored.checkpoint.unwrap().progress();
        assert!(progress.flushed_lsn < kept[0].progress.flushed_lsn, "{progress:?}");
        assert_eq!(progress.position.epoch, stood.position.epoch);
    }
    let (mut sink, _) = lake.taken().await;
    for batches in [&kept, &lost, &more] {
        write(&mut sink, batches).await.unwrap();
    }
    let mut counts = Vec::new();
    for table in ["public.a", "public.b", "public.c"] {
        counts.push(lake.agreed(table).await.len());
    }
    assert_eq!((counts, sink.durable()), (vec![3, 2, 2], more[0].progress));
}

/// ⚠ If the daemon is killed before the record of the gap is committed, the next start must find the gap again.
#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_does_not_pass_a_gap_before_its_record() {
    let lake = Lake::new();
    let mut fixture = Fixture::default();
    fixture.batches("table public.a (id int4 key) full");
    let stood = lake.write(&rows(&mut fixture, &["a"], 1)).await.durable();
    let at = Lsn(stood.flushed_lsn.0 + 0x1000);
    fixture.epoch(2, at);
    let gap = fixture.batches("gap {\"lost\": \"all\"}");
    let mut sink = lake.sink();
    sink.take(&identity()).await.unwrap();
    let start = Progress { position: Position::new(2, Lsn::ZERO, 0), change_lsn: Lsn::ZERO, flushed_lsn: at };
    sink.begin(start).await.unwrap();
    sink.flush(true).await.unwrap();
    assert_eq!(sink.durable(), stood, "the record has not come yet");
    sink.write(&gap.iter().collect::<Vec<_>>()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    sink.flush(false).await.unwrap();
    assert_eq!(sink.durable(), stood, "the record is in memory only");
    sink.flush(true).await.unwrap();
    assert!(sink.durable().position.epoch == 2 && sink.durable().position.commit_lsn > Lsn::ZERO);
    assert_eq!(lake.agreed("cdc_audit.gap").await.len(), 1);
}

/// An entry that another tool cleaned up does not mean an earlier state.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_was_cleaned_up_is_not_missed() {
    let lake = Lake::new();
    let mut fixture = Fixture::default();
    fixture.batches("table public.a (id int4 key) full");
    let (mut sink, _) = lake.taken().await;
    // The fiftieth entry has a Delta checkpoint.
    for id in 0..50 {
        write(&mut sink, &rows(&mut fixture, &["a"], id)).await.unwrap();
    }
    let log = lake.path().join("public.a/_delta_log");
    assert!(log.join("00000000000000000049.checkpoint.parquet").exists());
    std::fs::remove_file(log.join("00000000000000000049.json")).unwrap();
    write(&mut sink, &rows(&mut fixture, &["a"], 50)).await.unwrap();
    assert_eq!(lake.delta_rows("public.a").await.len(), 51);
}
