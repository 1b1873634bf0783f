//! `[actors]`.

use audit_config::Problems;
use audit_connect::PgEndpoint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who actors are: their names are read from a table of the application when somebody asks, and shown beside their ids. Nothing of it is stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ActorsConfig {
    /// The table with a row for each actor, `schema.table`.
    #[schemars(extend("example" = "public.users"))]
    pub table: Option<String>,
    /// Its column with the id that versions have as `actor_id`. Default: `id`.
    #[schemars(extend("example" = "user_id"))]
    pub id: Option<String>,
    /// Its column with the name to show. It must not be protected by the rules for that table. Default: `name`.
    #[schemars(extend("example" = "full_name"))]
    pub name: Option<String>,
    /// In place of `table`: a query with two columns, the id and the name.
    #[schemars(extend("example" = "SELECT id, first_name || ' ' || last_name FROM staff"))]
    pub query: Option<String>,
    /// The database. Default: the source's, with the source's login; a role that may only read this table is better.
    pub connection: Option<PgEndpoint>,
}

impl ActorsConfig {
    pub fn check(&self, problems: &mut Problems) {
        if self.table.is_some() && self.query.is_some() {
            problems.push("query", "given together with `table`", Some("keep one of the two"));
        }
        if self.table.is_none() && (self.id.is_some() || self.name.is_some()) {
            problems.push("table", "missing", Some("name the table that has these columns"));
        }
    }
}
