use audit_connect::{Outcome, PgEndpoint};
use audit_testkit::Postgres;

use crate::certificates::Certificates;
use crate::{ask, connect, refused, text};

fn server(certificates: &Certificates, name: &str) -> Postgres {
    Postgres::builder(15)
        .setting("ssl", "on")
        .setting("password_encryption", "scram-sha-256")
        .file("server.crt", &certificates.read(&format!("{name}.crt")))
        .file("server.key", &certificates.read(&format!("{name}.key")))
        .file("root.crt", &certificates.read("ca.crt"))
        .setting("ssl_ca_file", "root.crt")
        .access("hostssl all ann 127.0.0.1/32 cert")
        .access("hostssl all bound 127.0.0.1/32 scram-sha-256")
        .access("hostnossl all ann,bound 127.0.0.1/32 reject")
        .start()
}

fn url(server: &Postgres, host: &str, options: &str) -> String {
    format!("postgres://postgres@{host}:{}/postgres?hostaddr=127.0.0.1&{options}", server.port())
}

const IN_TLS: &str = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

#[tokio::test]
async fn sslmode_means_what_libpq_says() {
    let certificates = Certificates::new();
    let server = server(&certificates, "server");
    let ca = certificates.path("ca.crt").display().to_string();
    let other = certificates.path("other.crt").display().to_string();
    // The expected value says whether there is TLS, or is a part of the error.
    let cases = [
        ("localhost", "sslmode=disable".to_owned(), Ok("false")),
        ("localhost", "sslmode=prefer".to_owned(), Ok("true")),
        ("localhost", String::new(), Ok("true")),
        ("db.example", "sslmode=require".to_owned(), Ok("true")),
        ("db.example", format!("sslmode=require&sslrootcert={ca}"), Ok("true")),
        ("db.example", format!("sslmode=require&sslrootcert={other}"), Err("UnknownIssuer")),
        ("db.example", format!("sslmode=prefer&sslrootcert={other}"), Err("UnknownIssuer")),
        ("db.example", format!("sslmode=verify-ca&sslrootcert={ca}"), Ok("true")),
        ("db.example", format!("sslmode=verify-ca&sslrootcert={other}"), Err("sslrootcert=FILE")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={ca}"), Ok("true")),
        ("localhost", format!("sslrootcert={ca}"), Ok("true")),
        ("localhost", format!("sslrootcert={other}"), Err("is not accepted")),
        ("db.example", format!("sslmode=verify-full&sslrootcert={ca}"), Err("subjectAltName")),
        // Without an sslmode, chain and name of a remote host are verified.
        ("db.example", format!("sslrootcert={ca}"), Err("subjectAltName")),
        ("localhost", "sslmode=verify-full&sslrootcert=/nowhere/ca.crt".to_owned(), Err("/nowhere/ca.crt")),
    ];
    for (host, options, expected) in cases {
        let result = connect(&url(&server, host, &options)).await;
        match expected {
            Ok(in_tls) => {
                let client = result.unwrap_or_else(|error| panic!("{host} {options}: {}", text(&error)));
                assert_eq!(ask(&client, IN_TLS).await, in_tls, "{host} {options}");
            }
            Err(part) => {
                let error = refused(result);
                assert!(text(&error).contains(part), "{host} {options}: {}", text(&error));
                assert_eq!(error.outcome(), Outcome::Fix, "{host} {options}");
            }
        }
    }
}

#[tokio::test]
async fn the_systems_cas_do_not_vouch_for_a_private_one() {
    let certificates = Certificates::new();
    let server = server(&certificates, "server");
    // On a machine without ca-certificates the refusal comes before the connection, but it always comes.
    let error = refused(connect(&url(&server, "localhost", "sslrootcert=system")).await);
    assert_eq!(error.outcome(), Outcome::Fix);
    assert!(text(&error).contains("sslrootcert=FILE"), "{}", text(&error));
}

#[tokio::test]
async fn a_self_signed_certificate_is_accepted_by_comparison() {
    let certificates = Certificates::new();
    let server = server(&certificates, "self");
    let options = |name: &str, mode: &str| format!("sslmode={mode}&sslrootcert={}", certificates.path(name).display());
    connect(&url(&server, "localhost", &options("self.crt", "verify-full"))).await.unwrap();
    connect(&url(&server, "db.example", &options("self.crt", "verify-ca"))).await.unwrap();
    refused(connect(&url(&server, "db.example", &options("self.crt", "verify-full"))).await);
    refused(connect(&url(&server, "localhost", &options("ca.crt", "verify-ca"))).await);
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let server = Postgres::start(15);
    let error = refused(connect(&url(&server, "localhost", "sslmode=require")).await);
    assert!(text(&error).contains("does not offer TLS"), "{}", text(&error));
    assert!(text(&error).contains("sslmode=disable"), "{}", text(&error));
    assert_eq!(error.outcome(), Outcome::Fix);
    connect(&url(&server, "localhost", "sslmode=prefer")).await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_logs_in() {
    let certificates = Certificates::new();
    let server = server(&certificates, "server");
    server.execute("postgres", "CREATE ROLE ann LOGIN");
    let path = |name: &str| certificates.path(name).display().to_string();
    let url = |cert: &str, key: &str| {
        let (ca, port) = (path("ca.crt"), server.port());
        format!("host=localhost port={port} user=ann dbname=postgres sslrootcert={ca} sslcert={cert} sslkey={key}")
    };
    let client = connect(&url(&path("client.crt"), &path("client.key"))).await.unwrap();
    assert_eq!(ask(&client, "SELECT session_user::text").await, "ann");

    let none = format!("host=localhost port={} user=ann dbname=postgres sslrootcert={}", server.port(), path("ca.crt"));
    assert_eq!(refused(connect(&none).await).sqlstate().map(|code| code.code()), Some("28000"));

    // The server does not know the CA of this certificate; the client sees the refusal only after the handshake.
    let error = refused(connect(&url(&path("other.crt"), &path("other.key"))).await);
    assert_eq!(error.outcome(), Outcome::Fix, "{}", text(&error));
    assert!(text(&error).contains("client certificate"), "{}", text(&error));

    let error = refused(connect(&url(&path("client.crt"), &path("server.key"))).await);
    assert!(text(&error).contains("sslkey must be"), "{}", text(&error));
    std::fs::set_permissions(path("client.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let error = refused(connect(&url(&path("client.crt"), &path("client.key"))).await);
    assert!(text(&error).contains("chmod 600"), "{}", text(&error));
}

#[tokio::test]
async fn scram_is_bound_to_the_channel() {
    let certificates = Certificates::new();
    let server = server(&certificates, "server");
    server.execute("postgres", "CREATE ROLE bound LOGIN PASSWORD 'secret-pw'");
    let ca = certificates.path("ca.crt").display().to_string();
    let url = |options: &str| {
        let port = server.port();
        format!("postgres://bound:secret-pw@localhost:{port}/postgres?sslrootcert={ca}&{options}")
    };
    for binding in ["require", "prefer", "disable"] {
        connect(&url(&format!("channel_binding={binding}"))).await.unwrap();
    }
    // The method trust over TLS does not use channel binding, and is refused if channel binding is required.
    let trusted =
        format!("host=localhost port={} user=postgres sslrootcert={ca} channel_binding=require", server.port());
    let error = refused(connect(&trusted).await);
    assert!(text(&error).contains("channel binding"), "{}", text(&error));
    assert_eq!(error.outcome(), Outcome::Fix);
}

#[tokio::test]
async fn sessions_can_be_opened_from_any_task() {
    fn check<F: Future + Send>(_: F) {}
    check(audit_connect::connect(&PgEndpoint::new(""), ""));
}
