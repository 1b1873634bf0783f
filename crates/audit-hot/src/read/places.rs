//! The tables that hold versions: the common table, and those that the registry names ([`Places`]).

use audit_core::versions_table::COMMON;
use std::sync::Arc;
use tokio_postgres::Client;

use super::{ReadError, failed};
use crate::layout::VERSIONS;
use crate::quote::ident;

/// Maximum number of tables in one statement, because each is locked with all its partitions and indexes.
const TABLES_MAX: usize = 32;

/// Whose versions are read: everybody's, those that belong to no tenant, or one tenant's.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    Everybodys,
    Homes,
    Tenants(Arc<str>),
}

/// Names of tables in the schema `cdc_audit`.
pub(super) struct Places(Vec<String>);

impl Places {
    /// The tables that may hold versions of `tables`, or of any table if `tables` is empty.
    pub async fn of(client: &Client, whose: &Whose, source: &str, tables: &[String]) -> Result<Places, ReadError> {
        let statement = "SELECT DISTINCT name FROM cdc_audit.versions_tables WHERE source = $1 \
            AND (cardinality($2::text[]) = 0 OR table_name = ANY ($2)) AND ($3::text IS NULL OR tenant = $3) \
            AND to_regclass(format('cdc_audit.%I', name)) IS NOT NULL ORDER BY name";
        let tenant = match whose {
            Whose::Everybodys => None,
            Whose::Homes => Some(""),
            Whose::Tenants(tenant) => Some(tenant.as_ref()),
        };
        let rows = client.query(statement, &[&source, &tables, &tenant]).await;
        let rows = rows.map_err(failed("reading which tables hold versions"))?;
        let common = (!matches!(whose, Whose::Tenants(_))).then(|| COMMON.to_owned());
        Ok(Places(common.into_iter().chain(rows.iter().map(|row| row.get(0))).collect()))
    }

    /// A FROM item with the rows of all tables.
    pub fn all(&self) -> String {
        from(&self.0)
    }

    /// The same in several FROM items, for queries whose results can be combined.
    pub fn parts(&self) -> impl Iterator<Item = String> {
        self.0.chunks(TABLES_MAX).map(from)
    }
}

fn from(names: &[String]) -> String {
    match names {
        [] => format!("(SELECT * FROM cdc_audit.{COMMON} WHERE false) AS nothing"),
        [one] => format!("cdc_audit.{}", ident(one)),
        several => {
            let columns = VERSIONS.names();
            let select = |name: &String| format!("SELECT {columns} FROM cdc_audit.{}", ident(name));
            let all: Vec<String> = several.iter().map(select).collect();
            format!("({}) AS versions", all.join(" UNION ALL "))
        }
    }
}
