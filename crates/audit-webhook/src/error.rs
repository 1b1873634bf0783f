//! What an error of the client or of the receiver means for the sink.

use audit_config::secret::SecretError;
use audit_core::sink::SinkError;

/// Why no client can be made.
pub(crate) type Unusable = Box<dyn std::error::Error + Send + Sync>;

/// A secret or token cannot be read.
pub(crate) fn no_secret(what: &str, error: SecretError) -> SinkError {
    SinkError::stop(format!("the webhook's {what} cannot be read")).hint(error.hint()).source(error)
}

/// No client can be made: a certificate cannot be read, for example.
pub(crate) fn not_created(error: Unusable) -> SinkError {
    SinkError::stop("the webhook's client cannot be made").source(error)
}

/// The receiver at `place` gave no answer.
pub(crate) fn unreachable(place: &str, error: reqwest::Error) -> SinkError {
    let what = if error.is_timeout() { "does not answer in time" } else { "cannot be reached" };
    // The address may contain a secret.
    SinkError::retry(format!("{place} {what}"))
        .hint("check that the receiver runs and that its certificate is vouched for; versions wait meanwhile")
        .source(error.without_url())
}
