//! Plain values that a person searches for in protected columns ([`Searched`]).

use audit_cipher::{KeyId, Kind, Unopened, token};
use tokio_postgres::types::ToSql;

use crate::access::Access;
use crate::error::{KeyError, OpenError};
use crate::opener::Opener;

/// A plain value that a person searches for in a protected column. The value itself is not logged.
#[derive(Clone, Debug)]
pub struct Searched {
    pub source: String,
    pub table: String,
    pub field: String,
    /// The key under which tokens are made; `None` for a hash.
    pub key: Option<KeyId>,
}

impl Opener {
    /// Logs that a person searches for plain values, in one commit. No answer may be shown before.
    ///
    /// # Errors
    /// Fails if the log cannot be written.
    pub async fn log_searched(&self, access: &Access, searched: &[Searched]) -> Result<(), KeyError> {
        let statement = "INSERT INTO cdc_audit.access_log \
             (os_user, requested_by, action, purpose, source, table_name, field, key_id, success) \
             SELECT $1, $2, $3, $4, entry.*, true FROM unnest($5::text[], $6::text[], $7::text[], $8::text[]) AS entry";
        let column = |of: fn(&Searched) -> &str| searched.iter().map(of).collect::<Vec<_>>();
        let (sources, tables) = (column(|one| &one.source), column(|one| &one.table));
        let fields = column(|one| &one.field);
        let keys: Vec<Option<&str>> = searched.iter().map(|one| one.key.as_ref().map(KeyId::as_str)).collect();
        let Access { os_user, requested_by, action, purpose } = access;
        let values: [&(dyn ToSql + Sync); 8] =
            [os_user, requested_by, action, purpose, &sources, &tables, &fields, &keys];
        self.store().execute("writing the access log", statement, &values).await.map(drop)
    }

    /// The token of a plain value in a class and domain, and the key that it is made under; `None` if the class has no
    /// key for tokens yet.
    ///
    /// # Errors
    /// Fails if the key cannot be read or unwrapped, or if the value is too long for a token.
    pub async fn token(
        &self,
        source: &str,
        class: &str,
        domain: &[u8],
        plain: &str,
    ) -> Result<Option<(KeyId, String)>, OpenError> {
        let Some(stored) = self.store().lasting(source, class, Kind::Tokens).await? else { return Ok(None) };
        let secret = self.key(&stored.key).await?;
        let token = token(&stored.key, &secret, domain, plain.as_bytes()).ok_or(Unopened)?;
        Ok(Some((stored.key, token)))
    }
}
