use std::time::{Duration, Instant};

use audit_core::batch::Batch;
use audit_core::sink::Sink;
use audit_lake::{Compacted, Compactor, LakeReader, LakeSink};
use audit_testkit::Fixture;
use futures::TryStreamExt;

use crate::common::{Lake, read, write};

const TABLE: &str = "table public.users (id int4 key, name text) full\n";
const USERS: &str = "public.users";

fn insert(fixture: &mut Fixture, at: &str, ids: impl IntoIterator<Item = u32>) -> Vec<Batch> {
    let rows: String = ids.into_iter().map(|id| format!("insert public.users [{id}, \"name {id}\"]\n")).collect();
    fixture.batches(&format!("begin at={at}\n{rows}commit"))
}

/// A lake that no reader lists, with files of three past days.
async fn written() -> (Lake, Fixture) {
    let (mut lake, mut fixture) = (Lake::new(), Fixture::default());
    lake.config.listing_readers = false;
    // The days of the tests are in the distant past.
    lake.config.compact_within = Duration::from_secs(100 * 365 * 86_400).into();
    lake.config.grace = Duration::ZERO.into();
    let (mut sink, _) = lake.taken().await;
    fixture.batches(TABLE);
    for round in 0..12u32 {
        let at = format!("2026-03-{:02}T10:00:00Z", 1 + round / 4);
        let ids = (0..50).map(|at| (at * 37 + round) % 61);
        write(&mut sink, &insert(&mut fixture, &at, ids)).await.unwrap();
    }
    (lake, fixture)
}

fn compactor(lake: &Lake) -> Compactor {
    Compactor::new(&lake.config, lake.store(), "shop", 8 << 20).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_partition_become_one_that_is_sorted() {
    let (lake, mut fixture) = written().await;
    let before = lake.delta_rows(USERS).await;
    let history = |lake: &Lake| {
        let reader = LakeReader::over(lake.store());
        async move { reader.history("shop", USERS, "5", 100).await.unwrap().len() }
    };
    let versions = history(&lake).await;
    let compactor = compactor(&lake);
    assert_eq!(compactor.tables().await.unwrap(), [USERS]);
    let done = compactor.table(USERS).await.unwrap();
    assert_eq!((done.files, done.into, done.left), (12, 3, 3));
    assert!(done.into_bytes < done.bytes);
    assert_eq!(lake.delta_rows(USERS).await, before);
    assert_eq!(history(&lake).await, versions);
    let folder = lake.path().join(USERS);
    for path in lake.delta_files(USERS).await {
        let rows: Vec<(String, String)> = read(&folder.join(path))
            .iter()
            .flat_map(|batch| {
                use arrow::array::AsArray;
                let text = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
                let (keys, positions) = (text("cdc_key"), text("cdc_position"));
                (0..batch.num_rows()).map(move |at| (keys.value(at).to_string(), positions.value(at).to_string()))
            })
            .collect();
        assert!(rows.is_sorted());
    }
    // The replaced files are removed by the next sweep, and only once.
    assert_eq!(lake.listed_files(USERS).len(), 15);
    assert_eq!(compactor.sweep().await.unwrap(), 12);
    assert_eq!(compactor.sweep().await.unwrap(), 0);
    assert_eq!(lake.listed_files(USERS).len(), 3);
    // A second run finds nothing to do; the daemon continues, also on the same days.
    assert_eq!(
        compactor.table(USERS).await.unwrap(),
        Compacted { table: USERS.into(), left: 3, ..Compacted::default() }
    );
    lake.write(&insert(&mut fixture, "2026-03-02T11:00:00Z", [900, 901])).await;
    assert_eq!(lake.delta_rows(USERS).await.len(), before.len() + 2);
    let exported: Vec<_> = LakeReader::over(lake.store())
        .export("shop", USERS, None, None)
        .await
        .unwrap()
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    assert!(exported.iter().map(|record| record.position).is_sorted());
    assert_eq!(exported.len(), before.len() + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_goes_on_beside_it() {
    let (lake, mut fixture) = written().await;
    let before = lake.delta_rows(USERS).await.len();
    let (mut sink, _) = lake.taken().await;
    // Rows in memory that are not committed: the daemon's commit steps over those of the compaction.
    let more = insert(&mut fixture, "2026-03-03T12:00:00Z", [700, 701]);
    sink.write(&more.iter().collect::<Vec<_>>()).await.unwrap();
    compactor(&lake).all().await.unwrap();
    sink.flush(true).await.unwrap();
    compactor(&lake).all().await.unwrap();
    write(&mut sink, &insert(&mut fixture, "2026-03-04T12:00:00Z", [702])).await.unwrap();
    assert_eq!(lake.delta_rows(USERS).await.len(), before + 3);
    drop(sink);
    // A new daemon that writes to a compacted day removes none of its files.
    lake.write(&insert(&mut fixture, "2026-03-01T13:00:00Z", [703])).await;
    assert_eq!(lake.delta_rows(USERS).await.len(), before + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_lose_nothing() {
    let (lake, _) = written().await;
    let before = lake.delta_rows(USERS).await;
    let (one, other) = (compactor(&lake), compactor(&lake));
    let (first, second) = tokio::join!(one.table(USERS), other.table(USERS));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.into + second.into, 3, "each day is compacted by one of them: {first:?} {second:?}");
    assert_eq!(lake.delta_rows(USERS).await, before);
    one.sweep().await.unwrap();
    other.sweep().await.unwrap();
    assert_eq!(lake.delta_rows(USERS).await, before);
    assert_eq!(lake.listed_files(USERS).len(), lake.delta_files(USERS).await.len(), "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_or_full_stays_as_it_is() {
    let (mut lake, _) = written().await;
    lake.config.compact_within = Duration::from_secs(86_400).into();
    assert_eq!(compactor(&lake).table(USERS).await.unwrap().files, 0);
    lake.config.compact_within = Duration::from_secs(100 * 365 * 86_400).into();
    lake.config.compact_bytes = "1 B".parse().unwrap();
    let done = compactor(&lake).table(USERS).await.unwrap();
    assert_eq!((done.files, done.into), (12, 12), "each fills a file for itself");
    assert_eq!(compactor(&lake).table(USERS).await.unwrap().files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_compacts_on_schedule() {
    let (mut lake, _) = written().await;
    lake.config.compact_every = Some(Duration::from_millis(1).into());
    let before = lake.delta_rows(USERS).await;
    let (mut sink, _) = lake.taken().await;
    while lake.delta_files(USERS).await.len() > 3 {
        sink.flush(false).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(lake.delta_rows(USERS).await, before);
}

/// ⚠ Sessions are shorter than a day: the lake's record decides when the next run is due, not a timer that starts again
/// with each session.
#[tokio::test(flavor = "multi_thread")]
async fn the_lake_remembers_when_it_was_compacted() {
    let (mut lake, _) = written().await;
    lake.config.compact_every = Some(Duration::from_secs(86_400).into());
    let note = lake.path().join("_cdc_audit/compacted.json");
    let soon = |sink: &LakeSink| sink.due().is_some_and(|due| due < Instant::now() + Duration::from_secs(3600));
    // There was no run yet, so one is due.
    for at in ["", "{\"at\": 0}"] {
        if !at.is_empty() {
            std::fs::write(&note, at).unwrap();
        }
        let (mut sink, _) = lake.taken().await;
        assert!(soon(&sink), "{at:?}");
        while soon(&sink) {
            sink.flush(false).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(lake.delta_files(USERS).await.len(), 3);
        let (sink, _) = lake.taken().await;
        assert!(!soon(&sink), "the next session knows");
    }
}

/// ⚠ A table that cannot be compacted affects no other table.
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_table_does_not_end_a_run() {
    let (lake, mut fixture) = written().await;
    let more = "table public.a (id int4 key) full\nbegin at=2026-03-01T12:00:00Z\ninsert public.a [1]\ncommit";
    lake.write(&fixture.batches(more)).await;
    let log = lake.path().join("public.a/_delta_log/00000000000000000000.json");
    std::fs::write(log, "{").unwrap();
    compactor(&lake).all().await.unwrap();
    assert_eq!(lake.delta_files(USERS).await.len(), 3, "compacted all the same");
}

/// Sorting values of megabytes would take memory that nobody planned for. A table that has no log yet does not stop the
/// run.
#[tokio::test(flavor = "multi_thread")]
async fn files_with_long_values_stay_as_they_are() {
    let (lake, mut fixture) = written().await;
    let long = "x".repeat(100_000);
    let at = "2026-03-01T11:00:00Z";
    lake.write(&fixture.batches(&format!("begin at={at}\ninsert public.users [7000, \"{long}\"]\ncommit"))).await;
    lake.write(&insert(&mut fixture, at, [7001])).await;
    std::fs::create_dir_all(lake.path().join("public.begun/data")).unwrap();
    let before = lake.delta_rows(USERS).await;
    let kept: Vec<String> = lake.delta_files(USERS).await;
    compactor(&lake).all().await.unwrap();
    assert_eq!(lake.delta_rows(USERS).await, before);
    let now = lake.delta_files(USERS).await;
    // Three days; on the first one there are the files before and after the long value, and the file with it.
    assert_eq!(now.len(), 5, "{now:?}");
    assert_eq!(now.iter().filter(|path| kept.contains(path)).count(), 1);
}
