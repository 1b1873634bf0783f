use std::fs;

use audit_core::sink::{Action, Identity, Sink};
use audit_testkit::Fixture;

use crate::common::{Lake, identity, write};

const ONE: &str = "table public.t (id int4 key) full\nbegin\ninsert public.t [1]\ncommit";

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_epoch_is_the_fence() {
    let lake = Lake::new();
    let (mut first, _) = lake.taken().await;
    let mut fixture = Fixture::default();
    let batches = fixture.batches(ONE);
    write(&mut first, &batches).await.unwrap();
    let (mut second, stored) = lake.taken().await;
    assert_eq!(stored.checkpoint.unwrap().progress(), batches[0].progress);
    // The first wakes up and finds that it is no longer the owner; none of its versions is committed.
    let more = fixture.batches("begin\ninsert public.t [2]\ncommit");
    write(&mut second, &more).await.unwrap();
    let error = write(&mut first, &more).await.unwrap_err();
    assert_eq!(error.action, Action::Fenced, "{error}");
    assert!(error.message.contains("owner 2") && error.message.contains("owner 1"), "{error}");
    assert!(error.hint.unwrap().contains("stop one of the two daemons"));
    assert_eq!(lake.delta_rows("public.t").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_belongs_to_one_source() {
    let lake = Lake::new();
    lake.write(&Fixture::of(ONE)).await;
    let other = Identity { source: "other".into(), ..identity() };
    let error = lake.sink().take(&other).await.unwrap_err();
    assert_eq!(error.action, Action::Stop);
    assert!(error.message.contains("belongs to source \"shop\""), "{error}");
    // The tables alone are enough to refuse it.
    fs::remove_dir_all(lake.path().join("_cdc_audit")).unwrap();
    let error = lake.sink().take(&other).await.unwrap_err();
    assert_eq!(error.action, Action::Stop, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hand_altered_stops_the_daemon_and_is_named() {
    let altered = async |alter: fn(&std::path::Path), named: &str| {
        let lake = Lake::new();
        let mut sink = lake.write(&Fixture::of(ONE)).await;
        let mut fixture = Fixture::default();
        let mut batches = fixture.batches(ONE);
        batches.extend(fixture.batches("begin\ninsert public.t [2]\ncommit"));
        write(&mut sink, &batches).await.unwrap();
        alter(lake.path());
        let error = lake.sink().take(&identity()).await.unwrap_err();
        assert_eq!(error.action, Action::Stop, "{error}");
        assert!(error.message.contains(named), "{error}");
        assert!(error.hint.is_some());
    };
    altered(|lake| fs::remove_dir_all(lake.join("_cdc_audit/checkpoint")).unwrap(), "_cdc_audit/checkpoint").await;
    altered(
        |lake| {
            let newest = fs::read_dir(lake.join("_cdc_audit/checkpoint"))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .max()
                .unwrap();
            fs::write(newest, "{").unwrap();
        },
        "_cdc_audit/checkpoint",
    )
    .await;
    altered(
        |lake| fs::remove_file(lake.join("public.t/_delta_log/00000000000000000000.json")).unwrap(),
        "public.t/_delta_log",
    )
    .await;
    altered(
        |lake| fs::write(lake.join("public.t/_delta_log/00000000000000000001.json"), "{").unwrap(),
        "public.t/_delta_log",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tools_commit_is_stepped_over() {
    let lake = Lake::new();
    let mut fixture = Fixture::default();
    let batches = fixture.batches(ONE);
    let mut sink = lake.write(&batches).await;
    let log = lake.path().join("public.t/_delta_log");
    let note = r#"{"commitInfo":{"timestamp":1,"operation":"VACUUM END","operationParameters":{}}}"#;
    fs::write(log.join("00000000000000000001.json"), note).unwrap();
    write(&mut sink, &fixture.batches("begin\ninsert public.t [2]\ncommit")).await.unwrap();
    assert!(log.join("00000000000000000002.json").exists());
    assert_eq!(lake.agreed("public.t").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_cannot_be_written_says_so() {
    let lake = Lake::new();
    let place = lake.path().join("file");
    fs::write(&place, "").unwrap();
    let mut config = lake.config.clone();
    config.url = place.to_str().unwrap().to_string();
    let mut sink = audit_lake::LakeSink::new("lake", &config, 1 << 20).unwrap();
    let error = sink.take(&identity()).await.unwrap_err();
    assert!(error.message.contains(place.to_str().unwrap()), "{error}");
    for url in ["ftp://host/lake", "relative/path", "/", "file://host"] {
        config.url = url.to_string();
        let error = audit_lake::LakeSink::new("lake", &config, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("no place for a lake"), "{error}");
    }
}

/// With thousands of tables, one that has nothing new costs one read of its log when a daemon starts, and no request
/// after that.
#[tokio::test(flavor = "multi_thread")]
async fn idle_tables_are_not_touched() {
    let lake = Lake::new();
    let mut fixture = Fixture::default();
    let count = 100;
    let mut text = String::new();
    for table in 0..count {
        text.push_str(&format!(
            "table public.t{table} (id int4 key) full\nbegin\ninsert public.t{table} [1]\ncommit\n"
        ));
    }
    drop(lake.write(&fixture.batches(&text)).await);
    let tables = || {
        let mut files = lake.files();
        files.retain(|(path, ..)| !path.starts_with(lake.path().join("_cdc_audit")));
        files
    };
    let before = tables();
    let (mut sink, stored) = lake.taken().await;
    assert_eq!(stored.shapes.len(), count);
    assert_eq!(tables(), before);
    write(&mut sink, &fixture.batches("begin\ninsert public.t7 [2]\ncommit")).await.unwrap();
    let touched: Vec<_> = tables().into_iter().filter(|file| !before.contains(file)).collect();
    assert!(touched.iter().all(|(path, ..)| path.starts_with(lake.path().join("public.t7"))), "{touched:?}");
    assert_eq!(touched.len(), 2, "a file and a commit: {touched:?}");
}
