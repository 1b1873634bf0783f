//! AWS KMS, by its JSON protocol (`TrentService.Encrypt`, `.Decrypt`). Requests are signed with the signer that
//! `object_store` has for S3, and its credentials are used too.

use std::fmt;

use audit_cipher::SecretKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::{Zeroize as _, Zeroizing};

use super::http::{Http, Meaning, body, text_at};
use super::{Place, Wrapped};
use crate::config::AwsMaster;
use crate::error::KeyError;

/// A symmetric key of AWS KMS.
pub struct AwsKms {
    http: Http,
    key: String,
    region: String,
    url: String,
    credentials: AwsCredentialProvider,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypted {
    ciphertext_blob: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted {
    plaintext: String,
}

impl AwsKms {
    pub(super) fn new(config: &AwsMaster) -> Result<AwsKms, KeyError> {
        let http = Http::new(format!("aws_kms {}", config.key), &config.connection)?;
        let service = || http.name.clone();
        let no_region = || KeyError::Credentials { service: service(), source: "no region is configured".into() };
        let region = region(config).ok_or_else(no_region)?;
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        let public = || format!("https://kms.{region}.amazonaws.com{suffix}/");
        let url = config.endpoint.clone().unwrap_or_else(public);
        // The bucket is never read: the library only gives access to its credentials through a store.
        let mut builder = AmazonS3Builder::from_env().with_bucket_name("unused").with_region(&region);
        if let (Some(id), Some(secret)) = (&config.access_key_id, &config.secret_key) {
            let secret = secret.resolve().map_err(|source| KeyError::Secret { service: service(), source })?;
            builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose().trim());
        }
        let store = builder.build();
        let store = store.map_err(|source| KeyError::Credentials { service: service(), source: source.into() })?;
        Ok(AwsKms { credentials: store.credentials().clone(), http, key: config.key.clone(), region, url })
    }

    pub(super) fn name(&self) -> &str {
        &self.http.name
    }

    pub(super) async fn wrap(&self, key: &SecretKey, place: &Place<'_>) -> Result<Wrapped, KeyError> {
        let plain = Zeroizing::new(STANDARD.encode(key.expose()));
        let body = json!({"KeyId": self.key, "Plaintext": plain.as_str(), "EncryptionContext": context(place)});
        let Encrypted { ciphertext_blob: text } = self.ask("Encrypt", body).await?;
        Ok(Wrapped { master: self.http.name.clone(), text })
    }

    pub(super) async fn unwrap(&self, wrapped: &Wrapped, place: &Place<'_>) -> Result<SecretKey, KeyError> {
        let sound = STANDARD.decode(&wrapped.text).is_ok_and(|bytes| !bytes.is_empty());
        if !sound {
            return Err(self.http.error(Meaning::Refused, 0, "not base64"));
        }
        // With the key's name, the service refuses a ciphertext that another key wrapped.
        let body = json!({"KeyId": self.key, "CiphertextBlob": wrapped.text, "EncryptionContext": context(place)});
        let Decrypted { mut plaintext } = self.ask("Decrypt", body).await?;
        let key = STANDARD.decode(&plaintext).map(Zeroizing::new);
        plaintext.zeroize();
        key.ok().and_then(|key| SecretKey::from_slice(&key)).ok_or_else(|| self.http.nonsense("no key"))
    }

    async fn ask<T: DeserializeOwned>(&self, operation: &str, content: Value) -> Result<T, KeyError> {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| KeyError::Credentials {
            service: self.http.name.clone(),
            source,
        };
        let credential = self.credentials.get_credential().await.map_err(|error| unusable(error.into()))?;
        let content = Bytes::from(body(&content));
        let request = self.http.post(&self.url).header("content-type", "application/x-amz-json-1.1");
        let request = request.header("x-amz-target", format!("TrentService.{operation}")).build();
        let request = request.map_err(|_| self.http.nonsense("not an address"))?;
        let mut signed = HttpRequest::new(HttpRequestBody::from(content.clone()));
        *signed.method_mut() = request.method().clone();
        *signed.uri_mut() = request.url().as_str().parse().map_err(|_| self.http.nonsense("not an address"))?;
        *signed.headers_mut() = request.headers().clone();
        AwsAuthorizer::new(&credential, "kms", &self.region).authorize(&mut signed, None);
        let request = self.http.post(&self.url).headers(signed.headers().clone()).body(content);
        self.http.ask(request, code, judge).await
    }
}

impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwsKms({})", self.key)
    }
}

fn context(place: &Place<'_>) -> Value {
    place.pairs().into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

/// Returns the error's code. Of `com.amazonaws.kms#NotFoundException` only the end is the same everywhere.
fn code(answer: &Value) -> Option<String> {
    let code = text_at(answer, "/__type")?;
    Some(code.rsplit('#').next().unwrap_or_default().to_owned())
}

/// Decides by the errors that the API reference of Encrypt and Decrypt lists.
fn judge(_: u16, code: &str) -> Option<Meaning> {
    Some(match code {
        "DisabledException" | "KMSInvalidStateException" | "KeyUnavailableException" => Meaning::Disabled,
        "NotFoundException" | "InvalidArnException" | "InvalidKeyUsageException" => Meaning::NoMaster,
        "InvalidCiphertextException" | "IncorrectKeyException" => Meaning::Refused,
        "ThrottlingException" | "LimitExceededException" | "DependencyTimeoutException" | "KMSInternalException" => {
            Meaning::Unwell
        }
        // These come with status 400.
        code if code.starts_with("AccessDenied")
            || code.contains("Token")
            || code.contains("Signature")
            || code.contains("Client") =>
        {
            Meaning::Denied
        }
        _ => return None,
    })
}

fn region(config: &AwsMaster) -> Option<String> {
    let arn = || {
        let mut parts = config.key.split(':');
        (parts.next() == Some("arn")).then(|| parts.nth(2)).flatten().map(str::to_owned)
    };
    let variable = |name| std::env::var(name).ok().filter(|region| !region.is_empty());
    let environment = || variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
    config.region.clone().or_else(arn).or_else(environment)
}
