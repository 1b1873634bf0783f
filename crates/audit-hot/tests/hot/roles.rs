//! What each role may do, and that setup and teardown do what they announce.

use audit_connect::PgEndpoint;
use audit_core::sink::Sink;
use audit_hot::{
    HotConfig, HotReader, HotSink, Partitioning, SetupOptions, Statement, setup_statements, teardown_statements,
};
use audit_testkit::{Database, Fixture, connect, shared_db, unique};
use tokio_postgres::Client;

use crate::fixture::{Hot, options, setup, take, write};

pub fn url_of(database: &Database, role: &str) -> String {
    database.url.replacen("postgres@", &format!("{role}@"), 1)
}

pub async fn run(client: &Client, statements: &[Statement]) {
    for statement in statements {
        client.batch_execute(&statement.sql).await.unwrap_or_else(|error| panic!("{}: {error:?}", statement.sql));
    }
}

fn batches() -> Vec<audit_core::batch::Batch> {
    Fixture::of(
        r#"table public.t (id int4 key)
           begin at=2033-05-05T00:00:00Z
           insert public.t [1]
           commit
           ---
           chunk public.t chunk=1
           begin
           snapshot public.t [2]
           commit"#,
    )
}

/// A database with an owner, a writer, a reader and an auditor, set up by a role that is not superuser.
pub async fn with_roles(major: u16) -> (Database, SetupOptions) {
    let database = shared_db(major).await;
    let [admin, owner, writer, reader, auditor] =
        ["admin", "owner", "writer", "reader", "auditor"].map(|role| unique(role).replace('-', "_"));
    database.execute(&format!(
        "CREATE ROLE {admin} LOGIN CREATEROLE; CREATE ROLE {writer} LOGIN; CREATE ROLE {reader} LOGIN; CREATE ROLE {auditor} LOGIN; \
         GRANT CREATE ON DATABASE {} TO {admin}",
        database.name
    ));
    let (reader, auditor) = (Some(reader), Some(auditor));
    let options = SetupOptions { owner: Some(owner), writer: Some(writer), reader, auditor, keys: true, ..options() };
    let client = connect(&url_of(&database, &admin)).await;
    for _ in 0..2 {
        run(&client, &setup_statements(&options)).await;
    }
    (database, options)
}

#[tokio::test]
async fn the_daemons_role_can_do_its_job_and_no_more() {
    for major in [15, 17] {
        let (database, options) = with_roles(major).await;
        let writer = url_of(&database, options.writer.as_ref().unwrap());
        let mut sink = HotSink::new("hot", &HotConfig::new(&writer));
        take(&mut sink).await.unwrap();
        write(&mut sink, &batches()).await.unwrap();
        audit_hot::probe(&HotConfig::new(&writer), "shop", "hot").await.unwrap();
        assert_eq!(database.execute("SELECT count(*) FROM cdc_audit.versions"), "2");
        let owned_by_writer =
            format!("SELECT count(*) FROM pg_class WHERE relowner = '{}'::regrole", options.writer.as_ref().unwrap());
        assert_eq!(database.execute(&owned_by_writer), "0");

        let client = connect(&writer).await;
        let owner = options.owner.as_ref().unwrap();
        for forbidden in [
            "SELECT * FROM cdc_audit.versions",
            "SELECT * FROM cdc_audit.trail",
            "SELECT * FROM cdc_audit.versions_2033_05",
            "INSERT INTO cdc_audit.versions_2033_05 SELECT",
            "UPDATE cdc_audit.versions SET key = 'x'",
            "DELETE FROM cdc_audit.versions",
            "TRUNCATE cdc_audit.versions",
            "DROP TABLE cdc_audit.versions_2033_05",
            "ALTER TABLE cdc_audit.versions DETACH PARTITION cdc_audit.versions_2033_05",
            "CREATE TABLE cdc_audit.mine ()",
            "INSERT INTO cdc_audit.checkpoints (source, sink) VALUES ('other', 'hot')",
            "DELETE FROM cdc_audit.checkpoints",
            "DELETE FROM cdc_audit.baselines",
            "UPDATE cdc_audit.shapes SET digest = ''",
            "DELETE FROM cdc_audit.shapes",
            "ALTER FUNCTION cdc_audit.ensure_partition(text, date, text) SECURITY INVOKER",
            &format!("SET ROLE {owner}"),
        ] {
            let error = client.batch_execute(forbidden).await.expect_err(forbidden);
            assert_eq!(error.code().unwrap().code(), "42501", "{major} {forbidden}: {error:?}");
        }
        for wrong in
            ["NULL, '2033-05-02'", "NULL, 'infinity'", "NULL, NULL", "NULL, '0044-03-01 BC'", "NULL, '300000-01-01'"]
        {
            let error = client.batch_execute(&format!("SELECT cdc_audit.ensure_partition({wrong})")).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "22023", "{wrong}: {error:?}");
        }
        // The owner's function does not call a function of the same name in a schema that the caller made.
        client.batch_execute("CREATE TEMP TABLE pg_inherits (inhrelid oid)").await.ok();
        client.batch_execute("SELECT cdc_audit.ensure_partition(NULL, '2034-01-01')").await.unwrap();
        assert_eq!(database.execute("SELECT to_regclass('cdc_audit.versions_2034_01') IS NOT NULL"), "t");

        let reader = PgEndpoint::new(url_of(&database, options.reader.as_ref().unwrap()));
        let history = HotReader::connect(&reader).await.unwrap().history("shop", "public.t", "1", 10).await.unwrap();
        assert_eq!(history.len(), 1);
        let client = connect(&reader.url).await;
        client.query("SELECT * FROM cdc_audit.trail", &[]).await.unwrap();
        assert!(client.batch_execute("INSERT INTO cdc_audit.shapes SELECT").await.is_err());
        assert!(client.batch_execute("SELECT cdc_audit.ensure_partition(NULL, '2034-02-01')").await.is_err());
        teardown_roles(&database, &options);
    }
}

/// Removes the roles, because they belong to the whole server, which other tests use.
pub fn teardown_roles(database: &Database, options: &SetupOptions) {
    for role in [&options.owner, &options.writer, &options.reader].into_iter().flatten() {
        database.execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"));
    }
}

#[tokio::test]
async fn a_missing_right_is_named_before_anything_is_written() {
    let (database, options) = with_roles(15).await;
    let writer = options.writer.as_ref().unwrap();
    database.execute(&format!(
        "REVOKE INSERT ON cdc_audit.versions FROM {writer}; REVOKE UPDATE ON cdc_audit.checkpoints FROM {writer}"
    ));
    let mut sink = HotSink::new("hot", &HotConfig::new(url_of(&database, writer)));
    let error = sink.take(&crate::fixture::identity()).await.unwrap_err();
    assert_eq!(
        error.message,
        format!("role {writer} lacks INSERT on cdc_audit.versions, UPDATE on cdc_audit.checkpoints")
    );
    teardown_roles(&database, &options);
}

#[tokio::test]
async fn one_role_may_do_everything() {
    let database = shared_db(15).await;
    let role = unique("all").replace('-', "_");
    database.execute(&format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role}", database.name));
    let url = url_of(&database, &role);
    let options = SetupOptions { writer: Some(role.clone()), ..options() };
    run(&connect(&url).await, &setup_statements(&options)).await;
    let mut sink = HotSink::new("hot", &HotConfig::new(&url));
    take(&mut sink).await.unwrap();
    write(&mut sink, &batches()).await.unwrap();
    run(&connect(&url).await, &teardown_statements(&options, false)).await;
    assert_eq!(database.execute("SELECT to_regnamespace('cdc_audit') IS NULL"), "t");
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[tokio::test]
async fn setup_again_changes_nothing_and_waits_for_no_report() {
    let hot = Hot::new().await;
    let mut sink = hot.taken().await;
    write(&mut sink, &batches()).await.unwrap();
    let objects =
        "SELECT c.oid, relname, relfilenode FROM pg_class c WHERE relnamespace = 'cdc_audit'::regnamespace ORDER BY 1";
    let before = hot.sql(objects);
    let mut report = hot.database.client().await;
    let report = report.transaction().await.unwrap();
    report.query("SELECT FROM cdc_audit.versions", &[]).await.unwrap();
    setup(&hot.database, &options());
    report.rollback().await.unwrap();
    assert_eq!(hot.sql(objects), before);
    write(&mut sink, &batches()).await.unwrap();
    assert_eq!(hot.sql("SELECT count(*) FROM cdc_audit.versions"), "2");
}

#[tokio::test]
async fn another_partitioning_is_refused() {
    let hot = Hot::new().await;
    let statements = setup_statements(&SetupOptions { partitioning: Partitioning::TableAndMonth, ..options() });
    let client = hot.database.client().await;
    let mut failed = None;
    for statement in statements {
        if let Err(error) = client.batch_execute(&statement.sql).await {
            failed = Some((statement.why, error.as_db_error().unwrap().message().to_owned()));
            break;
        }
    }
    let message = "cdc_audit.versions exists and is partitioned in another way than configured".to_owned();
    assert_eq!(failed, Some(("partitioning is decided once".into(), message)));
}

#[tokio::test]
async fn teardown_takes_away_what_it_says() {
    let hot = Hot::new().await;
    write(&mut hot.taken().await, &batches()).await.unwrap();
    let client = hot.database.client().await;
    run(&client, &teardown_statements(&options(), true)).await;
    assert_eq!(hot.sql("SELECT count(*) FROM cdc_audit.trail"), "2");

    // Another source's history must not be dropped.
    setup(&hot.database, &SetupOptions { source: "crm".into(), ..options() });
    let refused = client.batch_execute(&teardown_statements(&options(), false)[0].sql).await.unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("other sources"), "{refused:?}");
    hot.sql("DELETE FROM cdc_audit.checkpoints WHERE source = 'crm'");
    // If the schema contains objects of others, it stays.
    hot.sql("CREATE TABLE cdc_audit.chunks ()");
    run(&client, &teardown_statements(&options(), false)).await;
    let left = "SELECT relname FROM pg_class WHERE relnamespace = 'cdc_audit'::regnamespace";
    assert_eq!(hot.sql(left), "chunks");
    hot.sql("DROP TABLE cdc_audit.chunks");
    for _ in 0..2 {
        run(&client, &teardown_statements(&options(), false)).await;
    }
    assert_eq!(hot.sql("SELECT to_regnamespace('cdc_audit') IS NULL"), "t");
}

#[tokio::test]
async fn every_supported_server_will_do() {
    for major in audit_testkit::install::MAJORS {
        for partitioning in [Partitioning::Month, Partitioning::TableAndMonth] {
            let hot = Hot::with(partitioning, major).await;
            let mut sink = hot.taken().await;
            write(&mut sink, &batches()).await.unwrap();
            assert_eq!(hot.reader().await.history("shop", "public.t", "1", 10).await.unwrap().len(), 1, "{major}");
            let compressed = "SELECT count(*) FROM pg_attribute WHERE attrelid = (SELECT tableoid FROM cdc_audit.versions LIMIT 1) \
                AND attcompression = 'l'";
            let lz4 = "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'";
            let expected = if hot.sql(lz4) == "t" { "6" } else { "0" };
            assert_eq!(hot.sql(compressed), expected, "{major}");
        }
    }
}

/// The quoted names, in statements that a person reads before they run.
#[test]
fn names_are_quoted() {
    let odd = SetupOptions {
        source: "it's".into(),
        sinks: vec!["a\"b".into()],
        owner: Some("Own er".into()),
        writer: Some("wri\"ter".into()),
        ..SetupOptions::default()
    };
    let all: String = setup_statements(&odd).into_iter().map(|statement| statement.sql + ";\n").collect();
    for wanted in ["CREATE ROLE \"Own er\" NOLOGIN", "TO \"wri\"\"ter\"", "VALUES ('it''s', 'a\"b')"] {
        assert!(all.contains(wanted), "{wanted}");
    }
}

/// An auditor sees who decrypted what, how far sinks are, and what is missing, but no version and no key.
#[tokio::test]
async fn an_auditor_reads_the_access_log_and_no_version() {
    let (database, options) = with_roles(15).await;
    let client = connect(&url_of(&database, options.auditor.as_ref().unwrap())).await;
    for allowed in [
        "SELECT * FROM cdc_audit.access_log",
        "SELECT * FROM cdc_audit.checkpoints, cdc_audit.baselines",
        "SELECT * FROM cdc_audit.gaps",
        "SELECT key_id, class, master, destroyed_at FROM cdc_audit.data_keys",
        "SELECT key_id, generation, destroyed_at FROM cdc_audit.subject_keys",
    ] {
        client.batch_execute(allowed).await.expect(allowed);
    }
    for forbidden in [
        "SELECT * FROM cdc_audit.versions",
        "SELECT * FROM cdc_audit.trail",
        "SELECT wrapped FROM cdc_audit.data_keys",
        "SELECT wrapped FROM cdc_audit.subject_keys",
        "SELECT subject FROM cdc_audit.subject_keys",
        "DELETE FROM cdc_audit.access_log",
        "INSERT INTO cdc_audit.access_log (os_user, action, success) VALUES ('x', 'x', true)",
    ] {
        let error = client.batch_execute(forbidden).await.expect_err(forbidden);
        assert_eq!(error.code().unwrap().code(), "42501", "{forbidden}: {error:?}");
    }
    // The reader role can read keys but cannot add any.
    let reader = connect(&url_of(&database, options.reader.as_ref().unwrap())).await;
    reader.batch_execute("SELECT wrapped FROM cdc_audit.data_keys").await.unwrap();
    for forbidden in ["INSERT INTO cdc_audit.data_keys SELECT", "SELECT * FROM cdc_audit.access_log"] {
        assert!(reader.batch_execute(forbidden).await.is_err(), "{forbidden}");
    }
    let indexes = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'cdc_audit' AND tablename = 'access_log'";
    assert_eq!(database.execute(indexes), "4");
}

/// A role that makes the schema first would own what is written there.
#[tokio::test]
async fn a_schema_of_somebody_else_is_not_taken_for_ours() {
    let database = shared_db(15).await;
    let mallory = unique("mallory").replace('-', "_");
    database.execute(&format!("CREATE ROLE {mallory} LOGIN; GRANT CREATE ON DATABASE {} TO {mallory}", database.name));
    let hers = connect(&url_of(&database, &mallory)).await;
    let refused = async |made: &str| {
        hers.batch_execute(made).await.unwrap();
        let admin = connect(&database.url).await;
        for statement in setup_statements(&options()) {
            if let Err(error) = admin.batch_execute(&statement.sql).await {
                return error.as_db_error().unwrap().message().to_owned();
            }
        }
        "nothing".to_owned()
    };
    let said = refused("CREATE SCHEMA cdc_audit").await;
    assert_eq!(said, format!("cdc-audit did not make what is there: schema cdc_audit of role {mallory}"));
    database.execute(&format!(
        "ALTER SCHEMA cdc_audit OWNER TO postgres; GRANT CREATE, USAGE ON SCHEMA cdc_audit TO {mallory}"
    ));
    let said = refused("CREATE TABLE cdc_audit.checkpoints (source text)").await;
    assert_eq!(said, format!("cdc-audit did not make what is there: cdc_audit.checkpoints of role {mallory}"));
    database.execute("DROP TABLE cdc_audit.checkpoints");
    let said =
        refused("CREATE FUNCTION cdc_audit.ensure_partition(text, date, text) RETURNS void LANGUAGE sql AS 'SELECT'")
            .await;
    assert!(said.contains("function cdc_audit.ensure_partition"), "{said}");
}
