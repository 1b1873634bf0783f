//! The place of the lake, and the way in which each engine writes it.

use url::Url;

use crate::Refused;
use crate::engine::Engine;

/// The place of a lake. Paths have no slash at their ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An absolute path.
    Folder(String),
    /// A bucket of S3. `endpoint` is set if the store is not Amazon's own.
    S3 {
        bucket: String,
        prefix: String,
        endpoint: Option<String>,
    },
    Gcs {
        bucket: String,
        prefix: String,
    },
    /// A container of Azure Blob. `account` is a placeholder for the operator if the configuration does not name it.
    Azure {
        account: String,
        container: String,
        prefix: String,
    },
}

/// Placeholder for the account of an Azure lake whose configuration leaves it to the environment.
const NO_ACCOUNT: &str = "<account>";

impl Place {
    /// Parses a lake's key `url`, which was checked before. `endpoint` and `account` are those of its section `store`.
    pub fn of(url: &str, endpoint: Option<&str>, account: Option<&str>) -> Option<Place> {
        let Ok(parsed) = Url::parse(url) else {
            return url.starts_with('/').then(|| Place::Folder(trimmed(url)));
        };
        let (host, prefix) = (parsed.host_str().unwrap_or_default().to_owned(), trimmed(parsed.path()));
        let prefix = prefix.trim_start_matches('/').to_owned();
        Some(match parsed.scheme() {
            "file" => Place::Folder(trimmed(parsed.to_file_path().ok()?.to_str()?)),
            "s3" => Place::S3 { bucket: host, prefix, endpoint: endpoint.map(trimmed) },
            "gs" => Place::Gcs { bucket: host, prefix },
            "az" => Place::Azure { account: account.unwrap_or(NO_ACCOUNT).to_owned(), container: host, prefix },
            "abfss" => {
                let account = host.split('.').next().unwrap_or_default().to_owned();
                Place::Azure { account, container: parsed.username().to_owned(), prefix }
            }
            _ => return None,
        })
    }

    fn store(&self) -> &'static str {
        match self {
            Place::Folder(_) => "a local folder",
            Place::S3 { .. } => "S3",
            Place::Gcs { .. } => "Google Cloud Storage",
            Place::Azure { .. } => "Azure Blob",
        }
    }

    /// Names the extension by which DuckDB reads the store; `None` for a folder.
    pub(crate) fn duckdb_extension(&self) -> Option<&'static str> {
        match self {
            Place::Folder(_) => None,
            Place::S3 { .. } | Place::Gcs { .. } => Some("httpfs"),
            Place::Azure { .. } => Some("azure"),
        }
    }

    /// Writes a path in the lake as the engine names it. A path that ends in `/` is a folder.
    pub(crate) fn locate(&self, engine: Engine, path: &str) -> Result<String, Refused> {
        use Engine::*;
        let join = |prefix: &str| if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") };
        Ok(match (engine, self) {
            (Duckdb | Clickhouse, Place::Folder(folder)) => format!("{folder}/{path}"),
            (Spark, Place::Folder(folder)) | (Trino, Place::Folder(folder)) => format!("file://{folder}/{path}"),
            (Spark, Place::S3 { bucket, prefix, .. }) => format!("s3a://{bucket}/{}", join(prefix)),
            (Clickhouse, Place::S3 { bucket, prefix, endpoint: Some(endpoint) }) => {
                format!("{endpoint}/{bucket}/{}", join(prefix))
            }
            (Clickhouse, Place::S3 { bucket, prefix, endpoint: None }) => {
                format!("https://{bucket}.s3.amazonaws.com/{}", join(prefix))
            }
            (Clickhouse, Place::Gcs { bucket, prefix }) => {
                format!("https://storage.googleapis.com/{bucket}/{}", join(prefix))
            }
            (Athena | Glue | Redshift | Snowflake | Databricks | Trino | Duckdb, Place::S3 { bucket, prefix, .. }) => {
                format!("s3://{bucket}/{}", join(prefix))
            }
            (Snowflake, Place::Gcs { bucket, prefix }) => format!("gcs://{bucket}/{}", join(prefix)),
            (Bigquery | Databricks | Trino | Spark | Duckdb, Place::Gcs { bucket, prefix }) => {
                format!("gs://{bucket}/{}", join(prefix))
            }
            (Databricks | Spark | Trino | Duckdb, Place::Azure { account, container, prefix }) => {
                format!("abfss://{container}@{account}.dfs.core.windows.net/{}", join(prefix))
            }
            (Snowflake, Place::Azure { account, container, prefix }) => {
                format!("azure://{account}.blob.core.windows.net/{container}/{}", join(prefix))
            }
            (Synapse | Clickhouse, Place::Azure { account, container, prefix }) => {
                format!("https://{account}.blob.core.windows.net/{container}/{}", join(prefix))
            }
            (engine, place) => {
                let reads = match engine {
                    Athena | Glue | Redshift => "it reads S3",
                    Bigquery => "it reads Google Cloud Storage; copy the lake there, or write a second one",
                    Synapse => "it reads Azure Blob",
                    _ => "it reads buckets of S3, Google Cloud Storage and Azure",
                };
                return Err(Refused {
                    engine: engine.name(),
                    store: place.store(),
                    hint: format!("{reads}; a second lake there is another [sinks.NAME] with its own url"),
                });
            }
        })
    }
}

fn trimmed(path: &str) -> String {
    path.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_engine_is_told_the_place_in_its_own_words() {
        let at = |url: &str| Place::of(url, None, Some("acme")).unwrap();
        for (engine, url, told) in [
            (Engine::Athena, "s3://b/p", "s3://b/p/t/"),
            (Engine::Athena, "s3://b", "s3://b/t/"),
            (Engine::Spark, "s3://b/p", "s3a://b/p/t/"),
            (Engine::Clickhouse, "s3://b/p", "https://b.s3.amazonaws.com/p/t/"),
            (Engine::Bigquery, "gs://b/p/", "gs://b/p/t/"),
            (Engine::Snowflake, "gs://b/p", "gcs://b/p/t/"),
            (Engine::Databricks, "az://c/p", "abfss://c@acme.dfs.core.windows.net/p/t/"),
            (Engine::Synapse, "abfss://c@other.dfs.core.windows.net/p", "https://other.blob.core.windows.net/c/p/t/"),
            (Engine::Duckdb, "file:///var/a%20lake", "/var/a lake/t/"),
            (Engine::Duckdb, "/var/lake", "/var/lake/t/"),
        ] {
            assert_eq!(at(url).locate(engine, "t/").as_deref(), Ok(told), "{engine:?} {url}");
        }
        let refused = at("/var/lake").locate(Engine::Athena, "t/").unwrap_err();
        assert_eq!(refused.to_string(), "Athena does not read a local folder");
        assert!(refused.hint.contains("it reads S3"));
        assert!(at("gs://b").locate(Engine::Athena, "t/").is_err());
        assert!(at("s3://b").locate(Engine::Bigquery, "t/").is_err());
        assert!(at("s3://b").locate(Engine::Synapse, "t/").is_err());
    }
}
