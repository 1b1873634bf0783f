//! Which tables a publication publishes, determined without any lock: [`with_published`].

use tokio_postgres::Client;

use crate::query::{QueryError, major};

/// Publications can name schemas since version 15.
const SCHEMAS: &str = "UNION ALL
    SELECT c.oid, 'n' || s.oid
    FROM publication p
    JOIN pg_publication_namespace s ON s.pnpubid = p.oid
    JOIN pg_class c ON c.relnamespace = s.pnnspid";

const SCHEMA_ENTRIES: &str = "ARRAY(SELECT 'n' || s.oid FROM pg_publication_namespace s WHERE s.pnpubid = p.oid)";

/// The statement, with the query for the published tables (`published.sql`) in place of `{published}`.
pub(crate) async fn with_published(client: &Client, statement: &str) -> Result<String, QueryError> {
    let schemas = if major(client).await? >= 15 { SCHEMAS } else { "" };
    let published = include_str!("sql/published.sql").replace("{schemas}", schemas);
    Ok(statement.replace("{published}", published.trim_end()))
}

/// The statement that reads the properties of a publication.
pub(crate) async fn publishes(client: &Client) -> Result<String, QueryError> {
    let schemas = if major(client).await? >= 15 { SCHEMA_ENTRIES } else { "ARRAY[]::text[]" };
    Ok(include_str!("sql/publishes.sql").replace("{schemas}", schemas))
}
