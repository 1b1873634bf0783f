//! Tables that take versions instead of the common one.

use std::collections::BTreeMap;
use std::sync::Arc;

use audit_core::batch::Batch;
use audit_core::protect::Policy;
use audit_core::quarantine::Quarantined;
use audit_core::rules::{Rules, TableRule};
use audit_core::sink::{Action, Sink};
use audit_core::stored::Record;
use audit_hot::{HotConfig, HotReader, HotSink, Partitioning, Selection, SetupOptions, teardown_statements};
use audit_testkit::{Fixture, Proxy, connect};
use futures::TryStreamExt;

use crate::fixture::{Hot, options, setup, take, write};
use crate::roles::{run, teardown_roles, url_of, with_roles};

const ORDERS: &str = "table public.orders (id int4 key, owner text) full\n";

/// A source whose tables that match this pattern have their own table of versions.
fn source(pattern: &str, versions_table: &str) -> Fixture {
    let rule = TableRule {
        name: pattern.into(),
        tenant: Some("owner".into()),
        versions_table: Some(versions_table.parse().unwrap()),
        ..TableRule::default()
    };
    Fixture::under(Rules { tables: vec![rule], ..Rules::default() }, Policy::default())
}

/// `table: keys` for each table of versions that holds any, in the order of their positions.
fn held(hot: &Hot) -> BTreeMap<String, String> {
    let names = hot.sql("SELECT DISTINCT name FROM cdc_audit.versions_tables UNION SELECT 'versions' ORDER BY 1");
    let keys = |name: &str| {
        let quoted = name.replace('"', "\"\"");
        hot.sql(&format!("SELECT string_agg(coalesce(key, event), ' ' ORDER BY position) FROM cdc_audit.\"{quoted}\""))
    };
    names.lines().map(|name| (name.to_owned(), keys(name))).filter(|(_, keys)| !keys.is_empty()).collect()
}

fn expected(held: &[(&str, &str)]) -> BTreeMap<String, String> {
    held.iter().map(|(name, keys)| (name.to_string(), keys.to_string())).collect()
}

fn keys(records: &[Record]) -> String {
    let key = |record: &Record| record.key.clone().unwrap_or_else(|| record.event.clone());
    records.iter().map(key).collect::<Vec<_>>().join(" ")
}

async fn exported(reader: &HotReader, tables: &[&str]) -> String {
    let tables = tables.iter().map(|table| table.to_string()).collect();
    let selection = Selection { source: "shop".into(), tables, ..Selection::default() };
    let records: Vec<Record> = reader.export(&selection).await.unwrap().try_collect().await.unwrap();
    assert_eq!(reader.count(&selection).await.unwrap(), records.len() as u64);
    assert!(records.is_sorted_by_key(|record| record.position));
    keys(&records)
}

#[tokio::test]
async fn a_table_is_made_on_its_first_version_and_is_as_the_common_one() {
    for (partitioning, major) in
        [(Partitioning::Month, 15), (Partitioning::TableAndMonth, 15), (Partitioning::Month, 14)]
    {
        let hot = Hot::with(partitioning, major).await;
        let mut sink = hot.taken().await;
        let mut fixture = source("public.orders", "orders_versions");
        let batches = fixture.batches(&format!(
            r#"{ORDERS}
               table public.other (id int4 key)
               begin
               insert public.orders [1, "x"]
               insert public.other [2]
               insert public.orders [3, null]
               truncate public.orders
               commit"#
        ));
        assert_eq!(hot.sql("SELECT count(*) FROM cdc_audit.versions_tables"), "0");
        write(&mut sink, &batches).await.unwrap();
        write(&mut sink, &batches).await.unwrap();
        assert_eq!(held(&hot), expected(&[("orders_versions", "1 3 truncated"), ("versions", "2")]));
        assert_eq!(
            hot.sql("SELECT source, table_name, tenant, wanted, name FROM cdc_audit.versions_tables"),
            "shop|public.orders||orders_versions|orders_versions"
        );

        let same = |what: &str| {
            let of = |name: &str| hot.sql(&what.replace("?", &format!("'cdc_audit.{name}'::regclass")));
            let common = of("versions");
            assert!(!common.is_empty());
            assert_eq!(of("orders_versions"), common, "{partitioning:?} {what}");
        };
        same(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull, attcompression, attcollation, pg_get_expr(adbin, adrelid) \
              FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum \
              WHERE attrelid = ? AND attnum > 0 ORDER BY attnum",
        );
        same(
            "SELECT substring(pg_get_indexdef(indexrelid) FROM 'USING.*') AS index FROM pg_index WHERE indrelid = ? ORDER BY index",
        );
        same("SELECT pg_get_partkeydef(?)");
        same(
            "SELECT reloptions FROM pg_class WHERE oid = (SELECT relid FROM pg_partition_tree(?) WHERE isleaf LIMIT 1)",
        );
        let bounds = "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid IN (SELECT relid FROM pg_partition_tree(?) WHERE isleaf) \
             AND pg_get_expr(relpartbound, oid) LIKE '%2026-03-01%'";
        same(bounds);
        let trail = "SELECT changes, unknown FROM cdc_audit.orders_versions_trail ORDER BY position LIMIT 1";
        assert_eq!(hot.sql(trail), "{\"id\": [null, 1], \"owner\": [null, \"x\"]}|{}");
    }
}

#[tokio::test]
async fn each_tenant_has_a_table_and_the_rest_is_common() {
    let hot = Hot::new().await;
    let mut sink = hot.taken().await;
    let mut fixture = source("public.*", "tenant_{tenant}_versions");
    let batches = fixture.batches(&format!(
        r#"{ORDERS}
           table public.plain (id int4 key) full
           begin
           insert public.orders [1, "a"]
           insert public.orders [2, "b"]
           insert public.orders [3, null]
           insert public.orders [4, ""]
           insert public.plain [5]
           update public.orders [1, "a"] -> [1, "b"]
           truncate public.orders
           insert public.orders [6, "a"]
           commit
           ---
           chunk public.orders chunk=1
           begin
           snapshot public.orders [7, "b"]
           snapshot public.orders [8, "c"]
           commit"#
    ));
    // A row that is quarantined becomes an error record, which belongs to no tenant.
    let quarantined = batches[0].versions().nth(1).unwrap().position();
    sink.quarantine(Arc::new([(quarantined, Quarantined::default())].into()));
    write(&mut sink, &batches).await.unwrap();
    let lost = fixture.batches("gap {\"lost\": true}");
    write(&mut sink, &lost).await.unwrap();
    assert_eq!(
        held(&hot),
        expected(&[
            ("tenant_a_versions", "1 6"),
            ("tenant_b_versions", "1 7"),
            ("tenant_c_versions", "8"),
            ("versions", "2 3 4 5 truncated gap"),
        ])
    );
    assert_eq!(
        hot.sql(
            "SELECT count(DISTINCT xmin::text) FROM (SELECT xmin FROM cdc_audit.versions WHERE event <> 'gap' \
        UNION ALL SELECT xmin FROM cdc_audit.tenant_a_versions) AS v"
        ),
        "1"
    );

    let reader = hot.reader().await;
    let whose =
        async |reader: &HotReader| (reader.tenant().map(|tenant| tenant.to_string()), exported(reader, &[]).await);
    let mut each = Vec::new();
    for part in reader.each("shop").await.unwrap() {
        each.push(whose(&part).await);
    }
    let of = |tenant: &str, keys: &str| (Some(tenant.to_owned()), keys.to_owned());
    let home = (None, "2 3 4 5 truncated gap".to_owned());
    assert_eq!(each, [home, of("a", "1 6"), of("b", "1 7"), of("c", "8")]);
    assert_eq!(exported(&reader, &["public.orders"]).await, "1 2 3 4 1 truncated 6 7 8");
    assert_eq!(exported(&reader, &["public.plain"]).await, "5");
    let b = reader.of_tenant("shop", "b").await.unwrap();
    assert_eq!(b.tables("shop").await.unwrap(), ["public.orders"]);
    let history = async |reader: &HotReader| {
        let found = reader.history("shop", "public.orders", "1", 10).await.unwrap();
        found.iter().map(|version| version.event.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(history(&reader).await, "truncated updated created");
    assert_eq!(history(&b).await, "truncated updated");
    assert!(reader.of_tenant("shop", "nobody").await.err().unwrap().hint().is_some());
    assert_eq!(reader.each("other").await.unwrap().len(), 1);
}

/// Whatever a tenant is called, it gets its own table and breaks nothing of ours.
#[tokio::test]
async fn names_of_tenants_do_no_harm() {
    let hot = Hot::new().await;
    let long = "ä".repeat(100);
    let tenants = [
        "a",
        "A",
        "a b",
        "a.b",
        "a\"b",
        "a'b",
        "../x",
        "a_2026_03",
        "a_trail",
        "versions",
        "versions_2026_03",
        "versions_2026_04",
        "checkpoints",
        "trail",
        "data_keys",
        "v_public_orders_12345678",
        "%I",
        "{tenant}",
        "pg_class",
        "ä",
        "a\nb",
        &long,
        &long[2..],
        "versions_key",
    ];
    let rows: String = tenants
        .iter()
        .enumerate()
        .map(|(id, tenant)| format!("insert public.orders [{id}, {}]\n", serde_json::to_string(tenant).unwrap()))
        .collect();
    let mut fixture = source("public.orders", "{tenant}");
    let batches = fixture.batches(&format!("{ORDERS}begin\n{rows}commit\nbegin at=2026-04-01T00:00:00Z\n{rows}commit"));
    let mut sink = hot.taken().await;
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(hot.sql("SELECT count(*) FROM cdc_audit.versions"), "0");
    assert_eq!(
        hot.sql("SELECT count(DISTINCT name), count(DISTINCT tenant) FROM cdc_audit.versions_tables"),
        format!("{0}|{0}", tenants.len())
    );
    let reader = hot.reader().await;
    for (id, tenant) in tenants.iter().enumerate() {
        let own = reader.of_tenant("shop", tenant).await.unwrap();
        assert_eq!(exported(&own, &[]).await, format!("{id} {id}"), "{tenant}");
    }
    // The common table still gets its partitions.
    let mut fixture = Fixture::default();
    fixture.batches("table public.plain (id int4 key)\nbegin lsn=9/0\ncommit");
    let plain = fixture.batches("begin at=2026-04-01T00:00:00Z\ninsert public.plain [1]\ncommit");
    write(&mut sink, &plain).await.unwrap();
    assert_eq!(hot.sql("SELECT tableoid::regclass FROM cdc_audit.versions"), "cdc_audit.versions_2026_04");
    setup(&hot.database, &SetupOptions { keys: true, ..options() });
}

/// A tenant is a value of a row, so it can have any length.
#[tokio::test]
async fn a_tenant_that_is_too_long_has_no_table_of_its_own() {
    let hot = Hot::new().await;
    let (fits, long) = ("y".repeat(512), "0123456789abcdef".chars().cycle().take(1_000_000).collect::<String>());
    let mut fixture = source("public.orders", "org_{tenant}_versions");
    let rows = [long.as_str(), "x", fits.as_str(), long.as_str()];
    let rows: String =
        rows.iter().enumerate().map(|(id, tenant)| format!("insert public.orders [{id}, {tenant:?}]\n")).collect();
    let batches = fixture.batches(&format!("{ORDERS}begin\n{rows}commit"));
    write(&mut hot.taken().await, &batches).await.unwrap();
    assert_eq!(hot.sql("SELECT string_agg(key, ' ' ORDER BY position) FROM cdc_audit.versions"), "0 3");
    assert_eq!(hot.sql("SELECT length(tenant) FROM cdc_audit.versions_tables ORDER BY 1"), "1\n512");
    let reader = hot.reader().await;
    for (tenant, keys) in [("x", "1"), (&fits, "2")] {
        assert_eq!(exported(&reader.of_tenant("shop", tenant).await.unwrap(), &[]).await, keys);
    }
    assert_eq!(exported(&reader, &["public.orders"]).await, "0 1 2 3");
}

/// Tenants whose names would collide are kept apart, whichever comes first; several tables may want the same name.
#[tokio::test]
async fn names_that_would_collide_are_kept_apart() {
    let hot = Hot::new().await;
    let mut fixture = source("public.*", "{table}_{tenant}");
    let text = "table public.a (id int4 key, owner text)\ntable public.a_b (id int4 key, owner text)\nbegin\n\
         insert public.a [1, \"b_c\"]\ninsert public.a_b [2, \"c\"]\ninsert public.a [3, \"b_c\"]\ncommit";
    write(&mut hot.taken().await, &fixture.batches(text)).await.unwrap();
    let tables = hot.sql("SELECT tenant, wanted, name = wanted FROM cdc_audit.versions_tables ORDER BY tenant");
    assert_eq!(tables, "b_c|a_b_c|t\nc|a_b_c|f");
    let reader = hot.reader().await;
    for (tenant, keys) in [("b_c", "1 3"), ("c", "2")] {
        assert_eq!(exported(&reader.of_tenant("shop", tenant).await.unwrap(), &[]).await, keys);
    }
    // Even by hand no row can be added to another tenant's table.
    let steal = "INSERT INTO cdc_audit.a_b_c SELECT * FROM cdc_audit.trail_of_c";
    let name = hot.sql("SELECT quote_ident(name) FROM cdc_audit.versions_tables WHERE tenant = 'c'");
    let client = hot.database.client().await;
    let error = client.batch_execute(&steal.replace("trail_of_c", &name)).await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().constraint(), Some("of_one_tenant"));

    let mut shared = source("public.*", "both");
    let text = "table public.x (id int4 key)\ntable public.y (id int4 key)\nbegin lsn=5/0\ninsert public.x [1]\ninsert public.y [2]\ncommit";
    write(&mut hot.taken().await, &shared.batches(text)).await.unwrap();
    assert_eq!(hot.sql("SELECT string_agg(key, ' ' ORDER BY position) FROM cdc_audit.both"), "1 2");
}

/// Rows in three tables and the checkpoint are stored together, or nothing is.
#[tokio::test]
async fn a_connection_may_break_between_tables() {
    let hot = Hot::new().await;
    let proxy = Proxy::to(hot.database.server.port());
    let mut sink = HotSink::new("hot", &HotConfig::new(proxy.through(&hot.database.url)));
    take(&mut sink).await.unwrap();
    let mut fixture = source("public.*", "of_{tenant}");
    fixture.batches(ORDERS);
    let mut cuts = 0;
    for id in 0..60 {
        let batches = fixture.batches(&format!(
            "begin\ninsert public.orders [{id}, \"a\"]\ninsert public.orders [{id}, null]\ninsert public.orders [{id}, \"b\"]\ncommit"
        ));
        proxy.cut_after(id * 13);
        while let Err(error) = write(&mut sink, &batches).await {
            assert_eq!(error.action, Action::Retry, "{error:?}");
            cuts += 1;
        }
        assert_eq!(sink.durable(), fixture.progress());
    }
    assert!(cuts > 20, "{cuts}");
    for table in ["of_a", "of_b", "versions"] {
        assert_eq!(
            hot.sql(&format!("SELECT count(*), count(DISTINCT key) FROM cdc_audit.{table}")),
            "60|60",
            "{table}"
        );
    }
}

#[tokio::test]
async fn a_refused_version_stops_all_tables_at_its_position() {
    let hot = Hot::new().await;
    let mut sink = hot.taken().await;
    let mut fixture = source("public.*", "of_{tenant}");
    let rows = |from: u32| -> String {
        (from..from + 4)
            .map(|id| format!("insert public.orders [{id}, {}]\n", ["\"a\"", "\"b\"", "null"][id as usize % 3]))
            .collect()
    };
    write(&mut sink, &fixture.batches(&format!("{ORDERS}begin\n{}commit", rows(0)))).await.unwrap();
    hot.sql("ALTER TABLE cdc_audit.of_b ADD CHECK (key <> '7')");
    let batches = fixture.batches(&format!("begin\n{}commit", rows(4)));
    let error = write(&mut sink, &batches).await.unwrap_err();
    let refused = batches[0].versions().nth(3).unwrap().position();
    assert_eq!((error.action, error.refused), (Action::Stop, Some(refused)), "{error:?}");
    assert_eq!(held(&hot), expected(&[("of_a", "0 3"), ("of_b", "1"), ("versions", "2")]));
    sink.quarantine(Arc::new([(refused, Quarantined::default())].into()));
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(held(&hot), expected(&[("of_a", "0 3 6"), ("of_b", "1 4"), ("versions", "2 5 7")]));
}

/// Versions that were written before stay where they are, and are found.
#[tokio::test]
async fn a_table_may_move_to_another_table_of_versions() {
    let hot = Hot::new().await;
    for (lsn, versions_table) in (1..).zip(["versions", "first", "{schema}_{table}", "of_{tenant}", "versions"]) {
        let mut fixture = source("public.orders", versions_table);
        let event =
            if lsn == 1 { "insert public.orders [1, \"a\"]" } else { "update public.orders [1, \"a\"] -> [1, \"a \"]" };
        let batches = fixture.batches(&format!("{ORDERS}begin lsn={lsn}/0\n{event}\ncommit"));
        write(&mut hot.taken().await, &batches).await.unwrap();
    }
    assert_eq!(held(&hot), expected(&[("first", "1"), ("of_a ", "1"), ("public_orders", "1"), ("versions", "1 1")]));
    let reader = hot.reader().await;
    let history = reader.history("shop", "public.orders", "1", 10).await.unwrap();
    let lsns: Vec<u64> = history.iter().map(|version| version.commit_lsn.0 >> 32).collect();
    assert_eq!(lsns, [5, 4, 3, 2, 1]);
    let newest = reader.history("shop", "public.orders", "1", 2).await.unwrap();
    assert_eq!(newest.iter().map(|version| version.commit_lsn.0 >> 32).collect::<Vec<_>>(), [5, 4]);
    assert_eq!(exported(&reader, &["public.orders"]).await, "1 1 1 1 1");
}

/// A key is followed through tables of versions: the row changed its tenant and its key at once.
#[tokio::test]
async fn a_row_is_followed_through_tables() {
    let hot = Hot::new().await;
    let mut fixture = source("public.orders", "of_{tenant}");
    let batches = fixture.batches(&format!(
        "{ORDERS}begin\ninsert public.orders [1, \"a\"]\nupdate public.orders [1, \"a\"] -> [2, \"b\"]\n\
         insert public.orders [1, \"c\"]\nupdate public.orders [2, \"b\"] -> [3, null]\ndelete public.orders [3, null]\ncommit"
    ));
    write(&mut hot.taken().await, &batches).await.unwrap();
    let reader = hot.reader().await;
    for key in ["3", "2"] {
        let found = reader.history("shop", "public.orders", key, 10).await.unwrap();
        assert_eq!(keys(&found), "3 3 2 1", "{key}");
    }
}

#[tokio::test]
async fn a_table_dropped_by_hand_is_made_again() {
    let hot = Hot::new().await;
    let mut sink = hot.taken().await;
    let mut fixture = source("public.orders", "of_{tenant}");
    let mut next = |id: u32| -> Vec<Batch> {
        let table = if id == 1 { ORDERS } else { "" };
        fixture.batches(&format!(
            "{table}begin\ninsert public.orders [{id}, \"a\"]\ninsert public.orders [{id}, null]\ncommit"
        ))
    };
    write(&mut sink, &next(1)).await.unwrap();
    hot.sql("DROP TABLE cdc_audit.of_a CASCADE");
    assert_eq!(exported(&hot.reader().await, &[]).await, "1");
    let batches = next(2);
    let error = write(&mut sink, &batches).await.unwrap_err();
    assert_eq!(error.action, Action::Retry, "{error:?}");
    write(&mut sink, &batches).await.unwrap();
    assert_eq!(held(&hot), expected(&[("of_a", "2"), ("versions", "1 2")]));
}

/// The writer adds to a further table as it does to the common one, and the reader reads it.
#[tokio::test]
async fn rights_are_those_of_the_common_table() {
    for major in [14, 17] {
        let (database, mut options) = with_roles(major).await;
        let writer = url_of(&database, options.writer.as_ref().unwrap());
        let mut sink = HotSink::new("hot", &HotConfig::new(&writer));
        take(&mut sink).await.unwrap();
        let mut fixture = source("public.orders", "of_{tenant}");
        let batches = fixture.batches(&format!("{ORDERS}begin\ninsert public.orders [1, \"a\"]\ncommit"));
        write(&mut sink, &batches).await.unwrap();
        let client = connect(&writer).await;
        for forbidden in [
            "SELECT * FROM cdc_audit.of_a",
            "SELECT * FROM cdc_audit.of_a_trail",
            "SELECT * FROM cdc_audit.of_a_2026_03",
            "DELETE FROM cdc_audit.of_a",
            "UPDATE cdc_audit.of_a SET key = 'x'",
            "TRUNCATE cdc_audit.of_a",
            "DROP TABLE cdc_audit.of_a",
            "INSERT INTO cdc_audit.of_a_2026_03 SELECT",
            "SELECT * FROM cdc_audit.versions_tables",
            "INSERT INTO cdc_audit.versions_tables SELECT",
            "SELECT cdc_audit.share_versions_table('of_a')",
        ] {
            let error = client.batch_execute(forbidden).await.expect_err(forbidden);
            assert_eq!(error.code().unwrap().code(), "42501", "{major} {forbidden}: {error:?}");
        }
        for wrong in ["'checkpoints'", "'of_b'", "NULL"] {
            let sql = format!("SELECT cdc_audit.ensure_partition('t', '2033-05-01', {wrong})");
            let error = client.batch_execute(&sql).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "22023", "{wrong}: {error:?}");
        }
        // An existing table is never mistaken for a table of versions.
        let taken =
            "SELECT cdc_audit.ensure_versions_table('shop', 't', '', 'checkpoints', ARRAY['checkpoints', 'versions'])";
        assert_eq!(client.batch_execute(taken).await.unwrap_err().code().unwrap().code(), "42P07");
        let owners = "SELECT count(DISTINCT relowner) FROM pg_class WHERE relname LIKE 'of_a%'";
        assert_eq!(database.execute(owners), "1");

        let read = async |role: &str| {
            let reader = connect(&url_of(&database, role)).await;
            reader.query("SELECT * FROM cdc_audit.of_a_trail", &[]).await.map(|rows| rows.len()).ok()
        };
        assert_eq!(read(options.reader.as_ref().unwrap()).await, Some(1));
        // A role that gets the right later gets it in every table.
        let late = options.reader.replace(audit_testkit::unique("late").replace('-', "_")).unwrap();
        let role = options.reader.clone().unwrap();
        database.execute(&format!("CREATE ROLE {role} LOGIN"));
        assert_eq!(read(&role).await, None);
        setup(&database, &options);
        assert_eq!(read(&role).await, Some(1));
        let reader = HotReader::connect(&audit_connect::PgEndpoint::new(url_of(&database, &role))).await.unwrap();
        assert_eq!(exported(&reader, &[]).await, "1");
        database.execute(&format!("DROP OWNED BY {late} CASCADE; DROP ROLE {late}"));
        teardown_roles(&database, &options);
    }
}

#[tokio::test]
async fn teardown_takes_them_away() {
    let hot = Hot::new().await;
    let mut fixture = source("public.orders", "{tenant}");
    let batches = fixture
        .batches(&format!("{ORDERS}begin\ninsert public.orders [1, \"a b\"]\ninsert public.orders [1, \"c\"]\ncommit"));
    write(&mut hot.taken().await, &batches).await.unwrap();
    let client = hot.database.client().await;
    hot.sql("DROP TABLE cdc_audit.c CASCADE");
    run(&client, &teardown_statements(&options(), true)).await;
    assert_eq!(exported(&hot.reader().await, &[]).await, "1");
    for _ in 0..2 {
        run(&client, &teardown_statements(&options(), false)).await;
        assert_eq!(hot.sql("SELECT to_regnamespace('cdc_audit') IS NULL"), "t");
    }
}

#[tokio::test]
async fn many_may_ask_for_one_table_at_once() {
    let hot = Hot::new().await;
    let one = async |table: &str| {
        let client = hot.database.client().await;
        let sql = "SELECT cdc_audit.ensure_versions_table('shop', $1, 'a', 'of_a', ARRAY['of_a', 'of_a_x'])";
        client.query_one(sql, &[&table]).await.map(|row| row.get::<_, String>(0))
    };
    let all = futures::future::join_all(["t", "u", "t", "u", "t", "v"].map(one)).await;
    assert!(all.iter().all(|name| name.as_ref().is_ok_and(|name| name == "of_a")), "{all:?}");
}
