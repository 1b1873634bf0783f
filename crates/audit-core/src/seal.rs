//! Why a change cannot become a version: [`SealError`].

use audit_cipher::Wanted;

/// A change that cannot become a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("table {table}, column {column}: the value is not valid UTF-8")]
    NotUtf8 { table: String, column: String },
    #[error("table {table}, column {column}: there is no key for the method `hash`")]
    NoHashKey { table: String, column: String },
    #[error("table {table}, column {column}: there are no keys for the method `{method}`")]
    NoKeys { table: String, column: String, method: &'static str },
    #[error("the batch is full")]
    TooLarge,
    /// The change is not at fault: once the key has been fetched, it can be sealed.
    #[error("a key is not at hand")]
    KeyWanted(Wanted),
}
