use std::io::Read;
use std::net::TcpListener;

use audit_connect::Outcome;
use audit_testkit::{Postgres, Shutdown};

use crate::{ask, connect, refused, text};

#[tokio::test]
async fn a_unix_socket_and_a_list_of_hosts() {
    let server = Postgres::start(15);
    let (dir, port) = (server.socket_dir(), server.port());
    for url in [
        format!("host={dir} port={port} user=postgres"),
        format!("postgres://postgres@{}:{port}/postgres", dir.replace('/', "%2F")),
        format!("postgres:///postgres?host={dir}&port={port}&user=postgres&sslmode=verify-full"),
    ] {
        let client = connect(&url).await.unwrap();
        assert_eq!(ask(&client, "SELECT coalesce(inet_client_addr()::text, 'socket')").await, "socket", "{url}");
    }
    // No server listens at the first two.
    let dead = unused_port();
    let list = format!("postgres://postgres@127.0.0.1:{dead},%2Fnowhere:1,127.0.0.1:{port}/postgres");
    connect(&list).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_down_is_tried_again() {
    let server = Postgres::start(15);
    let url = server.url("postgres");
    let client = connect(&url).await.unwrap();
    server.stop(Shutdown::Fast);
    let error = refused(connect(&url).await);
    assert_eq!(error.outcome(), Outcome::Retry, "{}", text(&error));
    assert!(text(&error).contains("cannot reach postgres@"), "{}", text(&error));
    // An error that the open session reports is also retried.
    let error = client.query_one("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(audit_connect::outcome_of(&error), Outcome::Retry, "{error:?}");
    let error = refused(connect("postgres://ann@no-such-host.invalid/shop").await);
    assert_eq!(error.outcome(), Outcome::Retry, "{}", text(&error));
}

#[tokio::test]
async fn a_server_that_takes_no_sessions_yet_is_tried_again() {
    let primary = Postgres::start(15);
    let standby = primary.standby(&[("hot_standby", "off")]).await;
    let error = refused(connect(&standby.url("postgres")).await);
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("57P03"), "{}", text(&error));
    assert_eq!(error.outcome(), Outcome::Retry);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let error = refused(connect(&format!("postgres://ann@127.0.0.1:{port}/shop?connect_timeout=1")).await);
    assert_eq!(error.outcome(), Outcome::Retry);
    assert!(text(&error).contains("within 1 s"), "{}", text(&error));
}

#[tokio::test]
async fn what_is_no_postgres_is_told() {
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = web.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = web.accept().unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let error = refused(connect(&format!("postgres://ann@127.0.0.1:{port}/shop")).await);
    answering.join().unwrap();
    assert_eq!(error.outcome(), Outcome::Fix);
    assert!(text(&error).contains("does not speak PostgreSQL's protocol"), "{}", text(&error));
}

#[tokio::test]
async fn the_server_of_the_wanted_role_is_found() {
    let primary = Postgres::start(15);
    let standby = primary.standby(&[]).await;
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", standby.port(), primary.port());
    let url = |wanted: &str| format!("postgres://postgres@{hosts}/postgres?target_session_attrs={wanted}");
    for (wanted, is_standby) in
        [("any", "true"), ("read-write", "false"), ("primary", "false"), ("standby", "true"), ("read-only", "true")]
    {
        let client = connect(&url(wanted)).await.unwrap();
        assert_eq!(ask(&client, "SELECT pg_is_in_recovery()::text").await, is_standby, "{wanted}");
    }
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?target_session_attrs=primary", standby.port());
    let error = refused(connect(&url).await);
    assert_eq!(error.outcome(), Outcome::Retry);
    assert!(text(&error).contains("list all servers"), "{}", text(&error));
}

fn unused_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
