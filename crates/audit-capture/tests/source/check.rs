//! Check finds what keeps capture from starting, and says what to do about it.

use std::collections::BTreeMap;

use audit_capture::check::{Area, Finding, Input, State, check, would_start};
use audit_capture::{SourceConfig, apply, setup};
use audit_connect::PgEndpoint;
use audit_core::method::Method;
use audit_core::rules::{Rules, TableRule};
use audit_testkit::{Postgres, shared_db, unique};

use crate::{hold, majors, open, rules, set_up, source, url_as};

async fn findings(source: &SourceConfig, rules: &Rules) -> Vec<Finding> {
    check(&Input { source, rules, row_key: false, hash_key: false, sinks: &[] }, "cdc-audit check").await
}

/// The findings that have failed, as `area subject: message -> fix`.
fn red(findings: &[Finding]) -> Vec<String> {
    let red = findings.iter().filter(|finding| finding.state == State::Fail);
    red.map(|f| format!("{} {}: {} -> {}", f.area, f.subject, f.message, f.fix.as_deref().unwrap())).collect()
}

fn warnings(findings: &[Finding], area: Area) -> Vec<&str> {
    let warned = findings.iter().filter(|finding| finding.state == State::Warn && finding.area == area);
    warned.map(|finding| finding.message.as_str()).collect()
}

#[tokio::test]
async fn a_source_that_was_set_up_for_a_plain_role_is_fine() {
    for major in majors() {
        let server = Postgres::builder(major).setting("max_slot_wal_keep_size", "10GB").start();
        let role = "cdc_audit";
        server
            .execute("postgres", "CREATE TABLE t (id int PRIMARY KEY, note text); ALTER TABLE t REPLICA IDENTITY FULL");
        let source = SourceConfig::new("shop", PgEndpoint::new(url_as(role, &server.url("postgres"))));
        let (admin, rules) = (open(&server.url("postgres")).await, Rules::default());
        let wanted = setup::Wanted {
            source: &source,
            rules: &rules,
            daemon_role: role,
            owner: None,
            replica_identity_full: None,
        };
        let plan = setup::plan(&admin, &wanted).await.unwrap();
        apply(&plan, &admin, None, |_| {}).await.unwrap();
        let found = findings(&source, &rules).await;
        assert!(found.iter().all(|finding| finding.state == State::Ok), "PostgreSQL {major}: {found:#?}");
        assert!(would_start(&found));
        let said: Vec<&str> = found.iter().map(|finding| finding.message.as_str()).collect();
        assert!(said.contains(&"1 tables send whole old rows: every old value is recorded"), "{said:?}");
    }
}

#[tokio::test]
async fn before_setup_everything_that_is_missing_is_named() {
    let db = shared_db(15).await;
    let source = source(&db.url);
    let found = findings(&source, &Rules::default()).await;
    assert!(!would_start(&found));
    let expected = [
        "server schema cdc_audit: the schema cdc_audit is not there, or not whole -> run `cdc-audit setup`".to_owned(),
        "publication cdc_audit: it does not exist: nothing can be captured -> run `cdc-audit setup`".to_owned(),
        format!(
            "slot {}: it does not exist: no WAL is kept for capture -> run `cdc-audit setup`; if it existed before, \
             `cdc-audit run --accept-gap` records what was lost",
            source.slot
        ),
    ];
    assert_eq!(red(&found), expected);
}

#[tokio::test]
async fn a_missing_publication_and_a_dropped_slot_are_found() {
    for major in majors() {
        let db = shared_db(major).await;
        let source = source(&db.url);
        set_up(&source, &Rules::default(), None).await;
        assert!(would_start(&findings(&source, &Rules::default()).await));
        db.execute("DROP PUBLICATION cdc_audit");
        let found = findings(&source, &Rules::default()).await;
        assert_eq!(
            red(&found),
            ["publication cdc_audit: it does not exist: nothing can be captured -> run `cdc-audit setup`"]
        );
        set_up(&source, &Rules::default(), None).await;
        db.execute(&format!("SELECT pg_drop_replication_slot('{}')", source.slot));
        let found = findings(&source, &Rules::default()).await;
        assert_eq!(red(&found).len(), 1);
        assert!(red(&found)[0].starts_with(&format!("slot {}: it does not exist: no WAL is kept", source.slot)));
    }
}

#[tokio::test]
async fn the_wrong_wal_level_and_no_room_are_found() {
    let server = Postgres::builder(15)
        .setting("wal_level", "replica")
        .setting("max_replication_slots", "0")
        .setting("max_wal_senders", "0")
        .start();
    let source = SourceConfig::new("shop", PgEndpoint::new(server.url("postgres")));
    let found = red(&findings(&source, &Rules::default()).await);
    assert_eq!(
        found[..3],
        [
            "server wal_level: wal_level is replica, and changes can only be decoded from logical -> run ALTER SYSTEM SET \
             wal_level = logical, then restart the server",
            "server max_replication_slots: all 0 are in use -> raise max_replication_slots, then restart the server",
            "server max_wal_senders: all 0 are in use -> raise max_wal_senders, then restart the server",
        ]
    );
}

#[tokio::test]
async fn a_wrong_password_is_said_with_where_it_came_from() {
    let server = Postgres::builder(15).access("host all guarded 127.0.0.1/32 scram-sha-256").start();
    server.execute("postgres", "CREATE ROLE guarded LOGIN REPLICATION PASSWORD 'right'");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "wrong\n").unwrap();
    let url = url_as("guarded", &server.url("postgres"));
    let endpoint = PgEndpoint { password_file: Some(file.path().to_owned()), ..PgEndpoint::new(url) };
    let found = findings(&SourceConfig::new("shop", endpoint), &Rules::default()).await;
    assert_eq!(found.len(), 1);
    assert!(!would_start(&found));
    let (message, fix) = (&found[0].message, found[0].fix.as_deref().unwrap());
    assert!(message.ends_with("password authentication failed for user \"guarded\" (SQLSTATE 28P01)"), "{message}");
    assert!(fix.starts_with("the password came from") && !fix.contains("wrong") && !message.contains("wrong"), "{fix}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said() {
    let found =
        findings(&SourceConfig::new("shop", PgEndpoint::new("postgres://a@127.0.0.1:1/shop")), &Rules::default()).await;
    assert!(
        red(&found)[0].starts_with("server a@127.0.0.1:1/shop: cannot reach a@127.0.0.1:1/shop: "),
        "{:?}",
        red(&found)
    );
}

#[tokio::test]
async fn what_the_role_may_not_do_is_found() {
    for major in majors() {
        let db = shared_db(major).await;
        let role = unique("daemon");
        db.execute(&format!(
            "CREATE ROLE {role} LOGIN; CREATE TABLE seen (id int PRIMARY KEY); CREATE TABLE unseen (id int PRIMARY KEY);
             CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
             CREATE TABLE unread (id int PRIMARY KEY);
             GRANT SELECT ON seen, hidden TO {role}; GRANT USAGE ON SCHEMA public TO {role}"
        ));
        let mut source = source(&db.url);
        set_up(&source, &Rules::default(), None).await;
        source.endpoint = PgEndpoint::new(url_as(&role, &db.url));
        let mut rules = rules(&["*", "public.unread"]);
        rules.tables[1].baseline = Some(false);
        let expected = [
            format!(
                "role {role}: it may not use replication slots -> as a superuser run ALTER ROLE {role} REPLICATION"
            ),
            format!(
                "role {role}: it may not read public.unseen: no baseline -> run `cdc-audit setup --as URL` with a role that owns them, or set \
                 baseline = false for these tables"
            ),
            format!(
                "role {role}: row-level security would hide rows of public.hidden from the baseline -> as a superuser run \
                 ALTER ROLE {role} BYPASSRLS, or set baseline = false for these tables"
            ),
            format!(
                "role {role}: it may not use cdc_audit.context_keys, cdc_audit.chunks, cdc_audit.captured, cdc_audit.captured_names, cdc_audit.captured_since and 1 more -> run `cdc-audit setup --as URL` with a role that owns them"
            ),
        ];
        assert_eq!(red(&findings(&source, &rules).await), expected);
        // The same is found by a role that may not even use the schema.
        db.execute("REVOKE USAGE ON SCHEMA cdc_audit FROM PUBLIC");
        assert_eq!(red(&findings(&source, &rules).await).iter().filter(|line| expected.contains(line)).count(), 4);
        db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}

#[tokio::test]
async fn what_is_not_known_of_a_table_is_said_with_its_price() {
    for major in majors() {
        let db = shared_db(major).await;
        db.execute(
            "CREATE TABLE plain (id int PRIMARY KEY, n int);
             CREATE TABLE wide (id int PRIMARY KEY, note text, body bytea);
             CREATE TABLE nothing (a int); ALTER TABLE nothing REPLICA IDENTITY FULL;
             CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY LIST (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); ALTER TABLE parts REPLICA IDENTITY FULL;
             CREATE TABLE keyless (a int);
             INSERT INTO plain SELECT i, i FROM generate_series(1, 10000) i; ANALYZE;",
        );
        let source = source(&db.url);
        set_up(&source, &Rules::default(), None).await;
        let found = findings(&source, &Rules::default()).await;
        let mut tables: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for finding in found.iter().filter(|f| f.area == Area::Table && f.state == State::Warn) {
            let entry = tables.entry(finding.subject.as_str()).or_default();
            entry.push((finding.message.as_str(), finding.fix.as_deref().unwrap()));
        }
        let (message, fix) = tables["public.plain"][0];
        assert_eq!(message, "of an UPDATE the old values are not known, of a DELETE only the key");
        assert_eq!(
            fix,
            "run `cdc-audit setup --replica-identity full --table public.plain`, which writes about 36 B more WAL for each \
             UPDATE and DELETE"
        );
        assert!(
            tables["public.wide"][0]
                .0
                .ends_with("; large values of note, body are unknown where an UPDATE leaves them as they are")
        );
        assert_eq!(
            tables["public.nothing"][0].0,
            "it has no primary key: `key` is null, and no row of it can be followed"
        );
        assert!(tables["public.parts"][0].0.starts_with("partitions without REPLICA IDENTITY FULL: public.parts_1"));
        assert!(tables["public.keyless"][0].0.starts_with("it is not captured: without a primary key"));
        assert!(would_start(&found), "{:?}", red(&found));
    }
}

#[tokio::test]
async fn a_table_that_the_application_can_no_longer_update_is_red() {
    for major in majors() {
        let db = shared_db(major).await;
        db.execute("CREATE TABLE bare (a int); INSERT INTO bare VALUES (1)");
        if major >= 15 {
            db.execute(
                "CREATE TABLE listed (id int PRIMARY KEY, a int, b int); ALTER TABLE listed REPLICA IDENTITY FULL",
            );
        }
        let source = source(&db.url);
        set_up(&source, &rules(&["-public.listed"]), None).await;
        db.execute("ALTER PUBLICATION cdc_audit ADD TABLE bare");
        if major >= 15 {
            db.execute("ALTER PUBLICATION cdc_audit ADD TABLE listed (id, a)");
        }
        assert!(db.server.try_execute(&db.name, "UPDATE bare SET a = 2").is_err());
        let found = red(&findings(&source, &Rules::default()).await);
        assert!(
            found[0]
                .starts_with("table public.bare: PostgreSQL refuses its UPDATE and DELETE: it is published and has no")
        );
        assert_eq!(found.len(), if major >= 15 { 2 } else { 1 });
        if major >= 15 {
            assert!(found[1].contains("it has REPLICA IDENTITY FULL, and publication cdc_audit lists columns of it"));
        }
        if major >= 18 {
            db.execute("CREATE TABLE v (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id)); ALTER TABLE v REPLICA IDENTITY FULL; ALTER PUBLICATION cdc_audit ADD TABLE v");
            let found = red(&findings(&source, &Rules::default()).await);
            assert!(found[2].contains("it has a virtual generated column"), "{found:?}");
        }
    }
}

#[tokio::test]
async fn the_publication_is_held_against_the_rules() {
    let db = shared_db(15).await;
    db.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY)",
    );
    let source = source(&db.url);
    set_up(&source, &rules(&["public.a", "public.b"]), None).await;
    db.execute("ALTER PUBLICATION cdc_audit SET (publish = 'insert, update', publish_via_partition_root = false)");
    let found = findings(&source, &rules(&["public.a", "public.c"])).await;
    let expected = [
        "it does not publish delete, truncate: such changes are not captured",
        "it publishes partitions under their own names, not as their partitioned table",
        "tables that the rules take are not captured: public.c",
        "it has tables that the rules do not take: public.b",
    ];
    assert_eq!(warnings(&found, Area::Publication), expected);
    let noted = found.iter().find(|finding| finding.message.contains("left out by the rules")).unwrap();
    assert_eq!(noted.message, "1 tables are left out by the rules: public.b");
    let says = |found: &[Finding], words: &str| found.iter().any(|finding| finding.message.contains(words));
    assert!(!says(&found, "a new table is captured only after `cdc-audit setup`"));
    assert!(says(
        &findings(&source, &rules(&["public.*"])).await,
        "a new table is captured only after `cdc-audit setup`"
    ));
    db.execute(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); ALTER PUBLICATION cdc_audit ADD TABLE p;
         ALTER PUBLICATION cdc_audit SET (publish_via_partition_root = true)",
    );
    let found = findings(&source, &rules(&["public.*"])).await;
    assert!(says(&found, "no DETACH, DROP or TRUNCATE of a single partition"), "{found:?}");
    assert!(would_start(&found));
}

#[tokio::test]
async fn column_lists_and_row_filters_are_noted() {
    let db = shared_db(15).await;
    db.execute("CREATE TABLE a (id int PRIMARY KEY, b int, c int, g int GENERATED ALWAYS AS (1) STORED)");
    let source = source(&db.url);
    set_up(&source, &Rules::default(), None).await;
    db.execute("ALTER PUBLICATION cdc_audit SET TABLE a (id, b) WHERE (id > 0)");
    let found = findings(&source, &Rules::default()).await;
    let said: Vec<&str> = found.iter().filter(|f| f.area == Area::Table).map(|f| f.message.as_str()).collect();
    assert!(said.contains(&"generated columns are not sent, and so not recorded: g"), "{said:?}");
    assert!(said.contains(&"the publication's column list leaves out c"));
    assert!(said.iter().any(|message| message.starts_with("the publication's row filter leaves out rows")));
}

#[tokio::test]
async fn protection_that_cannot_work_is_red() {
    let db = shared_db(15).await;
    db.execute("CREATE TABLE users (email text PRIMARY KEY, phone text)");
    let source = source(&db.url);
    let protect = [("email".to_owned(), Method::Full.into()), ("phone".to_owned(), Method::Hash.into())].into();
    let rules = Rules {
        tables: vec![TableRule { name: "public.users".into(), protect, ..TableRule::default() }],
        ..Rules::default()
    };
    set_up(&source, &rules, None).await;
    let found = red(&findings(&source, &rules).await);
    assert!(
        found[0].starts_with("protection public.users: table public.users: column email is part of the key"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("protection public.users: columns are to be hashed and there is no key for it: phone")
    );
    let input = Input { source: &source, rules: &rules, row_key: true, hash_key: true, sinks: &[] };
    assert!(would_start(&check(&input, "cdc-audit").await));
}

#[tokio::test]
async fn a_slot_in_other_hands_or_lost_is_found() {
    let db = shared_db(15).await;
    let source = source(&db.url);
    set_up(&source, &Rules::default(), None).await;
    db.execute(&format!("SELECT pg_drop_replication_slot('{}')", source.slot));
    db.execute(&format!("SELECT pg_create_logical_replication_slot('{}', 'test_decoding')", source.slot));
    let found = red(&findings(&source, &Rules::default()).await);
    assert!(found[0].contains("exists and is for the plugin test_decoding, not for pgoutput"), "{found:?}");

    let server = Postgres::builder(15)
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("max_wal_size", "32MB")
        .setting("min_wal_size", "32MB")
        .start();
    let source = SourceConfig::new("shop", PgEndpoint::new(server.url("postgres")));
    set_up(&source, &Rules::default(), None).await;
    for _ in 0..4 {
        server.execute("postgres", "SELECT pg_logical_emit_message(false, 'x', 'x'); SELECT pg_switch_wal();");
    }
    server.execute("postgres", "CHECKPOINT");
    let found = red(&findings(&source, &Rules::default()).await);
    assert!(
        found[0].starts_with("slot cdc_audit: replication slot cdc_audit is lost (wal_removed) -> changes were lost:")
    );
}

#[tokio::test]
async fn another_program_on_the_slot_is_named_and_the_daemon_is_not_complained_of() {
    for (application, complaints) in [("other", 1), ("cdc-audit shop", 0)] {
        let db = shared_db(15).await;
        let source = source(&db.url);
        set_up(&source, &Rules::default(), None).await;
        let _reader = hold(&db.url, &source.slot, "pgoutput", application);
        audit_testkit::eventually_async("the slot is in use", async || {
            let found = findings(&source, &Rules::default()).await;
            let used = found.iter().any(|f| f.area == Area::Slot && f.message.contains("in use by pid"));
            used && warnings(&found, Area::Slot).iter().filter(|m| m.contains("would wait for it")).count()
                == complaints
        })
        .await;
    }
}

#[tokio::test]
async fn a_failover_slot_asks_for_standbys_that_hold_it_back() {
    for major in majors().filter(|&major| major >= 17) {
        let server = Postgres::start(major);
        let source = SourceConfig::new("shop", PgEndpoint::new(server.url("postgres")));
        set_up(&source, &Rules::default(), None).await;
        let slots = async || {
            let found = findings(&source, &Rules::default()).await;
            warnings(&found, Area::Slot).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(slots().await, [""; 0]);
        server.execute("postgres", "SELECT pg_create_physical_replication_slot('standby')");
        assert_eq!(slots().await, ["empty: a standby that is promoted may lack commits that were already captured"]);
        server.configure(&[("synchronized_standby_slots", "standby, gone")]);
        server.reload();
        audit_testkit::eventually("the setting is in force", || {
            server.execute("postgres", "SHOW synchronized_standby_slots") == "standby, gone"
        });
        let waits = [
            "slot standby is not in use: capture waits for that standby",
            "slot gone does not exist: capture waits for that standby",
        ];
        assert_eq!(slots().await, waits);
        server.execute("postgres", "SELECT pg_drop_replication_slot('cdc_audit')");
        server.execute("postgres", "SELECT pg_create_logical_replication_slot('cdc_audit', 'pgoutput')");
        assert_eq!(slots().await, ["it is no failover slot: it is lost when a standby is promoted"]);
    }
}

#[tokio::test]
async fn a_standby_and_a_database_without_encoding_are_refused() {
    let server = Postgres::start(15);
    server.execute("postgres", "CREATE DATABASE raw ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    let source = SourceConfig::new("shop", PgEndpoint::new(server.url("raw")));
    assert!(
        red(&findings(&source, &Rules::default()).await)[0]
            .starts_with("server server_encoding: the database's encoding is SQL_ASCII")
    );
    let standby = server.standby(&[]).await;
    let source = SourceConfig::new("shop", PgEndpoint::new(standby.url("postgres")));
    assert!(
        red(&findings(&source, &Rules::default()).await)[0].starts_with("server recovery: the server is a standby")
    );
}

/// Every login may write messages. Operators who do not want that are told how to prevent it, and nothing of ours
/// breaks by it.
#[tokio::test]
async fn writing_messages_may_be_kept_from_everybody_else() {
    for major in majors() {
        let server = Postgres::start(major);
        server.execute(
            "postgres",
            "CREATE ROLE cdc_audit LOGIN REPLICATION; CREATE ROLE app LOGIN; CREATE ROLE owner LOGIN",
        );
        server.execute("postgres", "CREATE DATABASE shop OWNER owner");
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
        let plan = setup::plan(&owner, &wanted).await.unwrap();
        apply(&plan, &owner, Some(&daemon), |_| {}).await.unwrap();

        let offered = |found: &[Finding]| {
            let finding = found.iter().find(|finding| finding.subject == "pg_logical_emit_message")?;
            let (_, sql) = finding.fix.as_deref()?.split_once("as a superuser run ")?;
            Some((finding.state, sql.to_owned()))
        };
        let (state, sql) = offered(&findings(&source, &rules).await).unwrap();
        assert_eq!(state, State::Ok);
        server.execute("shop", &sql);
        assert_eq!(offered(&findings(&source, &rules).await), None, "PostgreSQL {major}");
        assert!(would_start(&findings(&source, &rules).await));
        let app = open(&url_as("app", &server.url("shop"))).await;
        app.batch_execute("SELECT pg_logical_emit_message(true, 'x', 'x')").await.unwrap_err();
        app.batch_execute("BEGIN; SELECT cdc_audit.set_context('{\"actor_id\": 1}'); COMMIT").await.unwrap();

        // What is missing is named, by setup as well.
        let functions = sql.rsplit_once("FUNCTION ").unwrap().1.replace(" FROM PUBLIC", "");
        server.execute("shop", &format!("REVOKE EXECUTE ON FUNCTION {functions} FROM cdc_audit, owner"));
        let found = red(&findings(&source, &rules).await);
        assert_eq!(found.len(), 2, "{found:?}");
        let by_hand = setup::plan(&owner, &wanted).await.unwrap();
        let by_hand: Vec<&str> = by_hand.by_hand().map(|statement| statement.sql.as_str()).collect();
        assert_eq!(by_hand.len(), 2, "{by_hand:?}");
        by_hand.iter().for_each(|sql| drop(server.execute("shop", sql)));
        assert!(would_start(&findings(&source, &rules).await));
    }
}

/// What was changed between the creation of slot and publication cannot be decoded: nothing would ever be captured.
#[tokio::test]
async fn a_slot_that_is_older_than_the_publication_is_found() {
    for major in majors().filter(|major| *major < 18) {
        let db = shared_db(major).await;
        db.execute("CREATE TABLE t (id int PRIMARY KEY)");
        let source = source(&db.url);
        db.execute(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", source.slot));
        db.execute("INSERT INTO t VALUES (1)");
        set_up(&source, &Rules::default(), None).await;
        db.execute("INSERT INTO t VALUES (2)");
        let found = red(&findings(&source, &Rules::default()).await);
        assert_eq!(found.len(), 1, "PostgreSQL {major}: {found:?}");
        let (message, fix) = found[0].split_once(" -> ").unwrap();
        assert!(
            message.ends_with("it is older than publication cdc_audit: changes from before cannot be decoded"),
            "{message}"
        );
        let sql = fix.split_once("run ").unwrap().1.split_once(", then").unwrap().0;
        db.execute(sql);
        set_up(&source, &Rules::default(), None).await;
        assert!(would_start(&findings(&source, &Rules::default()).await));
    }
}
