//! Tests sessions with real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod hosts; // host lists, Unix sockets, roles of servers, servers that do not answer
mod login; // methods, passwords and where they come from
mod settings; // the settings of every session
mod tls; // sslmode from disable to verify-full, client certificates, channel binding

use audit_connect::{ConnectError, PgEndpoint};
use tokio_postgres::Client;

async fn connect(url: &str) -> Result<Client, ConnectError> {
    audit_connect::connect(&PgEndpoint::new(url), "audit-test").await
}

async fn ask(client: &Client, query: &str) -> String {
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// Writes the error with its cause and hint as one text to compare, and checks that it holds no secret.
fn text(error: &ConnectError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let hint = error.hint().unwrap_or_default();
    let text = format!("{error}: {source} [{hint}]");
    let shown = format!("{text} {error:?}");
    assert!(!["secret-", "-secret"].iter().any(|part| shown.contains(part)), "{text}");
    text
}

#[track_caller]
fn refused(result: Result<Client, ConnectError>) -> ConnectError {
    match result {
        Ok(_) => panic!("a session was given"),
        Err(error) => error,
    }
}
