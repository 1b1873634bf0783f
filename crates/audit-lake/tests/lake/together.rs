//! Rolls in a store whose answers are slow.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use audit_core::sink::Sink;
use audit_lake::LakeSink;
use audit_lake::store::Store;
use audit_testkit::Fixture;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Barrier;

use crate::common::{Lake, MEMORY, identity, roll, start, write};

const FILES: usize = 8;

/// Answers requests for fresh files only after all of them were asked for.
#[derive(Debug)]
struct Together {
    inner: InMemory,
    asked: Barrier,
}

impl fmt::Display for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Together")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Together {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if location.as_ref().contains("/fresh/") {
            self.asked.wait().await;
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// If sent one after the other, the requests of 720 files take longer than anything else in a roll.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_reads_its_files_at_a_time() {
    let store = Arc::new(Together { inner: InMemory::new(), asked: Barrier::new(FILES) });
    let (lake, mut fixture) = (Lake::new().fresh(), Fixture::default());
    let mut sink = LakeSink::over("lake", &lake.config, MEMORY, Store::over(store.clone(), "memory")).unwrap();
    sink.take(&identity()).await.unwrap();
    sink.begin(start()).await.unwrap();
    fixture.batches("table public.users (id int4 key, name text) full");
    for id in 0..FILES {
        let row = format!("begin at=2026-03-01T10:00:00Z\ninsert public.users [{id}, \"x\"]\ncommit");
        write(&mut sink, &fixture.batches(&row)).await.unwrap();
    }
    let rolled = tokio::time::timeout(Duration::from_secs(120), roll(&mut sink)).await;
    rolled.expect("one file after the other").unwrap();
    let listed: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    let of = |root: &str| listed.iter().filter(|meta| meta.location.as_ref().contains(root)).count();
    assert_eq!((of("/data/"), of("/fresh/")), (1, 0));
}
