//! Setup creates what capture needs, as a role that owns the tables, and never what harms the application.

use audit_capture::{On, SourceConfig, Step, apply, setup};
use audit_connect::PgEndpoint;
use audit_core::rules::Rules;
use audit_testkit::{Postgres, shared_db, unique};
use expect_test::expect;

use crate::{majors, notes, open, rules, set_up, source, statements, url_as};

const SHOP: &str = r#"
    CREATE TABLE users (id int PRIMARY KEY, email text);
    CREATE TABLE "Order lines" (id int, line int, note text, PRIMARY KEY (id, line));
    CREATE TABLE log (line text);
    CREATE TABLE events (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE UNLOGGED TABLE cache (id int PRIMARY KEY);
    CREATE SCHEMA sales;
    CREATE TABLE sales.orders (id int PRIMARY KEY);
"#;

fn shown(plan: &audit_capture::Plan) -> String {
    let line = |step: &Step| match step {
        Step::Exists { what } => format!("exists: {what}\n"),
        Step::Run(s) => format!("{:?}: {}\n", s.on, s.sql.lines().next().unwrap()),
        Step::ByHand { statement, who } => format!("by hand ({who}): {}\n", statement.sql.lines().next().unwrap()),
        Step::Note { message, .. } => format!("note: {message}\n"),
    };
    plan.steps.iter().map(line).collect()
}

#[tokio::test]
async fn an_owner_without_special_rights_sets_up_and_finds_nothing_to_do_the_second_time() {
    for major in majors() {
        let server = Postgres::start(major);
        server.execute(
            "postgres",
            "CREATE ROLE owner LOGIN; CREATE ROLE cdc_audit LOGIN REPLICATION; CREATE DATABASE shop OWNER owner;",
        );
        let owner_url = url_as("owner", &server.url("shop"));
        server.execute("shop", "ALTER SCHEMA public OWNER TO owner; REVOKE ALL ON SCHEMA public FROM PUBLIC");
        let admin = open(&owner_url).await;
        admin
            .batch_execute(
                &SHOP
                    .replace("TABLE ", "TABLE public.")
                    .replace("public.sales", "sales")
                    .replace("PARTITION OF ", "PARTITION OF public."),
            )
            .await
            .unwrap();
        let daemon = open(&url_as("cdc_audit", &server.url("shop"))).await;

        let source = SourceConfig::new("shop", PgEndpoint::new("postgres://cdc_audit@localhost/shop"));
        let rules = rules(&["*"]);
        let wanted = setup::Wanted {
            source: &source,
            rules: &rules,
            daemon_role: "cdc_audit",
            owner: None,
            replica_identity_full: None,
        };
        let plan = setup::plan(&admin, &wanted).await.unwrap();
        assert_eq!(plan.refusals, []);
        if major == 15 {
            expect![[r#"
                exists: role cdc_audit
                Admin: CREATE SCHEMA cdc_audit
                Admin: CREATE OR REPLACE FUNCTION cdc_audit.set_context(context jsonb) RETURNS void
                Admin: CREATE OR REPLACE FUNCTION cdc_audit.clear_context() RETURNS void
                Admin: CREATE OR REPLACE FUNCTION cdc_audit.context_from_settings() RETURNS trigger
                Admin: CREATE OR REPLACE FUNCTION cdc_audit.rotate_context_key() RETURNS int
                Admin: CREATE TABLE cdc_audit.context_keys (
                Admin: CREATE TABLE cdc_audit.chunks (
                Admin: CREATE TABLE cdc_audit.captured (
                Admin: CREATE TABLE cdc_audit.captured_names (
                Admin: CREATE TABLE cdc_audit.captured_since (
                Admin: CREATE TABLE cdc_audit.quarantine (
                Admin: SET lock_timeout TO '2s'
                Admin: CREATE PUBLICATION cdc_audit FOR TABLE ONLY public."Order lines", ONLY public.events, ONLY public.users, ONLY sales.orders WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)
                note: public.log is left out: without a primary key PostgreSQL would refuse its UPDATE and DELETE
                Admin: SET lock_timeout TO 0
                Admin: GRANT USAGE ON SCHEMA cdc_audit TO PUBLIC
                Admin: GRANT SELECT ON cdc_audit.context_keys TO cdc_audit
                Admin: GRANT SELECT, INSERT, UPDATE, DELETE ON cdc_audit.chunks TO cdc_audit
                Admin: GRANT SELECT, INSERT, UPDATE, DELETE ON cdc_audit.captured TO cdc_audit
                Admin: GRANT SELECT, INSERT ON cdc_audit.captured_names TO cdc_audit
                Admin: GRANT SELECT, INSERT, UPDATE, DELETE ON cdc_audit.captured_since TO cdc_audit
                Admin: GRANT SELECT, INSERT (source, sink, position, note, os_user) ON cdc_audit.quarantine TO cdc_audit
                Admin: GRANT USAGE ON SCHEMA public TO cdc_audit
                Admin: GRANT USAGE ON SCHEMA sales TO cdc_audit
                Admin: GRANT SELECT ON public."Order lines", public.events, public.log, public.users, sales.orders TO cdc_audit
                Daemon: SELECT pg_create_logical_replication_slot('cdc_audit', 'pgoutput')
            "#]]
            .assert_eq(&shown(&plan));
        }
        assert!(plan.needs_daemon());
        let mut announced = 0;
        apply(&plan, &admin, Some(&daemon), |_| announced += 1).await.unwrap();
        assert_eq!(announced, plan.steps.len());

        let again = setup::plan(&admin, &wanted).await.unwrap();
        assert_eq!(statements(&again), [""; 0], "PostgreSQL {major}");
        assert_eq!(again.by_hand().count(), 0);
        let slots = server.execute("shop", "SELECT slot_name, plugin, database FROM pg_replication_slots");
        assert_eq!(slots, "cdc_audit|pgoutput|shop");
        if major >= 17 {
            assert_eq!(server.execute("shop", "SELECT failover FROM pg_replication_slots"), "t");
        }
        daemon
            .batch_execute(
                "SELECT * FROM public.users, sales.orders, cdc_audit.quarantine; DELETE FROM cdc_audit.chunks; \
                 INSERT INTO cdc_audit.quarantine (source, sink, position, os_user) VALUES ('shop', 'hot', 'x', 'ann') \
                 ON CONFLICT DO NOTHING",
            )
            .await
            .unwrap();
        assert_eq!(server.execute("shop", "SELECT db_user FROM cdc_audit.quarantine"), "cdc_audit");
        // A decision can neither be taken back nor be attributed to someone else.
        for forbidden in [
            "DELETE FROM cdc_audit.quarantine",
            "UPDATE cdc_audit.quarantine SET position = 'y'",
            "INSERT INTO cdc_audit.quarantine (source, sink, position, os_user, db_user) VALUES ('shop', 'hot', 'y', 'ann', 'bea')",
        ] {
            assert!(daemon.batch_execute(forbidden).await.is_err(), "{forbidden}");
        }
    }
}

#[tokio::test]
async fn a_second_run_finds_nothing_to_do_for_a_superuser_too() {
    for major in majors() {
        let db = shared_db(major).await;
        db.execute(SHOP);
        let source = source(&db.url);
        set_up(&source, &Rules::default(), None).await;
        let again = set_up(&source, &Rules::default(), None).await;
        assert_eq!(statements(&again), [""; 0], "PostgreSQL {major}");
    }
}

#[tokio::test]
async fn a_table_without_identity_is_published_only_once_it_is_full() {
    for major in majors() {
        let db = shared_db(major).await;
        db.execute(SHOP);
        db.execute("CREATE TABLE parts (id int, x int) PARTITION BY LIST (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); ");
        db.execute("INSERT INTO log VALUES ('a'); INSERT INTO parts VALUES (1)");
        let source = source(&db.url);
        let plan = set_up(&source, &Rules::default(), None).await;
        assert_eq!(notes(&plan).len(), 2, "{:?}", notes(&plan));
        db.execute("UPDATE log SET line = 'b'; UPDATE parts SET x = 1");

        let full = ["public.log".to_owned(), "public.pa*".to_owned()];
        let plan = set_up(&source, &Rules::default(), Some(&full)).await;
        let altered = [
            "ALTER TABLE public.log REPLICA IDENTITY FULL",
            "ALTER TABLE public.parts REPLICA IDENTITY FULL",
            "ALTER TABLE public.parts_1 REPLICA IDENTITY FULL",
            "ALTER PUBLICATION cdc_audit ADD TABLE ONLY public.log, ONLY public.parts",
        ];
        assert_eq!(statements(&plan)[1..5], altered);
        db.execute("UPDATE log SET line = 'c'; UPDATE parts SET x = 2; DELETE FROM log");
        let again = set_up(&source, &Rules::default(), Some(&full)).await;
        assert_eq!(statements(&again), [""; 0]);
    }
}

/// Shows what PostgreSQL itself does for each way in which FULL breaks a table, and that setup predicts it.
#[tokio::test]
async fn full_is_refused_where_postgres_would_refuse_updates() {
    for major in majors() {
        let db = shared_db(major).await;
        db.execute(
            "CREATE TABLE stored (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED);
             CREATE TABLE listed (id int PRIMARY KEY, a int);
             CREATE TABLE plain (id int PRIMARY KEY, a int);",
        );
        if major >= 15 {
            db.execute("CREATE PUBLICATION others FOR TABLE listed (id, a), stored");
        }
        if major >= 18 {
            db.execute("CREATE TABLE computed (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) VIRTUAL)");
        }
        let source = source(&db.url);
        let plan = set_up(&source, &Rules::default(), Some(&[])).await;
        let refused =
            |name: &str| notes(&plan).iter().any(|note| note.contains(&format!("FULL on public.{name} would")));
        let tables = ["stored", "listed", "plain", "computed"];
        let expected: &[&str] = match major {
            14 => &[],
            15..18 => &["listed"],
            _ => &["stored", "listed", "computed"],
        };
        assert_eq!(tables.into_iter().filter(|name| refused(name)).collect::<Vec<_>>(), expected);

        for name in tables.into_iter().filter(|name| major >= 18 || *name != "computed") {
            db.execute(&format!("INSERT INTO {name} (id, a) VALUES (1, 1); UPDATE {name} SET a = 2"));
            db.execute(&format!("ALTER TABLE {name} REPLICA IDENTITY FULL"));
            let update = db.server.try_execute(&db.name, &format!("UPDATE {name} SET a = 3"));
            assert_eq!(update.is_err(), refused(name), "PostgreSQL {major}, table {name}: {update:?}");
        }

        // If the table is named exactly, it is an error, and nothing is done.
        if let Some(name) = expected.first() {
            let client = open(&db.url).await;
            db.execute(&format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT"));
            let full = [format!("public.{name}")];
            let wanted = setup::Wanted {
                source: &source,
                rules: &Rules::default(),
                daemon_role: "postgres",
                owner: None,
                replica_identity_full: Some(&full),
            };
            let plan = setup::plan(&client, &wanted).await.unwrap();
            assert!(plan.refusals[0].message.contains("would make PostgreSQL refuse its UPDATE and DELETE"));
        }
    }
}

#[tokio::test]
async fn generated_columns_are_sent_where_the_server_can() {
    for major in majors().filter(|&major| major >= 18) {
        let db = shared_db(major).await;
        db.execute("CREATE TABLE stored (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED)");
        let plan = set_up(&source(&db.url), &Rules::default(), Some(&[])).await;
        assert_eq!(notes(&plan), [""; 0]);
        db.execute("INSERT INTO stored VALUES (1, 1); UPDATE stored SET a = 2; DELETE FROM stored");
    }
}

#[tokio::test]
async fn the_publication_follows_the_rules() {
    let db = shared_db(15).await;
    db.execute(SHOP);
    let source = source(&db.url);
    let published = || db.execute("SELECT schemaname || '.' || tablename FROM pg_publication_tables ORDER BY 1");
    set_up(&source, &rules(&["public.*", "-public.users"]), None).await;
    assert_eq!(published(), "public.Order lines\npublic.events");
    let plan = set_up(&source, &rules(&["sales.*", "public.users", "public.events"]), None).await;
    let expected = [
        "ALTER PUBLICATION cdc_audit ADD TABLE ONLY public.users, ONLY sales.orders",
        "ALTER PUBLICATION cdc_audit DROP TABLE ONLY public.\"Order lines\"",
    ];
    assert_eq!(statements(&plan)[1..3], expected);
    assert_eq!(published(), "public.events\npublic.users\nsales.orders");
    db.execute("ALTER PUBLICATION cdc_audit SET (publish = 'insert', publish_via_partition_root = false)");
    let plan = set_up(&source, &rules(&["sales.*", "public.users", "public.events"]), None).await;
    assert!(
        statements(&plan)[1]
            .starts_with("ALTER PUBLICATION cdc_audit SET (publish = 'insert, update, delete, truncate'")
    );
    let again = set_up(&source, &rules(&["sales.*", "public.users", "public.events"]), None).await;
    assert_eq!(statements(&again), [""; 0]);
}

/// The daemon captures it by the rule for its former name.
#[tokio::test]
async fn a_renamed_table_stays_published() {
    let db = shared_db(15).await;
    db.execute(SHOP);
    let source = source(&db.url);
    set_up(&source, &rules(&["public.users"]), None).await;
    db.execute(&format!(
        "INSERT INTO cdc_audit.captured_names
         SELECT '{}', system_identifier::text, 'users'::regclass::oid, 'public', 'users', '0/1'::pg_lsn FROM pg_control_system();
         ALTER TABLE users RENAME TO people",
        source.name
    ));
    let plan = set_up(&source, &rules(&["public.users"]), None).await;
    assert_eq!(statements(&plan), [""; 0]);
}

#[tokio::test]
async fn a_publication_for_all_tables_stays_one() {
    let db = shared_db(15).await;
    db.execute(SHOP);
    db.execute("CREATE PUBLICATION cdc_audit FOR ALL TABLES");
    let plan = set_up(&source(&db.url), &rules(&["public.users"]), None).await;
    let on_publication: Vec<&str> = statements(&plan).into_iter().filter(|sql| sql.contains("PUBLICATION")).collect();
    assert_eq!(on_publication.len(), 1, "{on_publication:?}");
    assert!(on_publication[0].contains("SET (publish = "));
}

#[tokio::test]
async fn many_tables_are_published_in_pieces_that_the_lock_table_holds() {
    let server =
        Postgres::builder(15).setting("max_locks_per_transaction", "10").setting("max_connections", "20").start();
    server.execute(
        "postgres",
        "DO $$ BEGIN FOR i IN 1..3000 LOOP
             EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY)', i);
             IF i % 20 = 0 THEN COMMIT; END IF;
         END LOOP; END $$",
    );
    let source = SourceConfig::new("shop", PgEndpoint::new(server.url("postgres")));
    set_up(&source, &Rules::default(), None).await;
    assert_eq!(server.execute("postgres", "SELECT count(*) FROM pg_publication_tables"), "3000");
}

#[tokio::test]
async fn what_the_role_may_not_do_is_left_to_who_may() {
    for major in majors() {
        let db = shared_db(major).await;
        let (owner, daemon) = (unique("owner"), unique("daemon"));
        db.execute(&format!(
            "CREATE ROLE {owner} LOGIN; GRANT CREATE ON DATABASE {} TO {owner}; GRANT ALL ON SCHEMA public TO {owner};
             SET ROLE {owner}; CREATE TABLE hers (id int PRIMARY KEY); RESET ROLE;
             CREATE TABLE his (id int PRIMARY KEY); CREATE TABLE hidden (id int PRIMARY KEY);
             ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;",
            db.name
        ));
        let admin = open(&url_as(&owner, &db.url)).await;
        let (source, rules) = (source(&db.url), Rules::default());
        let wanted = setup::Wanted {
            source: &source,
            rules: &rules,
            daemon_role: &daemon,
            owner: None,
            replica_identity_full: None,
        };
        let plan = setup::plan(&admin, &wanted).await.unwrap();
        assert_eq!(plan.refusals, []);
        let by_hand: Vec<&str> = plan.by_hand().map(|statement| statement.sql.as_str()).collect();
        let slot = match major {
            17.. => {
                format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput', failover => true)", source.slot)
            }
            _ => format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", source.slot),
        };
        let expected = [
            format!("CREATE ROLE {daemon} LOGIN REPLICATION BYPASSRLS"),
            format!("GRANT USAGE ON SCHEMA public TO {daemon}"),
            format!("GRANT SELECT ON public.hidden, public.his TO {daemon}"),
            slot,
        ];
        assert_eq!(by_hand, expected);
        assert_eq!(notes(&plan).len(), 2, "{:?}", notes(&plan));
        assert!(notes(&plan)[1].starts_with("public.his is left out: it belongs to role postgres"));
    }
}

#[tokio::test]
async fn the_daemons_role_is_made_by_who_may() {
    let db = shared_db(15).await;
    let (role, source, rules) = (unique("daemon"), source(&db.url), Rules::default());
    let admin = open(&db.url).await;
    let wanted =
        setup::Wanted { source: &source, rules: &rules, daemon_role: &role, owner: None, replica_identity_full: None };
    let plan = setup::plan(&admin, &wanted).await.unwrap();
    assert_eq!(statements(&plan)[0], format!("CREATE ROLE {role} LOGIN REPLICATION"));
    apply(&plan, &admin, None, |_| {}).await.unwrap();
    let plan = setup::plan(&admin, &wanted).await.unwrap();
    assert_eq!(statements(&plan), [""; 0]);
    db.execute(&format!("ALTER ROLE {role} NOREPLICATION"));
    let plan = setup::plan(&admin, &wanted).await.unwrap();
    assert_eq!(statements(&plan), [format!("ALTER ROLE {role} REPLICATION")]);
    db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[tokio::test]
async fn a_server_that_cannot_decode_is_refused_before_anything_is_done() {
    let server = Postgres::builder(15).setting("wal_level", "replica").start();
    let source = SourceConfig::new("shop", PgEndpoint::new(server.url("postgres")));
    let client = open(&server.url("postgres")).await;
    let rules = Rules::default();
    let wanted = setup::Wanted {
        source: &source,
        rules: &rules,
        daemon_role: "postgres",
        owner: None,
        replica_identity_full: None,
    };
    let plan = setup::plan(&client, &wanted).await.unwrap();
    assert_eq!(plan.refusals.len(), 1);
    assert_eq!(plan.refusals[0].message, "wal_level is replica, and changes can only be decoded from logical");
    assert_eq!(plan.refusals[0].hint, "run ALTER SYSTEM SET wal_level = logical, then restart the server");
}

#[tokio::test]
async fn a_slot_of_somebody_else_is_refused() {
    let (db, other) = (shared_db(15).await, shared_db(15).await);
    let (client, rules) = (open(&db.url).await, Rules::default());
    for (on, plugin, expected) in [
        (&db, "test_decoding", "exists and is for the plugin test_decoding, not for pgoutput"),
        (&other, "pgoutput", "belongs to database"),
    ] {
        let source = source(&db.url);
        on.execute(&format!("SELECT pg_create_logical_replication_slot('{}', '{plugin}')", source.slot));
        let wanted = setup::Wanted {
            source: &source,
            rules: &rules,
            daemon_role: "postgres",
            owner: None,
            replica_identity_full: None,
        };
        let plan = setup::plan(&client, &wanted).await.unwrap();
        assert!(plan.refusals[0].message.contains(expected), "{}", plan.refusals[0].message);
        assert_eq!(plan.refusals[0].hint, "give this source a slot of its own: source.slot in the configuration");
    }
}

#[tokio::test]
async fn tables_of_extensions_and_partitions_are_not_taken_by_patterns() {
    let db = shared_db(15).await;
    db.execute(SHOP);
    db.execute(
        "CREATE TABLE ours (id int PRIMARY KEY); CREATE EXTENSION hstore; ALTER EXTENSION hstore ADD TABLE ours",
    );
    let plan = set_up(&source(&db.url), &rules(&["*"]), None).await;
    let published = statements(&plan).into_iter().find(|sql| sql.contains("PUBLICATION")).unwrap().to_owned();
    assert!(!published.contains("ours") && !published.contains("events_2026") && published.contains("public.events"));
    let plan = set_up(&source(&db.url), &rules(&["*", "public.ours"]), None).await;
    assert!(statements(&plan).iter().any(|sql| sql.contains("ADD TABLE ONLY public.ours")));
}

#[tokio::test]
async fn a_table_in_use_is_not_waited_for() {
    let db = shared_db(15).await;
    db.execute("CREATE TABLE busy (id int PRIMARY KEY)");
    let application = open(&db.url).await;
    application.batch_execute("BEGIN; SELECT * FROM public.busy").await.unwrap();
    let (client, source, rules, full) =
        (open(&db.url).await, source(&db.url), Rules::default(), ["public.busy".to_owned()]);
    let wanted = setup::Wanted {
        source: &source,
        rules: &rules,
        daemon_role: "postgres",
        owner: None,
        replica_identity_full: Some(&full),
    };
    let plan = setup::plan(&client, &wanted).await.unwrap();
    let error = apply(&plan, &client, None, |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot run ALTER TABLE public.busy REPLICA IDENTITY FULL");
    assert_eq!(error.hint(), Some("a long transaction uses the table: try again when it has ended"));
    application.batch_execute("COMMIT").await.unwrap();
    set_up(&source, &rules, Some(&full)).await;
}

#[tokio::test]
async fn a_slot_older_than_its_publication_is_pointed_out() {
    let db = shared_db(15).await;
    let source = source(&db.url);
    set_up(&source, &Rules::default(), None).await;
    db.execute("DROP PUBLICATION cdc_audit");
    let plan = set_up(&source, &Rules::default(), None).await;
    assert!(notes(&plan)[0].contains("is older than the publication"), "{:?}", notes(&plan));
    assert!(plan.steps.iter().all(|step| !matches!(step, Step::Run(s) if s.on == On::Daemon)));
}

/// A slot that is older than the publication reaches changes that cannot be decoded: a role that may create the slot
/// but not the publication creates neither.
#[tokio::test]
async fn no_slot_is_made_before_the_publication() {
    let server = Postgres::start(15);
    server.execute(
        "postgres",
        "CREATE ROLE owner LOGIN; CREATE ROLE cdc_audit LOGIN REPLICATION; CREATE DATABASE shop OWNER owner",
    );
    server.execute("shop", "ALTER SCHEMA public OWNER TO owner");
    let owner = open(&url_as("owner", &server.url("shop"))).await;
    owner.batch_execute("CREATE TABLE public.t (id int PRIMARY KEY)").await.unwrap();
    let source = SourceConfig::new("shop", PgEndpoint::new(url_as("cdc_audit", &server.url("shop"))));
    let (daemon, rules) = (open(&source.endpoint.url).await, Rules::default());
    let wanted = setup::Wanted {
        source: &source,
        rules: &rules,
        daemon_role: "cdc_audit",
        owner: None,
        replica_identity_full: None,
    };
    let alone = setup::plan(&daemon, &wanted).await.unwrap();
    apply(&alone, &daemon, None, |_| {}).await.unwrap();
    let slots = || server.execute("shop", "SELECT count(*) FROM pg_replication_slots");
    assert_eq!(slots(), "0", "{}", shown(&alone));
    assert!(
        alone.by_hand().any(|statement| statement.sql.contains("pg_create_logical_replication_slot")),
        "{}",
        shown(&alone)
    );
    let both = setup::plan(&owner, &wanted).await.unwrap();
    apply(&both, &owner, Some(&daemon), |_| {}).await.unwrap();
    assert_eq!(slots(), "1");
    assert_eq!(setup::plan(&daemon, &wanted).await.unwrap().by_hand().count(), 0);
}

/// A role that created the schema first would know the keys of contexts, and its triggers would run as the daemon.
#[tokio::test]
async fn what_somebody_else_made_is_refused() {
    let db = shared_db(15).await;
    let mallory = unique("mallory").replace('-', "_");
    db.execute(&format!("CREATE ROLE {mallory} LOGIN; GRANT CREATE ON DATABASE {} TO {mallory}", db.name));
    let hers = open(&url_as(&mallory, &db.url)).await;
    let source = source(&db.url);
    let rules = rules(&["*"]);
    let wanted = setup::Wanted {
        source: &source,
        rules: &rules,
        daemon_role: "postgres",
        owner: None,
        replica_identity_full: None,
    };
    let admin = open(&db.url).await;
    let refusals = async || {
        let plan = setup::plan(&admin, &wanted).await.unwrap();
        plan.refusals.iter().map(|refusal| refusal.message.replace(&mallory, "mallory")).collect::<Vec<_>>()
    };
    hers.batch_execute("CREATE SCHEMA cdc_audit").await.unwrap();
    let said = "schema cdc_audit belongs to role mallory, who could read the keys of contexts and change the tables";
    assert_eq!(refusals().await, [said]);
    // Nobody is told to drop what may be a trail.
    let plan = setup::plan(&admin, &wanted).await.unwrap();
    let hint = &plan.refusals[0].hint;
    assert!(!hint.contains("DROP") && hint.contains("a trail may lie in it"), "{hint}");
    db.execute("ALTER SCHEMA cdc_audit OWNER TO postgres");
    assert_eq!(refusals().await, [""; 0]);
    // A table and a function of that role, and a trigger on one of our tables.
    db.execute(&format!("GRANT CREATE, USAGE ON SCHEMA cdc_audit TO {mallory}"));
    hers.batch_execute(
        "CREATE TABLE cdc_audit.chunks (source text); \
         CREATE FUNCTION cdc_audit.set_context(jsonb) RETURNS void LANGUAGE sql AS 'SELECT'",
    )
    .await
    .unwrap();
    let prefix = "schema cdc_audit holds what setup did not make:";
    assert_eq!(
        refusals().await,
        [
            format!("{prefix} function cdc_audit.set_context, which belongs to role mallory"),
            format!("{prefix} table cdc_audit.chunks, which belongs to role mallory"),
        ]
    );
    db.execute("DROP TABLE cdc_audit.chunks; DROP FUNCTION cdc_audit.set_context(jsonb)");
    set_up(&source, &rules, None).await;
    db.execute(
        "CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER spy AFTER INSERT ON cdc_audit.chunks EXECUTE FUNCTION spy()",
    );
    assert_eq!(refusals().await, [format!("{prefix} trigger spy of cdc_audit.chunks")]);
    let plan = setup::plan(&admin, &wanted).await.unwrap();
    let hint = &plan.refusals[0].hint;
    assert!(hint.contains("DROP TRIGGER") && !hint.contains("SET SCHEMA"), "a trigger cannot be moved: {hint}");
}

/// A function of ours that was altered is created again: with another search path, or the caller's rights, it would do
/// something else.
#[tokio::test]
async fn a_function_that_was_altered_is_made_again() {
    let db = shared_db(15).await;
    let source = source(&db.url);
    set_up(&source, &Rules::default(), None).await;
    for altered in ["SECURITY INVOKER", "SET search_path = public", "RESET ALL", "SET work_mem = '1MB'"] {
        db.execute(&format!("ALTER FUNCTION cdc_audit.set_context(jsonb) {altered}"));
        let again = set_up(&source, &Rules::default(), None).await;
        let made = statements(&again);
        assert_eq!(made.len(), 1, "{altered}: {made:?}");
        assert_eq!(statements(&set_up(&source, &Rules::default(), None).await), [""; 0], "{altered}");
    }
}

/// Members can read the keys of contexts too: members of pg_read_all_data, of the keys' owner, of the daemon's role.
#[tokio::test]
async fn who_could_sign_a_context_is_found_through_memberships() {
    let db = shared_db(15).await;
    let [daemon, bi, clerk] = ["daemon", "bi", "clerk"].map(|name| unique(name).replace('-', "_"));
    db.execute(&format!(
        "CREATE ROLE {daemon} LOGIN REPLICATION; CREATE ROLE {bi} LOGIN NOINHERIT; CREATE ROLE {clerk} LOGIN; \
         GRANT pg_read_all_data TO {bi}; GRANT {daemon} TO {clerk}"
    ));
    let source = source(&db.url);
    let rules = rules(&["*"]);
    let wanted = setup::Wanted {
        source: &source,
        rules: &rules,
        daemon_role: &daemon,
        owner: None,
        replica_identity_full: None,
    };
    let admin = open(&db.url).await;
    let plan = setup::plan(&admin, &wanted).await.unwrap();
    apply(&plan, &admin, Some(&admin), |_| {}).await.unwrap();
    let notes = notes(&setup::plan(&admin, &wanted).await.unwrap()).join("\n");
    for (role, by) in [(&bi, "pg_read_all_data"), (&clerk, daemon.as_str())] {
        let said =
            format!("role {role} can read the keys of contexts as a member of {by}, and so sign in another's name");
        assert!(notes.contains(&said), "{notes}");
    }
    db.execute(&format!("REVOKE pg_read_all_data FROM {bi}; REVOKE {daemon} FROM {clerk}"));
    let plan = setup::plan(&admin, &wanted).await.unwrap();
    assert!(!shown(&plan).contains("sign in another's name"), "{}", shown(&plan));
    db.execute(&format!("DROP OWNED BY {daemon}; DROP ROLE {bi}, {clerk}"));
}
