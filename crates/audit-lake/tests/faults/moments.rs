use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use audit_core::batch::Batch;
use audit_core::sink::{Action, Sink, SinkError};
use audit_lake::LakeSink;
use audit_testkit::Fixture;
use fail::FailScenario;

use crate::common::{Lake, identity, write};

const TABLE: &str = "table public.users (id int4 key, name text) full\n";

/// One row that is stored, and two that come next.
fn rows() -> (Vec<Batch>, Vec<Batch>, Fixture) {
    let mut fixture = Fixture::default();
    let head = fixture.batches(&format!("{TABLE}begin\ninsert public.users [1, \"Ann\"]\ncommit"));
    let more = fixture.batches("begin\ninsert public.users [2, \"Bea\"]\ninsert public.users [3, \"Cid\"]\ncommit");
    (head, more, fixture)
}

async fn take_in(sink: &mut LakeSink, batches: &[Batch]) {
    sink.write(&batches.iter().collect::<Vec<_>>()).await.unwrap();
}

/// Writes until the fault point, and pauses there.
async fn pause_at(point: &str, sink: &mut LakeSink, batches: &[Batch]) {
    fail::cfg(point, "1*return->off").unwrap();
    let paused = write(sink, batches).await.unwrap_err();
    assert_eq!(paused.action, Action::Retry, "{paused}");
    fail::remove(point);
}

/// What a paused daemon does when it wakes up.
async fn wake(sink: &mut LakeSink) -> SinkError {
    let error = sink.flush(true).await.unwrap_err();
    assert_eq!(error.action, Action::Fenced, "{error}");
    error
}

/// ⚠ Before a daemon adopts a file that the log does not name, it makes a commit of its own: the daemon that put the
/// file can no longer commit it if it wakes up in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_adopted_only_under_a_commit_of_ones_own() {
    let _scenario = FailScenario::setup();
    let (lake, (head, more, _)) = (Lake::new(), rows());
    let (mut first, _) = lake.taken().await;
    write(&mut first, &head).await.unwrap();
    pause_at("lake::before_commit", &mut first, &more).await;
    // The second has found the file, but has not committed it yet.
    let (mut second, _) = lake.taken().await;
    take_in(&mut second, &more).await;
    wake(&mut first).await;
    assert_eq!(lake.delta_rows("public.users").await.len(), 1, "the first committed something");
    second.flush(true).await.unwrap();
    assert_eq!(lake.agreed("public.users").await.len(), 3);
}

/// ⚠ The same before it removes one: a log cannot be read if it names a file that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_removed_only_under_a_commit_of_ones_own() {
    let _scenario = FailScenario::setup();
    let (lake, (head, more, _)) = (Lake::new(), rows());
    let (mut first, _) = lake.taken().await;
    write(&mut first, &head).await.unwrap();
    // Both have put the same versions; neither has committed them.
    pause_at("lake::before_put", &mut first, &more).await;
    let (mut second, _) = lake.taken().await;
    pause_at("lake::before_commit", &mut second, &more).await;
    fail::cfg("lake::before_commit", "1*return->off").unwrap();
    assert_eq!(first.flush(true).await.unwrap_err().action, Action::Retry);
    fail::remove("lake::before_commit");
    assert_eq!(lake.listed_files("public.users").len(), 3);
    // The third has removed one of the files; it does not matter which.
    let (mut third, _) = lake.taken().await;
    take_in(&mut third, &more).await;
    assert_eq!(lake.listed_files("public.users").len(), 2);
    wake(&mut first).await;
    wake(&mut second).await;
    third.flush(true).await.unwrap();
    assert_eq!(lake.agreed("public.users").await.len(), 3);
}

/// ⚠ The owner epoch is in the name of a file: a put that arrives late replaces nothing that another daemon has
/// committed.
#[tokio::test(flavor = "multi_thread")]
async fn no_daemon_overwrites_what_another_has_committed() {
    let _scenario = FailScenario::setup();
    let (lake, (head, more, _)) = (Lake::new(), rows());
    let (mut first, _) = lake.taken().await;
    write(&mut first, &head).await.unwrap();
    pause_at("lake::before_put", &mut first, &more).await;
    let (mut second, _) = lake.taken().await;
    write(&mut second, &more).await.unwrap();
    let committed = lake.listed_files("public.users");
    wake(&mut first).await;
    let now = lake.listed_files("public.users");
    assert_eq!(now.len(), committed.len() + 1, "the late file has a name of its own: {now:?}");
}

/// Every checkpoint is written create-only, under the next number: a daemon that was fenced finds its next number
/// taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_daemon_that_has_nothing_to_write_finds_out_too() {
    let _scenario = FailScenario::setup();
    let (lake, (head, _, mut fixture)) = (Lake::new(), rows());
    let (mut first, _) = lake.taken().await;
    write(&mut first, &head).await.unwrap();
    let (mut second, _) = lake.taken().await;
    let idle = fixture.batches("idle 0/99000");
    let error = write(&mut first, &idle).await.unwrap_err();
    assert_eq!(error.action, Action::Fenced, "{error}");
    write(&mut second, &idle).await.unwrap();
    assert_eq!(second.durable(), idle[0].progress);
}

/// ⚠ A file's name is only durable together with the folder that contains it; here the folder itself already existed.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_counts_once_its_folder_is_synced() {
    let _scenario = FailScenario::setup();
    let (lake, (head, more, _)) = (Lake::new(), rows());
    let (mut sink, _) = lake.taken().await;
    write(&mut sink, &head).await.unwrap();
    fail::cfg("lake::sync_folder", "return").unwrap();
    let error = write(&mut sink, &more).await.unwrap_err();
    assert_eq!(error.action, Action::Retry, "{error}");
    // It does not count later either, when the repeated write finds the file that the first one has left there.
    for _ in 0..5 {
        assert_eq!(sink.flush(true).await.unwrap_err().action, Action::Retry);
        assert_eq!(sink.durable(), head[0].progress);
    }
    fail::remove("lake::sync_folder");
    sink.flush(true).await.unwrap();
    assert_eq!(lake.agreed("public.users").await.len(), 3);
    assert_eq!(sink.durable(), more[0].progress);
}

/// After a refused version of a chunk was quarantined, the chunk's earlier rows are not stored twice: a refusal drops
/// what is in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_refused_midway_leaves_nothing() {
    let _scenario = FailScenario::setup();
    let (lake, (head, _, mut fixture)) = (Lake::new(), rows());
    let mut sink = lake.write(&head).await;
    let rows: String = (100..103).map(|id| format!("snapshot public.users [{id}, \"Old\"]\n")).collect();
    let chunk = fixture.batches(&format!("begin\nchunk public.users baseline=1 chunk=1 last for=lake\n{rows}commit"));
    let last = chunk[0].versions().last().unwrap().position();
    fail::cfg("lake::too_large", "2*off->1*return->off").unwrap();
    let error = sink.write(&[&chunk[0]]).await.unwrap_err();
    fail::remove("lake::too_large");
    assert_eq!(error.refused, Some(last), "{error}");
    sink.quarantine(std::sync::Arc::new([(last, audit_core::quarantine::Quarantined::default())].into()));
    assert_eq!(sink.write(&[&chunk[0]]).await.unwrap_err().action, Action::Restart);
    let stored = sink.take(&identity()).await.unwrap();
    sink.begin(stored.checkpoint.unwrap().progress()).await.unwrap();
    write(&mut sink, &chunk).await.unwrap();
    let rows = lake.agreed("public.users").await;
    assert!(rows.len() == 4 && rows[3].contains(" error "), "{rows:?}");
}

/// How often a folder is synced while `work` runs.
async fn syncs(work: impl Future) -> u32 {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    fail::cfg_callback("lake::sync_folder", move || {
        counted.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    work.await;
    fail::remove("lake::sync_folder");
    count.load(Ordering::Relaxed)
}

/// ⚠ The same for each sync separately: what is found to be ours after a put that failed at its end counts only after
/// it is synced.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_found_is_synced_before_it_counts() {
    let _scenario = FailScenario::setup();
    let (lake, (head, more, _)) = (Lake::new(), rows());
    let (mut sink, _) = lake.taken().await;
    write(&mut sink, &head).await.unwrap();
    let all = syncs(async { write(&mut sink, &more).await.unwrap() }).await;
    assert!(all >= 3, "a file, a commit, a checkpoint: {all}");
    for passage in 0..all {
        let (lake, (head, more, _)) = (Lake::new(), rows());
        let (mut sink, _) = lake.taken().await;
        write(&mut sink, &head).await.unwrap();
        // The sync fails, and so does the one that should make up for it.
        fail::cfg("lake::sync_folder", &format!("{passage}*off->2*return->off")).unwrap();
        let mut errors = 0;
        let mut done = write(&mut sink, &more).await;
        while let Err(error) = done {
            assert_eq!(error.action, Action::Retry, "{error}");
            assert_eq!(sink.durable(), head[0].progress, "passage {passage}");
            errors += 1;
            done = sink.flush(true).await;
        }
        assert!(errors > 0, "sync {passage} of {all} failed twice, and nobody heard of it");
        fail::remove("lake::sync_folder");
        assert_eq!(lake.agreed("public.users").await.len(), 3);
        assert_eq!(sink.durable(), more[0].progress);
    }
}

/// ⚠ A daemon relies on the tables' logs; the daemon that wrote them may have been killed before it could sync them.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_synced_by_the_next_daemon() {
    let _scenario = FailScenario::setup();
    let (lake, (head, _, _)) = (Lake::new(), rows());
    drop(lake.taken().await);
    let without = syncs(async { drop(lake.taken().await) }).await;
    lake.write(&head).await;
    let with = syncs(async { drop(lake.taken().await) }).await;
    // The log's folder, the table's and the lake's.
    assert_eq!(with, without + 3);
}
