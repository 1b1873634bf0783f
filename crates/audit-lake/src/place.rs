//! Where a lake is, and how that place is reached: [`Place`] is parsed from the key `url`, [`StoreConfig`] holds what
//! an address cannot express.

use std::fmt;
use std::path::PathBuf;

use audit_config::{Problems, SecretRef, Span};
use object_store::path::Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::LakeError;

/// Where a lake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Folder(PathBuf),
    Bucket(Bucket),
}

/// A part of a bucket or container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub cloud: Cloud,
    /// The url as it was configured; it contains no secret.
    pub url: Url,
    pub prefix: Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    S3,
    Gcs,
    Azure,
}

impl Place {
    /// Parses an absolute path or a URL: `file:///`, `s3://`, `gs://`, `az://` or `abfss://`.
    ///
    /// # Errors
    /// Returns [`LakeError::Place`] for any other text.
    pub fn parse(text: &str) -> Result<Place, LakeError> {
        // Text after a question mark is never repeated, because some tools put signatures there.
        let shown = || audit_config::redact(text.split(['?', '#']).next().unwrap_or_default()).into_owned();
        let refused = || LakeError::Place { url: shown() };
        let cloud = match text.split_once("://") {
            None => return folder(PathBuf::from(text)).ok_or_else(refused),
            Some(("file", _)) => {
                let path = Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
                return path.and_then(folder).ok_or_else(refused);
            }
            Some(("s3", _)) => Cloud::S3,
            Some(("gs", _)) => Cloud::Gcs,
            Some(("az" | "abfss", _)) => Cloud::Azure,
            Some(_) => return Err(refused()),
        };
        let url = Url::parse(text).map_err(|_| refused())?;
        let plain = url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        // In an `abfss://` URL the container is where other URLs have the user.
        let named = url.username().is_empty() != (url.scheme() == "abfss");
        if !plain || !named || url.port().is_some() || url.host_str().is_none_or(str::is_empty) {
            return Err(refused());
        }
        let prefix = Path::from_url_path(url.path()).map_err(|_| refused())?;
        Ok(Place::Bucket(Bucket { cloud, url, prefix }))
    }

    /// Whether both are of the same kind: both on disk, or both in one cloud with the same form of address.
    pub(crate) fn is_like(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Folder(_), Place::Folder(_)) => true,
            (Place::Bucket(one), Place::Bucket(other)) => one.url.scheme() == other.url.scheme(),
            _ => false,
        }
    }

    /// Whether one is inside the other.
    pub(crate) fn overlaps(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Folder(one), Place::Folder(other)) => one.starts_with(other) || other.starts_with(one),
            (Place::Bucket(one), Place::Bucket(other)) => {
                let within = |a: &Path, b: &Path| a.prefix_matches(b);
                one.name() == other.name() && (within(&one.prefix, &other.prefix) || within(&other.prefix, &one.prefix))
            }
            _ => false,
        }
    }
}

impl Bucket {
    /// The name of the bucket or container.
    pub(crate) fn container(&self) -> &str {
        match self.url.username() {
            "" => self.url.host_str().unwrap_or_default(),
            container => container,
        }
    }

    /// Identifies the bucket among those that are reached with the same settings.
    pub(crate) fn name(&self) -> (&str, &str, Option<&str>) {
        (self.url.scheme(), self.url.username(), self.url.host_str())
    }
}

fn folder(path: PathBuf) -> Option<Place> {
    (path.is_absolute() && path.parent().is_some()).then_some(Place::Folder(path))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Folder(path) => write!(f, "{}", path.display()),
            Place::Bucket(bucket) => f.write_str(bucket.url.as_str().trim_end_matches('/')),
        }
    }
}

/// How an object store is reached; only for a lake whose `url` names one. Credentials that are not given here are looked for where the
/// cloud's own tools look: in the environment (`AWS_…`, `GOOGLE_…`, `AZURE_…`), a web identity or workload identity that it names, then the
/// machine's metadata service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// S3: the bucket's region. Default: `AWS_REGION` or `AWS_DEFAULT_REGION`, else `us-east-1`.
    #[schemars(example = &"eu-central-1")]
    pub region: Option<String>,
    /// The store's address where it is not the cloud's own. For Azure with the account, as in `https://acme.blob.core.usgovcloudapi.net`.
    #[schemars(example = &"https://minio.internal:9000")]
    pub endpoint: Option<String>,
    /// S3: where the bucket stands in an address.
    pub addressing: Addressing,
    /// Let an `endpoint` be `http://`: then anyone on the way can read what is written.
    pub allow_http: bool,
    /// Certificates (PEM) that are trusted beside the system's.
    #[schemars(example = &"/etc/ssl/private-ca.pem")]
    pub ca_file: Option<PathBuf>,
    /// S3: the access key's id.
    #[schemars(example = &"AKIAIOSFODNN7EXAMPLE")]
    pub access_key_id: Option<String>,
    /// Azure: the storage account, where `url` does not name it. Default: `AZURE_STORAGE_ACCOUNT_NAME`.
    #[schemars(example = &"acme")]
    pub account: Option<String>,
    /// S3: the secret access key. Azure: the account's key. Read whenever the lake is opened.
    pub secret_key: Option<SecretRef>,
    /// GCS: the key of a service account, the JSON file as it was handed out.
    #[schemars(example = &"/run/secrets/gcs.json")]
    pub service_account_file: Option<PathBuf>,
    /// S3: encryption that every object is written with. Default: the bucket's own.
    pub encryption: Option<Encryption>,
    /// S3: the KMS key of `sse-kms`. Default: the account's own.
    #[schemars(example = &"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")]
    pub kms_key: Option<String>,
    /// Storage class (S3, GCS) or access tier (Azure) of data files. The Delta log, which is read all the time, stays in the bucket's own.
    #[schemars(example = &"STANDARD_IA")]
    pub storage_class: Option<String>,
    /// How long one request may take, a part of 8 MiB included.
    pub request_timeout: Span,
    /// How long a request is repeated, with growing and random pauses, while the store is busy or out of reach. After that the sink is shown
    /// as failing, and goes on trying.
    pub retry_for: Span,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            region: None,
            endpoint: None,
            addressing: Addressing::default(),
            allow_http: false,
            ca_file: None,
            access_key_id: None,
            account: None,
            secret_key: None,
            service_account_file: None,
            encryption: None,
            kms_key: None,
            storage_class: None,
            request_timeout: Span::secs(30),
            retry_for: Span::secs(30),
        }
    }
}

/// Where the bucket stands in an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Addressing {
    /// `https://host/bucket/…`
    #[default]
    Path,
    /// `https://bucket.host/…`
    VirtualHost,
}

/// Encryption by the store, for which it keeps the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// Keys of S3.
    SseS3,
    /// Keys of AWS KMS.
    SseKms,
}

impl StoreConfig {
    /// Checks the rules that the types of the fields cannot express, and reports keys that do not apply to this kind of
    /// store.
    pub fn check(&self, bucket: &Bucket, problems: &mut Problems) {
        let cloud = bucket.cloud;
        let of = |key, given, clouds: &[Cloud]| (given && !clouds.contains(&cloud)).then_some(key);
        let strange = [
            of("region", self.region.is_some(), &[Cloud::S3]),
            of("addressing", self.addressing != Addressing::Path, &[Cloud::S3]),
            of("access_key_id", self.access_key_id.is_some(), &[Cloud::S3]),
            of("account", self.account.is_some(), &[Cloud::Azure]),
            of("secret_key", self.secret_key.is_some(), &[Cloud::S3, Cloud::Azure]),
            of("service_account_file", self.service_account_file.is_some(), &[Cloud::Gcs]),
            of("encryption", self.encryption.is_some(), &[Cloud::S3]),
            of("kms_key", self.kms_key.is_some(), &[Cloud::S3]),
        ];
        for key in strange.into_iter().flatten() {
            problems.push(key, "has no meaning for this kind of store", "leave it out");
        }
        if cloud == Cloud::S3 && self.access_key_id.is_some() != self.secret_key.is_some() {
            problems.push(
                "secret_key",
                "given without the other half",
                "give access_key_id and secret_key, or neither",
            );
        }
        if self.kms_key.is_some() && self.encryption != Some(Encryption::SseKms) {
            problems.push("kms_key", "given without encryption = \"sse-kms\"", "give both, or neither");
        }
        if let Some(endpoint) = &self.endpoint {
            match Url::parse(endpoint)
                .ok()
                .filter(|url| url.has_host() && url.password().is_none())
                .as_ref()
                .map(Url::scheme)
            {
                Some("https") => {}
                Some("http") if self.allow_http => {}
                Some("http") => {
                    let hint = "give an https:// address, or set allow_http = true on a network that you trust";
                    problems.push("endpoint", "would be spoken to without encryption", hint);
                }
                _ => problems.push("endpoint", "not an address", "give one like \"https://minio.internal:9000\""),
            }
        }
        for (key, span) in [("request_timeout", self.request_timeout), ("retry_for", self.retry_for)] {
            if span < Span::secs(1) || span > Span::mins(5) {
                problems.push(key, "out of range", "give \"1 s\" to \"5 min\"");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::LakeConfig;

    #[test]
    fn a_lake_lies_in_a_folder_or_in_a_bucket() {
        let place = |url: &str| Place::parse(url).unwrap();
        assert_eq!(place("/var/lake"), Place::Folder("/var/lake".into()));
        assert_eq!(place("file:///var/a%20lake"), Place::Folder("/var/a lake".into()));
        for (url, cloud, prefix, shown) in [
            ("s3://acme/audit/shop", Cloud::S3, "audit/shop", "s3://acme/audit/shop"),
            ("s3://acme", Cloud::S3, "", "s3://acme"),
            ("gs://acme/shop/", Cloud::Gcs, "shop", "gs://acme/shop"),
            ("az://container/shop", Cloud::Azure, "shop", "az://container/shop"),
            (
                "abfss://container@acme.dfs.core.windows.net/shop",
                Cloud::Azure,
                "shop",
                "abfss://container@acme.dfs.core.windows.net/shop",
            ),
        ] {
            let place = place(url);
            assert_eq!(place.to_string(), shown);
            let Place::Bucket(bucket) = place else { unreachable!("{url}") };
            assert_eq!((bucket.cloud, bucket.prefix.as_ref()), (cloud, prefix));
        }
    }

    #[test]
    fn what_is_no_place_is_refused_and_no_secret_is_repeated() {
        for url in [
            "relative/path",
            "/",
            "file://host",
            "ftp://host/lake",
            "s3://",
            "s3://id:geheim@bucket/lake",
            "s3://id@bucket/lake",
            "az://container/lake?sig=geheim",
            "gs://bucket/lake#geheim",
            "abfss://acme.dfs.core.windows.net/shop",
        ] {
            let said = Place::parse(url).unwrap_err().to_string();
            assert!(said.contains("is no place for a lake") && !said.contains("geheim"), "{said}");
        }
    }

    fn problems(toml: &str) -> String {
        let check = |config: &LakeConfig, problems: &mut Problems| config.check(problems);
        audit_config::parse(std::path::Path::new("c.toml"), toml, check)
            .map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn keys_of_a_store_are_checked_against_its_kind() {
        let good = "url = 's3://b/p'\n[store]\nregion = 'eu-central-1'\nendpoint = 'https://s3.internal'\naddressing = 'virtual_host'\n\
                    access_key_id = 'id'\nsecret_key = { env = 'S' }\nencryption = 'sse-kms'\nkms_key = 'k'\nstorage_class = 'STANDARD_IA'";
        assert_eq!(problems(good), "");
        for (toml, said) in [
            ("url = '/lake'\n[store]\nregion = 'x'", "a lake in a folder takes none of these keys"),
            (
                "url = 'gs://b'\n[store]\nencryption = 'sse-s3'",
                "store.encryption: has no meaning for this kind of store",
            ),
            ("url = 's3://b'\n[store]\naccess_key_id = 'x'", "give access_key_id and secret_key, or neither"),
            ("url = 's3://b'\n[store]\nkms_key = 'x'", "store.kms_key: given without encryption"),
            ("url = 's3://b'\n[store]\nendpoint = 'http://x'", "set allow_http = true"),
            ("url = 's3://b'\n[store]\nendpoint = 'minio'", "store.endpoint: not an address"),
            ("url = 's3://b'\n[store]\nretry_for = '1 h'", "store.retry_for: out of range"),
            ("url = 's3://b'\n[store]\nencryption = 'none'", "store.encryption: unknown value"),
        ] {
            let problems = problems(toml);
            assert!(problems.contains(said), "{toml}: {problems}");
        }
    }
}
