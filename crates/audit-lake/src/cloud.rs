//! Opens a bucket with `object_store`'s clients, configured as a lake needs them.
//!
//! Settings are read from the environment first, under each cloud's own names of variables, and the configuration
//! overrides them. Neither can change the settings that the lake's guarantees depend on: conditional puts are on, and
//! S3 is sent the SHA-256 of what is written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use audit_config::SecretRef;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{Certificate, ClientOptions, Error, ObjectStore, RetryConfig};
use url::Url;

use crate::error::LakeError;
use crate::place::{Addressing, Bucket, Cloud, Encryption, StoreConfig};

/// Shares HTTP clients between buckets, because each client has its own pool of connections and its own copy of all
/// trusted certificates.
#[derive(Clone, Debug, Default)]
pub struct Connector(Arc<Mutex<HashMap<String, HttpClient>>>);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient, Error> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The options for a store differ from those for a metadata service; there is no other way to compare them.
        match clients.entry(format!("{options:?}")) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(free) => Ok(free.insert(ReqwestConnector::default().connect(options)?).clone()),
        }
    }
}

/// Opens the whole bucket, without sending a request yet.
pub fn open(bucket: &Bucket, config: &StoreConfig, connector: &Connector) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let failed = |source: Error| LakeError::Open { path: bucket.url.to_string(), source: Box::new(source) };
    let client = client(config)?;
    // The deadline ends the attempts; their number is only a limit in case the clock jumps.
    let retry = RetryConfig { max_retries: 1000, retry_timeout: config.retry_for.get(), ..RetryConfig::default() };
    let secret = secret(config.secret_key.as_ref())?;
    Ok(match bucket.cloud {
        Cloud::S3 => {
            let builder = s3(bucket, config, secret).map_err(failed)?.with_client_options(client).with_retry(retry);
            Arc::new(builder.with_http_connector(connector.clone()).build().map_err(failed)?)
        }
        Cloud::Gcs => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_url(bucket.url.as_str());
            if let Some(file) = &config.service_account_file {
                builder = builder.with_service_account_path(file.to_string_lossy());
            }
            if let Some(endpoint) = &config.endpoint {
                builder = builder.with_base_url(endpoint.trim_end_matches('/'));
            }
            let builder = builder.with_client_options(client).with_retry(retry).with_http_connector(connector.clone());
            Arc::new(builder.build().map_err(failed)?)
        }
        Cloud::Azure => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_url(bucket.url.as_str());
            if let Some(account) = &config.account {
                builder = builder.with_account(account);
            }
            if let Some(key) = secret {
                builder = builder.with_access_key(key);
            }
            if let Some(endpoint) = &config.endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            let builder = builder.with_client_options(client).with_retry(retry).with_http_connector(connector.clone());
            Arc::new(builder.build().map_err(failed)?)
        }
    })
}

fn s3(bucket: &Bucket, config: &StoreConfig, secret: Option<String>) -> Result<AmazonS3Builder, Error> {
    let mut builder = AmazonS3Builder::from_env()
        .with_url(bucket.url.as_str())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_checksum_algorithm(Checksum::SHA256);
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    let virtual_host = config.addressing == Addressing::VirtualHost;
    builder = builder.with_virtual_hosted_style_request(virtual_host);
    if let Some(endpoint) = &config.endpoint {
        let host = bucket.url.host_str().filter(|_| virtual_host);
        let endpoint = host.map_or_else(|| endpoint.clone(), |bucket| before_host(endpoint, bucket));
        // This is the key of `AWS_ENDPOINT_URL_S3`, which overrides the one that `with_endpoint` sets.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(id) = &config.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(key) = secret {
        builder = builder.with_secret_access_key(key);
    }
    if let Some(encryption) = config.encryption {
        let name = match encryption {
            Encryption::SseS3 => "AES256",
            Encryption::SseKms => "aws:kms",
        };
        builder = builder.with_config("aws_server_side_encryption".parse()?, name);
    }
    if let Some(key) = &config.kms_key {
        builder = builder.with_config("aws_sse_kms_key_id".parse()?, key);
    }
    Ok(builder)
}

/// Turns `https://host` into `https://bucket.host`, which the client expects as the endpoint in this style.
fn before_host(endpoint: &str, bucket: &str) -> String {
    let with = |mut url: Url| {
        let host = format!("{bucket}.{}", url.host_str()?);
        url.set_host(Some(&host)).ok()?;
        Some(url.as_str().trim_end_matches('/').to_string())
    };
    Url::parse(endpoint).ok().and_then(with).unwrap_or_else(|| endpoint.to_string())
}

fn client(config: &StoreConfig) -> Result<ClientOptions, LakeError> {
    let mut client = ClientOptions::new().with_allow_http(config.allow_http).with_timeout(config.request_timeout.get());
    if let Some(file) = &config.ca_file {
        let path = file.display().to_string();
        let pem = std::fs::read(file).map_err(|error| LakeError::Open { path: path.clone(), source: error.into() })?;
        let certificates = Certificate::from_pem_bundle(&pem);
        for certificate in certificates.map_err(|error| LakeError::Open { path, source: error.into() })? {
            client = client.with_root_certificate(certificate);
        }
    }
    Ok(client)
}

fn secret(key: Option<&SecretRef>) -> Result<Option<String>, LakeError> {
    let resolved = key.map(SecretRef::resolve).transpose().map_err(|source| LakeError::Secret { source })?;
    Ok(resolved.map(|secret| secret.expose().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_host_names_the_bucket() {
        assert_eq!(before_host("https://minio.internal:9000", "acme"), "https://acme.minio.internal:9000");
        assert_eq!(
            before_host("https://s3.eu-central-1.amazonaws.com/", "acme"),
            "https://acme.s3.eu-central-1.amazonaws.com"
        );
    }
}
