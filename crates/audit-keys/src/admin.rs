//! The operations of administrators on keys ([`KeyAdmin`]). Their role owns the key store, unlike the daemon's.

use std::collections::BTreeMap;

use audit_cipher::{KeyId, Kind, SecretKey, SubjectId, Subjects};
use audit_connect::PgEndpoint;

use crate::access::Access;
use crate::class::Class;
use crate::config::KeyClass;
use crate::error::KeyError;
use crate::keyring::new_subject;
use crate::master::Place;
use crate::store::{Generation, KeyStore, StoredKey, StoredSubject};

/// The keys of one source, for administrators.
#[derive(Debug)]
pub struct KeyAdmin {
    source: String,
    classes: BTreeMap<String, Class>,
    store: KeyStore,
}

/// The result of wrapping keys again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrapped {
    pub done: u64,
    /// Number of keys that another session wrapped or destroyed at the same moment.
    pub passed: u64,
}

/// The result of erasing a data subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Number of keys that existed and were destroyed.
    pub destroyed: usize,
    /// True if no key was known, perhaps because the id is wrong. New values of this id are stored as erased.
    pub unknown: bool,
}

/// Returns the subject with this id in the class to which this key for subjects belongs.
fn subject(under: &KeyId, wrapping: &SecretKey, id: &str) -> Result<SubjectId, KeyError> {
    let subjects = Subjects::new(wrapping).ok_or_else(|| KeyError::Damaged { key: under.clone() })?;
    Ok(subjects.find(id.as_bytes()))
}

impl KeyAdmin {
    /// Reads certificates; connects to nothing. `store` is the key store's database, with a role that owns it.
    ///
    /// # Errors
    /// Fails if a class's master key is configured wrongly or its certificates cannot be read.
    pub fn new(source: &str, configs: &BTreeMap<String, KeyClass>, store: PgEndpoint) -> Result<KeyAdmin, KeyError> {
        let store = KeyStore::new(store, "cdc-audit keys");
        Ok(KeyAdmin { source: source.to_owned(), classes: Class::all(configs)?, store })
    }

    /// Lists all keys except those of data subjects, oldest first.
    ///
    /// # Errors
    /// Fails if the key store cannot be read.
    pub async fn list(&self) -> Result<Vec<StoredKey>, KeyError> {
        self.store.list(&self.source).await
    }

    /// Lists the next keys of data subjects after `after`, in the order of the keys' names. An empty list is the end.
    ///
    /// # Errors
    /// Fails if the key store cannot be read.
    pub async fn subjects(&self, after: Option<&KeyId>) -> Result<Vec<StoredSubject>, KeyError> {
        self.store.page_of_subjects(&self.source, after).await
    }

    /// Retires a class's data keys and returns their number. Running daemons make new ones at their next check.
    ///
    /// # Errors
    /// Fails if the class is not configured or the key store cannot be changed.
    pub async fn rotate(&self, class: &str) -> Result<u64, KeyError> {
        self.class(class)?;
        self.store.retire(&self.source, class).await
    }

    /// Wraps all keys of a class again, under the newest version of its master key. Values stay as they are, and so do
    /// the keys of data subjects: only the key that wraps those is wrapped again.
    ///
    /// # Errors
    /// Fails if a key service or the key store refuses; keys that were done before stay so.
    pub async fn rewrap(&self, class: &str) -> Result<Rewrapped, KeyError> {
        let keys = self.class(class)?;
        let mut result = Rewrapped::default();
        for stored in self.list().await? {
            if stored.class != class || stored.destroyed_at.is_some() {
                continue;
            }
            let place = Place { source: &self.source, class, kind: stored.kind, key: &stored.key };
            let key = keys.unwrap(&stored.wrapped()?, &place).await?;
            let wrapped = keys.master.wrap(&key, &place).await?;
            match self.store.rewrap(&stored, &wrapped).await? {
                true => result.done += 1,
                false => result.passed += 1,
            }
        }
        Ok(result)
    }

    /// Destroys a key, and with it everything that is encrypted under it. Returns `false` if there is no such key, or
    /// it was already destroyed.
    ///
    /// # Errors
    /// Fails if the key store cannot be changed.
    pub async fn destroy(&self, key: &KeyId, by: &Access) -> Result<bool, KeyError> {
        self.store.destroy(key, by).await
    }

    /// Lists the known keys of a data subject, oldest first.
    ///
    /// # Errors
    /// Fails if the class has no keys of data subjects, or a key service or the key store refuses.
    pub async fn generations(&self, class: &str, id: &str) -> Result<Vec<Generation>, KeyError> {
        let (under, wrapping) = self.subjects_key(class).await?;
        self.store.generations(&self.source, class, &subject(&under, &wrapping, id)?).await
    }

    /// Destroys the keys of a data subject. Later values of that subject are stored as erased or, with `renew`, under a
    /// new key.
    ///
    /// # Errors
    /// Fails if the class has no keys of data subjects, or a key service or the key store refuses.
    pub async fn destroy_subject(&self, class: &str, id: &str, renew: bool, by: &Access) -> Result<Erased, KeyError> {
        let (under, wrapping) = self.subjects_key(class).await?;
        let subject = subject(&under, &wrapping, id)?;
        let known = self.store.subjects(&self.source, class, &[subject]).await?;
        let last = known.first().map_or(0, |stored| stored.generation);
        let make = |generation| new_subject(&self.source, class, subject, generation, (&under, &wrapping));
        // Also if no value of this subject was ever seen, because none may be kept from now on.
        let tombstone = if last == 0 { Some(make(1)?) } else { None };
        if let Some(tombstone) = &tombstone {
            self.store.add_subjects(std::slice::from_ref(tombstone)).await?;
        }
        let gone = self.store.destroy_subject(&self.source, class, &subject, by).await?;
        if renew {
            self.store.add_subjects(&[make(last.max(1) + 1)?]).await?;
        }
        // A daemon may have made the first key at the same moment: then that key is stored, and is destroyed.
        let is_tombstone = |key: &&KeyId| tombstone.as_ref().is_some_and(|made| made.key == **key);
        let tombstones = gone.iter().filter(is_tombstone).count();
        Ok(Erased { destroyed: gone.len() - tombstones, unknown: tombstones > 0 })
    }

    /// Removes the remains of destroyed keys of this kind from the key store's own file, as [`KeyStore::rewrite`] says.
    ///
    /// # Errors
    /// Fails if an older transaction does not end in time or the table cannot be rewritten.
    pub async fn rewrite(&self, kind: Kind) -> Result<(), KeyError> {
        self.store.rewrite(kind).await
    }

    async fn subjects_key(&self, class: &str) -> Result<(KeyId, SecretKey), KeyError> {
        let keys = self.class(class)?;
        let stored = self.store.lasting(&self.source, class, Kind::Subjects).await?;
        let stored = stored.ok_or_else(|| KeyError::NoSubjects { class: class.to_owned() })?;
        let place = Place { source: &self.source, class, kind: stored.kind, key: &stored.key };
        let key = keys.unwrap(&stored.wrapped()?, &place).await?;
        Ok((stored.key, key))
    }

    fn class(&self, name: &str) -> Result<&Class, KeyError> {
        self.classes.get(name).ok_or_else(|| KeyError::NoClass { class: name.to_owned() })
    }
}
