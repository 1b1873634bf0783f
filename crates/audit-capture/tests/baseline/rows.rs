//! Which rows arrive, and in what form.

use audit_testkit::{Postgres, install, shared_db};

use super::world::{Event, World, server, text};

#[tokio::test]
async fn every_row_arrives_once_in_chunks_by_key() {
    let db = shared_db(15).await;
    let schema = "
        CREATE TABLE users (id int PRIMARY KEY, name text);
        INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 1234) i;
        CREATE TABLE \"Odd Name\".\"a.b\" (x text, \"the Y\" int, z int, PRIMARY KEY (\"the Y\", x));
        INSERT INTO \"Odd Name\".\"a.b\" SELECT repeat('é', i % 3) || '''\\' || i, i % 7, i FROM generate_series(1, 250) i;
        CREATE TABLE empty (id int PRIMARY KEY);
        CREATE TABLE single (id int PRIMARY KEY); INSERT INTO single VALUES (1);
        CREATE TABLE exact (id int PRIMARY KEY); INSERT INTO exact SELECT generate_series(1, 200);";
    let schema = format!("CREATE SCHEMA \"Odd Name\"; {schema}");
    let mut world = World::new(&db.url, &schema, "FOR ALL TABLES").await;
    world.start().await;
    world.finish().await;
    for (table, sql) in [
        ("public.users", "SELECT id, name FROM users"),
        ("Odd Name.\"a.b\"", "SELECT x, \"the Y\", z FROM \"Odd Name\".\"a.b\""),
        ("public.empty", "SELECT id FROM empty"),
        ("public.single", "SELECT id FROM single"),
        ("public.exact", "SELECT id FROM exact"),
    ] {
        let mut found = world.snapshots(table);
        found.sort();
        assert_eq!(found, world.rows(sql).await, "{table}");
    }
    assert_eq!(world.taken("public.exact", "hot"), ["1.1", "1.2", "1.3!"]);
    assert_eq!(world.taken("public.empty", "hot"), ["1.1!"]);
    assert!(world.chunks.iter().all(|(_, rows, _)| *rows <= 100));
    let report = world.progress.report();
    assert_eq!((report.rows, report.tables_done, report.open.len()), (1234 + 250 + 201, 5, 0));
}

/// The same value is read once from the stream and once by COPY.
#[tokio::test]
async fn values_and_shape_are_those_of_the_stream_in_every_major() {
    for major in install::MAJORS.into_iter().filter(|&major| major == 15 || Postgres::installed(major)) {
        let db = shared_db(major).await;
        db.execute("ALTER DATABASE current SET DateStyle = 'German'".replace("current", &db.name).as_str());
        db.execute(&format!("ALTER DATABASE {} SET bytea_output = 'escape'", db.name));
        let schema = "
            CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN price AS numeric(8, 2);
            CREATE TYPE pair AS (a int, b text);
            CREATE TABLE kinds (id bigint PRIMARY KEY, b bool, f4 float4, f8 float8, n numeric, m money, c char(5), t text,
                by bytea, bi bit(5), d date, ts timestamp, tz timestamptz, i interval, u uuid, j json, jb jsonb, a int[],
                ta text[], e mood, p price, pa pair, ip inet, r int4range, x xml, ts2 tsvector, rc regclass, pt point,
                g int GENERATED ALWAYS AS (id * 2) STORED);
            ALTER TABLE kinds DROP COLUMN ts2";
        let mut world = World::new(&db.url, schema, "FOR TABLE kinds").await;
        let insert = "
            INSERT INTO kinds VALUES
                (1, true, 'NaN', 1e300, 'NaN', 12.5, 'ab', E'tab\\there\\nnew \\\\ back', '\\x00ff', '10101', '0044-03-15 BC',
                 'infinity', '2026-03-01 10:00+02', '1 year -3 days 4:05:06.789', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
                 '{\"a\" : 1, \"a\": 2}', '{\"a\": null}', '{{1,NULL},{3,4}}', '{\"a,b\",\"c\\\"d\",NULL,\"NULL\"}', 'ok', 12.30,
                 ROW(1, 'x,\"y'), '10.0.0.1/8', '[1,5)', '<a>b</a>', 'kinds', '(1.5,2)'),
                (2, NULL, '-Infinity', -0.0, 1e100, NULL, '', '', '', '00000', 'infinity', '294276-12-31', '4713-01-01 BC',
                 '0', NULL, 'null', 'null', '{}', '[0:1]={x,y}', 'sad', NULL, NULL, '::1', 'empty', NULL, 'pg_class',
                 NULL)";
        world.execute(insert).await;
        world.stream().await;
        world.start().await;
        world.finish().await;
        let created = world.events("public.kinds").iter().filter_map(|event| match event {
            Event::Created(row) => Some(row.clone()),
            _ => None,
        });
        let (created, snapshots): (Vec<_>, Vec<_>) = (created.collect(), world.snapshots("public.kinds"));
        assert_eq!(created, snapshots, "PostgreSQL {major}");
        assert_eq!(created.len(), 2);
        // The stream describes the table again, as the baseline did: this is checked when that message arrives.
        world.execute("UPDATE kinds SET b = false").await;
        world.stream().await;
    }
}

#[tokio::test]
async fn only_what_the_publication_gives_is_read() {
    let db = shared_db(15).await;
    let schema = "
        CREATE TABLE users (secret text, id int PRIMARY KEY, name text, active bool);
        INSERT INTO users SELECT 's' || i, i, 'n' || i, CASE i % 3 WHEN 0 THEN true WHEN 1 THEN false END
        FROM generate_series(1, 300) i;
        CREATE TABLE child () INHERITS (users); INSERT INTO child VALUES ('s', 9999, 'inherits', true);
        CREATE TABLE unlisted (id int PRIMARY KEY); INSERT INTO unlisted VALUES (1);";
    let publication = "FOR TABLE ONLY users (name, id) WHERE (id > 10)";
    let mut world = World::new(&db.url, schema, publication).await;
    world.start().await;
    world.finish().await;
    let mut found = world.snapshots("public.users");
    found.sort();
    // Columns are in the table's order, whatever the order of the list.
    assert_eq!(found, world.rows("SELECT id, name FROM ONLY users WHERE id > 10").await);
    assert_eq!(world.trail.len(), 1);
}

#[tokio::test]
async fn tables_without_a_baseline_by_rule_are_left_out() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
                  INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.rules.tables.push(audit_core::rules::TableRule {
        name: "public.b".to_owned(),
        baseline: Some(false),
        ..Default::default()
    });
    world.start().await;
    world.finish().await;
    assert_eq!(world.trail.keys().collect::<Vec<_>>(), ["public.a"]);
}

#[tokio::test]
async fn a_partitioned_table_is_read_as_its_root() {
    let db = shared_db(15).await;
    let schema = "
        CREATE TABLE orders (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
        CREATE TABLE orders_2 (v text, at date NOT NULL, junk int, id int NOT NULL);
        ALTER TABLE orders_2 DROP COLUMN junk;
        ALTER TABLE orders ATTACH PARTITION orders_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
        INSERT INTO orders SELECT i, date '2026-01-01' + i % 59, 'v' || i FROM generate_series(1, 350) i;";
    let publication = "FOR TABLE orders WITH (publish_via_partition_root = true)";
    let mut world = World::new(&db.url, schema, publication).await;
    world.start().await;
    world.execute("UPDATE orders SET v = 'new' WHERE id % 10 = 0; DELETE FROM orders WHERE id % 10 = 1").await;
    world.finish().await;
    let rows = world.rows("SELECT id, at, v FROM orders").await;
    world.assert_replayed("public.orders", 2, &rows);
    assert!(world.chunks.len() >= 4);
}

/// A type of an extension has its operators outside the session's search path.
#[tokio::test]
async fn keys_of_every_kind_are_compared_as_their_index_does() {
    let db = shared_db(15).await;
    let schema = "
        CREATE EXTENSION citext;
        CREATE TYPE mood AS ENUM ('zz', 'aa', 'mm'); CREATE DOMAIN name_of AS citext;
        CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE TABLE by_citext (id citext PRIMARY KEY);
        INSERT INTO by_citext SELECT CASE i % 2 WHEN 0 THEN 'a' ELSE 'B' END || i FROM generate_series(1, 300) i;
        CREATE TABLE by_domain (n int, id name_of, PRIMARY KEY (n, id));
        INSERT INTO by_domain SELECT i % 3, CASE i % 2 WHEN 0 THEN 'a' ELSE 'B' END || i FROM generate_series(1, 300) i;
        CREATE TABLE by_enum (m mood, i int, PRIMARY KEY (m, i));
        INSERT INTO by_enum SELECT unnest(enum_range(NULL::mood)), i FROM generate_series(1, 100) i;
        CREATE TABLE by_bits (b bit(9) PRIMARY KEY);
        INSERT INTO by_bits SELECT i::bit(9) FROM generate_series(1, 300) i;
        CREATE TABLE by_float (f float8, n numeric, PRIMARY KEY (f, n));
        INSERT INTO by_float SELECT i / 3.0, i / 7.0 FROM generate_series(1, 300) i;
        INSERT INTO by_float VALUES ('NaN', 1), ('Infinity', 'NaN'), ('-Infinity', 0), ('-0', 0);
        CREATE TABLE by_pattern (id text NOT NULL, v int);
        CREATE UNIQUE INDEX by_pattern_id ON by_pattern (id text_pattern_ops);
        ALTER TABLE by_pattern REPLICA IDENTITY USING INDEX by_pattern_id;
        INSERT INTO by_pattern SELECT chr(64 + i % 60) || i FROM generate_series(1, 300) i;
        CREATE TABLE by_index_collation (id text COLLATE folded NOT NULL);
        CREATE UNIQUE INDEX by_index_collation_id ON by_index_collation (id COLLATE \"C\");
        ALTER TABLE by_index_collation REPLICA IDENTITY USING INDEX by_index_collation_id;
        INSERT INTO by_index_collation SELECT chr(i) || n FROM generate_series(1, 100) n, unnest('{97,65,98,66}'::int[]) i;
        CREATE TABLE by_time (t timestamptz, i interval, PRIMARY KEY (t, i));
        INSERT INTO by_time SELECT timestamptz '2026-03-29 00:00+00' + make_interval(secs => i), make_interval(mins => i)
        FROM generate_series(1, 250) i;
        INSERT INTO by_time VALUES ('4000-01-01 BC', '-1 day'), ('-infinity', '0');
        CREATE TABLE deferred (id int, PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO deferred SELECT generate_series(1, 250);";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.start().await;
    world.finish().await;
    for table in [
        "by_citext",
        "by_domain",
        "by_enum",
        "by_bits",
        "by_float",
        "by_pattern",
        "by_index_collation",
        "by_time",
        "deferred",
    ] {
        let mut found = world.snapshots(&format!("public.{table}"));
        found.sort();
        let expected = world.rows(&format!("SET TimeZone = 'UTC'; SELECT * FROM {table}")).await;
        assert_eq!(found.len(), expected.len(), "{table}");
        assert_eq!(found, expected, "{table}");
        assert!(world.taken(&format!("public.{table}"), "hot").len() > 2, "{table}");
    }
}

#[tokio::test]
async fn large_rows_make_small_chunks() {
    let db = shared_db(15).await;
    let schema = "
        CREATE TABLE docs (id int PRIMARY KEY, body text);
        ALTER TABLE docs ALTER body SET STORAGE EXTERNAL;
        INSERT INTO docs SELECT i, repeat('x', CASE WHEN i % 50 = 0 THEN 300000 ELSE 100 END) FROM generate_series(1, 500) i;
        CREATE TABLE logs (body text); ALTER TABLE logs ALTER body SET STORAGE EXTERNAL;
        INSERT INTO logs SELECT repeat('y', 20000) || i FROM generate_series(1, 100) i;
        ALTER TABLE logs REPLICA IDENTITY FULL;";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.config.chunk_bytes = audit_config::ByteSize::kib(100);
    world.config.chunk_rows = 10_000;
    world.start().await;
    world.finish().await;
    assert_eq!(world.snapshots("public.docs").len(), 500);
    assert_eq!(world.snapshots("public.logs").len(), 100);
    let over: Vec<_> = world.chunks.iter().filter(|(_, _, bytes)| *bytes > 100 * 1024 + 300_010).collect();
    assert!(over.is_empty(), "{over:?}");
    // Each row is as complete as it was.
    assert!(world.snapshots("public.docs").contains(&text(&["50", &"x".repeat(300_000)])));
}

#[tokio::test]
async fn a_thousand_small_tables_are_no_trouble() {
    let db = shared_db(15).await;
    let schema = "DO $$ BEGIN FOR i IN 1..300 LOOP
        EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY)', i); EXECUTE format('INSERT INTO t%s VALUES (1)', i);
        END LOOP; END $$";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.config.parallel = 4;
    world.start().await;
    world.finish().await;
    assert_eq!(world.chunks.len(), 300);
    world.kill(&[("hot", usize::MAX)]);
    world.chunks.clear();
    world.start().await;
    world.finish().await;
    assert_eq!(world.chunks.len(), 0);
}

/// Whatever the statistics say, and also without statistics: a chunk costs what it contains.
#[tokio::test]
async fn no_chunk_reads_the_whole_table() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE users (tenant int, id int, v text, PRIMARY KEY (tenant, id));
                  INSERT INTO users SELECT i % 3, i, 'v' FROM generate_series(1, 3000) i;
                  CREATE TABLE log (v int); ALTER TABLE log REPLICA IDENTITY FULL; INSERT INTO log SELECT generate_series(1, 3000)";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    // The session that created the tables has scanned them for their keys. Its counts are flushed now, so that they do
    // not appear later.
    world.execute("SELECT pg_stat_force_next_flush()").await;
    world.execute("SELECT pg_stat_reset()").await;
    world.start().await;
    world.finish().await;
    world.stop();
    let scans = |of: &str| {
        format!("SELECT coalesce(sum({of}), 0)::bigint FROM pg_stat_user_tables WHERE relname IN ('users', 'log')")
    };
    // A session reports its counts when it ends.
    audit_testkit::eventually_async("the sessions have counted", async || world.number(&scans("idx_scan")).await >= 30)
        .await;
    assert_eq!(world.number(&scans("seq_scan")).await, 0);
    // Each row is read once, plus at most the start of a block again.
    let read = world.number(&scans("idx_tup_fetch")).await;
    assert!((3000..3300).contains(&read), "{read}");
}

#[tokio::test]
async fn where_baselines_are_off_nothing_is_read() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1)";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES").await;
    world.config.enabled = false;
    world.start().await;
    world.execute("INSERT INTO users VALUES (2)").await;
    world.until("the stream is read", |world| !world.trail.is_empty()).await;
    assert_eq!((world.progress.report().tables, world.chunks.len()), (0, 0));
}

/// Keys are raw values, and statements are shown in the server's views and logs.
#[tokio::test]
async fn no_statement_shows_a_key() {
    let server = server(&[("log_statement", "all"), ("log_parameter_max_length", "0")]).await;
    let schema = "CREATE TABLE users (ssn text PRIMARY KEY); INSERT INTO users SELECT md5(g::text) FROM generate_series(1, 250) g;
                  CREATE TABLE pairs (ssn text, n numeric, PRIMARY KEY (ssn, n));
                  INSERT INTO pairs SELECT md5(g::text), g FROM generate_series(1, 250) g";
    let mut world = World::new(&server.url("postgres"), schema, "FOR ALL TABLES").await;
    world.start().await;
    // Chunks whose end is stored are read between two bounds.
    world.until("four chunks are there", |world| world.chunks.len() >= 4).await;
    world.kill(&[("hot", 1)]);
    world.start().await;
    world.finish().await;
    world.assert_replayed("public.users", 1, &world.rows("SELECT ssn FROM users").await);
    world.assert_replayed("public.pairs", 2, &world.rows("SELECT ssn, n FROM pairs").await);
    let log = server.log();
    assert!(log.contains("COPY (SELECT \"ssn\""), "the server logs statements");
    let shown: Vec<_> = world.rows("SELECT ssn FROM users").await.into_iter().flatten().flatten().collect();
    let shown: Vec<_> = shown.iter().filter(|key| log.contains(key.as_str())).collect();
    assert!(shown.is_empty(), "{shown:?}");
}
