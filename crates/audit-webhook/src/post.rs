//! Sends one request and interprets its answer: [`Receiver::post`].

use std::fmt;
use std::time::Duration;

use audit_config::SecretRef;
use audit_core::position::Micros;
use audit_core::sink::SinkError;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use reqwest::{Certificate, Client, Method, Response, StatusCode, redirect};

use crate::config::WebhookConfig;
use crate::error::{Unusable, no_secret, not_created, unreachable};
use crate::sign::Signer;

/// The configured receiver.
pub(crate) struct Receiver {
    client: Client,
    url: String,
    place: String,
    signer: Option<Signer>,
    headers: HeaderMap,
}

/// The result of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Taken,
    /// The receiver cannot accept it at present. It may have said for how long.
    Later(SinkError, Option<Duration>),
    /// The receiver refuses this content.
    Refused(StatusCode),
}

/// Maximum number of bytes of an answer's body that are read. We do not need them, but a connection can be used again
/// only after the body was read.
const ANSWER_MAX: usize = 64 << 10;

/// Maximum pause. A receiver that asks for a longer one is tried again after this.
const LATER_MAX: Duration = Duration::from_secs(3_600);

impl Receiver {
    /// Reads secrets and certificates; connects to nothing.
    pub fn new(config: &WebhookConfig) -> Result<Receiver, SinkError> {
        let place = config.place();
        let client = client(config).map_err(not_created)?;
        let secret = |what: &str, secret: &Option<SecretRef>| match secret {
            None => Ok(None),
            Some(secret) => secret.resolve().map(Some).map_err(|error| no_secret(what, error)),
        };
        let signer = match secret("secret", &config.secret)? {
            None => None,
            Some(secret) => Some(Signer::new(&secret).map_err(|why| {
                SinkError::stop(format!("the webhook's secret {why}"))
                    .hint("take the receiver's secret as it is shown there; 24 random bytes or more (openssl rand -base64 32)")
            })?),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(config.content_type()));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("cdc-audit/", env!("CARGO_PKG_VERSION"))));
        if let Some(token) = secret("token", &config.bearer)? {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose().trim()));
            let mut value = value.map_err(|_| SinkError::stop("the webhook's token holds what no header may"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Receiver { client, url: config.url.clone(), place, signer, headers })
    }

    /// Posts a body with its id. The same id always means the same content, however often it is sent.
    pub async fn post(&self, id: &str, body: Bytes) -> Result<Answer, SinkError> {
        let mut headers = self.headers.clone();
        let timestamp = Micros::now().0.div_euclid(1_000_000);
        let mut put = |name: &'static str, value: &str| match HeaderValue::from_str(value) {
            Ok(value) => {
                headers.insert(name, value);
                Ok(())
            }
            Err(_) => Err(SinkError::stop(format!("the header {name} cannot be written"))
                .hint("the names of source and sink become part of it: use ASCII")),
        };
        put("idempotency-key", id)?;
        put("webhook-id", id)?;
        put("webhook-timestamp", &timestamp.to_string())?;
        if let Some(signer) = &self.signer {
            put("webhook-signature", &signer.sign(id, timestamp, &body))?;
        }
        match self.client.post(&self.url).headers(headers).body(body).send().await {
            Ok(response) => {
                let answer = self.answer(response.status(), response.headers());
                drain(response).await;
                answer
            }
            Err(error) => Ok(Answer::Later(unreachable(&self.place, error), None)),
        }
    }

    /// Checks that a server answers, whatever its answer.
    pub async fn probe(&self) -> Result<(), SinkError> {
        let request = self.client.request(Method::OPTIONS, &self.url).headers(self.headers.clone());
        request.send().await.map(drop).map_err(|error| unreachable(&self.place, error))
    }

    fn answer(&self, status: StatusCode, headers: &HeaderMap) -> Result<Answer, SinkError> {
        let said = format!("{} answers {status}", self.place);
        match status.as_u16() {
            200..=299 => Ok(Answer::Taken),
            408 | 425 | 429 | 500..=599 => {
                let error =
                    SinkError::retry(said).hint("the receiver cannot take versions at present; they wait meanwhile");
                Ok(Answer::Later(error, retry_after(headers)))
            }
            // A receiver that honours ids is still working on the first request.
            409 => {
                let error =
                    SinkError::retry(said).hint("the receiver is at work on the same request; it is asked again");
                Ok(Answer::Later(error, retry_after(headers)))
            }
            400 | 413 | 415 | 422 => Ok(Answer::Refused(status)),
            401 | 403 | 407 => {
                Err(SinkError::stop(said).hint("see secret and bearer: the receiver does not accept who asks"))
            }
            300..=399 => Err(SinkError::stop(said).hint("redirects are not followed: give the address that it names")),
            _ => Err(SinkError::stop(said).hint("see url: nothing there takes versions")),
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({})", self.place)
    }
}

fn client(config: &WebhookConfig) -> Result<Client, Unusable> {
    let timeout = config.timeout.get();
    // Redirects are not followed, because they would post records to another server.
    let mut builder = Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout.min(Duration::from_secs(10)))
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(1);
    // ⚠ Requests in plain text to this machine must not go through a proxy from the environment.
    if config.is_here() {
        builder = builder.no_proxy();
    }
    if let Some(file) = &config.ca_file {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(&std::fs::read(file)?)?);
    }
    Ok(builder.build()?)
}

async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > ANSWER_MAX {
            return;
        }
    }
}

/// Parses `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second();
            Duration::from_secs(u64::try_from(at - Micros::now().0.div_euclid(1_000_000)).unwrap_or(0))
        }
    };
    Some(pause.min(LATER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_says_when_in_seconds_or_as_a_date() {
        let of = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]));
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("999999"), Some(LATER_MAX));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(of("soon"), None);
        assert!(of("Sat, 06 Nov 2094 08:49:37 GMT").is_some_and(|pause| pause == LATER_MAX));
    }
}
