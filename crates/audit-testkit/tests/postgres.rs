//! Checks that the kit's servers do what tests rely on.
#![allow(clippy::unwrap_used, reason = "tests")]

use audit_testkit::{Authority, Identity, Postgres, Shutdown, shared_db, unique};

#[test]
fn a_cluster_is_ready_for_capture_and_gone_when_dropped() {
    let server = Postgres::builder(15).setting("wal_sender_timeout", "2s").start();
    let folder = server.socket_dir().to_owned();
    let shown = server.execute("postgres", "SHOW wal_level; SHOW wal_sender_timeout; SHOW max_prepared_transactions");
    assert_eq!(shown, "logical\n2s\n10");
    server.create_database("shop");
    assert_eq!(server.execute("shop", "SELECT current_database()"), "shop");
    let error = server.try_execute("shop", "SELECT 1/0").unwrap_err();
    assert!(format!("{error:#}").contains("division by zero"));
    drop(server);
    assert!(!std::path::Path::new(&folder).exists());
}

#[tokio::test]
async fn a_socket_serves_too() {
    let server = Postgres::start(15);
    let client = audit_testkit::connect(&server.socket_url("postgres")).await;
    let row = client.query_one("SELECT inet_client_addr() IS NULL", &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}

#[test]
fn what_was_committed_survives_every_way_to_stop() {
    let server = Postgres::start(15);
    server.execute("postgres", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    server.restart(Shutdown::Fast);
    server.execute("postgres", "INSERT INTO t VALUES (2)");
    server.restart(Shutdown::Immediate);
    server.execute("postgres", "INSERT INTO t VALUES (3)");
    server.kill9();
    assert!(!server.running());
    server.start_again();
    server.sigstop();
    assert!(server.running());
    server.sigcont();
    assert_eq!(server.execute("postgres", "SELECT id FROM t ORDER BY id"), "1\n2\n3");
}

#[tokio::test]
async fn tests_share_a_server_but_not_a_database_nor_slots() {
    let (one, two) = (shared_db(15).await, shared_db(15).await);
    assert!(std::ptr::eq(one.server, two.server));
    assert_ne!(one.name, two.name);
    let slot = unique("slot");
    one.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    one.client().await.execute("CREATE TABLE t ()", &[]).await.unwrap();
    two.execute("CREATE TABLE t ()");
    drop(one);
    let left = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
    assert_eq!(two.execute(&left), "0");
}

#[tokio::test]
async fn backups_restore_with_and_without_slots_and_timeline() {
    let server = Postgres::start(15);
    let slots = "SELECT count(*) FROM pg_replication_slots";
    let timeline = "SELECT timeline_id FROM pg_control_checkpoint()";
    server.execute("postgres", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    server.execute("postgres", "SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    let (backup, snapshot) = (server.backup().await, server.clone_stopped());
    server.execute("postgres", "INSERT INTO t VALUES (2)");

    let copied = backup.start();
    assert_eq!(copied.execute("postgres", &format!("SELECT id FROM t; {slots}; {timeline}")), "1\n0\n1");
    let cloned = snapshot.start();
    assert_eq!(cloned.execute("postgres", &format!("SELECT id FROM t; {slots}; {timeline}")), "1\n1\n1");
    let recovered = backup.recover();
    assert_eq!(recovered.execute("postgres", &format!("SELECT id FROM t; CHECKPOINT; {timeline}")), "1\n2");
}

/// The other majors come from another package and differ in their backup interface.
#[tokio::test]
async fn every_major_fails_over() {
    for major in audit_testkit::install::MAJORS {
        let primary = Postgres::start(major);
        primary.execute("postgres", "CREATE TABLE t (id int)");
        let standby = primary.standby(&[]).await;
        primary.execute("postgres", "INSERT INTO t VALUES (1)");
        audit_testkit::eventually("the standby follows", || {
            standby.execute("postgres", "SELECT count(*) FROM t") == "1"
        });
        primary.kill9();
        standby.promote();
        standby.execute("postgres", "INSERT INTO t VALUES (2)");
        assert_eq!(standby.execute("postgres", "SELECT count(*) FROM t"), "2", "PostgreSQL {major}");
    }
}

/// `psql` makes the check: its libpq verifies the server's name and shows a certificate that the server accepts.
#[test]
fn tls_is_served_and_client_certificates_are_asked_for() {
    let authority = Authority::new();
    let server = Postgres::builder(15)
        .tls(&authority.server(&["localhost", "127.0.0.1"]), &authority)
        .access("hostssl all auditor 127.0.0.1/32 cert")
        .start();
    server.execute("postgres", "CREATE ROLE auditor LOGIN");
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let identity = authority.client("auditor");
    let url = |identity: &Identity| {
        format!(
            "host=127.0.0.1 port={} user=auditor dbname=postgres sslmode=verify-full sslrootcert={} sslcert={} sslkey={}",
            server.port(),
            file("root.crt", authority.certificate()),
            file("client.crt", &identity.certificate),
            file("client.key", &identity.key),
        )
    };
    let ask = |url: String| {
        let psql = audit_testkit::install::client_program("psql");
        std::process::Command::new(psql).args(["-XAtc", "SHOW ssl", "-d", &url]).output().unwrap()
    };
    let output = ask(url(&identity));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "on", "{output:?}");
    assert!(!ask(url(&authority.client("somebody"))).status.success());
    assert!(!ask(url(&Authority::new().client("auditor"))).status.success());
}

#[tokio::test]
async fn a_failover_slot_reaches_the_standby() {
    let primary = Postgres::start(17);
    let create = "SELECT pg_create_logical_replication_slot('audit', 'pgoutput', failover => true)";
    primary.execute("postgres", create);
    let standby = primary.standby(&[("sync_replication_slots", "on")]).await;
    let synced = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'audit' AND synced AND NOT temporary";
    audit_testkit::eventually("the slot is synchronised", || {
        // A slot is synchronised only when the standby's own WAL has reached the slot's position.
        primary.execute("postgres", "SELECT pg_replication_slot_advance('audit', pg_current_wal_lsn())");
        standby.execute("postgres", synced) == "1"
    });
    primary.kill9();
    standby.promote();
    assert_eq!(standby.execute("postgres", synced), "1");
}
