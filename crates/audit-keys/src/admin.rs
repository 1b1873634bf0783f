//! What people do with keys ([`KeyAdmin`]): under a role that owns the key store, unlike the daemon's.

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

/// The keys of one source, for who looks after them.
#[derive(Debug)]
pub struct KeyAdmin {
    source: String,
    classes: BTreeMap<String, Class>,
    store: KeyStore,
}

/// What came of wrapping keys anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrapped {
    pub done: u64,
    /// Somebody else wrapped or destroyed them at the same moment.
    pub passed: u64,
}

/// What came of erasing a data subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Keys that existed, and do no more.
    pub destroyed: usize,
    /// No key was known: perhaps the id is another's. What comes of it is stored as erased from now on.
    pub unknown: bool,
}

/// The subject with this id, in the class whose key for subjects this is.
fn subject(under: &KeyId, wrapping: &SecretKey, id: &str) -> Result<SubjectId, KeyError> {
    let subjects = Subjects::new(wrapping).ok_or_else(|| KeyError::Damaged { key: under.clone() })?;
    Ok(subjects.find(id.as_bytes()))
}

impl KeyAdmin {
    /// Reads certificates; connects to nothing. `store` is the key store's database, with a role that owns it.
    pub fn new(source: &str, configs: &BTreeMap<String, KeyClass>, store: PgEndpoint) -> Result<KeyAdmin, KeyError> {
        let store = KeyStore::new(store, "cdc-audit keys");
        Ok(KeyAdmin { source: source.to_owned(), classes: Class::all(configs)?, store })
    }

    /// All keys but those of data subjects, oldest first.
    pub async fn list(&self) -> Result<Vec<StoredKey>, KeyError> {
        self.store.list(&self.source).await
    }

    /// The next keys of data subjects behind `after`, in an order of their own; none at the end.
    pub async fn subjects(&self, after: Option<&KeyId>) -> Result<Vec<StoredSubject>, KeyError> {
        self.store.page_of_subjects(&self.source, after).await
    }

    /// Retires a class's data keys: running daemons make new ones at their next look. How many those were.
    pub async fn rotate(&self, class: &str) -> Result<u64, KeyError> {
        self.class(class)?;
        self.store.retire(&self.source, class).await
    }

    /// Wraps all keys of a class anew, under the newest version of its master key. Values stay as they are, and so do the keys of data
    /// subjects: what wraps those is wrapped anew itself.
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

    /// Destroys a key, and with it whatever is encrypted under it. `false` where there is none, or not any more.
    pub async fn destroy(&self, key: &KeyId, by: &Access) -> Result<bool, KeyError> {
        self.store.destroy(key, by).await
    }

    /// The keys that are known of a data subject, oldest first.
    pub async fn generations(&self, class: &str, id: &str) -> Result<Vec<Generation>, KeyError> {
        let (under, wrapping) = self.subjects_key(class).await?;
        self.store.generations(&self.source, class, &subject(&under, &wrapping, id)?).await
    }

    /// Destroys the keys of a data subject. Whatever comes of that subject later is stored as erased; with `renew`, under a new key.
    pub async fn destroy_subject(&self, class: &str, id: &str, renew: bool, by: &Access) -> Result<Erased, KeyError> {
        let (under, wrapping) = self.subjects_key(class).await?;
        let subject = subject(&under, &wrapping, id)?;
        let known = self.store.subjects(&self.source, class, &[subject]).await?;
        let last = known.first().map_or(0, |stored| stored.generation);
        let make = |generation| new_subject(&self.source, class, subject, generation, (&under, &wrapping));
        // Also where no value of this subject was ever seen: none is to be kept from here on.
        let tombstone = if last == 0 { Some(make(1)?) } else { None };
        if let Some(tombstone) = &tombstone {
            self.store.add_subjects(std::slice::from_ref(tombstone)).await?;
        }
        let gone = self.store.destroy_subject(&self.source, class, &subject, by).await?;
        if renew {
            self.store.add_subjects(&[make(last.max(1) + 1)?]).await?;
        }
        // A daemon may have made the first key at the same moment: then that one is there, and is destroyed.
        let is_tombstone = |key: &&KeyId| tombstone.as_ref().is_some_and(|made| made.key == **key);
        let tombstones = gone.iter().filter(is_tombstone).count();
        Ok(Erased { destroyed: gone.len() - tombstones, unknown: tombstones > 0 })
    }

    /// Removes what destroyed keys of this kind left in the key store's own file. See [`KeyStore::rewrite`].
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
