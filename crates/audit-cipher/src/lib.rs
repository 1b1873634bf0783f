//! Values under keys, pure: from keys and values to stored text and back. Nothing here waits, reads a file or knows a key service;
//! `audit-keys` does.
//!
//! ```text
//! encrypt   aes256gcm:<key id>:<base64 of  1 | run id (16) | counter (8) | ciphertext | tag (16)>
//! token     aes-siv:<key id>:<base64url of  synthetic IV (16) | ciphertext>
//! ```
//!
//! # Why no nonce repeats, across restarts too
//!
//! AES-GCM breaks when two values share key and nonce. Random nonces of 96 bits may be used for some 2^32 values of a key before a
//! repetition becomes likely enough to matter; a stored counter must never go back, whatever is restored or killed. So neither is relied on:
//! each [`Sealer`], and a process has one, draws a run id of 128 random bits when it is made. What encrypts is not the data key but
//! HKDF-SHA256 of data key and run id, a key that no other run has, and the nonce is a counter that this run never turns back.
//! Two values share key and nonce only where two runs drew the same 128 bits. The one way to bring that about is to resume the
//! memory of a running process twice: a snapshot of a virtual machine, say.
//!
//! Tokens have no nonce: equal values give equal tokens, on purpose, and AES-SIV (RFC 5297) loses nothing else by that.
//!
//! # What a ciphertext is bound to
//!
//! [`Aad`] writes where a value stands (source, table, key, transaction, place, further columns, column) so that no two places look alike. It is
//! authenticated, not stored: who opens a value must say where it was found, and one that was moved does not open.

mod aad;
mod form;
mod key;
mod open;
mod sealer;
mod subject;
mod token;
mod wrap;

pub use aad::{Aad, Row};
pub use form::{Form, FormError, Method, PREFIXES};
pub use key::{KeyId, Kind, SecretKey};
pub use open::{Unopened, open, open_token};
pub use sealer::{ClassId, Failure, Limits, Sealer, Wanted};
pub use subject::{ERASED, SubjectId, Subjects};
pub use wrap::{unwrap_key, wrap_key};
