use std::fs;

use audit_connect::{Outcome, PgEndpoint};
use audit_testkit::{Authority, Postgres};

use crate::{Counts, ReplicationClient, Rig, connect, receive_until, refused, text};

fn server() -> (Postgres, tempfile::TempDir) {
    let authority = Authority::new();
    let identity = authority.server(&["localhost"]);
    let server = Postgres::builder(15)
        .setting("ssl", "on")
        .file("server.crt", &identity.certificate)
        .file("server.key", &identity.key)
        .access("host all scram 127.0.0.1/32 scram-sha-256")
        .access("host all md5 127.0.0.1/32 md5")
        .access("host all clear 127.0.0.1/32 password")
        .start();
    for (role, encryption) in [("scram", "scram-sha-256"), ("md5", "md5"), ("clear", "scram-sha-256")] {
        let create = format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'secret-pw'");
        server.execute("postgres", &format!("SET password_encryption = '{encryption}'; {create}"));
    }
    server.execute("postgres", "CREATE ROLE plain LOGIN");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.crt"), authority.certificate()).unwrap();
    (server, dir)
}

#[tokio::test]
async fn every_method_the_server_may_ask_for() {
    let (server, dir) = server();
    let ca = dir.path().join("ca.crt").display().to_string();
    let port = server.port();
    let tls = format!("sslmode=verify-full&sslrootcert={ca}");
    for (login, options) in [
        ("postgres", "sslmode=disable"),
        ("clear:secret-pw", "sslmode=disable&require_auth=password"),
        ("md5:secret-pw", "sslmode=disable&require_auth=md5"),
        ("scram:secret-pw", "sslmode=disable"),
        ("scram:secret-pw", &tls),
        ("scram:secret-pw", &format!("{tls}&channel_binding=require")),
        ("scram:secret-pw", &format!("{tls}&channel_binding=disable")),
        ("md5:secret-pw", &tls),
    ] {
        let url = format!("postgres://{login}@localhost:{port}/postgres?{options}");
        let client = connect(&url).await.unwrap_or_else(|error| panic!("{login} {options}: {}", text(&error)));
        let role = client.query("SELECT session_user").await.unwrap().remove(0).remove(0);
        assert_eq!(role.as_deref(), login.split(':').next());
    }
    // A server whose certificate nothing verifies does not get the password that it asks for.
    for login in ["clear:secret-pw", "md5:secret-pw"] {
        let error = refused(connect(&format!("postgres://{login}@localhost:{port}/postgres")).await);
        assert!(text(&error).contains("is not verified"), "{}", text(&error));
        assert_eq!(error.outcome(), Outcome::Fix);
    }
    let url = format!("postgres://scram:secret-pw@localhost:{port}/postgres?sslmode=disable&channel_binding=require");
    let error = refused(connect(&url).await);
    assert!(text(&error).contains("channel binding"), "{}", text(&error));
}

#[tokio::test]
async fn who_may_not_is_told_why() {
    let (server, _dir) = server();
    let port = server.port();
    let url = |login: &str| format!("postgres://{login}@127.0.0.1:{port}/postgres");
    for role in ["scram", "md5", "clear"] {
        let allowed = url(role) + "?require_auth=scram-sha-256,md5,password";
        let endpoint = PgEndpoint { password_env: Some("PATH".to_owned()), ..PgEndpoint::new(&allowed) };
        let error = refused(ReplicationClient::connect(&endpoint, "audit-test").await);
        assert_eq!(error.sqlstate().map(|code| code.code()), Some("28P01"));
        assert_eq!(error.outcome(), Outcome::Fix);
        assert!(text(&error).contains("came from the environment variable PATH"), "{}", text(&error));
        let error = refused(connect(&format!("{allowed}&passfile=/nowhere")).await);
        assert!(text(&error).contains("none is configured"), "{}", text(&error));
    }
    let error = refused(connect(&url("plain")).await);
    assert_eq!((error.sqlstate().map(|code| code.code()), error.outcome()), (Some("42501"), Outcome::Fix));
    let error = refused(connect(&format!("{}_absent", url("postgres"))).await);
    assert_eq!((error.sqlstate().map(|code| code.code()), error.outcome()), (Some("3D000"), Outcome::Fix));
}

#[tokio::test]
async fn a_stream_runs_through_tls_and_through_a_unix_socket() {
    let (server, dir) = server();
    let ca = dir.path().join("ca.crt").display().to_string();
    let rig = Rig::new(&server, "postgres");
    for url in [
        format!("postgres://postgres@localhost:{}/postgres?sslrootcert={ca}", server.port()),
        server.socket_url("postgres"),
    ] {
        let mut receiver = rig.start_again(&url).await;
        server.execute("postgres", "INSERT INTO t SELECT g, repeat('x', g % 3000) FROM generate_series(1, 5000) g");
        receive_until(&mut receiver, &mut Counts::new(), 'I', 5000).await;
        // Everything up to now is safe, so the next stream begins here.
        rig.safe.send_replace(receiver.traffic().received());
        rig.stop.send_replace(true);
        while receiver.recv().await.unwrap().is_some() {}
        rig.stop.send_replace(false);
    }
}
