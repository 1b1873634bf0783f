//! What librdkafka tells besides results: log lines, errors of connections, messages that were not delivered, and that it wants a token.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use audit_config::secret::{SecretError, read_projected_token};
use audit_core::position::{Micros, Position};
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Headers, Message};
use rdkafka::producer::ProducerContext;
use tracing::{debug, warn};

/// The header that says where a version stands.
pub(crate) const POSITION: &str = "position";

/// One client's.
#[derive(Debug)]
pub(crate) struct Context {
    sink: String,
    token_file: Option<PathBuf>,
    failing: AtomicBool,
    failures: Mutex<Failures>,
    connection: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

/// What was not delivered since the transaction began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    /// The first that is a cause, rather than a consequence of another: why, and of which topic.
    pub first: Option<(RDKafkaErrorCode, String)>,
    /// The largest of those that a broker found too large.
    pub too_large: Option<TooLarge>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct TooLarge {
    pub position: Position,
    /// Of key and value, in bytes.
    pub bytes: usize,
}

impl Context {
    pub fn new(sink: &str, token_file: Option<PathBuf>) -> Context {
        Context {
            sink: sink.to_owned(),
            token_file,
            failing: AtomicBool::new(false),
            failures: Mutex::default(),
            connection: Mutex::default(),
        }
    }

    /// Whether a message was not delivered. Cheap.
    pub fn failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    pub fn failures(&self) -> Failures {
        locked(&self.failures).clone()
    }

    /// Begins anew.
    pub fn forget(&self) {
        *locked(&self.failures) = Failures::default();
        self.failing.store(false, Ordering::Release);
    }

    /// The last that was wrong with a connection, in librdkafka's words, which hold addresses and mechanisms but no secrets.
    pub fn connection(&self) -> Option<(RDKafkaErrorCode, String)> {
        locked(&self.connection).clone()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What lies in these is whole after every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let sink = self.sink.as_str();
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                warn!(sink, facility, "{message}")
            }
            // What it means for the sink is said by the sink.
            _ => debug!(sink, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(sink = self.sink.as_str(), %error, "{reason}");
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = locked(&self.connection);
        // That no broker is left follows from something that was said before.
        if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let path = self.token_file.as_deref().ok_or("no token_file is configured")?;
        read_token(path)
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        let Err((error, message)) = result else { return };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        // Others of the same transaction are given up with the first.
        if matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) {
            return;
        }
        let mut failures = locked(&self.failures);
        if code == RDKafkaErrorCode::MessageSizeTooLarge {
            let bytes = message.payload().map_or(0, <[u8]>::len) + message.key().map_or(0, <[u8]>::len);
            let larger = failures.too_large.is_none_or(|known| known.bytes < bytes);
            if let Some(position) = position(message.headers()).filter(|_| larger) {
                failures.too_large = Some(TooLarge { position, bytes });
            }
        }
        if failures.first.is_none() {
            failures.first = Some((code, message.topic().to_owned()));
        }
        drop(failures);
        self.failing.store(true, Ordering::Release);
    }
}

/// What the header [`POSITION`] says; the part behind a slash tells messages of one version apart.
fn position(headers: Option<&impl Headers>) -> Option<Position> {
    let value = headers?.iter().find(|header| header.key == POSITION)?.value?;
    std::str::from_utf8(value).ok()?.split('/').next()?.parse().ok()
}

/// How long a token holds that does not say so itself, in milliseconds.
const TOKEN_MILLIS: i64 = 5 * 60 * 1000;

fn read_token(path: &Path) -> Result<OAuthToken, Box<dyn Error>> {
    let told = |error: SecretError| match error {
        SecretError::Unreadable { path, source } => format!("cannot read {}: {source}", path.display()),
        error => error.to_string(),
    };
    let token = read_projected_token(path).map_err(told)?.expose().to_owned();
    let claims = claims(&token).unwrap_or_default();
    let expires = claims["exp"].as_i64().map(|seconds| seconds.saturating_mul(1000));
    Ok(OAuthToken {
        lifetime_ms: expires.unwrap_or_else(|| Micros::now().0 / 1000 + TOKEN_MILLIS),
        principal_name: claims["sub"].as_str().unwrap_or("cdc-audit").to_owned(),
        token,
    })
}

/// What a JSON Web Token says of itself (RFC 7519); nobody here relies on it.
fn claims(token: &str) -> Option<serde_json::Value> {
    use base64::Engine as _;
    let body = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}
