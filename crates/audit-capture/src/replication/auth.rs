//! Starting a session and logging in: trust, cleartext, md5, SCRAM-SHA-256 with and without channel binding (manual, "Start-up" of the message
//! flow, and "SASL Authentication").

use std::sync::Arc;

use audit_connect::{ConnectError, Login, PINNED, ServerError, Transport, pin_by_version};
use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use tokio_postgres::config::ChannelBinding;
use tokio_postgres::fallible_iterator::FallibleIterator;

use super::error::ReplicationError;
use super::session::Session;

/// Starts the session and logs in. The session runs under [`PINNED`], like any other.
pub(crate) async fn start(transport: Transport, login: Arc<Login>) -> Result<Session, ConnectError> {
    let mut session = Session::new(transport, login.clone());
    let lost = |error| ConnectError::lost(&login.endpoint, error);
    session.send(&startup_message(&login)?).await.map_err(lost)?;
    authenticate(&mut session).await?;
    loop {
        match session.message().await.map_err(lost)? {
            Message::ReadyForQuery(_) => break,
            Message::ParameterStatus(status) if status.name().is_ok_and(|name| name == "server_version") => {
                session.set_server_version(status.value().unwrap_or_default());
            }
            Message::ErrorResponse(body) => return Err(login.refused(ServerError::from_fields(body.fields()))),
            _ => {}
        }
    }
    if let Some((question, answer)) = login.question() {
        let rows = session.query("SELECT", question).await.map_err(|error| refused(&login, error))?;
        if rows.first().and_then(|row| row.first()).and_then(Option::as_deref) != Some(answer) {
            return Err(login.wrong_role());
        }
    }
    let pin = pin_by_version(session.server_version());
    if !pin.is_empty() {
        session.query("SET", &pin).await.map_err(|error| refused(&login, error))?;
    }
    Ok(session)
}

fn startup_message(login: &Login) -> Result<BytesMut, ConnectError> {
    let mut parameters = vec![
        ("user", login.user.as_str()),
        ("database", &login.dbname),
        // This makes a walsender that is connected to a database: it can run SQL, and decode logically.
        ("replication", "database"),
        ("application_name", &login.application_name),
    ];
    parameters.extend(login.options.as_deref().map(|options| ("options", options)));
    // These come after the options, because the last setting wins.
    parameters.extend_from_slice(PINNED);
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message).map_err(|_| login.failed("a name holds a zero byte"))?;
    Ok(message)
}

/// Answers the server's requests until it accepts the login.
async fn authenticate(session: &mut Session) -> Result<(), ConnectError> {
    let login = session.login();
    let mut answer = BytesMut::new();
    match next(session, &login).await? {
        Message::AuthenticationOk => return unbound(&login),
        Message::AuthenticationCleartextPassword => {
            unbound(&login)?;
            password_message(login.password()?.bytes(), &login, &mut answer)?;
        }
        Message::AuthenticationMd5Password(body) => {
            unbound(&login)?;
            let hash = md5_hash(login.user.as_bytes(), login.password()?.bytes(), body.salt());
            password_message(hash.as_bytes(), &login, &mut answer)?;
        }
        Message::AuthenticationSasl(body) => scram(session, &login, &body).await?,
        _ => return Err(login.failed("the server asks for an authentication method that is not supported")),
    }
    session.send(&answer).await.map_err(|error| ConnectError::lost(&login.endpoint, error))?;
    match next(session, &login).await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(ConnectError::protocol(&login.endpoint, "an unexpected message while logging in")),
    }
}

async fn scram(session: &mut Session, login: &Login, offer: &AuthenticationSaslBody) -> Result<(), ConnectError> {
    let (mechanism, binding) = choose(session, login, offer)?;
    if mechanism != SCRAM_SHA_256_PLUS {
        unbound(login)?;
    }
    let mut scram = ScramSha256::new(login.password()?.bytes(), binding);
    let mut answer = BytesMut::new();
    frontend::sasl_initial_response(mechanism, scram.message(), &mut answer).map_err(|_| too_long(login))?;
    session.send(&answer).await.map_err(|error| ConnectError::lost(&login.endpoint, error))?;

    let Message::AuthenticationSaslContinue(body) = next(session, login).await? else { return Err(no_scram(login)) };
    scram.update(body.data()).map_err(|error| login.failed(error.to_string()))?;
    answer.clear();
    frontend::sasl_response(scram.message(), &mut answer).map_err(|_| too_long(login))?;
    session.send(&answer).await.map_err(|error| ConnectError::lost(&login.endpoint, error))?;

    // The server has to prove that it knows the password too.
    let Message::AuthenticationSaslFinal(body) = next(session, login).await? else { return Err(no_scram(login)) };
    scram.finish(body.data()).map_err(|error| login.failed(error.to_string()))
}

/// Chooses channel binding if both sides support it. A client that supports it and was not offered it says so; a server
/// that did offer it then notices that someone in between removed the offer.
fn choose(
    session: &Session,
    login: &Login,
    offer: &AuthenticationSaslBody,
) -> Result<(&'static str, sasl::ChannelBinding), ConnectError> {
    let (mut plain, mut plus) = (false, false);
    let mut mechanisms = offer.mechanisms();
    while let Ok(Some(mechanism)) = mechanisms.next() {
        plain |= mechanism == SCRAM_SHA_256;
        plus |= mechanism == SCRAM_SHA_256_PLUS;
    }
    let end_point = session.server_end_point().filter(|_| login.channel_binding != ChannelBinding::Disable);
    match (plus, plain, end_point) {
        (true, _, Some(hash)) => Ok((SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash.to_vec()))),
        (false, true, Some(_)) => Ok((SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
        (_, true, None) => Ok((SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
        _ => Err(login.failed("the server offers no SASL mechanism that is supported")),
    }
}

/// The check for methods without channel binding: an error if the connection string requires it.
fn unbound(login: &Login) -> Result<(), ConnectError> {
    match login.channel_binding {
        ChannelBinding::Require => Err(login.failed("the server did not use channel binding, which is required")),
        _ => Ok(()),
    }
}

async fn next(session: &mut Session, login: &Login) -> Result<Message, ConnectError> {
    match session.message().await.map_err(|error| ConnectError::lost(&login.endpoint, error))? {
        Message::ErrorResponse(body) => Err(login.refused(ServerError::from_fields(body.fields()))),
        message => Ok(message),
    }
}

fn password_message(password: &[u8], login: &Login, answer: &mut BytesMut) -> Result<(), ConnectError> {
    frontend::password_message(password, answer).map_err(|_| login.failed("the password holds a zero byte"))
}

fn too_long(login: &Login) -> ConnectError {
    login.failed("the SCRAM exchange cannot be written down")
}

fn no_scram(login: &Login) -> ConnectError {
    ConnectError::protocol(&login.endpoint, "an unexpected message within a SCRAM exchange")
}

fn refused(login: &Login, error: ReplicationError) -> ConnectError {
    match error {
        ReplicationError::Refused { source, .. } => login.refused(source),
        ReplicationError::Lost { source } => ConnectError::lost(&login.endpoint, source),
        other => ConnectError::protocol(&login.endpoint, other.to_string()),
    }
}
