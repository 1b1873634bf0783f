use audit_testkit::shared;
use cdc_audit_tests::majors;
use cdc_audit_tests::script::Step::{Gone, Renamed, Sql};
use cdc_audit_tests::script::{Reads, Script, play, play_once};

async fn play_on_all(script: Script<'_>) {
    for major in majors() {
        play(shared(major).await, &script).await;
    }
}

async fn play_on_15(script: Script<'_>) {
    play(shared(15).await, &script).await;
}

const ITEMS: &str = "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2)); {full items};";

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_of_one_statement() {
    play_on_all(Script {
        before: ITEMS,
        steps: &[
            Sql("INSERT INTO items VALUES (1, 'a', 1), (2, 'b', 2.5), (3, NULL, NULL)"),
            // The rows are equal byte for byte, except for the key.
            Sql("INSERT INTO items SELECT i, 'same', 1 FROM generate_series(10, 500) AS i"),
            Sql("COPY items FROM stdin;\n600\tcopied\t1.5\n601\t\\N\t\\N\n602\twith\\ttab\t0\n\\.\n"),
            Sql("UPDATE items SET price = coalesce(price, 0) + 1"),
            Sql("INSERT INTO items VALUES (1, 'again', 9), (4, 'new', 9) ON CONFLICT (id) DO UPDATE SET name = excluded.name"),
            Sql("INSERT INTO items VALUES (1, 'never', 9), (5, 'new', 9) ON CONFLICT DO NOTHING"),
            Sql("WITH gone AS (DELETE FROM items WHERE id < 3 RETURNING *) INSERT INTO items SELECT id + 1000, name, price FROM gone"),
            Sql("DELETE FROM items WHERE id BETWEEN 20 AND 400"),
        ],
        ..Script::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn savepoints_that_are_rolled_back() {
    play_on_15(Script {
        before: ITEMS,
        steps: &[
            Sql("BEGIN; INSERT INTO items VALUES (1, 'kept', 1); SAVEPOINT a; INSERT INTO items VALUES (2, 'lost', 1); ROLLBACK TO a; \
                 INSERT INTO items VALUES (3, 'kept', 1); COMMIT"),
            Sql("BEGIN; SAVEPOINT a; UPDATE items SET name = 'outer'; SAVEPOINT b; UPDATE items SET name = 'inner'; ROLLBACK TO b; \
                 RELEASE a; DELETE FROM items WHERE id = 3; COMMIT"),
            Sql("BEGIN; SAVEPOINT a; INSERT INTO items VALUES (8, 'lost', 1); ROLLBACK TO a; COMMIT"),
            Sql("BEGIN; INSERT INTO items VALUES (9, 'lost', 1); ROLLBACK"),
            Sql("DO $$ BEGIN FOR i IN 10..40 LOOP BEGIN INSERT INTO items VALUES (i % 17, 'loop', i); \
                 EXCEPTION WHEN unique_violation THEN UPDATE items SET price = -1 WHERE id = i % 17; END; END LOOP; END $$"),
        ],
        ..Script::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_change() {
    play_on_all(Script {
        before: "CREATE TABLE parents (a int, b text, v int, PRIMARY KEY (b, a)); {full parents}; \
                 CREATE TABLE children (id int PRIMARY KEY, pa int, pb text, FOREIGN KEY (pa, pb) REFERENCES parents (a, b) \
                 ON UPDATE CASCADE ON DELETE SET NULL); {full children};",
        steps: &[
            Sql("INSERT INTO parents VALUES (1, 'x', 0), (2, 'x', 0), (1, 'y \"q\"', 0); INSERT INTO children VALUES (1, 1, 'x'), (2, 2, 'x')"),
            Sql("UPDATE parents SET a = a + 10"),
            Sql("UPDATE parents SET b = b || '!' WHERE a = 11"),
            Sql("BEGIN; UPDATE parents SET a = 5 WHERE a = 12; UPDATE parents SET a = 6, v = 1 WHERE a = 5; COMMIT"),
            // Two rows exchange their keys in the same transaction.
            Sql("BEGIN; UPDATE children SET id = 99 WHERE id = 1; UPDATE children SET id = 1 WHERE id = 2; UPDATE children SET id = 2 WHERE id = 99; COMMIT"),
            Sql("DELETE FROM parents WHERE a = 6"),
        ],
        ..Script::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_between_partitions() {
    play_on_all(Script {
        before: "CREATE TABLE parts (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day); {full parts}; \
                 CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01'); {full parts_1}; \
                 CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY HASH (id); \
                 CREATE TABLE parts_2a PARTITION OF parts_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0); {full parts_2a}; \
                 CREATE TABLE parts_2b PARTITION OF parts_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1); {full parts_2b};",
        steps: &[
            Sql("INSERT INTO parts SELECT i, date '2026-01-01' + i, 'x' FROM generate_series(1, 50) AS i"),
            Sql("UPDATE parts SET v = 'stays' WHERE id < 5"),
            Sql("UPDATE parts SET day = day + 20, v = 'moved' WHERE id BETWEEN 20 AND 30"),
            Sql("UPDATE parts SET id = id + 100 WHERE day >= '2026-02-01'"),
            // A partition with its columns in another order is made and attached while capture runs.
            Sql("CREATE TABLE parts_3 (v text, day date NOT NULL, junk int, id int NOT NULL); ALTER TABLE parts_3 DROP COLUMN junk; {full parts_3}; \
                 ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM ('2026-03-01') TO ('2026-04-01'); \
                 INSERT INTO parts VALUES (7, '2026-03-05', 'new'); UPDATE parts SET day = '2026-01-02' WHERE id = 7 AND day = '2026-03-05'"),
            Sql("DELETE FROM parts WHERE id % 3 = 0"),
            Sql("TRUNCATE parts; INSERT INTO parts VALUES (1, '2026-01-05', 'after')"),
        ],
        ..Script::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncate_of_several_tables() {
    play_on_all(Script {
        before: "CREATE TABLE a (id int PRIMARY KEY); {full a}; CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a); {full b}; \
                 CREATE TABLE c (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b int REFERENCES b); {full c};",
        steps: &[
            Sql("INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1, 1), (2, 2); INSERT INTO c (b) VALUES (1), (2)"),
            Sql("TRUNCATE c"),
            Sql("BEGIN; INSERT INTO c (b) VALUES (1); TRUNCATE a CASCADE; INSERT INTO a VALUES (3); COMMIT"),
            Sql("BEGIN; TRUNCATE a, b, c RESTART IDENTITY; ROLLBACK"),
            Sql("TRUNCATE c, a, b RESTART IDENTITY; INSERT INTO a VALUES (1); INSERT INTO b VALUES (1, 1); INSERT INTO c (b) VALUES (1)"),
        ],
        ..Script::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_altered_in_the_middle_of_a_transaction() {
    play_on_all(Script {
        before: ITEMS,
        steps: &[
            Sql("INSERT INTO items VALUES (1, 'a', 1), (2, 'b', 2)"),
            Sql("BEGIN; UPDATE items SET price = 3; ALTER TABLE items ADD COLUMN stock int; UPDATE items SET stock = 7 WHERE id = 1; \
                 INSERT INTO items VALUES (3, 'c', 3, 9); ALTER TABLE items DROP COLUMN price; UPDATE items SET name = 'z' WHERE id = 2; \
                 ALTER TABLE items ADD COLUMN price text; UPDATE items SET price = 'cheap'; COMMIT"),
            Sql("BEGIN; ALTER TABLE items ADD COLUMN lost int; UPDATE items SET lost = 1; ROLLBACK"),
            Sql("BEGIN; SAVEPOINT a; ALTER TABLE items ADD COLUMN lost int; UPDATE items SET lost = 1; ROLLBACK TO a; UPDATE items SET stock = 8; COMMIT"),
            Renamed { table: "public.items", from: "name", to: "title" },
            Sql("ALTER TABLE items RENAME COLUMN name TO title"),
            Sql("UPDATE items SET title = title || '!' WHERE id = 1; INSERT INTO items (id, title) VALUES (4, 'd')"),
            Sql("BEGIN; ALTER TABLE items ALTER COLUMN stock TYPE bigint; UPDATE items SET stock = 9007199254740993 WHERE id = 1; COMMIT"),
            Sql("ALTER TABLE items DROP CONSTRAINT items_pkey; ALTER TABLE items ADD PRIMARY KEY (id)"),
            Sql("UPDATE items SET id = id + 10"),
        ],
        ..Script::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_without_a_key() {
    let script = Script {
        before: "CREATE TABLE heap (a int, b text); ALTER TABLE heap REPLICA IDENTITY FULL; \
                 CREATE TABLE logs (at timestamptz, line text); ALTER TABLE logs REPLICA IDENTITY NOTHING;",
        steps: &[
            // The rows are equal byte for byte.
            Sql("INSERT INTO heap SELECT 1, 'same' FROM generate_series(1, 5)"),
            Sql("UPDATE heap SET b = 'other' WHERE ctid IN (SELECT ctid FROM heap LIMIT 2)"),
            Sql("DELETE FROM heap WHERE ctid IN (SELECT ctid FROM heap WHERE b = 'same' LIMIT 1)"),
            Sql("INSERT INTO heap VALUES (NULL, NULL), (NULL, NULL); UPDATE heap SET a = 2 WHERE a IS NULL"),
            Sql("INSERT INTO logs VALUES ('2026-01-01', 'x'), ('2026-01-01', 'x')"),
            Sql("TRUNCATE heap, logs; INSERT INTO heap VALUES (3, repeat('x', 9000))"),
        ],
        uniform: false,
        ..Script::default()
    };
    for major in majors() {
        for reads in [Reads::Live, Reads::Late] {
            play_once(shared(major).await, &script, true, reads).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_and_identity_columns() {
    play_on_15(Script {
        before: "CREATE TABLE g (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, w int, h int, area int GENERATED ALWAYS AS (w * h) STORED, \
                 label text DEFAULT 'none'); {full g}; CREATE TABLE s (id serial PRIMARY KEY, v text); {full s};",
        steps: &[
            Sql("INSERT INTO g (w, h) VALUES (2, 3), (4, 5); INSERT INTO g VALUES (100, 1, 1, DEFAULT, DEFAULT); INSERT INTO s (v) VALUES ('a'), ('b')"),
            Sql("UPDATE g SET w = 10; UPDATE g SET label = NULL WHERE id = 100"),
            Sql("DELETE FROM g WHERE w = 10 AND id = 1; ALTER SEQUENCE s_id_seq RESTART 50; INSERT INTO s (v) VALUES ('c')"),
        ],
        ..Script::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_come_and_go() {
    play_on_all(Script {
        before: ITEMS,
        steps: &[
            Sql("INSERT INTO items VALUES (1, 'a', 1), (2, 'b', 2)"),
            // CREATE TABLE AS writes its rows like any other statement; without a key they can only be inserted.
            Sql("CREATE TABLE copied AS SELECT * FROM items; SELECT * INTO also_copied FROM items WHERE id = 1"),
            Sql("ALTER TABLE copied ADD PRIMARY KEY (id); {full copied}; UPDATE copied SET price = price * 2"),
            Sql("BEGIN; CREATE TABLE short (id int PRIMARY KEY); INSERT INTO short VALUES (1); DROP TABLE short; COMMIT"),
            Gone("public.items"),
            Sql("DROP TABLE items"),
            Sql("CREATE TABLE items (name text, id text PRIMARY KEY, extra jsonb); {full items}; INSERT INTO items VALUES ('n', 'k', '{\"a\": 1}')"),
            Sql("UPDATE items SET extra = 'null' WHERE id = 'k'"),
            Gone("public.items"),
            Sql("BEGIN; DROP TABLE items; CREATE TABLE items (id int PRIMARY KEY, v text); {full items}; INSERT INTO items VALUES (1, 'third'); COMMIT"),
            Sql("INSERT INTO items VALUES (2, 'x')"),
            Sql("ALTER TABLE copied RENAME TO renamed; TRUNCATE renamed; INSERT INTO renamed VALUES (9, 'r', 9)"),
        ],
        ..Script::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_phase_commits() {
    play_on_all(Script {
        before: ITEMS,
        steps: &[
            Sql("INSERT INTO items VALUES (1, 'a', 1), (2, 'b', 2)"),
            Sql("BEGIN; UPDATE items SET name = 'prepared' WHERE id = 1; PREPARE TRANSACTION 'one'"),
            Sql("BEGIN; INSERT INTO items VALUES (7, 'never', 0); PREPARE TRANSACTION 'two'"),
            Sql("UPDATE items SET name = 'between' WHERE id = 2"),
            Sql("ROLLBACK PREPARED 'two'"),
            Sql("COMMIT PREPARED 'one'"),
            Sql("UPDATE items SET name = 'after' WHERE id = 1"),
        ],
        ..Script::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_too_large_for_their_row() {
    play_on_all(Script {
        before: "CREATE TABLE docs (id int PRIMARY KEY, n int, body text, data jsonb, raw bytea); {full docs}; \
                 ALTER TABLE docs ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN raw SET STORAGE EXTERNAL;",
        steps: &[
            Sql("INSERT INTO docs SELECT i, 0, repeat('x' || i, 20000), jsonb_build_object('k', (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 500))), \
                 decode(repeat('00ff', 9000), 'hex') FROM generate_series(1, 5) AS i"),
            // The large values are not sent again.
            Sql("UPDATE docs SET n = n + 1"),
            Sql("UPDATE docs SET body = body || 'y' WHERE id = 2; UPDATE docs SET data = data || '{\"new\": null}' WHERE id = 3"),
            Sql("UPDATE docs SET id = id + 10 WHERE id > 3"),
            Sql("UPDATE docs SET body = NULL, raw = NULL WHERE id = 1"),
            Sql("DELETE FROM docs WHERE id IN (1, 14)"),
        ],
        ..Script::default()
    })
    .await;
}

/// If a large value is part of the key, PostgreSQL sends the old key with every change.
#[tokio::test(flavor = "multi_thread")]
async fn odd_replica_identities() {
    let script = Script {
        before: "CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, c text); CREATE UNIQUE INDEX by_index_ab ON by_index (b, a); \
                 ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_ab; \
                 CREATE TABLE index_beside_key (id int PRIMARY KEY, code text NOT NULL, v int); CREATE UNIQUE INDEX code ON index_beside_key (code); \
                 ALTER TABLE index_beside_key REPLICA IDENTITY USING INDEX code; \
                 CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child (extra int, PRIMARY KEY (id)) INHERITS (parent); \
                 CREATE TABLE full_with_key (id int PRIMARY KEY, v text); ALTER TABLE full_with_key REPLICA IDENTITY FULL; \
                 CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v int); ALTER TABLE deferred REPLICA IDENTITY FULL; \
                 CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY); CREATE TABLE empty (); CREATE TABLE one (id int PRIMARY KEY);",
        steps: &[
            Sql(
                "INSERT INTO by_index VALUES (1, 'x', 'c'), (2, 'y', NULL); INSERT INTO index_beside_key VALUES (1, 'a', 1), (2, 'b', 2); \
                 INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (2, 'c', 3); INSERT INTO full_with_key VALUES (1, 'a'); \
                 INSERT INTO deferred VALUES (1, 1), (2, 2); INSERT INTO unlogged VALUES (1); INSERT INTO empty DEFAULT VALUES; INSERT INTO one VALUES (1)",
            ),
            Sql(
                "UPDATE by_index SET c = 'new'; UPDATE by_index SET a = 7 WHERE a = 1; DELETE FROM by_index WHERE a = 2",
            ),
            Sql(
                "UPDATE index_beside_key SET v = v + 1; UPDATE index_beside_key SET code = 'z' WHERE id = 1; DELETE FROM index_beside_key WHERE id = 2",
            ),
            Sql("UPDATE parent SET v = v || '!'; DELETE FROM parent WHERE id = 2"),
            Sql("UPDATE full_with_key SET v = 'b'; UPDATE full_with_key SET v = v; UPDATE full_with_key SET id = 5"),
            Sql(
                "UPDATE deferred SET v = v + 1; UPDATE one SET id = 2; CREATE TEMP TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
            ),
        ],
        uniform: false,
        ..Script::default()
    };
    for reads in [Reads::Live, Reads::Late] {
        play_once(shared(15).await, &script, false, reads).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_triggers_rules_and_cascades_do() {
    play_on_15(Script {
        before: "CREATE TABLE items (id int PRIMARY KEY, n int, updated_at timestamptz); {full items}; CREATE TABLE counts (id int PRIMARY KEY, n int); {full counts}; \
                 CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at = '2026-01-01'; \
                 INSERT INTO counts VALUES (NEW.id, 1) ON CONFLICT (id) DO UPDATE SET n = counts.n + 1; RETURN NEW; END $$; \
                 CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION touch(); \
                 CREATE VIEW shown AS SELECT id, n FROM items WHERE n > 0; CREATE SCHEMA other; CREATE TABLE other.items (id int PRIMARY KEY); {full other.items};",
        steps: &[
            Sql("INSERT INTO items VALUES (1, 1), (2, 2)"),
            Sql("UPDATE items SET n = n; UPDATE items SET n = 9 WHERE id = 1"),
            Sql("UPDATE shown SET n = 10; DELETE FROM shown WHERE id = 2"),
            Sql("SET session_replication_role = replica; INSERT INTO items VALUES (3, 3); INSERT INTO other.items VALUES (1)"),
            Sql("SELECT pg_replication_origin_create('elsewhere_' || current_database()); SELECT pg_replication_origin_session_setup('elsewhere_' || current_database()); \
                 BEGIN; SELECT pg_replication_origin_xact_setup('0/1234', '2001-01-01'); INSERT INTO items VALUES (4, 4); COMMIT"),
            Sql("DO $$ BEGIN FOR i IN 10..60 LOOP INSERT INTO items VALUES (i, i); COMMIT; END LOOP; END $$"),
            Sql("SELECT lo_from_bytea(0, 'large objects are not replicated')"),
        ],
        ..Script::default()
    })
    .await;
}

/// What column lists and row filters of the publication leave out is not recorded.
#[tokio::test(flavor = "multi_thread")]
async fn column_lists_and_row_filters() {
    for major in majors().into_iter().filter(|major| *major >= 15) {
        let server = shared(major).await;
        let world = cdc_audit_tests::world::World::on(server)
            .keep_rows()
            .sql("CREATE TABLE people (id int PRIMARY KEY, name text, secret text); CREATE TABLE orders (id int, state text, total int, PRIMARY KEY (id, state));")
            .publication("FOR TABLE people (id, name), orders WHERE (state <> 'draft')")
            .build()
            .await;
        server.execute(
            &world.database,
            "INSERT INTO people VALUES (1, 'Ann', 's1'), (2, 'Bea', 's2'); UPDATE people SET secret = 's3'; UPDATE people SET name = 'Cid' WHERE id = 2; \
             INSERT INTO orders VALUES (1, 'draft', 1), (2, 'paid', 2); UPDATE orders SET state = 'paid' WHERE id = 1; UPDATE orders SET total = 3; \
             UPDATE orders SET state = 'draft' WHERE id = 2; DELETE FROM orders; DELETE FROM people WHERE id = 1",
        );
        world.catch_up().await;
        let recorded = world.recorded().await;
        let wrong = recorded.disagreements();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let told: Vec<String> = recorded
            .hot
            .iter()
            .map(|v| format!("{} {} {} {:?}", v.table, v.event, v.key.as_deref().unwrap_or("-"), v.after))
            .collect();
        expect_test::expect![[r#"
            public.people created 1 Some({"id": Some("1"), "name": Some("Ann")})
            public.people created 2 Some({"id": Some("2"), "name": Some("Bea")})
            public.people updated 1 Some({"id": Some("1"), "name": Some("Ann")})
            public.people updated 2 Some({"id": Some("2"), "name": Some("Bea")})
            public.people updated 2 Some({"id": Some("2"), "name": Some("Cid")})
            public.orders created [2,"paid"] Some({"id": Some("2"), "state": Some("paid"), "total": Some("2")})
            public.orders created [1,"paid"] Some({"id": Some("1"), "state": Some("paid"), "total": Some("1")})
            public.orders updated [2,"paid"] Some({"id": Some("2"), "state": Some("paid"), "total": Some("3")})
            public.orders updated [1,"paid"] Some({"id": Some("1"), "state": Some("paid"), "total": Some("3")})
            public.orders deleted [2,"paid"] None
            public.orders deleted [1,"paid"] None
            public.people deleted 1 None
        "#]]
        .assert_eq(&(told.join("\n") + "\n"));
    }
}

/// One transaction that is far larger than any batch, with a context, between small ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_memory_for_batches() {
    let script = Script {
        before: ITEMS,
        steps: &[
            Sql("INSERT INTO items VALUES (-1, 'before', 1)"),
            Sql(
                "BEGIN; INSERT INTO items SELECT i, 'row ' || i, i FROM generate_series(1, 60000) AS i; UPDATE items SET price = price + 1 WHERE id % 3 = 0; COMMIT",
            ),
            Sql("INSERT INTO items VALUES (-2, 'after', 1)"),
        ],
        ..Script::default()
    };
    play_once(shared(15).await, &script, true, Reads::Late).await;
}
