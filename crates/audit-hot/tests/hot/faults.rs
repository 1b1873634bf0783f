//! Failures, and that none of them loses or doubles a version.

use std::sync::Arc;

use audit_core::batch::{Batch, Progress};
use audit_core::plan::Unit;
use audit_core::position::Lsn;
use audit_core::quarantine::Quarantined;
use audit_core::sink::{Action, Sink, SinkError};
use audit_hot::{CheckpointStore, HotConfig, HotSink};
use audit_testkit::{Fixture, Postgres, Proxy, Shutdown, Traffic};

use crate::fixture::{Hot, identity, options, take, write};

fn users(from: u32, to: u32) -> Vec<Batch> {
    let rows: String = (from..to).map(|id| format!("insert public.users [{id}, \"x\"]\n")).collect();
    Fixture::of(&format!("table public.users (id int4 key, name text)\nbegin\n{rows}commit"))
}

fn stop(error: &SinkError, message: &str) {
    ends(error, Action::Stop, message);
}

fn fenced(error: &SinkError) {
    ends(error, Action::Fenced, "another daemon owns sink hot: process");
}

fn ends(error: &SinkError, action: Action, message: &str) {
    assert_eq!(error.action, action, "{error:?}");
    assert!(error.message.contains(message), "{error:?}");
    assert!(error.hint.is_some(), "{error:?}");
}

#[tokio::test]
async fn whoever_took_the_sink_last_writes_alone() {
    let hot = Hot::new().await;
    let (mut first, mut second) = (hot.taken().await, hot.taken().await);
    fenced(&write(&mut first, &users(0, 3)).await.unwrap_err());
    write(&mut second, &users(0, 3)).await.unwrap();
    // The first sink does not recover by itself.
    fenced(&write(&mut first, &users(0, 3)).await.unwrap_err());
    assert_eq!(hot.sql("SELECT count(*) FROM cdc_audit.versions"), "3");
}

#[tokio::test]
async fn a_fenced_daemon_that_has_nothing_to_write_finds_out_too() {
    let hot = Hot::new().await;
    let (mut first, _second) = (hot.taken().await, hot.taken().await);
    let idle = Fixture::of("idle 0/99000");
    fenced(&write(&mut first, &idle).await.unwrap_err());
    assert_eq!(hot.sql("SELECT flushed_lsn FROM cdc_audit.checkpoints"), "0/0");
}

/// Everything was stored, but the answer never arrived.
#[tokio::test]
async fn a_lost_answer_to_commit_doubles_nothing() {
    let hot = Hot::new().await;
    let proxy = Proxy::to(hot.database.server.port());
    let mut sink = HotSink::new("hot", &HotConfig::new(proxy.through(&hot.database.url)));
    take(&mut sink).await.unwrap();
    write(&mut sink, &users(0, 1)).await.unwrap();
    let mut fixture = Fixture::default();
    fixture.batches("table public.users (id int4 key, name text)\nbegin\ninsert public.users [0, \"x\"]\ncommit");
    let mut lost = 0;
    // The connection is cut later and later, until nothing is lost any more: the answer to COMMIT is the last one, and
    // longer than a step.
    for id in 1.. {
        let rows = || hot.sql("SELECT count(*) FROM cdc_audit.versions");
        let (had, known) = (rows(), sink.durable());
        let batches = fixture.batches(&format!("begin\ninsert public.users [{id}, \"x\"]\ncommit"));
        proxy.cut_after(id * 7);
        let Err(error) = write(&mut sink, &batches).await else { break };
        assert_eq!(error.action, Action::Retry, "{error:?}");
        assert_eq!(sink.durable(), known);
        lost += u32::from(rows() != had);
        write(&mut sink, &batches).await.unwrap();
        assert_eq!(sink.durable(), fixture.progress());
    }
    assert!(lost > 0, "no answer to COMMIT was lost");
    let counts = "SELECT count(*) - count(DISTINCT key), count(*) - max(key::int) FROM cdc_audit.versions";
    assert_eq!(hot.sql(counts), "0|1");
}

/// The connection is cut at every byte that the server answers, in turn.
#[tokio::test]
async fn a_connection_may_break_anywhere() {
    let hot = Hot::new().await;
    let proxy = Proxy::to(hot.database.server.port());
    let mut sink = HotSink::new("hot", &HotConfig::new(proxy.through(&hot.database.url)));
    take(&mut sink).await.unwrap();
    let mut fixture = Fixture::default();
    fixture.batches("table public.users (id int4 key, name text)");
    let mut cuts = 0;
    for id in 0..60 {
        let batches = fixture.batches(&format!("begin\ninsert public.users [{id}, \"x\"]\ncommit"));
        proxy.cut_after(id * 3);
        while let Err(error) = write(&mut sink, &batches).await {
            assert_eq!(error.action, Action::Retry, "{error:?}");
            cuts += 1;
        }
        assert_eq!(sink.durable(), fixture.progress());
    }
    assert!(cuts > 20, "{cuts}");
    let counts = "SELECT count(*), count(DISTINCT key), max(key::int) FROM cdc_audit.versions";
    assert_eq!(hot.sql(counts), "60|60|59");
}

/// The same while a session is opened again, until the owner epoch is raised and the answer to that is lost.
#[tokio::test]
async fn taking_the_checkpoint_again_may_be_cut_off_anywhere() {
    let hot = Hot::new().await;
    let proxy = Proxy::to(hot.database.server.port());
    let mut sink = HotSink::new("hot", &HotConfig::new(proxy.through(&hot.database.url)));
    take(&mut sink).await.unwrap();
    let mut fixture = Fixture::default();
    fixture.batches("table public.users (id int4 key, name text)");
    for id in 0..150 {
        let batches = fixture.batches(&format!("begin\ninsert public.users [{id}, \"x\"]\ncommit"));
        proxy.cut();
        proxy.cut_after(1 + id * 61);
        while let Err(error) = write(&mut sink, &batches).await {
            assert_eq!(error.action, Action::Retry, "{error:?}");
        }
    }
    let counts = "SELECT count(*), count(DISTINCT key), max(key::int) FROM cdc_audit.versions";
    assert_eq!(hot.sql(counts), "150|150|149");
    // Each session that wrote took the checkpoint once; any higher epoch shows that answers to taking it were lost.
    let epoch: u32 = hot.sql("SELECT owner_epoch FROM cdc_audit.checkpoints").parse().unwrap();
    assert!(epoch > 1 + 150, "{epoch}: no answer to taking the checkpoint was lost");
}

/// A write that is cancelled half-way leaves nothing behind that disturbs the next one.
#[tokio::test]
async fn a_cancelled_write_is_repeated_whole() {
    let hot = Hot::new().await;
    let proxy = Proxy::to(hot.database.server.port());
    let mut sink = HotSink::new("hot", &HotConfig::new(proxy.through(&hot.database.url)));
    take(&mut sink).await.unwrap();
    let batches = users(0, 5_000);
    proxy.set(Traffic::HoldAnswers);
    let cancelled = tokio::time::timeout(std::time::Duration::from_millis(200), write(&mut sink, &batches)).await;
    assert!(cancelled.is_err());
    proxy.set(Traffic::Pass);
    write(&mut sink, &batches).await.unwrap();
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(hot.sql("SELECT count(*), count(DISTINCT position) FROM cdc_audit.versions"), "5000|5000");
}

#[tokio::test]
async fn a_server_that_stops_and_starts_is_written_to_again() {
    let server = Postgres::start(15);
    server.create_database("audit");
    let all: String = audit_hot::setup_statements(&options()).iter().map(|s| format!("{};\n", s.sql)).collect();
    server.execute("audit", &all);
    let mut sink = HotSink::new("hot", &HotConfig::new(server.url("audit")));
    take(&mut sink).await.unwrap();
    let mut fixture = Fixture::default();
    fixture.batches("table public.users (id int4 key, name text)");
    for (round, shutdown) in [Shutdown::Fast, Shutdown::Immediate].into_iter().enumerate() {
        write(&mut sink, &fixture.batches(&format!("begin\ninsert public.users [{round}, \"x\"]\ncommit")))
            .await
            .unwrap();
        server.restart(shutdown);
        let more = fixture.batches(&format!("begin\ninsert public.users [{}, \"x\"]\ncommit", round + 10));
        let mut failed = 0;
        while let Err(error) = write(&mut sink, &more).await {
            assert_eq!(error.action, Action::Retry, "{error:?}");
            failed += 1;
        }
        assert!(failed > 0, "the session outlived its server");
    }
    let keys = "SELECT string_agg(key, ' ' ORDER BY position) FROM cdc_audit.versions";
    assert_eq!(server.execute("audit", keys), "0 10 1 11");
}

fn goes_no_further<T: std::fmt::Debug>(result: Result<T, SinkError>) {
    let error = result.unwrap_err();
    ends(&error, Action::Restart, "went back to an earlier state than this process has stored");
}

/// A standby that lagged, or a backup: progress that was reported as durable was acknowledged, and will not be sent
/// again by itself.
#[tokio::test]
async fn a_database_that_was_put_back_is_not_written_on() {
    let hot = Hot::new().await;
    let mut sink = hot.taken().await;
    let mut fixture = Fixture::default();
    fixture.batches("table public.users (id int4 key, name text)");
    let mut next = |id: u32| fixture.batches(&format!("begin\ninsert public.users [{id}, \"x\"]\ncommit"));
    write(&mut sink, &next(0)).await.unwrap();
    let copy = hot.copy();
    let lost = next(1);
    write(&mut sink, &lost).await.unwrap_err();
    write(&mut sink, &lost).await.unwrap();
    let stood = sink.durable();
    hot.put_back(&copy);

    let more = next(2);
    assert_eq!(write(&mut sink, &more).await.unwrap_err().action, Action::Retry, "the session is gone");
    goes_no_further(write(&mut sink, &more).await);
    goes_no_further(write(&mut sink, &more).await);
    assert_eq!((hot.trail(), sink.durable()), ("0|created|0".into(), stood));
    // After a new takeover the sink reports what is stored.
    let stored = take(&mut sink).await.unwrap().checkpoint.unwrap();
    assert!(stored.position < stood.position);
    write(&mut sink, &lost).await.unwrap();
    write(&mut sink, &more).await.unwrap();
    assert_eq!(hot.trail(), "0|created|0\n0|created|1\n0|created|2");
}

/// The same if only a chunk of a baseline or an idle position was lost, and if the copy is older than this process.
#[tokio::test]
async fn chunks_and_idle_positions_are_missed_too() {
    let hot = Hot::new().await;
    let mut older = hot.taken().await;
    let copy_of_all = hot.copy();
    let mut sink = hot.taken().await;
    let mut fixture = Fixture::default();
    fixture.batches("table public.users (id int4 key, name text)");
    for lost in ["idle 0/99000", "chunk public.users\nbegin\nsnapshot public.users [1, \"x\"]\ncommit"] {
        let copy = hot.copy();
        let mut lost = fixture.batches(lost);
        if lost.iter().any(|batch| batch.chunk.is_some()) {
            // A chunk need not move the position.
            lost[0].progress = sink.durable();
        }
        let _ = write(&mut sink, &lost).await;
        write(&mut sink, &lost).await.unwrap();
        hot.put_back(&copy);
        let more = fixture.batches("begin\ninsert public.users [2, \"x\"]\ncommit");
        assert_eq!(write(&mut sink, &more).await.unwrap_err().action, Action::Retry, "the session is gone");
        goes_no_further(write(&mut sink, &more).await);
        take(&mut sink).await.unwrap();
    }
    hot.put_back(&copy_of_all);
    let more = fixture.batches("begin\ninsert public.users [3, \"x\"]\ncommit");
    assert_eq!(write(&mut sink, &more).await.unwrap_err().action, Action::Retry, "the session is gone");
    goes_no_further(write(&mut sink, &more).await);
    assert!(write(&mut older, &more).await.is_err());
}

/// A sink that delivers elsewhere has its checkpoint here.
#[tokio::test]
async fn a_checkpoint_alone_that_was_put_back_is_not_moved_on() {
    let hot = Hot::new().await;
    let mut store = CheckpointStore::new("hot", hot.config.endpoint.clone());
    store.take(&identity()).await.unwrap();
    store.begin(Progress::default()).await.unwrap();
    let unit =
        |lsn: u64| Unit { progress: Progress { flushed_lsn: Lsn(lsn), ..Progress::default() }, ..Unit::default() };
    let copy = hot.copy();
    store.store(&unit(8)).await.unwrap_err();
    store.store(&unit(8)).await.unwrap();
    hot.put_back(&copy);
    store.store(&unit(16)).await.unwrap_err();
    goes_no_further(store.store(&unit(16)).await);
    assert_eq!(hot.sql("SELECT flushed_lsn FROM cdc_audit.checkpoints"), "0/0");
}

/// A daemon that was paused between moving the checkpoint and the end of its transaction holds the row for ever.
#[tokio::test]
async fn an_owner_that_sleeps_in_a_transaction_is_put_out() {
    let hot = Hot::new().await;
    let sleeper = hot.database.client().await;
    sleeper.batch_execute("BEGIN; UPDATE cdc_audit.checkpoints SET updated_at = now()").await.unwrap();
    let mut sink = hot.taken().await;
    write(&mut sink, &users(0, 1)).await.unwrap();
    assert!(sleeper.batch_execute("COMMIT").await.is_err());
    assert_eq!(hot.trail(), "0|created|0");
}

#[tokio::test]
async fn a_checkpoint_moved_by_hand_stops_the_sink() {
    let hot = Hot::new().await;
    let mut sink = hot.taken().await;
    write(&mut sink, &users(0, 1)).await.unwrap();
    hot.sql("UPDATE cdc_audit.checkpoints SET position = '0001:0000000000000001:0000000000'");
    let mut fixture = Fixture::default();
    fixture.batches("table public.users (id int4 key, name text)\nbegin\ninsert public.users [0, \"x\"]\ncommit");
    let more = fixture.batches("begin\ninsert public.users [1, \"y\"]\ncommit");
    stop(&write(&mut sink, &more).await.unwrap_err(), "moved by hand");
    assert_eq!(hot.trail(), "0|created|0");
    hot.sql("DELETE FROM cdc_audit.checkpoints");
    stop(&take(&mut hot.sink()).await.unwrap_err(), "no checkpoint for source shop and sink hot");
}

/// A version that the server refuses stops the sink at its position; the sink continues only after a command.
#[tokio::test]
async fn a_refused_version_is_named_and_may_be_quarantined() {
    let hot = Hot::new().await;
    hot.sql("ALTER TABLE cdc_audit.versions ADD CHECK (key <> '37' OR event = 'error')");
    let mut sink = hot.taken().await;
    let batches = users(0, 100);
    let error = write(&mut sink, &batches).await.unwrap_err();
    stop(&error, "refuses the version of public.users at");
    let refused = error.refused.unwrap();
    assert_eq!(refused.seq, 37);
    assert_eq!(
        error.hint.unwrap(),
        format!("`cdc-audit resume --sink hot --quarantine {refused}` leaves an `error` record in its place")
    );
    assert_eq!(hot.trail(), "");

    sink.quarantine(Arc::new([(refused, Quarantined::default())].into()));
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(hot.sql("SELECT count(*) FROM cdc_audit.versions"), "100");
    let quarantined =
        "SELECT event, key, after, changes, context - 'quarantined' FROM cdc_audit.versions WHERE seq = 37";
    assert_eq!(
        hot.sql(quarantined),
        r#"error|37|||{"error": "refused by the sink and quarantined", "event": "created"}"#
    );
}

/// The error message is derived from the server's SQLSTATE, not from the text that the server quotes.
#[tokio::test]
async fn an_error_holds_no_value() {
    let hot = Hot::new().await;
    hot.sql("ALTER TABLE cdc_audit.versions ADD CHECK (after ->> 'name' <> 'secret-4711')");
    let mut sink = hot.taken().await;
    let batches = Fixture::of(
        "table public.users (id int4 key, name text)\nbegin\ninsert public.users [1, \"secret-4711\"]\ncommit",
    );
    let error = write(&mut sink, &batches).await.unwrap_err();
    assert!(!format!("{error:?} {error} {sink:?}").contains("secret-4711"), "{error:?}");
}

#[tokio::test]
async fn a_partition_dropped_by_hand_is_made_again() {
    let hot = Hot::new().await;
    let mut sink = hot.taken().await;
    write(&mut sink, &users(0, 1)).await.unwrap();
    hot.sql("DROP TABLE cdc_audit.versions_2026_03");
    let mut fixture = Fixture::default();
    fixture.batches("table public.users (id int4 key, name text)\nbegin\ninsert public.users [0, \"x\"]\ncommit");
    let more = fixture.batches("begin\ninsert public.users [1, \"y\"]\ncommit");
    let error = write(&mut sink, &more).await.unwrap_err();
    assert_eq!(error.action, Action::Retry, "{error:?}");
    write(&mut sink, &more).await.unwrap();
    assert_eq!(hot.trail(), "0|created|1");
}

#[tokio::test]
async fn tables_altered_by_hand_are_found_before_anything_is_written() {
    for (alter, message) in [
        (
            "DROP VIEW cdc_audit.trail; ALTER TABLE cdc_audit.versions DROP COLUMN reason",
            "versions is not as `setup` made it: it has no column reason (text)",
        ),
        (
            "DROP VIEW cdc_audit.trail; ALTER TABLE cdc_audit.versions ALTER COLUMN xid TYPE integer",
            "column xid is integer, not bigint",
        ),
        (
            "ALTER TABLE cdc_audit.versions ADD COLUMN mine text NOT NULL",
            "column mine is unknown, and not null without a default",
        ),
        (
            "ALTER TABLE cdc_audit.checkpoints RENAME COLUMN flushed_lsn TO lsn",
            "checkpoints is not as `setup` made it: it has no column flushed_lsn",
        ),
        ("DROP TABLE cdc_audit.shapes", "no table cdc_audit.shapes"),
        ("DROP SCHEMA cdc_audit CASCADE", "no table cdc_audit.versions"),
        (
            "DROP FUNCTION cdc_audit.ensure_partition(text, date, text)",
            "lacks EXECUTE on function cdc_audit.ensure_partition",
        ),
    ] {
        let hot = Hot::new().await;
        hot.sql(alter);
        let mut sink = hot.sink();
        let error = sink.take(&identity()).await.unwrap_err();
        stop(&error, message);
    }
    let hot = Hot::new().await;
    hot.sql("ALTER TABLE cdc_audit.versions ADD COLUMN note text");
    write(&mut hot.taken().await, &users(0, 1)).await.unwrap();
}

/// Rows that a trigger discards are not skipped in silence.
#[tokio::test]
async fn a_trigger_that_drops_rows_is_noticed() {
    let hot = Hot::new().await;
    hot.sql(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER swallow BEFORE INSERT ON cdc_audit.versions FOR EACH ROW EXECUTE FUNCTION swallow()",
    );
    stop(&write(&mut hot.taken().await, &users(0, 1)).await.unwrap_err(), "took 0 rows of 1");
    assert_eq!(hot.sql("SELECT position FROM cdc_audit.checkpoints"), "0000:0000000000000000:0000000000");
}

#[tokio::test]
async fn a_read_only_server_is_waited_for() {
    let hot = Hot::new().await;
    let mut sink = hot.taken().await;
    let read_only = format!("ALTER DATABASE {} SET default_transaction_read_only = on", hot.database.name);
    hot.sql(&read_only);
    // The daemon's sessions set this themselves, because it is only the default for transactions.
    write(&mut sink, &users(0, 1)).await.unwrap();
    write(&mut hot.taken().await, &users(0, 1)).await.unwrap();

    let primary = Postgres::start(15);
    let all: String = audit_hot::setup_statements(&options()).iter().map(|s| format!("{};\n", s.sql)).collect();
    primary.execute("postgres", &all);
    let standby = primary.standby(&[]).await;
    let mut sink = HotSink::new("hot", &HotConfig::new(standby.url("postgres")));
    let error = sink.take(&identity()).await.unwrap_err();
    assert_eq!(error.action, Action::Retry, "{error:?}");
    assert!(error.hint.as_ref().unwrap().contains("read-only"), "{error:?}");
    primary.kill9();
    standby.promote();
    take(&mut sink).await.unwrap();
    write(&mut sink, &users(0, 1)).await.unwrap();
}
