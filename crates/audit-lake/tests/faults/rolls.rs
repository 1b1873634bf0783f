use audit_core::sink::Sink;
use audit_lake::Compactor;
use audit_lake::layout::FileName;
use fail::FailScenario;

use crate::common::story::{TABLES, World, check, first_run, next_run, positions};
use crate::common::{Lake, roll, write};

const USERS: &str = "public.users";

/// ⚠ A file in `data/` that the log does not name is an unfinished roll where it ends at or before the table's position: it is adopted if it
/// has the rows of the fresh files in its range.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_that_was_put_and_not_committed_is_adopted() {
    let _scenario = FailScenario::setup();
    for passage in 0.. {
        let (lake, mut world) = (Lake::new().fresh(), World::new());
        fail::cfg("lake::after_merge", &format!("{passage}*off->1*return->off")).unwrap();
        first_run(&lake, &world, true).await.unwrap();
        fail::remove("lake::after_merge");
        let mut left = Vec::new();
        for table in TABLES {
            let named: Vec<String> = lake.delta_files(table).await;
            let listed = lake.listed_files(table);
            left.extend(listed.into_iter().filter(|path| !named.iter().any(|named| path.ends_with(named))));
        }
        if left.is_empty() {
            assert!(passage > 3, "there are more rolls than {passage}");
            return;
        }
        assert_eq!(left.len(), 1, "{left:?}");
        let left = left.remove(0);
        let times = |lake: &Lake| lake.files().into_iter().find(|(path, ..)| *path == left).map(|(.., at)| at);
        let put_at = times(&lake);
        next_run(&lake, &mut world, 5).await.unwrap();
        assert_eq!(times(&lake), put_at, "the file was written anew");
        check(&lake, &world).await;
        for table in TABLES {
            assert!(lake.fresh_rows(table).await.is_empty(), "everything is rolled by now");
        }
    }
}

/// ⚠ And it is removed if it has not: readers that list would see versions that are rolled again.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_of_other_rows_is_removed() {
    let _scenario = FailScenario::setup();
    let (lake, world) = (Lake::new().fresh(), World::new());
    // Fresh files stay, for each roll fails.
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
    // One fresh file's rows under a name that claims both files' range.
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

/// A roll that fails does not hold up the stream, and is tried again from a settled state.
#[tokio::test(flavor = "multi_thread")]
async fn the_stream_goes_on_while_rolls_fail() {
    let _scenario = FailScenario::setup();
    let (lake, world) = (Lake::new().fresh(), World::new());
    fail::cfg("lake::after_merge", "return").unwrap();
    let (mut sink, _) = lake.taken().await;
    for batch in &world.stream {
        write(&mut sink, std::slice::from_ref(batch)).await.unwrap();
        roll(&mut sink).await.unwrap();
    }
    assert_eq!(sink.durable(), world.stream.last().unwrap().progress);
    fail::remove("lake::after_merge");
    for table in TABLES {
        assert_eq!(lake.delta_rows(table).await, positions(&world.stream, table));
    }
}

/// A compaction is broken off before its commit or behind it: readers of the log see the same, and another run goes on from there.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_broke_off_changes_nothing() {
    let _scenario = FailScenario::setup();
    for point in ["lake::after_merge", "lake::before_compact", "lake::after_compact"] {
        let (mut lake, world) = (Lake::new(), World::new());
        lake.config.listing_readers = false;
        lake.config.compact_within = std::time::Duration::from_secs(100 * 365 * 86_400).into();
        lake.config.grace = std::time::Duration::ZERO.into();
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
