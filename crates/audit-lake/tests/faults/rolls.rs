use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use audit_core::sink::{Action, Sink};
use audit_lake::Compactor;
use audit_lake::layout::FileName;
use audit_lake::partition::Partitioning;
use audit_testkit::Fixture;
use fail::FailScenario;

use crate::common::story::{TABLES, World, check, first_run, next_run, positions};
use crate::common::{Lake, roll, roll_on, write};

const USERS: &str = "public.users";

/// ⚠ A file in `data/` that the log does not name is an unfinished roll if it ends at or before the table's position:
/// it is adopted if it has the rows of the fresh files in its range.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_that_was_put_and_not_committed_is_adopted() {
    let _scenario = FailScenario::setup();
    for passage in 0.. {
        let (lake, mut world) = (Lake::new().fresh(), World::new());
        fail::cfg("lake::after_merge", &format!("{passage}*off->1*return->off")).unwrap();
        let broken = first_run(&lake, &world, true).await;
        fail::remove("lake::after_merge");
        let mut left = Vec::new();
        for table in TABLES {
            let named: Vec<String> = lake.delta_files(table).await;
            let listed = lake.listed_files(table);
            left.extend(listed.into_iter().filter(|path| !named.iter().any(|named| path.ends_with(named))));
        }
        if left.is_empty() {
            assert!(passage > 3 && broken.is_ok(), "there are more rolls than {passage}");
            return;
        }
        // Another roll may have been running.
        let times =
            |lake: &Lake| -> Vec<_> { lake.files().into_iter().filter(|(path, ..)| left.contains(path)).collect() };
        let put_at = times(&lake);
        assert_eq!(put_at.len(), left.len());
        next_run(&lake, &mut world, 5).await.unwrap();
        assert_eq!(times(&lake), put_at, "a file was written anew");
        check(&lake, &world).await;
        for table in TABLES {
            assert!(lake.fresh_rows(table).await.is_empty(), "everything is rolled by now");
        }
    }
}

/// ⚠ Otherwise it is removed: readers that list would see versions that are rolled again.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_of_other_rows_is_removed() {
    let _scenario = FailScenario::setup();
    let (lake, world) = (Lake::new().fresh(), World::new());
    // Fresh files stay, because each roll fails.
    fail::cfg("lake::before_merge", "return").unwrap();
    let (mut sink, _) = lake.taken().await;
    for batch in &world.stream {
        write(&mut sink, std::slice::from_ref(batch)).await.unwrap();
    }
    fail::remove("lake::before_merge");
    drop(sink);
    let fresh: Vec<_> = lake.files().into_iter().map(|(path, ..)| path).collect();
    let of_users = |path: &&std::path::PathBuf| {
        let path = path.to_str().unwrap();
        path.contains("public.users/fresh/year=2026/month=03/day=02/") && path.ends_with(".parquet")
    };
    let files: Vec<_> = fresh.iter().filter(of_users).collect();
    assert_eq!(files.len(), 2, "{fresh:?}");
    let names: Vec<FileName> =
        files.iter().map(|path| FileName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap()).collect();
    // One fresh file's rows, under a name that claims the range of both files.
    let claimed = FileName {
        first: names.iter().map(|name| name.first).min().unwrap(),
        last: names.iter().map(|name| name.last).max().unwrap(),
        ..names[0]
    };
    let folder = files[0].parent().unwrap().to_str().unwrap().replace("/fresh/", "/data/");
    std::fs::create_dir_all(&folder).unwrap();
    let put = std::path::Path::new(&folder).join(claimed.to_string());
    std::fs::copy(files[0], &put).unwrap();
    let (mut sink, _) = lake.taken().await;
    assert!(!put.exists(), "it has fewer rows than the log has in its range");
    roll(&mut sink).await.unwrap();
    assert_eq!(lake.agreed(USERS).await, positions(&world.stream, USERS));
    assert_eq!(lake.listed_rows(USERS), positions(&world.stream, USERS));
}

/// A roll that fails does not stop the stream, and is tried again from a settled state.
#[tokio::test(flavor = "multi_thread")]
async fn the_stream_goes_on_while_rolls_fail() {
    let _scenario = FailScenario::setup();
    let (lake, world) = (Lake::new().fresh(), World::new());
    fail::cfg("lake::after_merge", "return").unwrap();
    let (mut sink, _) = lake.taken().await;
    for batch in &world.stream {
        write(&mut sink, std::slice::from_ref(batch)).await.unwrap();
        roll_on(&mut sink).await.unwrap();
    }
    assert_eq!(sink.durable(), world.stream.last().unwrap().progress);
    fail::remove("lake::after_merge");
    for table in TABLES {
        assert_eq!(lake.delta_rows(table).await, positions(&world.stream, table));
    }
}

/// ⚠ Only the table that cannot be rolled waits: others are rolled, the stream continues, and the table is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_rolled_holds_nothing_else_back() {
    let _scenario = FailScenario::setup();
    for broken in TABLES {
        let (mut lake, world) = (Lake::new().fresh(), World::new());
        lake.config.roll_age = Duration::from_secs(3600).into();
        lake.write(&world.stream[..2]).await;
        let folder = format!("/{broken}/fresh/");
        let path =
            lake.files().into_iter().map(|(path, ..)| path).find(|path| path.to_str().unwrap().contains(&folder));
        std::fs::remove_file(path.unwrap()).unwrap();
        lake.config.roll_age = Duration::ZERO.into();
        let (mut sink, _) = lake.taken().await;
        roll_on(&mut sink).await.unwrap();
        let troubles = sink.troubles();
        assert!(
            troubles.len() == 1 && troubles[0].contains(broken) && troubles[0].contains("not found"),
            "{troubles:?}"
        );
        let other = TABLES.into_iter().find(|table| *table != broken).unwrap();
        assert!(lake.fresh_rows(other).await.is_empty(), "{other} waits for {broken}");
        write(&mut sink, &world.stream[2..]).await.unwrap();
        roll_on(&mut sink).await.unwrap();
        assert_eq!(lake.listed_rows(other), positions(&world.stream, other));
        assert_eq!(sink.durable(), world.stream.last().unwrap().progress);
    }
}

/// ⚠ A fenced daemon puts a roll late, into a partition that is not written to any more. It is found when the files
/// that it was made of are removed, also by the next owner: otherwise readers that list would see its versions twice
/// for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_roll_that_comes_late_is_removed() {
    let _scenario = FailScenario::setup();
    for by_next_owner in [false, true] {
        let (mut lake, mut fixture) = (Lake::new().fresh(), Fixture::default());
        lake.config.partition_by = Partitioning::Hour;
        // This is longer than a flush takes from a roll's commit to the removal of replaced files.
        lake.config.grace = Duration::from_secs(5).into();
        let mut insert = |hour: u32, id: u32| {
            let table = if id == 1 { "table public.users (id int4 key, name text) full\n" } else { "" };
            let row = format!("insert public.users [{id}, \"x\"]");
            fixture.batches(&format!("{table}begin at=2026-03-01T{hour:02}:10:00Z\n{row}\ncommit"))
        };
        let of_hour = |path: &&std::path::PathBuf| path.to_str().unwrap().contains("/hour=09/");
        let rolled = |lake: &Lake| lake.listed_files(USERS).iter().filter(of_hour).count();
        let (mut first, _) = lake.taken().await;
        write(&mut first, &insert(9, 1)).await.unwrap();
        write(&mut first, &insert(9, 2)).await.unwrap();
        // It begins to roll, and pauses.
        let (wake, paused) = pause_once("lake::before_merge");
        first.flush(false).await.unwrap();
        until("the roll begins", async || paused.load(Ordering::Relaxed)).await;
        let (mut second, _) = lake.taken().await;
        until("another rolls", async || {
            second.flush(false).await.unwrap();
            lake.fresh_rows(USERS).await.is_empty()
        })
        .await;
        write(&mut second, &insert(10, 3)).await.unwrap();
        // The first wakes up: its file comes late.
        wake.send(()).unwrap();
        until("the first puts its file", async || rolled(&lake) == 2).await;
        until("the first hears of it", async || {
            first.flush(false).await.is_err_and(|error| error.action == Action::Fenced)
        })
        .await;
        if by_next_owner {
            second = lake.taken().await.0;
        }
        until("the file is found", async || {
            second.flush(false).await.unwrap();
            rolled(&lake) == 1
        })
        .await;
        assert_eq!(lake.agreed(USERS).await.len(), 3);
        fail::remove("lake::before_merge");
    }
}

/// The first thread that reaches the point waits there until it is woken; the flag shows that it waits.
fn pause_once(point: &str) -> (mpsc::SyncSender<()>, Arc<AtomicBool>) {
    let (wake, woken) = mpsc::sync_channel(1);
    let (woken, paused) = (Mutex::new(Some(woken)), Arc::new(AtomicBool::new(false)));
    let says = paused.clone();
    let pause = move || {
        let first = woken.lock().unwrap().take();
        if let Some(woken) = first {
            says.store(true, Ordering::Relaxed);
            woken.recv().unwrap();
        }
    };
    fail::cfg_callback(point, pause).unwrap();
    (wake, paused)
}

async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !reached().await {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A compaction is interrupted before or after its commit: readers of the log see the same, and another run continues.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_broke_off_changes_nothing() {
    let _scenario = FailScenario::setup();
    for point in ["lake::after_merge", "lake::before_compact", "lake::after_compact"] {
        let (mut lake, world) = (Lake::new(), World::new());
        lake.config.listing_readers = false;
        lake.config.compact_within = Duration::from_secs(100 * 365 * 86_400).into();
        lake.config.grace = Duration::ZERO.into();
        first_run(&lake, &world, true).await.unwrap();
        let before = lake.delta_rows(USERS).await;
        let compactor = Compactor::new(&lake.config, lake.store(), "shop", 8 << 20).unwrap();
        fail::cfg(point, "1*return->off").unwrap();
        let broken = compactor.table(USERS).await;
        fail::remove(point);
        assert!(broken.is_err(), "{point}");
        assert_eq!(lake.delta_rows(USERS).await, before, "{point}");
        compactor.sweep().await.unwrap();
        assert_eq!(lake.delta_rows(USERS).await, before, "{point}");
        compactor.all().await.unwrap();
        assert_eq!(lake.delta_rows(USERS).await, before, "{point}");
        let again = Compactor::new(&lake.config, lake.store(), "shop", 8 << 20).unwrap();
        assert_eq!(again.table(USERS).await.unwrap().files, 0, "{point}");
    }
}
