//! What librdkafka reports besides results: log lines, connection errors, messages that were not delivered, and that it
//! needs a token.

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

/// The header with the position of a version.
pub(crate) const POSITION: &str = "position";

/// The context of one client.
#[derive(Debug)]
pub(crate) struct Context {
    sink: String,
    token_file: Option<PathBuf>,
    failing: AtomicBool,
    failures: Mutex<Failures>,
    connection: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

/// The messages that were not delivered since the transaction began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    /// The first failure that is a cause rather than a consequence of another one: the error and the topic.
    pub first: Option<(RDKafkaErrorCode, String)>,
    /// The largest message that a broker found too large.
    pub too_large: Option<TooLarge>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct TooLarge {
    pub position: Position,
    /// Bytes of key and value.
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

    /// Whether a message was not delivered. This check is cheap.
    pub fn failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    pub fn failures(&self) -> Failures {
        locked(&self.failures).clone()
    }

    /// Forgets all failures, for a new transaction.
    pub fn forget(&self) {
        *locked(&self.failures) = Failures::default();
        self.failing.store(false, Ordering::Release);
    }

    /// The last connection error, in librdkafka's words, which contain addresses and mechanisms but no secrets.
    pub fn connection(&self) -> Option<(RDKafkaErrorCode, String)> {
        locked(&self.connection).clone()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The contents are consistent after every step, even if a thread panicked.
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
            // The sink itself reports what other messages mean for it.
            _ => debug!(sink, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(sink = self.sink.as_str(), %error, "{reason}");
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = locked(&self.connection);
        // That no broker is left is a consequence of an error that was reported before.
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
        // After the first failure the other messages of the same transaction are purged.
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

/// The position in the header [`POSITION`]. The part after a slash only distinguishes messages of one version.
fn position(headers: Option<&impl Headers>) -> Option<Position> {
    let value = headers?.iter().find(|header| header.key == POSITION)?.value?;
    std::str::from_utf8(value).ok()?.split('/').next()?.parse().ok()
}

/// How long a token is used that does not state its own end, in milliseconds.
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

/// The claims of a JSON Web Token (RFC 7519). They are not verified, because nothing here relies on them.
fn claims(token: &str) -> Option<serde_json::Value> {
    use base64::Engine as _;
    let body = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}
