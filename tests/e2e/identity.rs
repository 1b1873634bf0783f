use audit_testkit::shared;
use cdc_audit_tests::trail::Version;
use cdc_audit_tests::world::World;

/// Writes table, event and key of each version, with a note if the row before it is not known.
fn told(trail: &[Version]) -> Vec<String> {
    let known = |version: &Version| if version.before_known { "" } else { " before unknown" };
    let one = |v: &Version| format!("{} {} {}{}", v.table, v.event, v.key.as_deref().unwrap_or("-"), known(v));
    trail.iter().map(one).collect()
}

/// Returns the trail, which is the same in every sink.
async fn trail(world: &World) -> Vec<Version> {
    world.catch_up().await;
    let recorded = world.recorded().await;
    assert_eq!(recorded.disagreements(), Vec::<String>::new());
    recorded.hot
}

/// ⚠ A partition does not inherit its root's replica identity, but the server still marks its old rows as whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_comes_later_has_the_old_values_that_it_sends() {
    let server = shared(15).await;
    let tables =
        "CREATE TABLE m (id int, day date, name text, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
        CREATE TABLE m_01 PARTITION OF m FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
        ALTER TABLE m REPLICA IDENTITY FULL; ALTER TABLE m_01 REPLICA IDENTITY FULL;";
    let world = World::on(server).unwitnessed().sql(tables).build().await;
    server.execute(
        &world.database,
        "INSERT INTO m VALUES (1, '2026-01-05', 'Ann', 'n1'); UPDATE m SET name = 'Bea' WHERE id = 1",
    );
    trail(&world).await;
    let later = "CREATE TABLE m_02 PARTITION OF m FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
        INSERT INTO m VALUES (2, '2026-02-05', 'Cid', 'x'), (3, '2026-02-06', 'Dan', 'n3');
        UPDATE m SET id = 22, name = 'Eve' WHERE id = 2; DELETE FROM m WHERE id = 3; UPDATE m SET note = NULL WHERE id = 1;";
    server.execute(&world.database, later);
    server.execute(&world.database, "ALTER TABLE m_02 REPLICA IDENTITY FULL; DELETE FROM m WHERE id = 22");
    let trail = trail(&world).await;
    assert_eq!(
        told(&trail[2..]),
        [
            r#"public.m created [2,"2026-02-05"]"#,
            r#"public.m created [3,"2026-02-06"]"#,
            r#"public.m updated [22,"2026-02-05"] before unknown"#,
            r#"public.m deleted [3,"2026-02-06"] before unknown"#,
            r#"public.m updated [1,"2026-01-05"]"#,
            r#"public.m deleted [22,"2026-02-05"]"#,
        ]
    );
    let before = trail[5].before.as_ref().expect("the key of what was deleted");
    assert_eq!(before.keys().collect::<Vec<_>>(), ["day", "id"]);
}

/// ⚠ With REPLICA IDENTITY FULL no Relation message shows a key.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_added_or_changed_under_full_is_the_key_from_then_on() {
    let server = shared(15).await;
    let table = "CREATE TABLE t (id int NOT NULL, code text NOT NULL); ALTER TABLE t REPLICA IDENTITY FULL;";
    let world = World::on(server).unwitnessed().sql(table).build().await;
    for (alter, row) in [
        ("", "1, 'a'"),
        ("ALTER TABLE t ADD PRIMARY KEY (id)", "2, 'b'"),
        ("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (code)", "3, 'c'"),
        ("ALTER TABLE t DROP CONSTRAINT t_pkey", "4, 'd'"),
    ] {
        server.execute(&world.database, &format!("{alter}; INSERT INTO t VALUES ({row})"));
        world.catch_up().await;
    }
    let keys: Vec<Option<String>> = trail(&world).await.into_iter().map(|version| version.key).collect();
    assert_eq!(keys, [None, Some("2".into()), Some("c".into()), None]);
}

/// The same is true without a restart in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_while_the_daemon_runs_is_noticed() {
    let server = shared(15).await;
    let table = "CREATE TABLE t (id int NOT NULL, code text NOT NULL); ALTER TABLE t REPLICA IDENTITY FULL;";
    let world = World::on(server).unwitnessed().listening().sql(table).build().await;
    let daemon = world.launch().start();
    let hot = world.hot().await;
    let stored = async |count: i64| {
        audit_testkit::eventually_async("the version is stored", async || {
            let row = hot.query_one("SELECT count(*) FROM cdc_audit.versions", &[]).await.expect("an answer");
            row.get::<_, i64>(0) == count
        })
        .await;
    };
    server.execute(&world.database, "INSERT INTO t VALUES (1, 'a')");
    stored(1).await;
    server.execute(&world.database, "ALTER TABLE t ADD PRIMARY KEY (code); INSERT INTO t VALUES (2, 'b')");
    stored(2).await;
    drop(daemon);
    let rows = hot.query("SELECT key FROM cdc_audit.versions ORDER BY position", &[]).await.expect("rows");
    let keys: Vec<Option<String>> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(keys, [None, Some("b".into())]);
}

/// ⚠ Rules that match the name of a partition do not apply to it.
#[tokio::test(flavor = "multi_thread")]
async fn rules_are_asked_about_roots_alone() {
    let server = shared(15).await;
    let rules = "[[tables]]\nname = \"public.*\"\nstrict = true\nbaseline = false\n[[tables]]\nname = \"public.orders\"\nallow = [\"*\"]\n";
    let tables = "CREATE TABLE orders (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE orders_p1 PARTITION OF orders FOR VALUES FROM (0) TO (100);";
    let world = World::on(server).unwitnessed().tables(rules).sql(tables).build().await;
    server.execute(&world.database, "INSERT INTO orders VALUES (1)");
    assert_eq!(told(&trail(&world).await), ["public.orders created 1"]);
}

const PATIENTS: &str = "CREATE TABLE patients (id int PRIMARY KEY, ssn text, note text);";
const RULES: &str = "[[tables]]\nname = \"public.patients\"\nprotect = { ssn = \"full\" }\nbaseline = false\n";

/// Returns everything that is stored in the hot database about tables and rows, as text.
async fn stored(world: &World) -> String {
    let sql = "SELECT coalesce((SELECT string_agg(v::text, E'\\n') FROM cdc_audit.versions v), '')";
    world.hot().await.query_one(sql, &[]).await.expect("the trail").get(0)
}

/// ⚠ A person who may write to a sink cannot decide about protection.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_shape_in_a_sink_takes_no_protection_away() {
    let server = shared(15).await;
    let world = World::on(server).unwitnessed().tables(RULES).sql(PATIENTS).without_lake().build().await;
    server.execute(&world.database, "INSERT INTO patients VALUES (1, 'raw-1', 'x')");
    world.catch_up().await;
    let forgeries = [
        "jsonb_set(shape, '{columns,1,name}', '\"s\"')",
        "jsonb_set(jsonb_set(shape, '{columns,1,kind}', '\"int8\"'), '{columns,1,type_name}', '\"bigint\"')",
        "jsonb_set(shape, '{columns,1,attnum}', '9') - 'seal'",
        "shape - 'oid' - 'seal'",
    ];
    for (n, forgery) in forgeries.iter().enumerate() {
        let (version, id) = (10 * n + 9, n + 2);
        let forged = format!(
            "INSERT INTO cdc_audit.shapes (source, table_name, schema_version, digest, shape)
             SELECT source, table_name, {version}, digest, jsonb_set({forgery}, '{{schema_version}}', '{version}')
             FROM cdc_audit.shapes WHERE schema_version = 1"
        );
        world.hot().await.batch_execute(&forged).await.expect("a forged shape");
        server.execute(&world.database, &format!("INSERT INTO patients VALUES ({id}, 'raw-{id}', 'x')"));
        world.catch_up().await;
        let stored = stored(&world).await;
        assert!(!stored.contains("raw-") && stored.matches("[REDACTED]").count() == id, "{forgery}: {stored}");
    }
}

/// Columns, tables and schemas that are renamed while no daemon runs stay protected, and `check` says what to write.
#[tokio::test(flavor = "multi_thread")]
async fn renames_take_no_protection_away() {
    let server = shared(15).await;
    let world = World::on(server).unwitnessed().tables(RULES).sql(PATIENTS).publish_all().build().await;
    let check = || {
        let output = world.command(&["check"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    server.execute(&world.database, "INSERT INTO patients VALUES (1, 'raw-1', 'x')");
    world.catch_up().await;
    assert_eq!(check().0, Some(0), "{}", check().1);

    server.execute(
        &world.database,
        "ALTER TABLE patients RENAME ssn TO social_no; INSERT INTO patients VALUES (2, 'raw-2', 'x')",
    );
    world.catch_up().await;
    let (code, said) = check();
    assert!(code == Some(3) && said.contains("if the column was renamed, name it as it is called now"), "{said}");

    server.execute(&world.database, "ALTER TABLE patients RENAME social_no TO ssn; ALTER TABLE patients RENAME TO people; INSERT INTO people VALUES (3, 'raw-3', 'x')");
    world.catch_up().await;
    let (code, said) = check();
    assert!(code == Some(3) && said.contains("former_names = [\"public.patients\"]"), "{said}");
    assert!(!said.contains("take the rule out"), "{said}");

    server.execute(&world.database, "CREATE SCHEMA clinic; ALTER TABLE people SET SCHEMA clinic; INSERT INTO clinic.people VALUES (4, 'raw-4', 'x')");
    world.catch_up().await;
    let stored_rows = stored(&world).await;
    assert!(!stored_rows.contains("raw-") && stored_rows.matches("[REDACTED]").count() == 4, "{stored_rows}");

    world.edit_config(
        "name = \"public.patients\"",
        "name = \"clinic.people\"\nformer_names = [\"public.patients\", \"public.people\"]",
    );
    assert_eq!(check().0, Some(0), "{}", check().1);
    server.execute(&world.database, "INSERT INTO clinic.people VALUES (5, 'raw-5', 'x')");
    world.catch_up().await;
    assert!(!stored(&world).await.contains("raw-"));
}

/// What held for an object holds for it under its next name, in the stream, for its baseline and for `check`.
#[tokio::test(flavor = "multi_thread")]
async fn a_detached_partition_and_a_renamed_table_keep_their_rules() {
    let server = shared(15).await;
    let tables = "CREATE TABLE visits (id int PRIMARY KEY, ssn text) PARTITION BY RANGE (id);
        CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (100);
        CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM (100) TO (200);
        INSERT INTO visits VALUES (1, 'raw-1'), (101, 'raw-101');";
    let rules = "[[tables]]\nname = \"public.visits\"\nprotect = { ssn = \"full\" }\n";
    let world = World::on(server)
        .unwitnessed()
        .tables(&format!("{rules}{RULES}"))
        .sql(&format!("{tables}{PATIENTS}"))
        .publish_all()
        .without_lake()
        .build()
        .await;
    server.execute(&world.database, "INSERT INTO patients VALUES (1, 'raw-1', 'x')");
    world.catch_up().await;
    let detach = "ALTER TABLE visits DETACH PARTITION visits_1; ALTER TABLE visits DETACH PARTITION visits_2;
        INSERT INTO visits_1 VALUES (2, 'raw-2'); ALTER TABLE patients RENAME TO people";
    server.execute(&world.database, detach);
    world.catch_up().await;
    // Known after a start too, also of what had no change since.
    server.execute(&world.database, "UPDATE visits_1 SET ssn = 'raw-3'; UPDATE visits_2 SET ssn = 'raw-102'");
    world.catch_up().await;
    let rows = stored(&world).await;
    assert!(!rows.contains("raw-") && rows.contains("public.visits_1") && rows.contains("public.visits_2"), "{rows}");
    // Only what wants a baseline has a record.
    let sql = "SELECT table_name FROM cdc_audit.captured WHERE table_name ~ 'people|visits_1'";
    let captured = world.client().await.query(sql, &[]).await.expect("what is captured");
    let captured: Vec<String> = captured.iter().map(|row| row.get(0)).collect();
    assert_eq!(captured, ["public.visits_1"], "the rule of the other wants none");

    let check = || {
        let output = world.command(&["check"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = check();
    assert!(code == Some(3) && said.contains("no rule names it: it was captured as public.visits before"), "{said}");
    assert!(
        said.contains("`name = \"public.visits_1\"`") && said.contains("former_names = [\"public.patients\"]"),
        "{said}"
    );
    let own = |name: &str| format!("[[tables]]\nname = \"public.{name}\"\nprotect = {{ ssn = \"full\" }}\n");
    world.edit_config(
        "[[tables]]\nname = \"public.patients\"",
        &format!(
            "{}{}[[tables]]\nname = \"public.people\"\nformer_names = [\"public.patients\"]",
            own("visits_1"),
            own("visits_2")
        ),
    );
    assert_eq!(check().0, Some(0), "{}", check().1);
}

/// ⚠ REPLICA IDENTITY FULL removes the mark from the index that identified the rows.
#[tokio::test(flavor = "multi_thread")]
async fn another_replica_identity_is_no_reason_to_split_a_history_in_silence() {
    let server = shared(15).await;
    let table =
        "CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, v text); CREATE UNIQUE INDEX t_code ON t (code);
        ALTER TABLE t REPLICA IDENTITY USING INDEX t_code;";
    let world = World::on(server).unwitnessed().without_lake().sql(table).build().await;
    let advice = "key = [\"code\"]";
    assert!(world.succeed(&["check"]).contains(advice));
    let planned = world.succeed(&["setup", "--replica-identity", "full", "--table", "public.t", "--dry-run"]);
    assert!(planned.contains(advice), "{planned}");
    server.execute(&world.database, "INSERT INTO t VALUES (1, 'x', 'a')");
    world.catch_up().await;
    world.edit_config("ignore_alone = []", "ignore_alone = []\nkey = [\"code\"]");
    assert!(!world.succeed(&["check"]).contains(advice));
    server.execute(&world.database, "ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET v = 'b'");
    world.catch_up().await;
    let rows =
        world.hot().await.query("SELECT key FROM cdc_audit.versions ORDER BY position", &[]).await.expect("rows");
    let keys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(keys, ["x", "x"]);
}
