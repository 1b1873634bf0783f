//! Ordinary sessions ([`connect`]), and the settings that every session of this program has ([`PINNED`]).

use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Ready, poll_fn, ready};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{AsyncMessage, Client, Connection, SimpleQueryMessage};

use crate::config::ConnectConfig;
use crate::endpoint::PgEndpoint;
use crate::error::ConnectError;
use crate::open::Login;
use crate::outcome::outcome_of;
use crate::server_error::ServerError;
use crate::transport::Transport;

/// Settings of every session, ordinary and replication, whatever defaults the server, database or role have.
///
/// The first group decides how values are written as text: the stream, COPY and look-ups must always print the same
/// value in the same way. The second group keeps the server from ending sessions that wait for a slow sink or a long
/// chunk. The third group is what our statements rely on. All of them exist since PostgreSQL 14.
pub const PINNED: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    // Any value above 0 prints the shortest text that is read back as the same float.
    ("extra_float_digits", "3"),
    ("lc_monetary", "C"),
    // Objects of other schemas are printed with their schema (regclass and similar types), in quotes if necessary.
    ("quote_all_identifiers", "off"),
    ("search_path", "pg_catalog"),
    ("xmlbinary", "base64"),
    //
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    //
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("standard_conforming_strings", "on"),
];

/// Further settings with the first major version that knows them. They are set by a statement after the start, because
/// a server refuses to start a session with an unknown setting.
pub const PINNED_SINCE: &[(u32, &str, &str)] = &[(17, "transaction_timeout", "0")];

/// Writes the statement that sets [`PINNED_SINCE`] on a server of this version, as `server_version` reports it (`17.4`,
/// `18beta1`, `15.18 (Debian …)`). Empty if there is nothing to set.
pub fn pin_by_version(server_version: &str) -> String {
    let digits = server_version.find(|c: char| !c.is_ascii_digit()).unwrap_or(server_version.len());
    let major: u32 = server_version[..digits].parse().unwrap_or(0);
    let newer = PINNED_SINCE.iter().filter(|(since, _, _)| major >= *since);
    newer.map(|(_, name, value)| set(name, value)).collect()
}

fn set(name: &str, value: &str) -> String {
    // A list of schemas must not be quoted: in quotes it would be the name of one schema.
    let value = if name == "search_path" { value.to_owned() } else { format!("'{value}'") };
    format!("SET {name} TO {value};")
}

/// Time that sent data may stay unacknowledged before the connection counts as lost. Keepalives need as long to notice
/// a peer that is gone. Without this limit the kernel tries for a quarter of an hour and sends no keepalives meanwhile.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Opens a session with [`PINNED`]. Its connection runs as a task of the current runtime until the client is dropped.
///
/// The server shows the session as `application_name`, unless the connection string gives another one.
///
/// Cancelling a statement through the client's `cancel_token` needs `cancel_query_raw`, because the driver does not
/// know the address.
///
/// # Errors
/// Fails with [`ConnectError`] if the endpoint is invalid or no server of its list gives a session.
pub async fn connect(endpoint: &PgEndpoint, application_name: &str) -> Result<Client, ConnectError> {
    parse(endpoint)?.open(application_name, start).await
}

fn parse(endpoint: &PgEndpoint) -> Result<ConnectConfig, ConnectError> {
    Ok(endpoint.parse()?.or_tcp_user_timeout(TCP_USER_TIMEOUT))
}

async fn start(transport: Transport, login: Arc<Login>) -> Result<Client, ConnectError> {
    let mut driver = tokio_postgres::Config::new();
    driver.user(&login.user).dbname(&login.dbname).application_name(&login.application_name);
    driver.channel_binding(login.channel_binding);
    if let Ok(password) = login.password() {
        driver.password(password.bytes());
    }
    if let Some(options) = &login.options {
        driver.options(options);
    }
    // The transport has already settled TLS; "direct" means that the driver does not ask the server again.
    let mode = if transport.is_tls() { SslMode::Require } else { SslMode::Disable };
    driver.ssl_mode(mode).ssl_negotiation(SslNegotiation::Direct);
    let connecting = driver.connect_raw(transport, Established);
    let (client, connection) = connecting.await.map_err(|error| failed(&login, error))?;
    let pin_newer = pin_by_version(connection.parameter("server_version").unwrap_or_default());
    tokio::spawn(run(connection, login.endpoint.clone()));

    // Ask before the settings are set, because one of them (default_transaction_read_only) would change the answer.
    if let Some((question, answer)) = login.question() {
        let rows = client.simple_query(question).await.map_err(|error| failed(&login, error))?;
        let fits = |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some(answer));
        if !rows.iter().any(fits) {
            return Err(login.wrong_role());
        }
    }
    let pin: String = PINNED.iter().map(|(name, value)| set(name, value)).collect();
    client.batch_execute(&(pin + &pin_newer)).await.map_err(|error| failed(&login, error))?;
    Ok(client)
}

/// Drives a connection to its end. The text of notices is not logged, because a trigger may put values into it.
async fn run(mut connection: Connection<Transport, Transport>, endpoint: String) {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::debug!(%endpoint, severity = notice.severity(), sqlstate = notice.code().code(), "notice");
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let outcome = outcome_of(&error);
                tracing::debug!(%endpoint, sqlstate = error.code().map(|code| code.code()), ?outcome, "session lost");
                return;
            }
            None => {
                tracing::debug!(%endpoint, "session closed");
                return;
            }
        }
    }
}

fn failed(login: &Login, error: tokio_postgres::Error) -> ConnectError {
    if let Some(refused) = error.as_db_error() {
        return login.refused(ServerError::from(refused));
    }
    // The driver does not expose the kind of its errors except by these texts.
    match error.to_string().as_str() {
        "invalid configuration" => login.password().err().unwrap_or_else(|| login.failed(cause(&error))),
        "authentication error" => login.failed(cause(&error)),
        _ if error.is_closed() => ConnectError::lost(&login.endpoint, io::ErrorKind::UnexpectedEof.into()),
        _ => match error.into_source().map(|source| source.downcast::<io::Error>()) {
            Some(Ok(source)) => ConnectError::lost(&login.endpoint, *source),
            Some(Err(source)) => ConnectError::protocol(&login.endpoint, source.to_string()),
            None => ConnectError::protocol(&login.endpoint, "an unexpected message"),
        },
    }
}

fn cause(error: &tokio_postgres::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Tells the driver that TLS, if any, is already established.
struct Established;

impl TlsConnect<Transport> for Established {
    type Stream = Transport;
    type Error = Infallible;
    type Future = Ready<Result<Transport, Infallible>>;

    fn connect(self, stream: Transport) -> Self::Future {
        ready(Ok(stream))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_session_notices_a_peer_that_is_gone_in_minutes() {
        let timeout = |url: &str| parse(&PgEndpoint::new(url)).unwrap().tcp.user_timeout.unwrap().as_secs();
        assert_eq!(timeout("host=db user=ann"), 120);
        assert_eq!(timeout("host=db user=ann tcp_user_timeout=9000"), 9);
    }
}
