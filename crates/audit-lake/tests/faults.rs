//! The lake is interrupted at every step, and then continued.
//!
//! Each run makes one passage of one fault point fail and drops the sink there, as a kill would leave it. A new sink
//! takes the lake over, the stream begins again where the lake's checkpoint says, and chunks that it lacks are read
//! again at a later watermark, on another day. Then both kinds of readers must see each version once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

/// Files that wait until the stream reaches their end.
#[path = "faults/adopted.rs"]
mod adopted;
#[path = "common/mod.rs"]
mod common;
/// Compactions that run at the same time.
#[path = "faults/compactions.rs"]
mod compactions;
/// Two daemons, or a failing disk, at a certain moment.
#[path = "faults/moments.rs"]
mod moments;
/// Rolls that are not finished.
#[path = "faults/rolls.rs"]
mod rolls;
/// Lakes that keep tenants apart.
#[path = "faults/tenants.rs"]
mod tenants;

use audit_core::batch::Batch;
use audit_core::sink::{Action, Sink};
use audit_testkit::Fixture;
use common::Lake;
use common::story::{CHUNKS, TABLES, World, check, first_run, next_run, positions, read_at};
use fail::FailScenario;

const POINTS: [&str; 8] = [
    "lake::after_take",
    "lake::before_put",
    "lake::after_put",
    "lake::before_commit",
    "lake::after_commit",
    "lake::before_checkpoint",
    "lake::after_checkpoint",
    "lake::before_adopt",
];

/// Makes passage `passage` of `point` fail. Returns false if there is no such passage.
async fn broken_off(lake: Lake, point: &str, passage: u32, whole: bool) -> bool {
    let mut world = World::new();
    fail::cfg(point, &format!("{passage}*off->1*return->off")).unwrap();
    let broken = first_run(&lake, &world, whole).await;
    fail::remove(point);
    let Err(error) = broken else { return false };
    assert_eq!(error.action, Action::Retry, "{error}");
    next_run(&lake, &mut world, 5).await.unwrap();
    check(&lake, &world).await;
    // Once more from the start: nothing is written twice.
    next_run(&lake, &mut world, 6).await.unwrap();
    check(&lake, &world).await;
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_off_anywhere_each_version_is_there_once() {
    let _scenario = FailScenario::setup();
    let mut runs = 0;
    for point in POINTS.iter().filter(|point| **point != "lake::before_adopt") {
        for whole in [true, false] {
            for fresh in [false, true] {
                let lake = || if fresh { Lake::new().fresh() } else { Lake::new() };
                let mut passage = 0;
                while broken_off(lake(), point, passage, whole).await {
                    passage += 1;
                    runs += 1;
                }
                assert!(passage > 0, "{point} is never passed");
            }
        }
    }
    println!("{runs} runs");
}

/// The second daemon dies while it recovers what the first has left; the third one finishes.
#[tokio::test(flavor = "multi_thread")]
async fn broken_off_while_taking_up_what_was_left() {
    let _scenario = FailScenario::setup();
    let mut runs = 0;
    for first in ["lake::after_put", "lake::before_commit"] {
        for passage in 0..9 {
            for second in POINTS {
                for again in 0..4 {
                    let (lake, mut world) = (Lake::new(), World::new());
                    fail::cfg(first, &format!("{passage}*off->1*return->off")).unwrap();
                    let broken = first_run(&lake, &world, true).await;
                    fail::remove(first);
                    if broken.is_ok() {
                        continue;
                    }
                    fail::cfg(second, &format!("{again}*off->1*return->off")).unwrap();
                    let broken = next_run(&lake, &mut world, 5).await;
                    fail::remove(second);
                    if broken.is_ok() {
                        continue;
                    }
                    runs += 1;
                    next_run(&lake, &mut world, 6).await.unwrap();
                    check(&lake, &world).await;
                }
            }
        }
    }
    println!("{runs} runs");
    assert!(runs > 200);
}

/// The same call is repeated on the same sink, after an error that can be retried.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_is_read_from_the_log() {
    let _scenario = FailScenario::setup();
    for point in [
        "lake::before_put",
        "lake::after_put",
        "lake::before_commit",
        "lake::after_commit",
        "lake::before_checkpoint",
        "lake::after_checkpoint",
    ] {
        for passage in 0..6 {
            let (lake, world) = (Lake::new(), World::new());
            let (mut sink, _) = lake.taken().await;
            let stream: Vec<&Batch> = world.stream.iter().collect();
            fail::cfg(point, &format!("{passage}*off->1*return->off")).unwrap();
            let mut errors = 0;
            loop {
                let done = match sink.write(&stream).await {
                    Ok(()) => sink.flush(true).await,
                    error => error,
                };
                match done {
                    Ok(()) => break,
                    Err(error) => assert_eq!(error.action, Action::Retry, "{error}"),
                }
                errors += 1;
                assert!(errors < 3);
            }
            fail::remove(point);
            for table in TABLES {
                assert_eq!(lake.agreed(table).await, positions(&world.stream, table), "{point} {passage}");
            }
            assert_eq!(sink.durable(), world.stream.last().unwrap().progress);
        }
    }
}

/// ⚠ On a local disk, because `object_store` never calls fsync. What could not be synced does not count, and the writer
/// gets an error.
#[tokio::test(flavor = "multi_thread")]
async fn local_disk_is_synced_file_and_folder_before_a_write_counts() {
    let _scenario = FailScenario::setup();
    for point in ["lake::sync_file", "lake::sync_folder"] {
        let (lake, world) = (Lake::new(), World::new());
        let (mut sink, _) = lake.taken().await;
        let before = sink.durable();
        fail::cfg(point, "return").unwrap();
        let error = common::write(&mut sink, &world.stream).await.unwrap_err();
        assert_eq!(error.action, Action::Retry, "{error}");
        assert_eq!(sink.durable(), before, "{point}");
        if point == "lake::sync_file" {
            assert!(lake.listed_files("public.users").is_empty());
        }
        fail::remove(point);
        sink.flush(true).await.unwrap();
        for table in TABLES {
            assert_eq!(lake.agreed(table).await, positions(&world.stream, table));
        }
        assert_eq!(sink.durable(), world.stream.last().unwrap().progress);
    }
}

/// ⚠ Before a daemon adopts or removes a file that the log does not name, it commits its owner epoch: the daemon that
/// wrote the file wakes up and can commit neither the file nor anything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_writer_that_wakes_commits_nothing() {
    let _scenario = FailScenario::setup();
    for (point, file_is_there) in [("lake::before_commit", true), ("lake::before_put", false)] {
        let mut fixture = Fixture::default();
        let lake = Lake::new();
        let head = fixture.batches(
            "table public.users (id int4 key, name text) full\nbegin\ninsert public.users [1, \"Ann\"]\ncommit",
        );
        let more = fixture.batches("begin\ninsert public.users [2, \"Bea\"]\ninsert public.users [3, \"Cid\"]\ncommit");
        let (mut first, _) = lake.taken().await;
        common::write(&mut first, &head).await.unwrap();
        fail::cfg(point, "1*return->off").unwrap();
        let paused = common::write(&mut first, &more).await.unwrap_err();
        assert_eq!(paused.action, Action::Retry);
        fail::remove(point);
        // Another daemon takes over and writes the same versions, or adopts them.
        let (mut second, _) = lake.taken().await;
        common::write(&mut second, &more).await.unwrap();
        assert_eq!(lake.agreed("public.users").await.len(), 3);
        let files = lake.listed_files("public.users").len();
        // The first wakes up.
        let error = first.flush(true).await.unwrap_err();
        assert_eq!(error.action, Action::Fenced, "{error}");
        assert_eq!(lake.delta_rows("public.users").await.len(), 3);
        if file_is_there {
            assert_eq!(lake.listed_files("public.users").len(), files);
        } else {
            // Its put was in flight: readers that list see the file until the next sweep, which comes with the next
            // day.
            assert_eq!(lake.listed_files("public.users").len(), files + 1);
        }
        let tomorrow = fixture.batches("begin at=2026-03-02T00:00:00Z\ninsert public.users [4, \"Dan\"]\ncommit");
        common::write(&mut second, &tomorrow).await.unwrap();
        assert_eq!(lake.agreed("public.users").await.len(), 4);
    }
}

/// ⚠ A writer that was overtaken by an earlier owner's commit compares positions again: what it holds is not committed
/// in addition.
#[tokio::test(flavor = "multi_thread")]
async fn positions_are_compared_anew_after_a_conflict() {
    let _scenario = FailScenario::setup();
    let mut fixture = Fixture::default();
    let lake = Lake::new();
    let head = fixture
        .batches("table public.users (id int4 key, name text) full\nbegin\ninsert public.users [1, \"Ann\"]\ncommit");
    let more = fixture.batches("begin\ninsert public.users [2, \"Bea\"]\ninsert public.users [3, \"Cid\"]\ncommit");
    let (mut first, _) = lake.taken().await;
    common::write(&mut first, &head).await.unwrap();
    first.write(&more.iter().collect::<Vec<_>>()).await.unwrap();
    // The second reads the table's log before the first, which is only slow, commits.
    let (mut second, _) = lake.taken().await;
    second.write(&more.iter().collect::<Vec<_>>()).await.unwrap();
    let fenced = first.flush(true).await.unwrap_err();
    assert_eq!(fenced.action, Action::Fenced, "its checkpoint is refused");
    assert_eq!(lake.delta_rows("public.users").await.len(), 3, "its table's commit came first");
    let overtaken = second.flush(true).await.unwrap_err();
    assert_eq!(overtaken.action, Action::Restart, "{overtaken}");
    drop(second);
    let (mut second, _) = lake.taken().await;
    common::write(&mut second, &head).await.unwrap();
    common::write(&mut second, &more).await.unwrap();
    assert_eq!(lake.agreed("public.users").await.len(), 3);
}

/// A chunk's file that a fenced daemon has put late is removed by the next daemon that writes to its day.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_file_of_a_chunk_is_swept_with_its_day() {
    let _scenario = FailScenario::setup();
    let mut fixture = Fixture::default();
    let lake = Lake::new();
    let head = fixture
        .batches("table public.users (id int4 key, name text) full\nbegin\ninsert public.users [1, \"Ann\"]\ncommit");
    let chunks: Vec<Batch> = CHUNKS.iter().flat_map(|text| fixture.batches(&read_at(text, 4))).collect();
    let (mut first, _) = lake.taken().await;
    common::write(&mut first, &head).await.unwrap();
    fail::cfg("lake::before_put", "1*return->off").unwrap();
    common::write(&mut first, &chunks[..1]).await.unwrap_err();
    fail::remove("lake::before_put");
    // Another daemon takes over and reads both chunks; then the first wakes up, in the middle of its put.
    let (mut second, _) = lake.taken().await;
    common::write(&mut second, &chunks).await.unwrap();
    assert_eq!(first.flush(true).await.unwrap_err().action, Action::Fenced);
    assert_eq!(lake.delta_rows("public.users").await.len(), 4);
    assert_eq!(lake.listed_rows("public.users").len(), 6, "said in the docs: until the next sweep");
    let (mut third, _) = lake.taken().await;
    let later = fixture.batches("begin at=2026-03-04T13:00:00Z\ninsert public.users [2, \"Bea\"]\ncommit");
    common::write(&mut third, &later).await.unwrap();
    assert_eq!(lake.agreed("public.users").await.len(), 5);
}
