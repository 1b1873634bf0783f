//! Logging in: trust, cleartext, md5, SCRAM-SHA-256 with and without channel binding (manual, "Start-up" of the message
//! flow, and "SASL Authentication").

use audit_connect::{ConnectError, Login, ServerError};
use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use tokio_postgres::config::ChannelBinding;
use tokio_postgres::fallible_iterator::FallibleIterator;

use super::session::Session;

/// Answers the server's requests until it accepts the login.
pub(crate) async fn authenticate(session: &mut Session) -> Result<(), ConnectError> {
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
