//! Logs who opened which value, before anyone sees it, and who destroyed which key, in the same statement ([`Access`]).

use audit_cipher::{KeyId, Kind, Method, Unopened, token};
use tokio_postgres::types::ToSql;
use zeroize::Zeroizing;

use crate::error::{KeyError, OpenError};
use crate::opener::Opener;
use crate::store::KeyStore;

/// The person who wants to see values or destroys keys, and the purpose. The database adds the role that logged in, and
/// the time.
#[derive(Clone, Debug)]
pub struct Access {
    /// The user of the operating system.
    pub os_user: String,
    /// The person in whose name it is done, if that is another one.
    pub requested_by: Option<String>,
    /// The action: `history`, `decrypt` or `destroy`.
    pub action: String,
    pub purpose: Option<String>,
}

/// A stored value that a person wants to see, and the place where it was found.
#[derive(Clone, Debug)]
pub struct Ask {
    pub text: String,
    /// For an encrypted value, the context that it was found in; several if its side of the change is not known.
    pub aads: Vec<Vec<u8>>,
    /// For a token, the domains that it may have been made for.
    pub domains: Vec<Vec<u8>>,
    pub source: String,
    pub table: String,
    /// The row's key as it is stored.
    pub key: Option<String>,
    pub position: String,
    pub field: String,
}

impl Opener {
    /// Opens values and logs each of them, opened or not, in one commit. Only after that it returns them.
    ///
    /// # Errors
    /// Fails without any value if the log cannot be written. A value that does not open has its own error.
    pub async fn reveal(
        &self,
        access: &Access,
        asks: &[Ask],
    ) -> Result<Vec<Result<Zeroizing<String>, OpenError>>, KeyError> {
        let mut opened = Vec::with_capacity(asks.len());
        let mut entries = Vec::with_capacity(asks.len());
        for ask in asks {
            let form = Opener::form(&ask.text);
            let result = match &form {
                Ok((Method::Token, _)) => self.open_token(&ask.text, &ask.domains).await,
                _ => self.open(&ask.text, &ask.aads).await,
            };
            entries.push(Entry { ask, key_id: form.ok().map(|(_, key)| key), success: result.is_ok() });
            opened.push(result);
        }
        self.store().log(access, &entries).await?;
        Ok(opened)
    }
}

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

    /// Logs something that is done to these places of the trail and opens no value.
    ///
    /// # Errors
    /// Fails if the log cannot be written.
    pub async fn note(&self, access: &Access, about: &[Ask]) -> Result<(), KeyError> {
        let entries: Vec<Entry<'_>> = about.iter().map(|ask| Entry { ask, key_id: None, success: true }).collect();
        self.store().log(access, &entries).await
    }
}

struct Entry<'a> {
    ask: &'a Ask,
    key_id: Option<KeyId>,
    success: bool,
}

/// How often a person did something.
#[derive(Clone, Debug)]
pub struct Accesses {
    /// The person in whose name it was done, else the user of the operating system.
    pub user: String,
    pub action: String,
    pub count: u64,
}

impl KeyStore {
    /// Counts the entries of the access log between two times, which are texts that PostgreSQL reads. The session's
    /// role needs SELECT on the log.
    pub async fn accesses(&self, source: &str, since: &str, until: &str) -> Result<Vec<Accesses>, KeyError> {
        let statement = "SELECT coalesce(requested_by, os_user), action, count(*) FROM cdc_audit.access_log \
             WHERE source = $1 AND at >= $2::text::timestamptz AND at < $3::text::timestamptz GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2";
        let rows = self.query("reading the access log", statement, &[&source, &since, &until]).await?;
        let accesses = |row: &tokio_postgres::Row| Accesses {
            user: row.get(0),
            action: row.get(1),
            count: row.get::<_, i64>(2) as u64,
        };
        Ok(rows.iter().map(accesses).collect())
    }

    async fn log(&self, access: &Access, entries: &[Entry<'_>]) -> Result<(), KeyError> {
        if entries.is_empty() {
            return Ok(());
        }
        let statement = "INSERT INTO cdc_audit.access_log \
             (os_user, requested_by, action, purpose, source, table_name, key, position, field, key_id, success) \
             SELECT $1, $2, $3, $4, entry.* FROM \
             unnest($5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::boolean[]) AS entry";
        let column = |of: fn(&Ask) -> &str| entries.iter().map(|entry| of(entry.ask)).collect::<Vec<_>>();
        let sources = column(|ask| &ask.source);
        let tables = column(|ask| &ask.table);
        let positions = column(|ask| &ask.position);
        let fields = column(|ask| &ask.field);
        let keys: Vec<Option<&str>> = entries.iter().map(|entry| entry.ask.key.as_deref()).collect();
        let ids: Vec<Option<&str>> = entries.iter().map(|entry| entry.key_id.as_ref().map(KeyId::as_str)).collect();
        let success: Vec<bool> = entries.iter().map(|entry| entry.success).collect();
        let values: [&(dyn ToSql + Sync); 11] = [
            &access.os_user,
            &access.requested_by,
            &access.action,
            &access.purpose,
            &sources,
            &tables,
            &keys,
            &positions,
            &fields,
            &ids,
            &success,
        ];
        self.execute("writing the access log", statement, &values).await.map(drop)
    }
}
