//! Indexes: what questions need is there, also in databases that an earlier release set up, and questions use it.

use std::collections::BTreeSet;
use std::time::Duration;

use audit_core::position::{Micros, Position};
use audit_core::search::{Commit, Wanted};
use audit_core::sink::Sink;
use audit_core::stored::Record;
use audit_hot::{HotReader, Partitioning, Selection, SetupOptions, index_statements};
use audit_testkit::{Fixture, connect, eventually};
use tokio_postgres::Client;

use crate::fixture::{Hot, options, setup, take, write};

/// What is not there in a database that an earlier release set up, and what is there instead.
const EARLIER: &str = "DROP INDEX cdc_audit.versions_table_at, cdc_audit.versions_place, cdc_audit.versions_gaps; \
    CREATE INDEX versions_committed_at ON cdc_audit.versions (committed_at);";

/// Versions of 40 tables in two months: three transactions a second, of ten versions each.
const FILL: &str = "SELECT cdc_audit.ensure_partition(name, month, 'versions') FROM unnest(ARRAY['2026-03-01', '2026-04-01']::date[]) AS month, \
      (SELECT 'public.t' || n AS name FROM generate_series(0, 39) AS n) AS tables; \
    INSERT INTO cdc_audit.versions (source, position, table_name, item_type, key, event, changes, changed, before_known, actor_id, xid, \
      commit_lsn, lsn, seq, committed_at, schema_version) \
    SELECT 'shop', '0001:' || lpad(to_hex(4096 + i / 10), 16, '0') || ':' || lpad((i % 10)::text, 10, '0'), \
      'public.t' || CASE WHEN i = 777 THEN 39 ELSE i % 39 END, 't', (i % 500)::text, 'updated', '{}', '{}', true, 'user_' || i / 10 % 50, \
      500 + i / 10, '0/0', '0/0', i % 10, timestamptz '2026-03-30 00:00Z' + i / 10 * interval '100 s', 1 \
    FROM generate_series(0, 39999) AS i; ANALYZE cdc_audit.versions;";

async fn pending(hot: &Hot) -> Vec<String> {
    let client = connect(&hot.database.url).await;
    let statements = index_statements(&client, None).await.unwrap();
    statements.into_iter().map(|statement| statement.sql).collect()
}

async fn run(client: &Client, statements: &[String]) {
    for statement in statements {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

fn table(name: &str) -> Wanted {
    Wanted { source: "shop".into(), tables: vec![name.into()], ..Wanted::default() }
}

/// All questions that indexes serve, with their answers.
async fn answers(reader: &HotReader) -> Vec<Vec<Record>> {
    let all: Vec<String> = (0..40).map(|n| format!("public.t{n}")).collect();
    let everywhere = Wanted { tables: all.clone(), ..table("") };
    let commit = Commit::of("0001:00000000000010a0:0000000003".parse::<Position>().unwrap());
    let questions = [
        table("public.t39"),
        table("public.t3"),
        everywhere.clone(),
        Wanted { actors: vec!["user_7".into()], ..everywhere.clone() },
        Wanted { xids: vec![731], ..everywhere.clone() },
        Wanted { commit: Some(commit), ..everywhere },
    ];
    let mut answers = Vec::new();
    for wanted in questions {
        answers.push(reader.search(&wanted, &|_| true, 60).await.unwrap());
    }
    answers.push(reader.history("shop", "public.t3", "42", 100).await.unwrap());
    let since = Some("2026-04-01T00:00:00Z".parse::<Micros>().unwrap());
    let selection = Selection { source: "shop".into(), tables: all, since, ..Selection::default() };
    let first = reader.first(&selection).await.unwrap().unwrap();
    assert_eq!(first.to_string(), "0001:00000000000016c0:0000000000");
    assert_eq!(reader.newest(&selection).await.unwrap().unwrap().to_string(), "2026-04-03T15:05:00.000000Z");
    answers
}

fn shown(answers: &[Vec<Record>]) -> Vec<Vec<String>> {
    let text = |record: &Record| serde_json::to_string(record).unwrap();
    answers.iter().map(|answer| answer.iter().map(text).collect()).collect()
}

/// The indexes by which a question is answered. Partitions without rows are read without one.
async fn indexes_of(hot: &Hot, wanted: &Wanted) -> BTreeSet<String> {
    let reader = hot.reader().await;
    reader.explain();
    assert!(!reader.search(wanted, &|_| true, 50).await.unwrap().is_empty());
    let cost = reader.cost();
    let searching = cost.statements.iter().find(|statement| statement.doing == "searching").unwrap();
    assert!(searching.rows <= 400, "{searching:?}");
    let without = searching.reads.get("Seq Scan").copied().unwrap_or_default();
    let empty = hot
        .sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'versions\\_2%' AND reltuples <= 0 AND relkind = 'r'");
    assert!(without <= empty.parse().unwrap(), "{searching:?}");
    searching.reads.keys().filter_map(|how| Some(how.split_once(" by ")?.1.to_owned())).collect()
}

#[tokio::test]
async fn questions_use_the_indexes_that_are_made_for_them() {
    for partitioning in [Partitioning::Month, Partitioning::TableAndMonth] {
        let hot = Hot::with(partitioning, 15).await;
        hot.sql(FILL);
        let all: Vec<String> = (0..40).map(|n| format!("public.t{n}")).collect();
        let everywhere = Wanted { tables: all, ..table("") };
        let by = |index: &str| BTreeSet::from([index.to_owned()]);
        assert_eq!(indexes_of(&hot, &table("public.t3")).await, by("versions_table_at"), "{partitioning:?}");
        if partitioning == Partitioning::Month {
            assert_eq!(indexes_of(&hot, &table("public.t39")).await, by("versions_table_at"));
            let two = Wanted { tables: vec!["public.t3".into(), "public.t39".into()], ..table("") };
            assert_eq!(indexes_of(&hot, &two).await, by("versions_table_at"));
            let actor = Wanted { actors: vec!["user_7".into()], ..everywhere.clone() };
            assert_eq!(indexes_of(&hot, &actor).await, by("versions_actor"));
            let xid = Wanted { xids: vec![731], ..everywhere };
            assert_eq!(indexes_of(&hot, &xid).await, by("versions_place"));
        }
    }
}

#[tokio::test]
async fn an_earlier_database_gets_the_indexes_bit_by_bit_and_answers_the_same() {
    for partitioning in [Partitioning::Month, Partitioning::TableAndMonth] {
        let hot = Hot::with(partitioning, 15).await;
        let options = SetupOptions { partitioning, ..options() };
        hot.sql("SELECT cdc_audit.ensure_versions_table('shop', 'public.own', '', 'own_versions', '{own_versions}')");
        hot.sql("SELECT cdc_audit.ensure_partition('public.own', '2026-03-01', 'own_versions')");
        hot.sql(FILL);
        assert!(pending(&hot).await.is_empty(), "there is nothing to do in a new database");
        let definitions = "SELECT count(*), count(DISTINCT tablename) FROM pg_indexes WHERE schemaname = 'cdc_audit' AND tablename LIKE '%versions%' OR tablename LIKE 'v\\_%'";
        let new = hot.sql(definitions);
        let before = shown(&answers(&hot.reader().await).await);
        hot.sql(EARLIER);
        let own = hot.sql("SELECT string_agg('DROP INDEX ' || indexrelid::regclass, ';') FROM pg_index \
            WHERE indrelid = 'cdc_audit.own_versions'::regclass AND pg_get_indexdef(indexrelid) ~ 'brin|table_name, committed_at'");
        hot.sql(&own);
        hot.sql("CREATE INDEX ON cdc_audit.own_versions (committed_at)");
        assert_eq!(shown(&answers(&hot.reader().await).await), before, "an earlier database answers, too");
        // Interrupted after every few statements, once in the middle of one, and begun anew each time.
        for round in 0.. {
            setup(&hot.database, &options);
            let left = pending(&hot).await;
            if left.is_empty() {
                break;
            }
            assert!(round < 200, "{left:?}");
            run(&connect(&hot.database.url).await, &left[..left.len().min(if round == 0 { 1 } else { 40 })]).await;
            if round == 1 {
                hot.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = (SELECT max(i.indexrelid) FROM pg_index i \
                    JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relkind = 'i' AND NOT c.relispartition AND i.indisvalid \
                    AND indrelid IN (SELECT oid FROM pg_class WHERE relispartition AND relnamespace = 'cdc_audit'::regnamespace))");
            }
            assert_eq!(shown(&answers(&hot.reader().await).await), before);
            // A partition that is made meanwhile has all indexes from the beginning.
            hot.sql("SELECT cdc_audit.ensure_partition('public.t1', '2026-05-01', 'versions')");
        }
        assert_eq!(hot.sql("SELECT count(*) FROM pg_index WHERE NOT indisvalid"), "0");
        assert_eq!(hot.sql("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%btree (committed_at)'"), "0");
        hot.sql("DROP TABLE IF EXISTS cdc_audit.versions_2026_05; DO $$ DECLARE late text; BEGIN FOR late IN SELECT oid::regclass::text FROM pg_class \
            WHERE relname LIKE 'v\\_%\\_2026\\_05' AND relkind = 'r' LOOP EXECUTE 'DROP TABLE ' || late; END LOOP; END $$");
        assert_eq!(hot.sql(definitions), new);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_does_not_wait_for_an_index() {
    let hot = Hot::new().await;
    let mut fixture = Fixture::default();
    fixture.batches("table public.users (id int4 key, name text)");
    let mut sink = hot.taken().await;
    write(&mut sink, &fixture.batches("begin\ninsert public.users [1, \"x\"]\ncommit")).await.unwrap();
    hot.sql(EARLIER);
    setup(&hot.database, &options());
    let left = pending(&hot).await;
    assert!(left.iter().any(|statement| statement.contains("CONCURRENTLY")), "{left:?}");
    // A transaction that has written and is not finished keeps an index from being complete.
    let slow = connect(&hot.database.url).await;
    slow.batch_execute("BEGIN; INSERT INTO cdc_audit.versions SELECT * FROM cdc_audit.versions LIMIT 1").await.unwrap();
    let url = hot.database.url.clone();
    let migration = tokio::spawn(async move { run(&connect(&url).await, &left).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock' \
        AND datname = current_database()";
    eventually("the index waits", || hot.sql(waits) == "1");
    let more = fixture.batches("begin\ninsert public.users [2, \"y\"]\ncommit");
    let written = tokio::time::timeout(Duration::from_secs(60), write(&mut sink, &more)).await;
    written.expect("the writer waits").unwrap();
    slow.batch_execute("ROLLBACK").await.unwrap();
    migration.await.unwrap();
    assert!(pending(&hot).await.is_empty());
    assert_eq!(hot.trail(), "0|created|1\n0|created|2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_index_is_dropped_when_no_question_uses_the_table() {
    let hot = Hot::new().await;
    hot.sql(EARLIER);
    setup(&hot.database, &options());
    let left = pending(&hot).await;
    let (drop, others) = left.split_last().unwrap();
    run(&connect(&hot.database.url).await, others).await;
    let reader = hot.reader().await;
    reader.pin("shop").await.unwrap();
    let (url, drop) = (hot.database.url.clone(), drop.clone());
    let dropping = tokio::spawn(async move { run(&connect(&url).await, &[drop]).await });
    let tries = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %' AND wait_event = 'PgSleep' AND datname = current_database()";
    eventually("it gives the lock up between two turns", || hot.sql(tries) == "1");
    let mut sink = hot.sink();
    take(&mut sink).await.unwrap();
    write(&mut sink, &Fixture::of("table public.t (id int4 key)\nbegin\ninsert public.t [1]\ncommit")).await.unwrap();
    reader.unpin().await.unwrap();
    dropping.await.unwrap();
    assert!(pending(&hot).await.is_empty());
    sink.flush(true).await.unwrap();
}
