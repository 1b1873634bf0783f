//! Batches are stored once, whatever is repeated.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use audit_core::position::{Lsn, Micros, Position};
use audit_core::protect::Policy;
use audit_core::rules::{Rules, TableRule};
use audit_core::sink::{ChunkProgress, Sink};
use audit_hot::{HotConfig, Partitioning};
use audit_testkit::{Database, Fixture, Postgres};

use crate::fixture::{Hot, take, write};

const USERS: &str = "table public.users (id int4 key, name text)";

#[tokio::test]
async fn a_repeat_changes_nothing() {
    let hot = Hot::new().await;
    let mut fixture = Fixture::default();
    let batches = fixture.batches(&format!(
        r#"{USERS}
           begin
           insert public.users [1, "Ann"]
           insert public.users [2, "Bea"]
           ---
           update public.users [1, "Ann"] -> [1, "Cid"]
           commit"#
    ));
    let mut sink = hot.taken().await;
    write(&mut sink, &batches[..1]).await.unwrap();
    write(&mut sink, &batches).await.unwrap();
    write(&mut sink, &batches).await.unwrap();
    let trail = "0|created|1\n1|created|2\n2|updated|1";
    assert_eq!(hot.trail(), trail);
    assert_eq!(sink.durable(), fixture.progress());

    // The same after a restart, with another sink.
    let mut next = hot.sink();
    let stored = take(&mut next).await.unwrap();
    let checkpoint = stored.checkpoint.unwrap();
    assert_eq!(checkpoint.progress(), fixture.progress());
    assert_eq!((checkpoint.system_id, checkpoint.timeline), (u64::MAX - 1, 1));
    assert_eq!(stored.shapes, [fixture.table("public.users").shape.as_ref().clone()]);
    write(&mut next, &batches).await.unwrap();
    assert_eq!(hot.trail(), trail);
}

#[tokio::test]
async fn a_stretch_that_needs_not_be_stored_is_left_out() {
    let hot = Hot::new().await;
    let mut fixture = Fixture::default();
    let batches = fixture.batches(&format!(
        r#"{USERS}
           begin
           insert public.users [1, "Ann"]
           ---
           insert public.users [2, "Bea"]
           commit"#
    ));
    let mut sink = hot.sink();
    sink.take(&crate::fixture::identity()).await.unwrap();
    sink.begin(batches[0].progress).await.unwrap();
    // Nothing was stored yet, so the position at which the stream begins is stored at once.
    assert_eq!(sink.durable(), batches[0].progress);
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(hot.trail(), "1|created|2");
}

#[tokio::test]
async fn transactions_are_cut_by_rows_and_a_cut_is_a_place_to_resume() {
    let hot = Hot::new().await;
    let config = HotConfig { batch_rows: 3, ..hot.config.clone() };
    let rows: String = (0..10).map(|id| format!("insert public.users [{id}, \"x\"]\n")).collect();
    let batches = Fixture::of(&format!("{USERS}\nbegin\n{rows}commit"));
    let mut sink = audit_hot::HotSink::new("hot", &config);
    take(&mut sink).await.unwrap();
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(hot.sql("SELECT count(*) FROM cdc_audit.versions"), "10");
    let by_transaction = "SELECT count(*) FROM cdc_audit.versions GROUP BY xmin ORDER BY min(position)";
    assert_eq!(hot.sql(by_transaction), "3\n3\n3\n1");
}

#[tokio::test]
async fn a_transaction_may_hold_many_batches() {
    let hot = Hot::new().await;
    let text: String = (0..20).map(|id| format!("begin\ninsert public.users [{id}, \"x\"]\ncommit\n---\n")).collect();
    let mut fixture = Fixture::default();
    let batches = fixture.batches(&format!("{USERS}\n{text}"));
    let mut sink = hot.taken().await;
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(hot.sql("SELECT count(*), count(DISTINCT xmin::text) FROM cdc_audit.versions"), "20|1");
    assert_eq!(sink.durable(), fixture.progress());
}

#[tokio::test]
async fn idle_positions_move_the_checkpoint_and_nothing_else() {
    let hot = Hot::new().await;
    let mut fixture = Fixture::default();
    let mut sink = hot.taken().await;
    write(&mut sink, &fixture.batches(&format!("{USERS}\nbegin\ninsert public.users [1, \"x\"]\ncommit")))
        .await
        .unwrap();
    let before = sink.durable();
    let idle = fixture.batches("idle 0/99000");
    write(&mut sink, &idle).await.unwrap();
    assert_eq!(sink.durable().position, before.position);
    assert_eq!(sink.durable().flushed_lsn, Lsn(0x99000));
    assert_eq!(hot.sql("SELECT flushed_lsn, count(*) OVER () FROM cdc_audit.checkpoints"), "0/99000|1");
    assert_eq!(hot.trail(), "0|created|1");
}

#[tokio::test]
async fn a_later_epoch_begins_at_lower_positions_in_the_wal() {
    let hot = Hot::new().await;
    let mut fixture = Fixture::default();
    let mut sink = hot.taken().await;
    let high = format!("{USERS}\nbegin lsn=5/0\ninsert public.users [1, \"x\"]\ncommit");
    write(&mut sink, &fixture.batches(&high)).await.unwrap();
    fixture.epoch(2, Lsn(0x7000));
    let after = fixture.batches("gap {\"lost\": true}\nbegin\ninsert public.users [2, \"y\"]\ncommit");
    write(&mut sink, &after).await.unwrap();
    write(&mut sink, &after).await.unwrap();
    assert_eq!(hot.trail(), "0|created|1\n0|gap|\n0|created|2");
    assert_eq!(sink.durable(), fixture.progress());
    let gap = "SELECT context, table_name, position FROM cdc_audit.versions WHERE event = 'gap'";
    assert_eq!(hot.sql(gap), format!("{{\"lost\": true}}|cdc_audit.gap|{}", Position::new(2, Lsn(0x6fff), 0)));
}

#[tokio::test]
async fn chunks_arrive_whole_once_and_only_where_they_are_wanted() {
    let hot = Hot::new().await;
    let config = HotConfig { batch_rows: 2, ..hot.config.clone() };
    let mut sink = audit_hot::HotSink::new("hot", &config);
    take(&mut sink).await.unwrap();
    let mut fixture = Fixture::default();
    let batches = fixture.batches(&format!(
        r#"{USERS}
           chunk public.users chunk=1 for=lake,hot
           begin
           snapshot public.users [1, "a"]
           snapshot public.users [2, "b"]
           snapshot public.users [3, "c"]
           commit
           ---
           chunk public.users chunk=2 for=lake
           begin
           snapshot public.users [4, "d"]
           commit
           ---
           begin
           insert public.users [9, "z"]
           commit"#
    ));
    write(&mut sink, &batches).await.unwrap();
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(hot.trail(), "0|snapshot|1\n1|snapshot|2\n2|snapshot|3\n0|created|9");
    let by_transaction = "SELECT count(*), max(baseline) FROM cdc_audit.versions GROUP BY xmin ORDER BY min(position)";
    assert_eq!(hot.sql(by_transaction), "3|1\n1|");

    // The table is read again at a new watermark: the first chunk is stored, the second is not.
    let again = fixture.batches(
        r#"chunk public.users chunk=1 for=lake,hot
           begin
           snapshot public.users [1, "a"]
           commit
           ---
           chunk public.users chunk=2 last for=hot
           begin
           snapshot public.users [4, "d"]
           commit"#,
    );
    let mut next = hot.sink();
    let stored = take(&mut next).await.unwrap();
    assert_eq!(stored.baselines["public.users"], ChunkProgress { baseline: 1, chunk: 1, done: false });
    write(&mut next, &again).await.unwrap();
    write(&mut next, &again).await.unwrap();
    assert_eq!(hot.sql("SELECT key FROM cdc_audit.versions WHERE event = 'snapshot' ORDER BY position"), "1\n2\n3\n4");
    assert_eq!(hot.sql("SELECT baseline, chunk, done FROM cdc_audit.baselines"), "1|2|t");
}

#[tokio::test]
async fn an_empty_chunk_moves_the_baseline() {
    let hot = Hot::new().await;
    let mut sink = hot.taken().await;
    let batches = Fixture::of(&format!("{USERS}\nchunk public.users chunk=1 last\nbegin\ncommit"));
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(hot.sql("SELECT baseline, chunk, done FROM cdc_audit.baselines"), "1|1|t");
}

#[tokio::test]
async fn shapes_are_stored_with_the_batch_that_first_uses_them() {
    let hot = Hot::new().await;
    let mut sink = hot.taken().await;
    let mut fixture = Fixture::default();
    let batches = fixture.batches(&format!(
        r#"{USERS}
           begin
           insert public.users [1, "a"]
           table public.users (id int4 key, name text, "e-mail" text)
           insert public.users [2, "b", "c"]
           commit"#
    ));
    write(&mut sink, &batches).await.unwrap();
    let shapes =
        "SELECT table_name, schema_version, jsonb_array_length(shape -> 'columns') FROM cdc_audit.shapes ORDER BY 2";
    assert_eq!(hot.sql(shapes), "public.users|1|2\npublic.users|2|3");
    assert_eq!(hot.sql("SELECT schema_version FROM cdc_audit.versions ORDER BY position"), "1\n2");

    // A number that already means another shape.
    hot.sql("UPDATE cdc_audit.shapes SET digest = 'x' WHERE schema_version = 2; DELETE FROM cdc_audit.shapes WHERE schema_version = 1");
    hot.sql("TRUNCATE cdc_audit.versions; UPDATE cdc_audit.checkpoints SET position = NULL");
    let mut next = hot.sink();
    next.take(&crate::fixture::identity()).await.unwrap();
    next.begin(Default::default()).await.unwrap();
    // The sink behaves as a daemon that never saw what is stored.
    hot.sql("UPDATE cdc_audit.shapes SET schema_version = 1");
    let error = write(&mut next, &batches).await.unwrap_err();
    assert!(error.message.contains("another shape of public.users under version 1"), "{error}");
    assert_eq!(hot.trail(), "");
}

#[tokio::test]
async fn partitions_are_made_for_any_month() {
    for partitioning in [Partitioning::Month, Partitioning::TableAndMonth] {
        let hot = Hot::with(partitioning, 15).await;
        let mut sink = hot.taken().await;
        let times =
            [i64::MIN, -62_135_596_800_000_000, -1, 0, 1_709_164_800_000_000, 253_402_300_800_000_000, i64::MAX];
        let rows: String =
            times.iter().map(|at| format!("begin at={at}\ninsert public.users [1, \"x\"]\ncommit\n")).collect();
        write(&mut sink, &Fixture::of(&format!("{USERS}\n{rows}"))).await.unwrap();
        let months = "SELECT committed_at, tableoid::regclass FROM cdc_audit.versions ORDER BY position";
        let months = hot.sql(&format!("SET search_path = cdc_audit; {months}"));
        let prefix = if partitioning == Partitioning::Month { "versions" } else { "v_public_users_52337812" };
        let expected = [
            ("0001-01-01 00:00:00+00", "0001_01"),
            ("0001-01-01 00:00:00+00", "0001_01"),
            ("1969-12-31 23:59:59.999999+00", "1969_12"),
            ("1970-01-01 00:00:00+00", "1970_01"),
            ("2024-02-29 00:00:00+00", "2024_02"),
            ("10000-01-01 00:00:00+00", "10000_01"),
            ("294247-01-10 04:00:54.775807+00", "294247_01"),
        ];
        let line = |(time, month): (&str, &str)| format!("{time}|{prefix}_{month}");
        let expected: Vec<String> = expected.into_iter().map(line).collect();
        assert_eq!(months, expected.join("\n"), "{partitioning:?}");
    }
}

#[tokio::test]
async fn each_table_has_partitions_of_its_own() {
    let hot = Hot::with(Partitioning::TableAndMonth, 15).await;
    let mut sink = hot.taken().await;
    let batches = Fixture::of(
        r#"table a.b-c (id int4 key)
           table a.b_c (id int4 key)
           begin
           insert a.b-c [1]
           insert a.b_c [2]
           commit
           begin
           insert a.b-c [3]
           commit"#,
    );
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(hot.sql("SELECT count(DISTINCT tableoid), count(*) FROM cdc_audit.versions"), "2|3");
}

/// ⚠ With PARTITION OF, the new partition would wait until the report is done.
#[tokio::test]
async fn a_new_month_waits_for_no_report() {
    let hot = Hot::new().await;
    let mut report = hot.database.client().await;
    let report = report.transaction().await.unwrap();
    report.query("SELECT count(*) FROM cdc_audit.trail", &[]).await.unwrap();
    let mut sink = hot.taken().await;
    let batches =
        Fixture::of(&format!("{USERS}\nbegin at=2031-07-01T00:00:00Z\ninsert public.users [1, \"x\"]\ncommit"));
    let written = tokio::time::timeout(Duration::from_secs(60), write(&mut sink, &batches)).await;
    written.expect("it waits for the report").unwrap();
    assert_eq!(hot.trail(), "0|created|1");
    report.query("SELECT count(*) FROM cdc_audit.trail", &[]).await.unwrap();
}

#[tokio::test]
async fn many_may_ask_for_one_partition_at_once() {
    let hot = Hot::new().await;
    let one = async || {
        let client = hot.database.client().await;
        client.execute("SELECT cdc_audit.ensure_partition(NULL, '2040-05-01')", &[]).await
    };
    let all = futures::future::join_all((0..8).map(|_| one())).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
}

#[tokio::test]
async fn the_time_of_recording_is_the_daemons() {
    let hot = Hot::new().await;
    let mut sink = hot.taken().await;
    let before = Micros::now();
    write(&mut sink, &Fixture::of(&format!("{USERS}\nbegin\ninsert public.users [1, \"x\"]\ncommit"))).await.unwrap();
    let history = hot.reader().await.history("shop", "public.users", "1", 1).await.unwrap();
    assert!((before..=Micros::now()).contains(&history[0].recorded_at));
}

/// Each table's partition takes locks, and a server has a limited number for all its sessions.
#[tokio::test]
async fn a_transaction_over_any_number_of_tables_and_tenants_is_stored() {
    // This server has about 1,500 locks, of which a table takes at least three: as tight as 2,500 tables are for a
    // server with the defaults.
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    let server = SERVER.get_or_init(|| Postgres::builder(15).setting("max_connections", "20").start());
    for (partitioning, own, count) in
        [(Partitioning::TableAndMonth, None, 700), (Partitioning::Month, Some("own_{tenant}"), 250)]
    {
        let hot = Hot::on(Database::new(server), partitioning);
        let rule = TableRule {
            name: "*".into(),
            tenant: Some("tenant".into()),
            versions_table: own.map(|own| own.parse().unwrap()),
            ..TableRule::default()
        };
        let mut fixture = Fixture::under(Rules { tables: vec![rule], ..Rules::default() }, Policy::default());
        let table = |n: u64| if own.is_some() { "public.t".to_owned() } else { format!("public.t{n}") };
        let tables: String = (0..count).map(|n| format!("table {} (id int4 key, tenant text)\n", table(n))).collect();
        let rows: String = (0..count).map(|n| format!("insert {} [{n}, \"{n}\"]\n", table(n))).collect();
        let batches = fixture.batches(&format!("{tables}begin\n{rows}commit"));
        let mut sink = hot.taken().await;
        write(&mut sink, &batches).await.unwrap();
        let counters = sink.counters();
        assert_eq!(counters.rows.load(Ordering::Relaxed), count);
        assert_eq!(counters.transactions.load(Ordering::Relaxed), 1 + count.div_ceil(100));
        let position = batches[0].progress.position;
        assert_eq!(hot.sql("SELECT position FROM cdc_audit.checkpoints"), position.to_string());
        // The same in chunks of baselines, of which any number may wait.
        let chunk = |n: u64| {
            let (table, number) = (table(n), if own.is_some() { n + 1 } else { 1 });
            format!("chunk {table} chunk={number}\nbegin\nsnapshot {table} [{n}, \"{n}\"]\ncommit\n")
        };
        let chunks = fixture.batches(&(0..count).map(chunk).collect::<Vec<_>>().join("---\n"));
        write(&mut sink, &chunks).await.unwrap();
        assert_eq!(counters.rows.load(Ordering::Relaxed), 2 * count);
        assert_eq!(counters.transactions.load(Ordering::Relaxed), 1 + 2 * count.div_ceil(100));
    }
}

/// The hashes of two names may begin alike; each still gets its own partition.
#[tokio::test]
async fn tables_whose_names_hash_alike_have_partitions_of_their_own() {
    let hot = Hot::with(Partitioning::TableAndMonth, 15).await;
    let alike = "SELECT string_agg(name, ' ') FROM (
        SELECT 'public.a_table_whose_name_is_as_long_as_this_' || n FROM generate_series(1, 300000) AS n
    ) AS names (name) GROUP BY left(md5(name), 8) HAVING count(*) > 1 ORDER BY 1 LIMIT 1";
    let alike = hot.sql(alike);
    let names: Vec<&str> = alike.split(' ').collect();
    assert!(names.len() >= 2, "{names:?}");
    let lines = |make: &dyn Fn(&str) -> String| names.iter().map(|name| make(name)).collect::<String>();
    let (tables, rows) =
        (lines(&|name| format!("table {name} (id int4 key)\n")), lines(&|name| format!("insert {name} [1]\n")));
    let months = ["2026-03-01", "2026-04-01"].map(|day| format!("begin at={day}T00:00:00Z\n{rows}commit\n")).concat();
    write(&mut hot.taken().await, &Fixture::of(&format!("{tables}{months}"))).await.unwrap();
    let found = hot.sql("SELECT count(DISTINCT tableoid), count(*) FROM cdc_audit.versions");
    assert_eq!(found, format!("{0}|{0}", 2 * names.len()));
}

/// The setting is made in each transaction, whatever the default of the session, the database or the role is.
#[tokio::test]
async fn every_commit_waits_for_the_disk() {
    let hot = Hot::new().await;
    hot.sql(&format!("ALTER DATABASE {} SET synchronous_commit = off", hot.database.name));
    hot.sql(
        "CREATE TABLE public.seen (what text, setting text);
         CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO public.seen VALUES (TG_TABLE_NAME || ' ' || TG_OP, current_setting('synchronous_commit'));
             RETURN NEW;
         END $$;
         CREATE TRIGGER see BEFORE UPDATE ON cdc_audit.checkpoints FOR EACH ROW EXECUTE FUNCTION public.see();
         CREATE TRIGGER see BEFORE INSERT ON cdc_audit.shapes FOR EACH ROW EXECUTE FUNCTION public.see()",
    );
    let mut sink = hot.taken().await;
    let mut fixture = Fixture::default();
    let first = fixture.batches(&format!("{USERS}\nbegin\ninsert public.users [1, \"x\"]\ncommit"));
    write(&mut sink, &first).await.unwrap();
    write(&mut sink, &fixture.batches("begin\ninsert public.users [2, \"x\"]\ncommit")).await.unwrap();
    write(&mut sink, &fixture.batches("idle 0/99000")).await.unwrap();
    // A takeover, the beginning, a unit with a shape, one without, and a position alone.
    let seen = hot.sql("SELECT what, setting, count(*) FROM public.seen GROUP BY 1, 2 ORDER BY 1");
    assert_eq!(seen, "checkpoints UPDATE|on|5\nshapes INSERT|on|1");
}
