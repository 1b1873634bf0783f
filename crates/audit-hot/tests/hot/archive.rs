//! Months leave the hot tables step by step, and nothing leaves that was not proved.

use std::time::Duration;

use audit_core::batch::Batch;
use audit_hot::{Archive, HotConfig, Partition, Partitioning, ReadError, SetupOptions, State};
use audit_testkit::{Fixture, connect, shared_db};
use serde_json::json;

use crate::fixture::{Hot, options, setup, take, write};
use crate::roles::{teardown_roles, url_of, with_roles};

const USERS: &str = "table public.users (id int4 key, name text)";

/// Two versions of March 2026, and one of April.
fn batches(fixture: &mut Fixture) -> Vec<Batch> {
    fixture.batches(&format!(
        r#"{USERS}
           begin at=2026-03-05T00:00:00Z
           insert public.users [1, "Ann"]
           insert public.users [2, "Bea"]
           commit
           begin at=2026-04-05T00:00:00Z
           insert public.users [3, "Cid"]
           commit"#
    ))
}

async fn filled(partitioning: Partitioning) -> (Hot, Fixture, audit_hot::HotSink) {
    let hot = Hot::with(partitioning, 15).await;
    let mut fixture = Fixture::default();
    let batches = batches(&mut fixture);
    let mut sink = hot.taken().await;
    write(&mut sink, &batches).await.unwrap();
    (hot, fixture, sink)
}

async fn archive(hot: &Hot) -> Archive {
    Archive::connect(&hot.config.endpoint).await.unwrap()
}

/// The partition of March 2026 that holds users.
async fn march(archive: &Archive) -> Partition {
    let partitions = archive.partitions().await.unwrap();
    partitions.into_iter().find(|partition| partition.from.to_string().starts_with("2026-03")).unwrap()
}

async fn prove(archive: &Archive, versions: u64) -> Result<i64, ReadError> {
    let name = march(archive).await.name;
    archive.prove("shop", &name, versions, &json!({"lake": "archive"}), "ann").await
}

async fn state(archive: &Archive, id: i64) -> State {
    archive.list("shop").await.unwrap().into_iter().find(|archived| archived.id == id).unwrap().state
}

#[tokio::test]
async fn a_month_leaves_comes_back_and_is_dropped() {
    for partitioning in [Partitioning::Month, Partitioning::TableAndMonth] {
        let (hot, ..) = filled(partitioning).await;
        let archive = archive(&hot).await;
        let partition = march(&archive).await;
        let table = (partitioning == Partitioning::TableAndMonth).then(|| "public.users".to_owned());
        assert_eq!((partition.versions_table.as_str(), partition.table.clone()), ("versions", table));
        assert_eq!(partition.to.to_string(), "2026-04-01T00:00:00.000000Z");
        let counts = hot.reader().await.counts(&partition).await.unwrap();
        assert_eq!(counts, [("shop".to_owned(), "public.users".to_owned(), 2)]);

        let id = prove(&archive, 2).await.unwrap();
        assert_eq!(hot.trail(), "0|created|1\n1|created|2\n0|created|3");
        archive.detach(id).await.unwrap();
        assert_eq!(hot.trail(), "0|created|3");
        archive.attach(id).await.unwrap();
        assert_eq!((hot.trail().lines().count(), state(&archive, id).await), (3, State::Returned));

        let again = prove(&archive, 2).await.unwrap();
        archive.detach(again).await.unwrap();
        archive.drop(again).await.unwrap();
        assert_eq!((hot.trail().as_str(), state(&archive, again).await), ("0|created|3", State::Dropped));
        let kept = format!("SELECT to_regclass('cdc_audit.archived_{again}') IS NULL");
        assert_eq!(hot.sql(&kept), "t");
        let archived = archive.list("shop").await.unwrap().pop().unwrap();
        assert_eq!(
            (archived.versions, archived.proof, archived.os_user.as_str()),
            (2, json!({"lake": "archive"}), "ann")
        );
        assert!(archive.list("other").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn nothing_leaves_that_was_not_proved() {
    let (hot, ..) = filled(Partitioning::Month).await;
    let archive = archive(&hot).await;
    let refused = |result: Result<i64, ReadError>| result.unwrap_err().to_string();
    let shown = refused(prove(&archive, 1).await);
    assert!(shown.contains("versions_2026_03 has 2 versions, and 1 were proved"), "{shown}");
    let now = hot.sql("SELECT to_char(now() AT TIME ZONE 'UTC', '\"versions_\"YYYY_MM')");
    let shown = refused(archive.prove("shop", &now, 0, &json!({}), "ann").await);
    assert!(shown.contains("is not over"), "{shown}");
    for other in ["versions", "checkpoints", "no_such", "versions\"; DROP TABLE cdc_audit.versions; --"] {
        let shown = refused(archive.prove("shop", other, 0, &json!({}), "ann").await);
        assert!(shown.contains("not a partition of versions"), "{other}: {shown}");
    }
    assert!(archive.detach(1).await.is_err() && archive.drop(1).await.is_err() && archive.attach(1).await.is_err());
    let id = prove(&archive, 2).await.unwrap();
    assert!(archive.drop(id).await.unwrap_err().to_string().contains("nothing that was detached"));
    assert_eq!(hot.trail().lines().count(), 3);
}

/// A newer proof of the same partition replaces the older one.
#[tokio::test]
async fn a_partition_has_one_proof() {
    let (hot, ..) = filled(Partitioning::Month).await;
    let archive = archive(&hot).await;
    let first = prove(&archive, 2).await.unwrap();
    let second = prove(&archive, 2).await.unwrap();
    assert!(archive.detach(first).await.is_err());
    archive.detach(second).await.unwrap();
}

#[tokio::test]
async fn the_time_of_grace_is_the_databases() {
    let database = shared_db(15).await;
    setup(&database, &SetupOptions { archive_grace: audit_config::Span::days(7), ..options() });
    let hot = Hot { config: HotConfig::new(&database.url), database };
    write(&mut hot.taken().await, &batches(&mut Fixture::default())).await.unwrap();
    let archive = archive(&hot).await;
    let id = prove(&archive, 2).await.unwrap();
    archive.detach(id).await.unwrap();
    let shown = archive.drop(id).await.unwrap_err().to_string();
    assert!(shown.contains("versions_2026_03 is kept until"), "{shown}");
    assert_eq!(state(&archive, id).await, State::Detached);
    archive.attach(id).await.unwrap();
    assert_eq!(hot.trail().lines().count(), 3);
}

/// A version that comes after the proof is not dropped with the others, wherever it arrives.
#[tokio::test]
async fn what_comes_late_stays() {
    let (hot, mut fixture, mut sink) = filled(Partitioning::Month).await;
    let archive = archive(&hot).await;
    let id = prove(&archive, 2).await.unwrap();
    let late = |fixture: &mut Fixture, id: u32| {
        fixture.batches(&format!("begin at=2026-03-06T00:00:00Z\ninsert public.users [{id}, \"late\"]\ncommit"))
    };
    write(&mut sink, &late(&mut fixture, 4)).await.unwrap();
    archive.detach(id).await.unwrap();
    let shown = archive.drop(id).await.unwrap_err().to_string();
    assert!(shown.contains("versions_2026_03 has 3 versions, and 2 were proved"), "{shown}");
    // A process that has forgotten the partition makes another.
    drop(sink);
    let mut sink = hot.sink();
    take(&mut sink).await.unwrap();
    write(&mut sink, &late(&mut fixture, 5)).await.unwrap();
    assert_eq!(hot.trail().lines().count(), 2);
    archive.attach(id).await.unwrap();
    assert_eq!(hot.sql("SELECT string_agg(key, ',' ORDER BY key) FROM cdc_audit.versions"), "1,2,3,4,5");
    // Where the other partition is still there, the sink's next version goes into the one that came back.
    write(&mut sink, &late(&mut fixture, 6)).await.unwrap();
    assert_eq!(hot.sql("SELECT count(*) FROM cdc_audit.versions_2026_03"), "5");
}

/// A daemon that goes on writing finds that the partition is gone, and has another one made.
#[tokio::test]
async fn a_daemon_that_runs_makes_the_partition_again() {
    let (hot, mut fixture, mut sink) = filled(Partitioning::Month).await;
    let archive = archive(&hot).await;
    let id = prove(&archive, 2).await.unwrap();
    archive.detach(id).await.unwrap();
    let late = fixture.batches("begin at=2026-03-06T00:00:00Z\ninsert public.users [7, \"late\"]\ncommit");
    let mut written = write(&mut sink, &late).await;
    if written.is_err() {
        take(&mut sink).await.unwrap();
        written = write(&mut sink, &late).await;
    }
    written.unwrap();
    assert_eq!(hot.trail(), "0|created|3\n0|created|7");
}

/// While somebody reads, the month stays; others are not kept waiting, and it leaves when the look has ended.
#[tokio::test(flavor = "multi_thread")]
async fn readers_keep_what_they_look_at() {
    for partitioning in [Partitioning::Month, Partitioning::TableAndMonth] {
        let (hot, ..) = filled(partitioning).await;
        let archive = archive(&hot).await;
        let id = prove(&archive, 2).await.unwrap();
        let reader = connect(&hot.database.url).await;
        // What a look locks where there are very many partitions.
        reader.batch_execute("BEGIN; LOCK TABLE ONLY cdc_audit.versions IN ACCESS SHARE MODE").await.unwrap();
        let detached = tokio::spawn(async move {
            archive.detach(id).await.unwrap();
            archive
        });
        for _ in 0..5 {
            assert_eq!(hot.trail().lines().count(), 3);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!detached.is_finished());
        reader.batch_execute("COMMIT").await.unwrap();
        detached.await.unwrap();
        assert_eq!(hot.trail().lines().count(), 1);
    }
}

/// The archiver takes months out by the functions, and in no other way. Nobody else can.
#[tokio::test]
async fn the_archiver_takes_out_by_the_functions_alone() {
    let (database, mut options) = with_roles(15).await;
    let archiver = audit_testkit::unique("archiver").replace('-', "_");
    database.execute(&format!("CREATE ROLE {archiver} LOGIN"));
    options.archiver = Some(archiver.clone());
    setup(&database, &options);
    let [writer, reader] = [&options.writer, &options.reader].map(|role| url_of(&database, role.as_ref().unwrap()));
    let archiver_url = url_of(&database, &archiver);
    let mut sink = audit_hot::HotSink::new("hot", &HotConfig::new(&writer));
    take(&mut sink).await.unwrap();
    write(&mut sink, &batches(&mut Fixture::default())).await.unwrap();
    let archive = Archive::connect(&audit_connect::PgEndpoint::new(&archiver_url)).await.unwrap();
    let id = prove(&archive, 2).await.unwrap();
    archive.detach(id).await.unwrap();
    let client = connect(&archiver_url).await;
    for forbidden in [
        "INSERT INTO cdc_audit.archive (source) VALUES ('shop')".to_owned(),
        "UPDATE cdc_audit.archive SET keep_until = now()".to_owned(),
        "DELETE FROM cdc_audit.archive".to_owned(),
        "INSERT INTO cdc_audit.versions SELECT * FROM cdc_audit.versions".to_owned(),
        format!("DROP TABLE cdc_audit.archived_{id}"),
        format!("SELECT * FROM cdc_audit.archived_{id}"),
        format!("DELETE FROM cdc_audit.archived_{id}"),
        "ALTER FUNCTION cdc_audit.archive_drop(bigint) SECURITY INVOKER".to_owned(),
    ] {
        let error = client.batch_execute(&forbidden).await.expect_err(&forbidden);
        assert_eq!(error.code().unwrap().code(), "42501", "{forbidden}: {error:?}");
    }
    for other in [&writer, &reader] {
        let client = connect(other).await;
        for forbidden in ["detach(1)", "verify(1)", "attach(1)", "drop(1)", "prove('', '', 0, '{}', '')"] {
            let error =
                client.batch_execute(&format!("SELECT cdc_audit.archive_{forbidden}")).await.expect_err(forbidden);
            assert_eq!(error.code().unwrap().code(), "42501", "{forbidden}: {error:?}");
        }
    }
    archive.drop(id).await.unwrap();
    teardown_roles(&database, &options);
    database.execute(&format!("DROP OWNED BY {archiver}; DROP ROLE {archiver}"));
}
