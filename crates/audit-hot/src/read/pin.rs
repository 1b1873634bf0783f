//! One consistent look at the hot tables, for a question that takes several statements.

use std::sync::atomic::Ordering;

use tokio_postgres::Row;

use super::{HotReader, ReadError, failed};

/// Number of times that the look is begun while a table of versions is being dropped.
const TRIES_MAX: u32 = 10;

/// Number of tables, with their partitions, that one look locks. A server has thousands of locks for all sessions
/// (`max_locks_per_transaction`), and a question must not use them up.
const LOCKS_MAX: i64 = 1_000;

/// ⚠ The tables are locked before anything is read: a snapshot does not protect from DROP, and a partition that is
/// dropped between two statements would be missing from the answer. A DROP or a DETACH of a partition waits until the
/// look ends.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout = 0";

impl HotReader {
    /// Answers all further questions of this reader, and of its clones, from one look at the database as it is now. The
    /// look ends with the last of them.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn pin(&self, source: &str) -> Result<(), ReadError> {
        let mut tries = 1;
        loop {
            let tables = self.lockable(source).await?;
            match self.begin(&tables).await {
                Err(error) if error.is_gone() && tries < TRIES_MAX => tries += 1,
                Err(error) => return Err(error),
                // A table that was made meanwhile is not locked.
                Ok(()) if tries < TRIES_MAX && self.lockable(source).await? != tables => tries += 1,
                Ok(()) => return Ok(()),
            }
            self.unpin().await?;
        }
    }

    /// Ends the look.
    ///
    /// # Errors
    /// Fails if the session is lost.
    pub async fn unpin(&self) -> Result<(), ReadError> {
        self.client.looks.store(false, Ordering::Relaxed);
        self.client.batch_execute("ROLLBACK").await.map_err(failed("ending a look"))
    }

    async fn begin(&self, tables: &str) -> Result<(), ReadError> {
        let statement = format!("{BEGIN}; LOCK TABLE {tables} IN ACCESS SHARE MODE");
        self.client.batch_execute(&statement).await.map_err(failed("beginning a look at the versions"))?;
        self.client.looks.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The tables of versions, as LOCK TABLE takes them. With very many partitions the tables are locked without them: a
    /// partition that is dropped needs its table, too, unless that table is a partition itself.
    async fn lockable(&self, source: &str) -> Result<String, ReadError> {
        // A function like `pg_partition_tree` would lock what it lists, after the snapshot.
        let statement = "WITH RECURSIVE tables AS (\
               SELECT 'cdc_audit.versions'::regclass::oid AS own \
               UNION SELECT to_regclass(format('cdc_audit.%I', name))::oid FROM cdc_audit.versions_tables WHERE source = $1), \
             relations AS (\
               SELECT own, own AS relation FROM tables WHERE own IS NOT NULL \
               UNION ALL SELECT own, inhrelid FROM relations JOIN pg_inherits ON inhparent = relation) \
             SELECT own::regclass::text, count(*) FROM relations GROUP BY own ORDER BY own";
        let rows = self.client.query(statement, &[&source]).await.map_err(failed("reading which tables there are"))?;
        let relations: i64 = rows.iter().map(|row| row.get::<_, i64>(1)).sum();
        let only = if relations > LOCKS_MAX { "ONLY " } else { "" };
        let name = |row: &Row| format!("{only}{}", row.get::<_, &str>(0));
        Ok(rows.iter().map(name).collect::<Vec<_>>().join(", "))
    }
}

impl ReadError {
    /// Whether a table was dropped since its name was read.
    fn is_gone(&self) -> bool {
        matches!(self, ReadError::Server { source, .. } if source.sqlstate.code() == "42P01")
    }
}
