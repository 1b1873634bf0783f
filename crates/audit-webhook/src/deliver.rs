//! Delivers a run of versions as requests, in their order: [`Delivery`].
//!
//! A request that the receiver refuses (413, 422 and similar) is sent again in halves, until the refused version is
//! known. A request that has to be repeated is repeated byte for byte with the same id. An id contains a digest of the
//! bytes, so that a receiver that remembers ids never sees one with another content.

use std::time::Instant;

use audit_core::batch::Version;
use audit_core::position::{Micros, Position};
use audit_core::sink::SinkError;
use audit_format::Encoder;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::config::Body;
use crate::post::{Answer, Receiver};

/// The limits by which versions are divided into requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub body: Body,
    pub rows: usize,
    pub bytes: usize,
}

/// The run of versions that is being delivered.
#[derive(Debug)]
pub(crate) struct Delivery {
    first: Position,
    last: Position,
    /// The time in all records. It is the same for every try, so that bodies are the same.
    recorded_at: Micros,
    /// Number of versions that the receiver has accepted.
    done: usize,
    /// Maximum number of versions in the next request.
    rows: usize,
    /// The receiver asked us to wait until this time.
    not_before: Option<Instant>,
}

impl Delivery {
    pub fn new(versions: &[Version<'_>], cut: Cut) -> Option<Delivery> {
        let (first, last) = (versions.first()?.position(), versions.last()?.position());
        Some(Delivery { first, last, recorded_at: Micros::now(), done: 0, rows: cut.rows, not_before: None })
    }

    /// Tells whether this is the delivery of these versions.
    pub fn is_of(&self, versions: &[Version<'_>]) -> bool {
        let ends =
            (versions.first().map(|version| version.position()), versions.last().map(|version| version.position()));
        ends == (Some(self.first), Some(self.last))
    }

    /// Delivers the versions that are not delivered yet.
    pub async fn run(
        &mut self,
        versions: &[Version<'_>],
        (source, sink): (&str, &str),
        encoder: &mut Encoder,
        receiver: &Receiver,
        cut: Cut,
    ) -> Result<(), SinkError> {
        while self.done < versions.len() {
            if let Some(until) = self.not_before.take() {
                tokio::time::sleep_until(until.into()).await;
            }
            let (body, count) = self.body(&versions[self.done..], encoder, cut)?;
            let (first, last) = (versions[self.done].position(), versions[self.done + count - 1].position());
            // Different bytes (a version was quarantined meanwhile, or `recorded_at` is another) are another request.
            let id = format!("{source}/{sink}/{first}-{last}/{}", digest(&body));
            fail::fail_point!("webhook::before_post");
            match receiver.post(&id, body).await? {
                Answer::Taken => {
                    fail::fail_point!("webhook::after_post");
                    self.done += count;
                    self.rows = self.rows.saturating_mul(2).min(cut.rows);
                }
                Answer::Later(error, pause) => {
                    self.not_before = pause.map(|pause| Instant::now() + pause);
                    return Err(error);
                }
                Answer::Refused(_) if count > 1 => self.rows = count / 2,
                Answer::Refused(status) => {
                    let table = &versions[self.done].table().name;
                    let message = format!("the receiver refuses the version of {table} at {first}: {status}");
                    return Err(SinkError::refusing(sink, first, message, None));
                }
            }
        }
        Ok(())
    }

    /// Writes the next request's body, and returns it with the number of its versions.
    fn body(&self, versions: &[Version<'_>], encoder: &mut Encoder, cut: Cut) -> Result<(Bytes, usize), SinkError> {
        let (open, between, close): (&[u8], &[u8], &[u8]) = match cut.body {
            Body::Array => (b"[", b",\n", b"]\n"),
            Body::Lines => (b"", b"\n", b"\n"),
        };
        let mut body = Vec::with_capacity(cut.bytes.min(64 << 10));
        body.extend_from_slice(open);
        let mut count = 0;
        for version in versions.iter().take(self.rows.max(1)) {
            let start = body.len();
            encoder.messages(version, self.recorded_at, |message| {
                if let Some(value) = message.value {
                    if body.len() > open.len() {
                        body.extend_from_slice(between);
                    }
                    body.extend_from_slice(value);
                }
                Ok::<(), SinkError>(())
            })?;
            if count > 0 && body.len() > cut.bytes {
                body.truncate(start);
                break;
            }
            count += 1;
        }
        body.extend_from_slice(close);
        Ok((body.into(), count))
    }
}

/// Returns the first 16 hex digits of a body's SHA-256.
fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
