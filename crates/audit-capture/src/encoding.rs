//! The requirements on the source's encoding ([`complaint`]).

use tokio_postgres::Client;

use crate::query::{QueryError, row};

/// What a person can do about it.
pub const FIX: &str =
    "make a database with ENCODING 'UTF8', copy the data there (pg_dump, pg_restore), and capture that one";

/// Why a database with this encoding, as PostgreSQL names it, cannot be captured.
pub fn complaint(encoding: &str) -> Option<String> {
    // In SQL_ASCII the server converts nothing: the first invalid byte, even in another program's message, would end
    // the stream for good.
    let is_none = encoding == "SQL_ASCII";
    is_none
        .then(|| "the database's encoding is SQL_ASCII: it may hold bytes that are no text in any encoding".to_owned())
}

/// The encoding of the session's database.
///
/// # Errors
/// Returns a [`QueryError`] if the server cannot answer the query.
pub async fn read(client: &Client) -> Result<String, QueryError> {
    let sql =
        "SELECT to_jsonb(pg_encoding_to_char(d.encoding)) FROM pg_database d WHERE d.datname = current_database()";
    row(client, "read the database's encoding", sql, &[]).await
}
