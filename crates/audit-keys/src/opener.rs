//! Opens stored values again, for anyone who may unwrap their keys ([`Opener`]).

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use audit_cipher::{Form, KeyId, Kind, Method, SecretKey, Unopened, open, open_token};
use audit_connect::PgEndpoint;
use lru::LruCache;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::class::Class;
use crate::config::KeyClass;
use crate::error::{KeyError, OpenError};
use crate::keyring::unwrap_subject;
use crate::master::Place;
use crate::store::KeyStore;

/// Opens values, only through [`Opener::reveal`], which logs them. Unwrapped keys are kept for a limited time and in a
/// limited number.
#[derive(Debug)]
pub struct Opener {
    classes: BTreeMap<String, Class>,
    store: KeyStore,
    unwrapped: Mutex<LruCache<KeyId, (SecretKey, Instant)>>,
}

/// Maximum number of unwrapped keys that are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// Time for which they are kept. A destroyed key or a revoked right takes effect after it at the latest.
const KEPT_FOR: Duration = Duration::from_secs(300);

impl Opener {
    /// Reads certificates; connects to nothing.
    ///
    /// # Errors
    /// Fails if a class's master key is configured wrongly or its certificates cannot be read.
    pub fn new(
        configs: &BTreeMap<String, KeyClass>,
        store: PgEndpoint,
        application_name: &str,
    ) -> Result<Opener, KeyError> {
        let store = KeyStore::new(store, application_name);
        Ok(Opener { classes: Class::all(configs)?, store, unwrapped: Mutex::new(LruCache::new(KEPT)) })
    }

    /// Opens a ciphertext that was made in one of these contexts.
    pub(crate) async fn open(&self, text: &str, aads: &[Vec<u8>]) -> Result<Zeroizing<String>, OpenError> {
        let form = Form::parse(text)?;
        let key = self.key(&form.key).await?;
        Ok(aads.iter().find_map(|aad| open(&form, &key, aad).ok()).ok_or(Unopened)?)
    }

    /// Opens a token that was made for one of these domains.
    pub(crate) async fn open_token(&self, text: &str, domains: &[Vec<u8>]) -> Result<Zeroizing<String>, OpenError> {
        let form = Form::parse(text)?;
        let key = self.key(&form.key).await?;
        Ok(domains.iter().find_map(|domain| open_token(&form, &key, domain).ok()).ok_or(Unopened)?)
    }

    /// Returns the method by which a text claims to be protected, and the key that it names.
    ///
    /// # Errors
    /// Fails if the text is not a protected value.
    pub fn form(text: &str) -> Result<(Method, KeyId), OpenError> {
        let form = Form::parse(text)?;
        Ok((form.method, form.key))
    }

    /// Tells whether the session's role may add keys like the daemon's, and not only read.
    ///
    /// # Errors
    /// Fails if the key store cannot be read.
    pub async fn may_add_keys(&self) -> Result<bool, KeyError> {
        self.store.may_add().await
    }

    pub(crate) fn store(&self) -> &KeyStore {
        &self.store
    }

    pub(crate) async fn key(&self, id: &KeyId) -> Result<SecretKey, KeyError> {
        let kept = self
            .unwrapped
            .lock()
            .await
            .get(id)
            .filter(|(_, until)| Instant::now() < *until)
            .map(|(key, _)| key.clone());
        if let Some(key) = kept {
            return Ok(key);
        }
        let key = match id.kind() {
            Kind::Subject => {
                let stored = self.store.subject_key(id).await?;
                // Check this first, so that no key service is asked about a destroyed key.
                if stored.wrapped.is_none() {
                    return Err(KeyError::Destroyed { key: id.clone() });
                }
                let wrapping = Box::pin(self.key(&stored.under)).await?;
                unwrap_subject(&stored, &wrapping)?.ok_or_else(|| KeyError::Destroyed { key: id.clone() })?
            }
            _ => {
                let stored = self.store.key(id).await?;
                let class = self.classes.get(&stored.class);
                let class = class.ok_or_else(|| KeyError::NoClass { class: stored.class.clone() })?;
                let place = Place { source: &stored.source, class: &stored.class, kind: stored.kind, key: id };
                class.unwrap(&stored.wrapped()?, &place).await?
            }
        };
        self.unwrapped.lock().await.put(id.clone(), (key.clone(), Instant::now() + KEPT_FOR));
        Ok(key)
    }
}
