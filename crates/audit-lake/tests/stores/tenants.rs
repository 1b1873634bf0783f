use std::collections::BTreeMap;
use std::path::PathBuf;

use audit_core::batch::Batch;
use audit_core::sink::{Action, Sink};
use audit_lake::{LakeReader, probe};
use audit_testkit::{Fault, ObjectKind, ObjectServer, unique};

use crate::Site;
use crate::common::story::{first_run, next_run};
use crate::common::tenants::{apart, check, fixture, places, world};
use crate::common::{Lake, View, identity, start, write};
use crate::trouble::strike;

/// A lake with a bucket for each tenant. Names of tenants that no bucket can have are hashed.
struct Buckets {
    lake: Lake,
    server: &'static ObjectServer,
    infix: String,
}

impl Buckets {
    fn of(site: &Site) -> Buckets {
        let (mut lake, infix) = (site.lake(), unique("b").replace('_', "-").to_lowercase());
        lake.config.home = Some(std::mem::take(&mut lake.config.url));
        lake.config.url = format!("s3://{infix}-{{tenant}}/lake");
        Buckets { lake, server: site.0.as_ref().unwrap().0, infix }
    }

    fn make(&self, tenant: &str) -> PathBuf {
        self.server.make_bucket(&format!("{}-{tenant}", self.infix)).join("lake")
    }

    /// The folders of the files of each tenant and of home; all buckets are made.
    fn places(&self) -> BTreeMap<String, PathBuf> {
        let home = self.lake.config.home.as_deref().unwrap().rsplit('/').next().unwrap();
        let names = [("acme", "acme"), ("hooli", "hooli"), ("initech", "initech"), ("Initech/..", HASHED)];
        let tenants = names.map(|(tenant, name)| (tenant.to_string(), self.make(name)));
        [(String::new(), self.server.folder(home))].into_iter().chain(tenants).collect()
    }
}

/// The bucket's name for the tenant `Initech/..`.
const HASHED: &str = "x-36700f5d03f82effffe096840397997c";

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_has_a_bucket() {
    let site = Site::of(ObjectKind::S3).await;
    for fresh in [false, true] {
        let (mut buckets, mut world) = (Buckets::of(&site), world());
        if fresh {
            buckets.lake = buckets.lake.fresh();
        }
        let places = buckets.places();
        first_run(&buckets.lake, &world, true).await.unwrap();
        next_run(&buckets.lake, &mut world, 5).await.unwrap();
        check(&places, &world).await;
        assert_eq!(probe(&buckets.lake.config, "shop").await.unwrap(), 4);
        let reader = LakeReader::open(&buckets.lake.config).unwrap();
        assert_eq!(reader.history("shop", "public.users", "1", 10).await.unwrap().len(), 2);
        let one = reader.of_tenant("acme").await.unwrap();
        assert_eq!(one.history("shop", "public.users", "1", 10).await.unwrap().len(), 1);
        assert_eq!(one.url().unwrap(), format!("s3://{}-acme/lake", buckets.infix));
    }
}

on_every_bucket! { each_tenant_has_a_prefix }

async fn each_tenant_has_a_prefix(site: Site) {
    for fresh in site.modes() {
        let (lake, mut world) = (apart(site.lake_of(*fresh)), world());
        first_run(&lake, &world, true).await.unwrap();
        next_run(&lake, &mut world, 5).await.unwrap();
        lake.mirror().await;
        check(&places(&lake), &world).await;
        assert_eq!(probe(&lake.config, "shop").await.unwrap(), 4);
        let one = LakeReader::open(&lake.config).unwrap().of_tenant("acme").await.unwrap();
        assert_eq!(one.history("shop", "public.users", "1", 10).await.unwrap().len(), 1);
    }
}

/// A missing bucket stops the sink with an error that names it, and nothing is lost: after it is made, the same call
/// continues.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_missing_is_waited_for() {
    let site = Site::of(ObjectKind::S3).await;
    let (buckets, mut fixture) = (Buckets::of(&site), fixture());
    let acme = buckets.make("acme");
    let batches = fixture.batches(
        "table public.t (id int4 key, owner text) full\nbegin\ninsert public.t [1, \"acme\"]\ncommit\n---\n\
         begin\ninsert public.t [2, \"acme\"]\ninsert public.t [3, \"hooli\"]\ncommit",
    );
    let mut sink = buckets.lake.sink();
    sink.take(&identity()).await.unwrap();
    sink.begin(start()).await.unwrap();
    let all: Vec<&Batch> = batches.iter().collect();
    for _ in 0..2 {
        let error = sink.write(&all).await.unwrap_err();
        assert_eq!(error.action, Action::Retry, "{error}");
        assert!(error.message.contains("the store of tenant \"hooli\""), "{error}");
        assert!(error.hint.as_ref().unwrap().contains("make the bucket"), "{:?}", error.hint);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(&format!("s3://{}-hooli/lake", buckets.infix)), "{cause}");
        sink.flush(true).await.unwrap();
        assert_eq!(View::of(&acme).agreed("public.t").await.len(), 1, "what others have is committed");
    }
    let hooli = buckets.make("hooli");
    sink.write(&all).await.unwrap();
    sink.flush(true).await.unwrap();
    assert_eq!(View::of(&acme).agreed("public.t").await.len(), 2);
    assert_eq!(View::of(&hooli).agreed("public.t").await.len(), 1);
    drop(sink);

    // A bucket that was removed is skipped by a daemon that starts, until rows come for it.
    std::fs::remove_dir_all(hooli.parent().unwrap()).unwrap();
    let (mut sink, stored) = buckets.lake.taken().await;
    assert_eq!(stored.checkpoint.unwrap().progress(), batches[1].progress);
    write(&mut sink, &fixture.batches("begin\ninsert public.t [4, \"acme\"]\ncommit")).await.unwrap();
    assert_eq!(View::of(&acme).agreed("public.t").await.len(), 3);
    let more = fixture.batches("begin\ninsert public.t [5, \"hooli\"]\ncommit");
    assert_eq!(write(&mut sink, &more).await.unwrap_err().action, Action::Retry);
}

/// ⚠ The sink waits for the bucket of a tenant, but only for a while; then the tenant's rows go to home permanently,
/// once, whatever is made or killed later.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_tenant_without_a_bucket_go_home_after_a_while() {
    let site = Site::of(ObjectKind::S3).await;
    let (mut buckets, mut fixture) = (Buckets::of(&site), fixture());
    let acme = buckets.make("acme");
    buckets.lake.config.tenant_wait = std::time::Duration::ZERO.into();
    let mut insert = |id: u32, owner: &str| {
        let table = if id == 1 { "table public.t (id int4 key, owner text) full\n" } else { "" };
        fixture.batches(&format!("{table}begin\ninsert public.t [{id}, \"{owner}\"]\ncommit"))
    };
    let (mut sink, _) = buckets.lake.taken().await;
    write(&mut sink, &insert(1, "acme")).await.unwrap();
    let strays = insert(2, "madeup");
    write(&mut sink, &strays).await.unwrap();
    let troubles = sink.troubles();
    assert!(troubles.len() == 1 && troubles[0].contains("tenant \"madeup\" has no store"), "{troubles:?}");
    let home = buckets.lake.config.home.as_deref().unwrap().rsplit('/').next().unwrap();
    let home = View::of(&buckets.server.folder(home));
    assert_eq!(home.agreed("public.t").await.len(), 1);
    // The bucket is made, and the daemon is killed before its checkpoint: the row stays in home, and so do later ones.
    let made = buckets.make("madeup");
    let mut sink = buckets.lake.sink();
    sink.take(&identity()).await.unwrap();
    sink.begin(start()).await.unwrap();
    sink.write(&strays.iter().collect::<Vec<_>>()).await.unwrap();
    write(&mut sink, &insert(3, "madeup")).await.unwrap();
    assert_eq!(home.agreed("public.t").await.len(), 2);
    assert!(View::of(&made).agreed("public.t").await.is_empty());
    // The daemon is stopped, the note is removed, the daemon is started: the tenant has a store from now on.
    drop(sink);
    let notes = home.path().join("_cdc_audit/tenants");
    std::fs::remove_file(notes.join("madeup.json")).unwrap();
    let (mut sink, _) = buckets.lake.taken().await;
    write(&mut sink, &insert(4, "madeup")).await.unwrap();
    assert_eq!((home.agreed("public.t").await.len(), View::of(&made).agreed("public.t").await.len()), (2, 1));
    assert_eq!((sink.troubles(), View::of(&acme).agreed("public.t").await.len()), (Vec::new(), 1));
}

/// ⚠ Sessions that end early, each time before the wait is over, must not add up to a wait without an end.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_bucket_goes_on_in_the_next_session() {
    let site = Site::of(ObjectKind::S3).await;
    let (mut buckets, mut fixture) = (Buckets::of(&site), fixture());
    let wait = std::time::Duration::from_secs(2);
    buckets.lake.config.tenant_wait = wait.into();
    let strays = fixture
        .batches("table public.t (id int4 key, owner text) full\nbegin\ninsert public.t [1, \"madeup\"]\ncommit");
    let (mut sink, _) = buckets.lake.taken().await;
    let error = write(&mut sink, &strays).await.unwrap_err();
    assert_eq!(error.action, Action::Retry, "{error}");
    tokio::time::sleep(wait).await;
    sink.take(&identity()).await.unwrap();
    write(&mut sink, &strays).await.unwrap();
}

/// ⚠ Anyone who may write a tenant's column can make up tenants: only a few are told of one by one.
#[tokio::test(flavor = "multi_thread")]
async fn many_made_up_tenants_are_counted() {
    let site = Site::of(ObjectKind::S3).await;
    let (mut buckets, mut fixture) = (Buckets::of(&site), fixture());
    buckets.lake.config.tenant_wait = std::time::Duration::ZERO.into();
    let (mut sink, _) = buckets.lake.taken().await;
    // More than is remembered, in two batches.
    let long = "x".repeat(30_000);
    for batch in 0..2 {
        let table = if batch == 0 { "table public.t (id int4 key, owner text) full\n" } else { "" };
        let rows: String =
            (batch * 40..batch * 40 + 40).map(|id| format!("insert public.t [{id}, \"{id} {long}\"]\n")).collect();
        write(&mut sink, &fixture.batches(&format!("{table}begin\n{rows}commit"))).await.unwrap();
    }
    let troubles = sink.troubles();
    assert_eq!(troubles.len(), 6, "{troubles:?}");
    assert!(troubles.iter().all(|trouble| trouble.len() < 300), "{troubles:?}");
    assert_eq!(troubles[5], "35 more tenants have no store");
}

/// A kill after the store has done what was asked, but before its answer arrives.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_requests_that_write() {
    let site = Site::of(ObjectKind::S3).await;
    let step = if audit_testkit::thorough() { 1 } else { 3 };
    for number in (0..).step_by(step) {
        let (buckets, mut world) = (Buckets::of(&site), world());
        let places = buckets.places();
        site.proxy().plan(strike(number, Fault::DoneButSilent));
        let killed = tokio::select! {
            biased;
            () = site.proxy().strike() => true,
            done = first_run(&buckets.lake, &world, number % 2 == 0) => { done.unwrap(); false }
        };
        site.proxy().heal();
        next_run(&buckets.lake, &mut world, 5).await.unwrap();
        check(&places, &world).await;
        if !killed {
            assert!(number > 30, "{number} requests");
            return;
        }
    }
}
