//! Opens stored values again, for whoever may unwrap their keys ([`Opener`]).

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

/// Opens values, by [`Opener::reveal`] alone, which logs them. Keys that it unwrapped are kept for a while, and no more than so many.
#[derive(Debug)]
pub struct Opener {
    classes: BTreeMap<String, Class>,
    store: KeyStore,
    unwrapped: Mutex<LruCache<KeyId, (SecretKey, Instant)>>,
}

/// Unwrapped keys that are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// For how long. A key that is destroyed, and a right that is taken away, counts after it.
const KEPT_FOR: Duration = Duration::from_secs(300);

impl Opener {
    /// Reads certificates; connects to nothing.
    pub fn new(
        configs: &BTreeMap<String, KeyClass>,
        store: PgEndpoint,
        application_name: &str,
    ) -> Result<Opener, KeyError> {
        let store = KeyStore::new(store, application_name);
        Ok(Opener { classes: Class::all(configs)?, store, unwrapped: Mutex::new(LruCache::new(KEPT)) })
    }

    /// Opens a ciphertext, in whichever of these contexts it was made.
    pub(crate) async fn open(&self, text: &str, aads: &[Vec<u8>]) -> Result<Zeroizing<String>, OpenError> {
        let form = Form::parse(text)?;
        let key = self.key(&form.key).await?;
        Ok(aads.iter().find_map(|aad| open(&form, &key, aad).ok()).ok_or(Unopened)?)
    }

    /// Opens a token, in whichever of these domains it was made for.
    pub(crate) async fn open_token(&self, text: &str, domains: &[Vec<u8>]) -> Result<Zeroizing<String>, OpenError> {
        let form = Form::parse(text)?;
        let key = self.key(&form.key).await?;
        Ok(domains.iter().find_map(|domain| open_token(&form, &key, domain).ok()).ok_or(Unopened)?)
    }

    /// How a text claims to be protected, and the key that it names.
    pub fn form(text: &str) -> Result<(Method, KeyId), OpenError> {
        let form = Form::parse(text)?;
        Ok((form.method, form.key))
    }

    /// Whether the session's role may do what the daemon's does, and not only read.
    pub async fn may_add_keys(&self) -> Result<bool, KeyError> {
        self.store.may_add().await
    }

    pub(crate) fn store(&self) -> &KeyStore {
        &self.store
    }

    async fn key(&self, id: &KeyId) -> Result<SecretKey, KeyError> {
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
                // First, so that a key which was destroyed is no question for a key service.
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
