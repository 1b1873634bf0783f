//! The lake in a bucket: it gives the same guarantees as on disk, whatever happens to requests.
//!
//! Every test runs on a folder and on the three kinds of object stores; a proxy between the sink and the store makes
//! requests fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

macro_rules! on_every_bucket {
    ($($test:ident)*) => {
        mod s3 { $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
            super::$test(crate::Site::of(crate::ObjectKind::S3).await).await
        })* }
        mod gcs { $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
            super::$test(crate::Site::of(crate::ObjectKind::Gcs).await).await
        })* }
        mod azure { $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
            super::$test(crate::Site::of(crate::ObjectKind::Azure).await).await
        })* }
    };
}

macro_rules! on_every_store {
    ($($test:ident)*) => {
        mod disk { $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(crate::Site::disk()).await })* }
        on_every_bucket! { $($test)* }
    };
}

#[path = "common/mod.rs"]
mod common;
/// What is sent with a request: classes, checksums, encryption; and stores that do not fulfil a lake's conditions.
#[path = "stores/requests.rs"]
mod requests;
/// A bucket for each tenant.
#[path = "stores/tenants.rs"]
mod tenants;
/// Faults and kills at every request that writes.
#[path = "stores/trouble.rs"]
mod trouble;

use audit_core::batch::Batch;
use audit_core::sink::{Action, Sink};
use audit_lake::{Compactor, LakeReader, probe};
use audit_testkit::{FaultProxy, Fixture, ObjectKind, ObjectServer, Request};
use common::story::{TABLES, World, check, first_run, next_run};
use common::{Lake, write};
use futures::TryStreamExt;

/// Where lakes are made: in folders, or in a bucket that is reached through a proxy.
pub struct Site(Option<(&'static ObjectServer, FaultProxy)>);

impl Site {
    pub fn disk() -> Site {
        Site(None)
    }

    pub async fn of(kind: ObjectKind) -> Site {
        let server = ObjectServer::shared(kind).await;
        Site(Some((server, FaultProxy::to(server.port()))))
    }

    pub fn lake(&self) -> Lake {
        match &self.0 {
            Some((server, proxy)) => Lake::in_bucket(server, proxy.port()),
            None => Lake::new(),
        }
    }

    /// A lake where everything is fresh at first, and rolled later.
    pub fn lake_of(&self, fresh: bool) -> Lake {
        if fresh { self.lake().fresh() } else { self.lake() }
    }

    /// Whether files are fresh: both values, unless that takes minutes.
    pub fn modes(&self) -> &'static [bool] {
        if self.is_slow() && !audit_testkit::thorough() { &[true] } else { &[false, true] }
    }

    pub fn is_slow(&self) -> bool {
        self.0.as_ref().is_some_and(|(server, _)| server.kind() == ObjectKind::Azure)
    }

    /// The proxy in front of the bucket.
    pub fn proxy(&self) -> &FaultProxy {
        &self.0.as_ref().unwrap().1
    }
}

/// Whether a request changes something.
pub fn writes(request: &Request) -> bool {
    !matches!(request.method.as_str(), "GET" | "HEAD")
}

on_every_store! {
    what_is_written_is_read_back
    fresh_files_are_rolled_and_compacted
    a_second_daemon_fences_the_first
    a_lake_belongs_to_one_source
    a_large_file_is_there_whole
    a_long_log_gets_checkpoints
}

async fn what_is_written_is_read_back(site: Site) {
    let (lake, mut world) = (site.lake(), World::new());
    probe(&lake.config, "shop").await.unwrap();
    first_run(&lake, &world, true).await.unwrap();
    check(&lake, &world).await;
    next_run(&lake, &mut world, 5).await.unwrap();
    check(&lake, &world).await;
    probe(&lake.config, "shop").await.unwrap();

    let reader = LakeReader::open(&lake.config).unwrap();
    assert_eq!(reader.tables("shop").await.unwrap(), ["public.orders", "public.users"]);
    assert!(reader.tables("other").await.unwrap().is_empty());
    let (stored, _) = reader.checkpoint("shop").await.unwrap().unwrap();
    assert_eq!(stored.progress(), world.stream.last().unwrap().progress);
    let history = reader.history("shop", TABLES[0], "1", 10).await.unwrap();
    assert_eq!(history.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(), ["updated", "created"]);
    let exported: Vec<_> =
        reader.export("shop", TABLES[0], None, None).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(exported.len() as u64, reader.count("shop", TABLES[0], None, None).await.unwrap());
}

/// Every file is small at first, then there is one for each day, then that is sorted.
async fn fresh_files_are_rolled_and_compacted(site: Site) {
    let (mut lake, mut world) = (site.lake_of(true), World::new());
    first_run(&lake, &world, true).await.unwrap();
    next_run(&lake, &mut world, 5).await.unwrap();
    check(&lake, &world).await;
    for table in TABLES {
        assert!(lake.fresh_rows(table).await.is_empty(), "all is rolled");
        let replaced =
            lake.files().into_iter().filter(|(path, ..)| path.components().any(|part| part.as_os_str() == "fresh"));
        assert_eq!(replaced.count(), 0, "what was replaced is gone");
    }
    lake.config.listing_readers = false;
    lake.config.compact_within = std::time::Duration::from_secs(100 * 365 * 86_400).into();
    let before = lake.delta_rows(TABLES[0]).await;
    let compactor = Compactor::new(&lake.config, lake.store(), "shop", 8 << 20).unwrap();
    let done = compactor.table(TABLES[0]).await.unwrap();
    assert!(done.files > done.into && done.into > 0, "{done:?}");
    assert!(compactor.sweep().await.unwrap() >= done.files);
    lake.mirror().await;
    assert_eq!(lake.delta_rows(TABLES[0]).await, before);
    assert_eq!(lake.listed_rows(TABLES[0]), before, "nothing that was replaced is left");
    next_run(&lake, &mut world, 6).await.unwrap();
}

const TABLE: &str = "table public.users (id int4 key, name text) full\n";

async fn a_second_daemon_fences_the_first(site: Site) {
    let lake = site.lake();
    let mut fixture = Fixture::default();
    let head = fixture.batches(&format!("{TABLE}begin\ninsert public.users [1, \"Ann\"]\ncommit"));
    let more = fixture.batches("begin\ninsert public.users [2, \"Bea\"]\ncommit");
    let (mut first, _) = lake.taken().await;
    write(&mut first, &head).await.unwrap();
    let (mut second, stored) = lake.taken().await;
    assert_eq!(stored.checkpoint.unwrap().progress(), head[0].progress);
    write(&mut second, &more).await.unwrap();
    let error = write(&mut first, &more).await.unwrap_err();
    assert_eq!(error.action, Action::Fenced, "{error}");
    assert!(error.message.contains("owner 2") && error.message.contains("owner 1"), "{error}");
    lake.mirror().await;
    assert_eq!(lake.delta_rows("public.users").await.len(), 2);
}

async fn a_lake_belongs_to_one_source(site: Site) {
    let (lake, world) = (site.lake(), World::new());
    first_run(&lake, &world, false).await.unwrap();
    let other = audit_core::sink::Identity { source: "other".into(), ..common::identity() };
    let error = lake.sink().take(&other).await.unwrap_err();
    assert_eq!(error.action, Action::Stop);
    assert!(error.message.contains("belongs to source \"shop\""), "{error}");
    assert!(probe(&lake.config, "other").await.unwrap_err().to_string().contains("belongs to source \"shop\""));
}

pub const LARGE_ROWS: usize = 540;

/// Rows of 64 KB of hex, which is compressed to half of that: more than fits into one put.
pub fn large(fixture: &mut Fixture) -> Vec<Batch> {
    let mut text = format!("{TABLE}begin\n");
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    for id in 0..LARGE_ROWS {
        let name: String = (0..4096)
            .map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                format!("{word:016x}")
            })
            .collect();
        text.push_str(&format!("insert public.users [{id}, \"{name}\"]\n"));
    }
    text.push_str("commit");
    fixture.batches(&text)
}

/// A file that is larger than one put is staged on disk, or uploaded in parts in a bucket.
async fn a_large_file_is_there_whole(site: Site) {
    let (lake, mut fixture) = (site.lake(), Fixture::default());
    lake.write(&large(&mut fixture)).await;
    lake.mirror().await;
    assert_eq!(lake.agreed("public.users").await.len(), LARGE_ROWS);
    let sizes: Vec<u64> = lake.listed_files("public.users").iter().map(|path| path.metadata().unwrap().len()).collect();
    assert!(sizes.len() == 1 && sizes[0] > 17 << 20, "{sizes:?}");
}

/// Delta checkpoints are Parquet files that are also written, found and read through the store.
async fn a_long_log_gets_checkpoints(site: Site) {
    let (lake, mut fixture) = (site.lake(), Fixture::default());
    let (mut sink, _) = lake.taken().await;
    for id in 0..55 {
        let table = if id == 0 { TABLE } else { "" };
        let batches = fixture.batches(&format!("{table}begin\ninsert public.users [{id}, \"x\"]\ncommit"));
        write(&mut sink, &batches).await.unwrap();
    }
    drop(sink);
    lake.write(&fixture.batches("begin\ninsert public.users [99, \"y\"]\ncommit")).await;
    lake.mirror().await;
    assert!(lake.path().join("public.users/_delta_log/_last_checkpoint").exists());
    assert_eq!(lake.agreed("public.users").await.len(), 56);
}
