use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

use audit_connect::{Outcome, PgEndpoint};
use audit_testkit::Postgres;

use crate::{ask, connect, refused, text};

/// A server with one role for each method, all with the password `secret-pw`.
static SERVER: LazyLock<Postgres> = LazyLock::new(|| {
    let server = Postgres::builder(15)
        .access("host all scram 127.0.0.1/32 scram-sha-256")
        .access("host all md5 127.0.0.1/32 md5")
        .access("host all clear 127.0.0.1/32 password")
        .access("host all nobody 127.0.0.1/32 reject")
        .start();
    for (role, encryption) in [("scram", "scram-sha-256"), ("md5", "md5"), ("clear", "scram-sha-256")] {
        server.execute(
            "postgres",
            &format!("SET password_encryption = '{encryption}'; CREATE ROLE {role} LOGIN PASSWORD 'secret-pw'"),
        );
    }
    server
});

fn url(role: &str) -> String {
    format!("postgres://{role}@127.0.0.1:{}/postgres", SERVER.port())
}

/// A URL that allows any method, because the connection stays on this machine.
fn allowed(role: &str) -> String {
    url(role) + "?require_auth=scram-sha-256,md5,password,none"
}

fn file(content: &str, mode: u32) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
    file
}

#[tokio::test]
async fn every_method_the_server_may_ask_for() {
    for role in ["scram:secret-pw", "md5:secret-pw", "clear:secret-pw", "postgres"] {
        let client = connect(&allowed(role)).await.unwrap_or_else(|error| panic!("{}", text(&error)));
        assert_eq!(ask(&client, "SELECT session_user::text").await, role.split(':').next().unwrap());
    }
}

/// Anyone could take the port while the server is down, and would only have to ask for the password.
#[tokio::test]
async fn a_password_goes_to_no_server_that_nothing_verifies() {
    for (role, what) in [("md5", "MD5 hash"), ("clear", "clear text")] {
        let error = refused(connect(&url(&format!("{role}:secret-pw"))).await);
        let told = text(&error);
        assert!(told.contains(what) && told.contains("require_auth="), "{told}");
        assert!(!told.contains("secret-pw"), "{told}");
        assert_eq!(error.outcome(), Outcome::Fix);
    }
    let error = refused(connect(&(url("scram:secret-pw") + "?require_auth=none")).await);
    assert!(text(&error).contains("require_auth does not list"), "{}", text(&error));
}

#[tokio::test]
async fn a_wrong_password_is_told_with_where_it_came_from() {
    for role in ["scram", "md5", "clear"] {
        let password_file = file("wrong-secret\n", 0o600);
        let path = password_file.path().to_owned();
        let endpoint = PgEndpoint { password_file: Some(path.clone()), ..PgEndpoint::new(allowed(role)) };
        let error = audit_connect::connect(&endpoint, "audit-test").await.err().unwrap();
        assert_eq!(error.sqlstate().map(|code| code.code()), Some("28P01"));
        assert_eq!(error.outcome(), Outcome::Fix);
        let expected = format!(
            "{role}@127.0.0.1:{}/postgres refused the session: password authentication failed for user \"{role}\" \
             (SQLSTATE 28P01) [the password came from the file {}: compare it with that of role {role}]",
            SERVER.port(),
            path.display()
        );
        assert_eq!(text(&error), expected);
    }
}

#[tokio::test]
async fn a_missing_password_is_told_with_where_to_put_it() {
    for role in ["scram", "md5", "clear"] {
        let error = refused(connect(&format!("{}&passfile=/nowhere/pgpass", allowed(role))).await);
        assert!(text(&error).contains("none is configured"), "{}", text(&error));
        assert!(text(&error).contains("password_file"), "{}", text(&error));
        assert_eq!(error.outcome(), Outcome::Fix);
    }
    let open_to_all = file("*:*:*:*:secret-pw", 0o644);
    let error = refused(connect(&format!("{}?passfile={}", url("scram"), open_to_all.path().display())).await);
    assert!(text(&error).contains("was ignored: other users"), "{}", text(&error));
}

#[tokio::test]
async fn passwords_come_from_files() {
    let password_file = file("secret-pw\n", 0o600);
    let endpoint = PgEndpoint {
        password_file: Some(password_file.path().to_owned()),
        ..PgEndpoint::new(url("scram:wrong-secret"))
    };
    audit_connect::connect(&endpoint, "audit-test").await.unwrap();
    // After a rotation the next session uses the new password.
    fs::write(password_file.path(), "wrong-secret").unwrap();
    audit_connect::connect(&endpoint, "audit-test").await.err().unwrap();
    fs::set_permissions(password_file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let error = audit_connect::connect(&endpoint, "audit-test").await.err().unwrap();
    assert!(text(&error).contains("other users") && text(&error).contains("chmod 600"), "{}", text(&error));

    let passfile = file(&format!("*:1:*:*:no\n127.0.0.1:{}:postgres:scram:secret-pw\n", SERVER.port()), 0o600);
    connect(&format!("{}?passfile={}", url("scram"), passfile.path().display())).await.unwrap();

    let nowhere = PgEndpoint { password_file: Some("/nowhere/pw".into()), ..PgEndpoint::new(url("scram")) };
    let error = audit_connect::connect(&nowhere, "audit-test").await.err().unwrap();
    assert!(text(&error).contains("/nowhere/pw"), "{}", text(&error));
}

/// Variables belong to the whole process, which tests share, so this test tries the real ones in a separate process.
#[test]
fn passwords_come_from_the_environment() {
    let passfile = file("*:*:*:scram:secret-pw\n", 0o600);
    let passfile = passfile.path().to_str().unwrap();
    let wrong = file("*:*:*:scram:wrong-secret\n", 0o600);
    let wrong = wrong.path().to_str().unwrap();
    for (variables, expected) in [
        (&[("PGPASSWORD", "secret-pw"), ("PGPASSFILE", wrong)][..], "in"),
        (&[("PGPASSFILE", passfile)], "in"),
        (&[("PGPASSFILE", wrong)], "28P01"),
        (&[("AUDIT_TEST_PASSWORD", "secret-pw"), ("PGPASSWORD", "wrong-secret")], "in"),
        (&[("AUDIT_TEST_PASSWORD", "wrong-secret"), ("PGPASSWORD", "secret-pw")], "28P01"),
        (&[("AUDIT_TEST_PASSWORD", "")], "which is not set"),
    ] {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "login::in_another_process", "--nocapture"]).env("AUDIT_TEST_URL", url("scram"));
        command.env_remove("PGPASSWORD").env_remove("PGPASSFILE").envs(variables.iter().copied());
        let output = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
        assert!(output.contains(&format!("<{expected}>")), "{variables:?}: {output}");
    }
}

#[tokio::test]
async fn in_another_process() {
    let Ok(url) = std::env::var("AUDIT_TEST_URL") else { return };
    let password_env = std::env::var("AUDIT_TEST_PASSWORD").ok().map(|_| "AUDIT_TEST_PASSWORD".to_owned());
    let endpoint = PgEndpoint { password_env, ..PgEndpoint::new(url) };
    match audit_connect::connect(&endpoint, "audit-test").await {
        Ok(_) => println!("<in>"),
        Err(error) => {
            let text = text(&error);
            let reason = ["28P01", "which is not set"].into_iter().find(|part| text.contains(part));
            println!("<{}>", reason.unwrap_or(&text));
        }
    }
}

#[tokio::test]
async fn who_and_what_does_not_exist_is_somebodys_to_fix() {
    let cases = [
        (url("absent"), "28000", "role absent exists"),
        (url("nobody"), "28000", "pg_hba.conf"),
        (url("postgres") + "_absent", "3D000", "create database postgres_absent"),
    ];
    for (url, sqlstate, hint) in cases {
        let error = refused(connect(&url).await);
        assert_eq!(error.sqlstate().map(|code| code.code()), Some(sqlstate), "{}", text(&error));
        assert!(text(&error).contains(hint), "{}", text(&error));
        assert_eq!(error.outcome(), Outcome::Fix);
    }
}

#[tokio::test]
async fn a_full_server_is_tried_again() {
    let server = Postgres::builder(15)
        .setting("max_connections", "1")
        .setting("superuser_reserved_connections", "0")
        .setting("max_wal_senders", "0")
        .start();
    let url = server.url("postgres");
    let _first = connect(&url).await.unwrap();
    let error = refused(connect(&url).await);
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("53300"));
    assert_eq!(error.outcome(), Outcome::Retry);
    assert!(text(&error).contains("max_connections"), "{}", text(&error));
}
