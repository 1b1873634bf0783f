//! The key store: wrapped keys in tables of a PostgreSQL database ([`KeyStore`]).
//!
//! There is only one store on purpose: a key that is destroyed there is destroyed everywhere. `cdc-audit setup` makes
//! the tables. The daemon's role may read and add keys, but change nothing.
//!
//! Every function that uses the database fails with a [`KeyError`] if there is no session or the statement fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_cipher::{KeyId, Kind, SubjectId};
use audit_connect::{PgEndpoint, connect};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Row};

use crate::access::Access;
use crate::error::KeyError;
use crate::master::Wrapped;

/// The key store of a database.
#[derive(Debug)]
pub struct KeyStore {
    endpoint: PgEndpoint,
    application_name: String,
    session: Mutex<Option<Arc<Client>>>,
}

/// A key of a class, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    pub key: KeyId,
    pub source: String,
    pub class: String,
    pub kind: Kind,
    /// The name of the master key that wrapped it last.
    pub master: String,
    /// The wrapped key; `None` if the key was destroyed.
    pub text: Option<String>,
    /// RFC 3339, in UTC.
    pub created_at: String,
    /// The time since which nothing new may be encrypted under it.
    pub retired_at: Option<String>,
    pub destroyed_at: Option<String>,
}

/// The key of a data subject, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSubject {
    pub key: KeyId,
    pub source: String,
    pub class: String,
    pub subject: SubjectId,
    pub generation: i32,
    /// The class's key that wraps it.
    pub under: KeyId,
    /// The wrapped key; `None` if the key was destroyed.
    pub wrapped: Option<Vec<u8>>,
}

/// One key of a data subject. Another one is made if the previous one was destroyed and the subject shall have values
/// again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    pub number: i32,
    /// RFC 3339, in UTC.
    pub created_at: String,
    pub destroyed_at: Option<String>,
}

/// Maximum time to wait for other transactions. It is limited because a report may take hours.
const UNSEEN_MAX: Duration = Duration::from_secs(30);

/// Returns the statement that writes a table of keys into a new file, with the rows that are visible now and no others.
///
/// `VACUUM (FULL)` is not enough. It keeps a removed row as long as any process might still see it, and such a process
/// need not be visible in `pg_stat_activity`: a session that only begins, of any database, is one for a moment.
pub fn rewriting(kind: Kind) -> String {
    // An expression that is more than the column makes PostgreSQL rewrite the table, although its type stays. The
    // keys of classes are wrapped as text, those of data subjects as bytes.
    let (column, nothing) = match kind {
        Kind::Subject => ("bytea", "''::bytea"),
        Kind::Data | Kind::Tokens | Kind::Subjects => ("text COLLATE \"C\"", "''::text"),
    };
    let table = table_of(kind);
    format!("ALTER TABLE cdc_audit.{table} ALTER COLUMN wrapped TYPE {column} USING wrapped || {nothing}")
}

fn table_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Subject => "subject_keys",
        Kind::Data | Kind::Tokens | Kind::Subjects => "data_keys",
    }
}

const TIME: &str = r#"'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"#;

impl StoredKey {
    /// Returns the wrapped form.
    ///
    /// # Errors
    /// Fails with [`KeyError::Destroyed`] if the key was destroyed.
    pub fn wrapped(&self) -> Result<Wrapped, KeyError> {
        let destroyed = || KeyError::Destroyed { key: self.key.clone() };
        Ok(Wrapped { master: self.master.clone(), text: self.text.clone().ok_or_else(destroyed)? })
    }

    fn read(row: &Row) -> Option<StoredKey> {
        let kind: &str = row.get(3);
        Some(StoredKey {
            key: KeyId::parse(row.get(0))?,
            source: row.get(1),
            class: row.get(2),
            kind: Kind::ALL.into_iter().find(|known| known.as_str() == kind)?,
            master: row.get(4),
            text: row.get(5),
            created_at: row.get(6),
            retired_at: row.get(7),
            destroyed_at: row.get(8),
        })
    }
}

impl StoredSubject {
    fn read(row: &Row) -> Option<StoredSubject> {
        let subject: &[u8] = row.get(3);
        Some(StoredSubject {
            key: KeyId::parse(row.get(0))?,
            source: row.get(1),
            class: row.get(2),
            subject: SubjectId(subject.try_into().ok()?),
            generation: row.get(4),
            under: KeyId::parse(row.get(5))?,
            wrapped: row.get(6),
        })
    }
}

impl KeyStore {
    /// Makes a key store that opens its session at the first use.
    pub fn new(endpoint: PgEndpoint, application_name: impl Into<String>) -> KeyStore {
        KeyStore { endpoint, application_name: application_name.into(), session: Mutex::new(None) }
    }

    /// Stores a new key durably. Returns `false` if the class already has a lasting key of this kind.
    pub async fn add(&self, key: &StoredKey) -> Result<bool, KeyError> {
        let wrapped = key.wrapped()?;
        let statement = "INSERT INTO cdc_audit.data_keys (key_id, source, class, kind, master, wrapped) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let values: [&str; 6] =
            [key.key.as_str(), &key.source, &key.class, key.kind.as_str(), &wrapped.master, &wrapped.text];
        let added = self.execute("storing a key", statement, &values.each_ref().map(|value| value as _)).await?;
        Ok(added > 0)
    }

    /// Tells whether the session's role may add keys.
    pub async fn may_add(&self) -> Result<bool, KeyError> {
        let statement = "SELECT pg_catalog.has_table_privilege('cdc_audit.data_keys', 'INSERT')";
        let rows = self.query("looking at the role's rights", statement, &[]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// Reads the key with this name.
    pub async fn key(&self, key: &KeyId) -> Result<StoredKey, KeyError> {
        let rows = self.keys("WHERE key_id = $1", &[&key.as_str()]).await?;
        rows.into_iter().next().ok_or_else(|| KeyError::NoKey { key: key.clone() })
    }

    /// Reads the key of a kind of which a class has only one.
    pub async fn lasting(&self, source: &str, class: &str, kind: Kind) -> Result<Option<StoredKey>, KeyError> {
        let only = "WHERE source = $1 AND class = $2 AND kind = $3 AND destroyed_at IS NULL";
        Ok(self.keys(only, &[&source, &class, &kind.as_str()]).await?.into_iter().next())
    }

    /// Lists all keys of a source except its subjects' keys, oldest first.
    pub async fn list(&self, source: &str) -> Result<Vec<StoredKey>, KeyError> {
        self.keys("WHERE source = $1 ORDER BY created_at, key_id", &[&source]).await
    }

    /// Replaces the wrapped form that was read by another one. Returns `false` if another session changed it first.
    pub async fn rewrap(&self, key: &StoredKey, to: &Wrapped) -> Result<bool, KeyError> {
        let statement = "UPDATE cdc_audit.data_keys SET master = $3, wrapped = $4, rewrapped_at = clock_timestamp() \
             WHERE key_id = $1 AND wrapped = $2";
        let from = key.wrapped()?.text;
        let changed = self
            .execute("storing a key wrapped anew", statement, &[&key.key.as_str(), &from, &to.master, &to.text])
            .await?;
        Ok(changed > 0)
    }

    /// Marks the data keys of a class, so that daemons that use one of them make another. Returns their number.
    pub async fn retire(&self, source: &str, class: &str) -> Result<u64, KeyError> {
        let statement = "UPDATE cdc_audit.data_keys SET retired_at = clock_timestamp() \
             WHERE source = $1 AND class = $2 AND kind = 'data' AND retired_at IS NULL AND destroyed_at IS NULL";
        self.execute("retiring data keys", statement, &[&source, &class]).await
    }

    /// Returns those of these keys that must no longer be used.
    pub async fn ended(&self, keys: &[KeyId]) -> Result<Vec<KeyId>, KeyError> {
        let statement = "SELECT key_id FROM cdc_audit.data_keys \
             WHERE key_id = ANY ($1) AND (retired_at IS NOT NULL OR destroyed_at IS NOT NULL)";
        let keys: Vec<&str> = keys.iter().map(KeyId::as_str).collect();
        let rows = self.query("looking for retired keys", statement, &[&keys]).await?;
        Ok(rows.iter().filter_map(|row| KeyId::parse(row.get(0))).collect())
    }

    /// Returns those of these keys of classes and of data subjects that have a row, and whether they were destroyed.
    pub async fn found(&self, classes: &[KeyId], subjects: &[KeyId]) -> Result<Vec<(KeyId, bool)>, KeyError> {
        let statement = "SELECT key_id, destroyed_at IS NOT NULL FROM cdc_audit.data_keys WHERE key_id = ANY ($1) UNION ALL \
             SELECT key_id, destroyed_at IS NOT NULL FROM cdc_audit.subject_keys WHERE key_id = ANY ($2)";
        let ids = |keys: &[KeyId]| keys.iter().map(|key| key.as_str().to_owned()).collect::<Vec<_>>();
        let rows = self.query("looking for keys that are used", statement, &[&ids(classes), &ids(subjects)]).await?;
        Ok(rows.iter().filter_map(|row| Some((KeyId::parse(row.get(0))?, row.get(1)))).collect())
    }

    /// Removes a key permanently. Its row stays, and the access log says who did it. Returns `false` if there is no
    /// such key, or it was already destroyed.
    pub async fn destroy(&self, key: &KeyId, by: &Access) -> Result<bool, KeyError> {
        let only = "key_id = $5";
        let gone = self.remove(table_of(key.kind()), only, by, &[&key.as_str()]).await?;
        Ok(!gone.is_empty())
    }

    /// Removes keys and logs it, in one statement, and returns the removed keys. `only` is a condition whose parameters
    /// begin at `$5`.
    async fn remove(
        &self,
        table: &str,
        only: &str,
        by: &Access,
        which: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<KeyId>, KeyError> {
        let statement = format!(
            "WITH gone AS (UPDATE cdc_audit.{table} SET wrapped = NULL, destroyed_at = clock_timestamp() \
               WHERE {only} AND destroyed_at IS NULL RETURNING source, class, key_id), \
             logged AS (INSERT INTO cdc_audit.access_log \
               (os_user, requested_by, action, purpose, source, field, key_id, success) \
               SELECT $1::text, $2::text, $3::text, $4::text, source, 'key of class ' || class, \
                 key_id, true FROM gone) \
             SELECT key_id FROM gone"
        );
        let mut values: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
            vec![&by.os_user, &by.requested_by, &by.action, &by.purpose];
        values.extend(which);
        let rows = self.query("destroying keys", &statement, &values).await?;
        Ok(rows.iter().filter_map(|row| KeyId::parse(row.get(0))).collect())
    }

    /// Reads the newest key of each of these subjects that has one.
    pub async fn subjects(
        &self,
        source: &str,
        class: &str,
        subjects: &[SubjectId],
    ) -> Result<Vec<StoredSubject>, KeyError> {
        let only = "WHERE source = $1 AND class = $2 AND subject = ANY ($3) ORDER BY subject, generation DESC";
        let wanted: Vec<&[u8]> = subjects.iter().map(|subject| subject.0.as_slice()).collect();
        self.subject_keys("DISTINCT ON (subject)", only, &[&source, &class, &wanted]).await
    }

    /// Reads the subject's key with this name.
    pub async fn subject_key(&self, key: &KeyId) -> Result<StoredSubject, KeyError> {
        let rows = self.subject_keys("", "WHERE key_id = $1", &[&key.as_str()]).await?;
        rows.into_iter().next().ok_or_else(|| KeyError::NoKey { key: key.clone() })
    }

    /// Reads the next keys of a source's subjects in the order of their names. An empty list is the end.
    pub async fn page_of_subjects(&self, source: &str, after: Option<&KeyId>) -> Result<Vec<StoredSubject>, KeyError> {
        let after = after.map_or("", KeyId::as_str);
        self.subject_keys("", "WHERE source = $1 AND key_id > $2 ORDER BY key_id LIMIT 1000", &[&source, &after]).await
    }

    /// Stores keys of subjects durably in one statement. If another process was faster, its keys stay.
    pub async fn add_subjects(&self, keys: &[StoredSubject]) -> Result<(), KeyError> {
        let statement = "INSERT INTO cdc_audit.subject_keys (key_id, source, class, subject, generation, under, wrapped) \
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::integer[], $6::text[], $7::bytea[]) \
             ON CONFLICT DO NOTHING";
        let column = |of: fn(&StoredSubject) -> &str| keys.iter().map(of).collect::<Vec<_>>();
        let (ids, under) = (column(|key| key.key.as_str()), column(|key| key.under.as_str()));
        let (sources, classes) = (column(|key| &key.source), column(|key| &key.class));
        let subjects: Vec<&[u8]> = keys.iter().map(|key| key.subject.0.as_slice()).collect();
        let generations: Vec<i32> = keys.iter().map(|key| key.generation).collect();
        let wrapped: Vec<Option<&[u8]>> = keys.iter().map(|key| key.wrapped.as_deref()).collect();
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&ids, &sources, &classes, &subjects, &generations, &under, &wrapped];
        self.execute("storing keys of data subjects", statement, &values).await.map(drop)
    }

    /// Lists a subject's present and former keys, oldest first.
    pub async fn generations(
        &self,
        source: &str,
        class: &str,
        subject: &SubjectId,
    ) -> Result<Vec<Generation>, KeyError> {
        let statement = format!(
            "SELECT generation, to_char(created_at AT TIME ZONE 'UTC', {TIME}), to_char(destroyed_at AT TIME ZONE 'UTC', {TIME}) \
             FROM cdc_audit.subject_keys WHERE source = $1 AND class = $2 AND subject = $3 ORDER BY generation"
        );
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&source, &class, &subject.0.as_slice()];
        let rows = self.query("reading a data subject's keys", &statement, &values).await?;
        let read = |row: &Row| Generation { number: row.get(0), created_at: row.get(1), destroyed_at: row.get(2) };
        Ok(rows.iter().map(read).collect())
    }

    /// Destroys every key of a subject, logs who did it, and returns the destroyed keys.
    pub async fn destroy_subject(
        &self,
        source: &str,
        class: &str,
        subject: &SubjectId,
        by: &Access,
    ) -> Result<Vec<KeyId>, KeyError> {
        let only = "source = $5 AND class = $6 AND subject = $7";
        self.remove("subject_keys", only, by, &[&source, &class, &subject.0.as_slice()]).await
    }

    /// Rewrites a table of keys, so that its file no longer contains destroyed keys. Other sessions wait meanwhile.
    pub async fn rewrite(&self, kind: Kind) -> Result<(), KeyError> {
        const DOING: &str = "rewriting the table of keys";
        self.unseen().await?;
        let client = self.session().await?;
        let rewrite = rewriting(kind);
        for statement in ["SET lock_timeout TO '30s'", rewrite.as_str(), "SET lock_timeout TO 0"] {
            client.batch_execute(statement).await.map_err(|error| KeyError::store(DOING, error))?;
        }
        Ok(())
    }

    /// Waits until no other transaction of the database uses a snapshot from before: to such a transaction the
    /// rewritten table would look empty.
    async fn unseen(&self) -> Result<(), KeyError> {
        const DOING: &str = "waiting for transactions that still see the key";
        let now = self.query(DOING, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text", &[]).await?;
        let now: String = now.first().map_or_else(String::new, |row| row.get(0));
        let others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
             AND age(backend_xmin) > age(($1::text::xid8)::xid)";
        let begun = Instant::now();
        while !self.query(DOING, others, &[&now]).await?.is_empty() {
            if begun.elapsed() > UNSEEN_MAX {
                let source = "a transaction that began before is still open".into();
                return Err(KeyError::Store { doing: DOING, source });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn keys(
        &self,
        only: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<StoredKey>, KeyError> {
        let statement = format!(
            "SELECT key_id, source, class, kind, master, wrapped, to_char(created_at AT TIME ZONE 'UTC', {TIME}), \
             to_char(retired_at AT TIME ZONE 'UTC', {TIME}), to_char(destroyed_at AT TIME ZONE 'UTC', {TIME}) FROM cdc_audit.data_keys {only}"
        );
        let rows = self.query("reading keys", &statement, values).await?;
        Ok(rows.iter().filter_map(StoredKey::read).collect())
    }

    async fn subject_keys(
        &self,
        distinct: &str,
        only: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<StoredSubject>, KeyError> {
        let statement = format!(
            "SELECT {distinct} key_id, source, class, subject, generation, under, wrapped FROM cdc_audit.subject_keys {only}"
        );
        let rows = self.query("reading keys of data subjects", &statement, values).await?;
        Ok(rows.iter().filter_map(StoredSubject::read).collect())
    }

    pub(crate) async fn query(
        &self,
        doing: &'static str,
        statement: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<Row>, KeyError> {
        let client = self.session().await?;
        client.query(statement, values).await.map_err(|error| KeyError::store(doing, error))
    }

    pub(crate) async fn execute(
        &self,
        doing: &'static str,
        statement: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<u64, KeyError> {
        let client = self.session().await?;
        client.execute(statement, values).await.map_err(|error| KeyError::store(doing, error))
    }

    /// Returns a session whose commits are durable, whatever the database's default is.
    async fn session(&self) -> Result<Arc<Client>, KeyError> {
        let mut session = self.session.lock().await;
        if let Some(client) = session.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let client = connect(&self.endpoint, &self.application_name).await;
        let client = Arc::new(client.map_err(|source| KeyError::NoStore { source })?);
        let pinned = client.batch_execute("SET synchronous_commit = on").await;
        pinned.map_err(|error| KeyError::store("opening a session", error))?;
        *session = Some(Arc::clone(&client));
        Ok(client)
    }
}
