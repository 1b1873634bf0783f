//! Opens values for people. Each is written to the access log before anyone sees it.

use audit_cipher::{KeyId, Method};
use tokio_postgres::types::ToSql;
use zeroize::Zeroizing;

use crate::access::{Access, Accesses, Ask};
use crate::error::{KeyError, OpenError};
use crate::opener::Opener;
use crate::store::KeyStore;

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

impl Opener {
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
