//! Encrypts values and decrypts them: from keys and values to stored text and back. This crate is pure: it does not
//! wait, reads no file and knows no key service; `audit-keys` does all that.
//!
//! ```text
//! encrypt   aes256gcm:<key id>:<base64 of  1 | run id (16) | counter (8) | ciphertext | tag (16)>
//! token     aes-siv:<key id>:<base64url of  synthetic IV (16) | ciphertext>
//! ```
//!
//! # Why no nonce repeats, even across restarts
//!
//! AES-GCM breaks when two values share key and nonce. Random nonces of 96 bits are safe for only about 2^32 values of
//! a key; after that a repetition is likely enough to matter. A stored counter must never go back, whatever is restored
//! or killed. So we rely on neither: each [`Sealer`] (a process has one) draws a run id of 128 random bits when it is
//! made. Values are not encrypted with the data key itself, but with HKDF-SHA256 of data key and run id, a key that no
//! other run has, and the nonce is a counter that never goes back within this run. Two values share key and nonce only
//! if two runs drew the same 128 bits. The one way to cause that is to resume the memory of a running process twice,
//! for example from a snapshot of a virtual machine.
//!
//! Tokens have no nonce: equal values give equal tokens on purpose, and that is all that AES-SIV (RFC 5297) reveals
//! without a nonce.
//!
//! # What a ciphertext is bound to
//!
//! [`Aad`] writes the place of a value (source, table, key, transaction, position, further columns, column) so that two
//! different places never give the same bytes. The context is authenticated, not stored: anyone who opens a value must
//! say where it was found, and a value that was moved does not open.

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
pub use token::token;
pub use wrap::{unwrap_key, wrap_key};
