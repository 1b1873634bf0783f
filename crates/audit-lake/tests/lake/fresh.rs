use std::time::Duration;

use arrow::array::AsArray;
use audit_config::ByteSize;
use audit_core::batch::Batch;
use audit_core::sink::Sink;
use audit_lake::LakeReader;
use audit_lake::config::Compression;
use audit_lake::partition::Partitioning;
use audit_testkit::Fixture;
use futures::TryStreamExt;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::common::{Lake, read, roll, write};

const TABLE: &str = "table public.users (id int4 key, name text) full\n";
const USERS: &str = "public.users";

fn insert(fixture: &mut Fixture, table: bool, ids: impl IntoIterator<Item = u32>) -> Vec<Batch> {
    let rows: String = ids.into_iter().map(|id| format!("insert public.users [{id}, \"name {id}\"]\n")).collect();
    fixture.batches(&format!("{}begin at=2026-03-01T10:00:00Z\n{rows}commit", if table { TABLE } else { "" }))
}

fn fresh_files(lake: &Lake) -> usize {
    lake.files().iter().filter(|(path, ..)| path.to_str().unwrap().contains("/fresh/")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_are_fresh_until_they_are_rolled() {
    let (mut lake, mut fixture) = (Lake::new().fresh(), Fixture::default());
    lake.config.roll_age = Duration::from_secs(3600).into();
    let (mut sink, _) = lake.taken().await;
    for (at, ids) in [[5, 1], [4, 2], [3, 6]].into_iter().enumerate() {
        write(&mut sink, &insert(&mut fixture, at == 0, ids)).await.unwrap();
    }
    assert_eq!(lake.delta_rows(USERS).await.len(), 6, "readers of the log see them at once");
    assert!(lake.listed_files(USERS).is_empty(), "readers that list do not");
    assert_eq!(fresh_files(&lake), 3);
    drop(sink);

    // Another daemon finds them, and rolls them although no row of that table comes.
    lake.config.roll_age = Duration::ZERO.into();
    let (mut sink, _) = lake.taken().await;
    roll(&mut sink).await.unwrap();
    assert_eq!((lake.listed_files(USERS).len(), fresh_files(&lake)), (1, 0));
    assert_eq!(lake.agreed(USERS).await.len(), 6);
    let batches = read(&lake.listed_files(USERS)[0]);
    let keys: Vec<&str> = batches[0].column_by_name("cdc_key").unwrap().as_string::<i32>().iter().flatten().collect();
    assert_eq!(keys, ["1", "2", "3", "4", "5", "6"], "sorted by key");

    // An export still returns them in order of position.
    let reader = LakeReader::over(lake.store());
    let exported: Vec<_> =
        reader.export("shop", USERS, None, None).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    let keys: Vec<&str> = exported.iter().filter_map(|record| record.key.as_deref()).collect();
    assert_eq!(keys, ["5", "1", "4", "2", "3", "6"]);
    assert_eq!(reader.history("shop", USERS, "4", 10).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_stays_for_its_grace() {
    let (mut lake, mut fixture) = (Lake::new().fresh(), Fixture::default());
    lake.config.grace = Duration::from_secs(3600).into();
    let (mut sink, _) = lake.taken().await;
    write(&mut sink, &insert(&mut fixture, true, [1])).await.unwrap();
    write(&mut sink, &insert(&mut fixture, false, [2])).await.unwrap();
    roll(&mut sink).await.unwrap();
    assert!(lake.fresh_rows(USERS).await.is_empty());
    assert_eq!(fresh_files(&lake), 2, "readers of an older state still find them");
    lake.config.grace = Duration::ZERO.into();
    let (mut sink, _) = lake.taken().await;
    roll(&mut sink).await.unwrap();
    assert_eq!(fresh_files(&lake), 0);
    assert_eq!(lake.agreed(USERS).await.len(), 2);
}

/// ⚠ The grace period of replaced files begins with the roll, not when a daemon first sees them: a daemon that restarts
/// every hour would keep them for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_goes_after_its_grace_whoever_owns_the_lake() {
    let (mut lake, mut fixture) = (Lake::new().fresh(), Fixture::default());
    lake.config.grace = Duration::from_secs(3600).into();
    let (mut sink, _) = lake.taken().await;
    write(&mut sink, &insert(&mut fixture, true, [1])).await.unwrap();
    roll(&mut sink).await.unwrap();
    drop(sink);
    for (ago, left) in [(1800, 1), (3601, 0)] {
        let file = std::fs::File::options().write(true).open(&lake.listed_files(USERS)[0]).unwrap();
        let now = audit_core::position::Micros::now();
        let written = std::time::UNIX_EPOCH + Duration::from_micros(now.0.unsigned_abs()) - Duration::from_secs(ago);
        file.set_modified(written).unwrap();
        let (mut sink, _) = lake.taken().await;
        roll(&mut sink).await.unwrap();
        assert_eq!(fresh_files(&lake), left, "rolled {ago} s ago");
    }
    assert_eq!(lake.agreed(USERS).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_large_enough_has_a_file_of_its_own() {
    let (mut lake, mut fixture) = (Lake::new().fresh(), Fixture::default());
    lake.config.data_rows = 1000;
    lake.config.roll_age = Duration::from_secs(3600).into();
    let (mut sink, _) = lake.taken().await;
    write(&mut sink, &insert(&mut fixture, true, 0..999)).await.unwrap();
    write(&mut sink, &insert(&mut fixture, false, 1000..2000)).await.unwrap();
    assert_eq!((lake.listed_rows(USERS).len(), lake.fresh_rows(USERS).await.len()), (1000, 999));
    // Fresh files that fill one file are rolled whatever their age.
    lake.config.file_rows = 1500;
    let (mut sink, _) = lake.taken().await;
    write(&mut sink, &insert(&mut fixture, false, 2000..2600)).await.unwrap();
    roll(&mut sink).await.unwrap();
    assert_eq!((lake.listed_rows(USERS).len(), lake.fresh_rows(USERS).await.len()), (2599, 0));
    lake.agreed(USERS).await;
}

/// The files are too large for one row group: each row group is sorted, and declares it.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_go_to_data_at_once_are_sorted_row_group_by_row_group() {
    let (mut lake, mut fixture) = (Lake::new().fresh(), Fixture::default());
    (lake.config.data_rows, lake.config.row_group_bytes) = (1, ByteSize::mib(1));
    let (mut sink, _) = lake.taken().await;
    let ids = (0..32_003).map(|at| at * 7919 % 32_003);
    sink.write(&insert(&mut fixture, true, ids).iter().collect::<Vec<_>>()).await.unwrap();
    sink.flush(true).await.unwrap();
    assert_eq!(lake.agreed(USERS).await.len(), 32_003);
    let path = &lake.listed_files(USERS)[0];
    let file = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let groups = file.metadata().row_groups();
    assert!(groups.len() > 1, "{}", groups.len());
    assert!(groups.iter().all(|group| group.sorting_columns().is_some_and(|columns| columns.len() == 2)));
    let mut keys: Vec<String> = Vec::new();
    for batch in read(path) {
        let column = batch.column_by_name("cdc_key").unwrap().as_string::<i32>().clone();
        keys.extend(column.iter().flatten().map(str::to_string));
    }
    let mut rest = keys.as_slice();
    for group in groups {
        let (keys, others) = rest.split_at(group.num_rows() as usize);
        assert!(keys.is_sorted());
        rest = others;
    }
    assert!(!keys.is_sorted(), "the file as a whole is not: it did not wait in memory");
    let exported = LakeReader::over(lake.store()).export("shop", USERS, None, None).await.unwrap();
    let exported: Vec<_> = exported.try_collect::<Vec<_>>().await.unwrap();
    assert!(exported.iter().map(|record| record.position).is_sorted());
}

/// There are more rows than are sorted in memory, in two shapes: rows with different columns are rolled separately.
#[tokio::test(flavor = "multi_thread")]
async fn rolls_sort_more_than_fits_into_memory() {
    let (lake, mut fixture) = (Lake::new().fresh(), Fixture::default());
    let mut sink = audit_lake::LakeSink::new("lake", &lake.config, 2 << 20).unwrap();
    sink.take(&crate::common::identity()).await.unwrap();
    sink.begin(crate::common::start()).await.unwrap();
    for part in 0..8u32 {
        let ids = (0..4000).map(|at| (at * 7919 + part) % 32_003);
        let batches = insert(&mut fixture, part == 0, ids);
        sink.write(&batches.iter().collect::<Vec<_>>()).await.unwrap();
        sink.flush(true).await.unwrap();
    }
    let other = fixture.batches(
        "table public.users (id int4 key, name text, mail text) full\nbegin at=2026-03-01T11:00:00Z\n\
         insert public.users [40000, \"x\", \"y\"]\ncommit",
    );
    write(&mut sink, &other).await.unwrap();
    roll(&mut sink).await.unwrap();
    assert_eq!(lake.agreed(USERS).await.len(), 32_001);
    assert_eq!(lake.fresh_rows(USERS).await.len(), 0);
    for path in lake.listed_files(USERS) {
        let batches = read(&path);
        let keys = batches.iter().flat_map(|batch| {
            let column = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
            let (keys, positions) = (column("cdc_key"), column("cdc_position"));
            (0..batch.num_rows()).map(move |at| (keys.value(at).to_string(), positions.value(at).to_string()))
        });
        assert!(keys.is_sorted(), "{path:?}");
    }
    let exported: Vec<_> = LakeReader::over(lake.store())
        .export("shop", USERS, None, None)
        .await
        .unwrap()
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    assert!(exported.iter().map(|record| record.position).is_sorted());
    assert_eq!(exported.len(), 32_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_keeps_the_partitions_that_it_began_with() {
    let cases = [
        (Partitioning::Day, "data/year=2026/month=03/day=01/"),
        (Partitioning::Date, "data/date=2026-03-01/"),
        (Partitioning::Hour, "data/year=2026/month=03/day=01/hour=10/"),
    ];
    for (by, folder) in cases {
        let (mut lake, mut fixture) = (Lake::new(), Fixture::default());
        lake.config.partition_by = by;
        lake.write(&insert(&mut fixture, true, [1])).await;
        lake.config.partition_by = Partitioning::Day;
        lake.write(&insert(&mut fixture, false, [2])).await;
        let files = lake.delta_files(USERS).await;
        assert!(files.len() == 2 && files.iter().all(|path| path.starts_with(folder)), "{files:?}");
        assert_eq!(lake.agreed(USERS).await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_compressed_as_configured() {
    use parquet::basic::Compression as Codec;
    for compression in [Compression::Zstd, Compression::Snappy, Compression::Gzip, Compression::None] {
        let (mut lake, mut fixture) = (Lake::new(), Fixture::default());
        lake.config.compression = compression;
        lake.config.data_bytes = ByteSize::mib(0);
        lake.write(&insert(&mut fixture, true, 0..100)).await;
        let file = std::fs::File::open(&lake.listed_files(USERS)[0]).unwrap();
        let codec = SerializedFileReader::new(file).unwrap().metadata().row_group(0).column(0).compression();
        let right = match compression {
            Compression::Zstd => matches!(codec, Codec::ZSTD(_)),
            Compression::Snappy => codec == Codec::SNAPPY,
            Compression::Gzip => matches!(codec, Codec::GZIP(_)),
            Compression::None => codec == Codec::UNCOMPRESSED,
        };
        assert!(right, "{compression:?}: {codec:?}");
        assert_eq!(lake.agreed(USERS).await.len(), 100);
    }
}
