//! Makes and fetches the keys that a daemon encrypts with ([`Keyring`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use audit_cipher::{ClassId, KeyId, Kind, Limits, Sealer, SecretKey, SubjectId, Wanted, unwrap_key, wrap_key};
use audit_config::Chain;
use audit_connect::PgEndpoint;
use tokio::sync::Mutex;
use tokio::sync::watch;

use crate::class::Class;
use crate::config::KeyClass;
use crate::error::KeyError;
use crate::kept::Kept;
use crate::master::Place;
use crate::store::{KeyStore, StoredKey, StoredSubject};

/// The keys of one source, for a daemon. It encrypts with [`Keyring::sealer`], and gets missing keys from here.
#[derive(Debug)]
pub struct Keyring {
    source: String,
    sealer: Arc<Sealer>,
    classes: BTreeMap<String, Class>,
    store: KeyStore,
    /// The classes' keys for subjects, which wrap new subjects' keys.
    subjects: Mutex<HashMap<ClassId, (KeyId, SecretKey)>>,
    kept: Mutex<Kept>,
    waiting: watch::Sender<Option<Waiting>>,
}

/// A key that cannot be loaded at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub class: String,
    /// The error with its causes, without anything secret.
    pub why: String,
    pub hint: String,
    /// Number of tries so far.
    pub tries: u32,
}

/// A subject's key is used for this long before it is fetched again, so a destroyed key encrypts no new values after
/// it.
const SUBJECT_FOR: Duration = Duration::from_secs(300);

/// First pause between tries to get a key. It doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Pause between two checks for data keys that are about to end.
const LOOK: Duration = Duration::from_secs(15);

/// Number of attempts to find or store a key. A process that is slower than another one finds that one's key at the
/// second attempt.
const LOOKS: u32 = 3;

impl Keyring {
    /// Reads certificates; connects to nothing. `store` is the database of the key store.
    ///
    /// # Errors
    /// Fails if a class's master key is configured wrongly or its certificates cannot be read.
    pub fn new(
        source: &str,
        configs: &BTreeMap<String, KeyClass>,
        store: PgEndpoint,
        application_name: &str,
    ) -> Result<Keyring, KeyError> {
        let limits = |config: &KeyClass| Limits {
            rotate_after: config.rotate_after.get(),
            rotate_count: config.rotate_count,
            subjects_max: NonZeroUsize::new(config.subjects_max as usize).unwrap_or(NonZeroUsize::MIN),
            subject_for: SUBJECT_FOR,
        };
        Ok(Keyring {
            source: source.to_owned(),
            sealer: Arc::new(Sealer::new(source, configs.iter().map(|(name, config)| (name.clone(), limits(config))))),
            classes: Class::all(configs)?,
            store: KeyStore::new(store, application_name),
            subjects: Mutex::default(),
            kept: Mutex::default(),
            waiting: watch::channel(None).0,
        })
    }

    /// Returns the part that encrypts. There is one for each keyring, and there should be only one in each process.
    pub fn sealer(&self) -> &Arc<Sealer> {
        &self.sealer
    }

    /// Returns a channel that tells which key is waited for, for status reports.
    pub fn waiting(&self) -> watch::Receiver<Option<Waiting>> {
        self.waiting.subscribe()
    }

    /// Gets these keys and installs them, however long that takes: before that nothing can be encrypted, and nothing
    /// may be passed on unencrypted.
    pub async fn obtain(&self, wanted: &[Wanted]) {
        let mut pause = PAUSE;
        let mut tries = 0;
        while let Err(error) = self.provide(wanted).await {
            tries += 1;
            let class = wanted.first().map_or_else(String::new, |wanted| self.sealer.name(class_of(wanted)).to_owned());
            let waiting = Waiting { class, why: Chain(&error).to_string(), hint: error.hint(), tries };
            tracing::warn!(class = waiting.class, tries, hint = waiting.hint, "waiting for a key: {}", waiting.why);
            self.waiting.send_replace(Some(waiting));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        if tries > 0 {
            tracing::info!(tries, "the key is there");
            self.waiting.send_replace(None);
        }
    }

    /// Replaces keys in time. It runs until it is dropped. A failure is tried again at the next check; the key in use
    /// is good until its end, and after that [`Keyring::obtain`] waits for a new one.
    pub async fn renew(&self) {
        loop {
            self.renew_once().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stores the keys again that the key store has lost. Otherwise everything that was or will be encrypted under them
    /// would be lost too. If the store does not answer, the next check asks again.
    pub async fn put_back_lost(&self) {
        let mut kept = self.kept.lock().await;
        if kept.is_empty() {
            return;
        }
        let (classes, subjects) = kept.ids();
        let Ok(found) = self.store.found(&classes, &subjects).await else { return };
        let asked: Vec<KeyId> = classes.into_iter().chain(subjects).collect();
        let (keys, subjects) = kept.lost(&asked, &found);
        drop(kept);
        if keys.is_empty() && subjects.is_empty() {
            return;
        }
        match self.put_back(&keys, &subjects).await {
            Ok(()) => tracing::warn!(
                keys = keys.len(),
                subjects = subjects.len(),
                hint = "a backup was restored, or a copy that lagged took over: keys that were destroyed since are there again, destroy them again",
                "the key store went back to an earlier state: keys that it had lost are stored again"
            ),
            Err(error) => tracing::warn!(hint = error.hint(), "keys are missing in the key store: {}", Chain(&error)),
        }
    }

    async fn put_back(&self, keys: &[StoredKey], subjects: &[StoredSubject]) -> Result<(), KeyError> {
        for key in keys {
            if self.store.add(key).await? {
                continue;
            }
            // The class now has another key of this kind, which is used from now on.
            self.kept.lock().await.forget(&key.key);
            if let Some(class) = self.sealer.class(&key.class) {
                self.subjects.lock().await.remove(&class);
                let wanted = if key.kind == Kind::Tokens { Wanted::Tokens(class) } else { Wanted::Subjects(class) };
                self.provide(&[wanted]).await?;
            }
        }
        if subjects.is_empty() {
            return Ok(());
        }
        self.store.add_subjects(subjects).await?;
        let ids: Vec<KeyId> = subjects.iter().map(|subject| subject.key.clone()).collect();
        let there: HashSet<KeyId> = self.store.found(&[], &ids).await?.into_iter().map(|(key, _)| key).collect();
        for subject in subjects.iter().filter(|subject| !there.contains(&subject.key)) {
            // The subject now has another key.
            self.kept.lock().await.forget(&subject.key);
            if let Some(class) = self.sealer.class(&subject.class) {
                self.provide(&[Wanted::Subject(class, subject.subject)]).await?;
            }
        }
        Ok(())
    }

    /// Makes one check of [`Keyring::renew`]: puts back what the store has lost, and replaces data keys that are about
    /// to end or that a person retired or destroyed.
    pub async fn renew_once(&self) {
        self.put_back_lost().await;
        let mut due = self.sealer.due();
        let used = self.sealer.in_use();
        let keys: Vec<KeyId> = used.iter().map(|(_, key)| key.clone()).collect();
        let ended = match keys.is_empty() {
            true => Vec::new(),
            // If the store does not answer, the keys stay in use.
            false => self.store.ended(&keys).await.unwrap_or_default(),
        };
        due.extend(used.iter().filter(|(_, key)| ended.contains(key)).map(|(class, _)| Wanted::Data(*class)));
        due.dedup();
        for wanted in due {
            let class = self.sealer.name(class_of(&wanted));
            match self.provide(&[wanted]).await {
                Ok(()) => tracing::info!(class, "a new data key is in use"),
                Err(error) => tracing::warn!(class, hint = error.hint(), "no new data key yet: {}", Chain(&error)),
            }
        }
    }

    /// Gets these keys and installs them, in one try. A new key is stored in wrapped form before it is installed.
    ///
    /// # Errors
    /// Fails if a key service or the key store refuses or cannot be reached.
    pub async fn provide(&self, wanted: &[Wanted]) -> Result<(), KeyError> {
        let mut subjects: BTreeMap<ClassId, Vec<SubjectId>> = BTreeMap::new();
        for wanted in wanted {
            match *wanted {
                Wanted::Data(class) => {
                    let (id, key) = (KeyId::generate(Kind::Data), SecretKey::generate());
                    if !self.add(class, &id, &key).await? {
                        // Nobody could read values that are encrypted under a key that is not stored.
                        return Err(KeyError::NotStored { key: id });
                    }
                    self.sealer.install_data(class, id, &key);
                }
                Wanted::Tokens(class) => {
                    let (id, key) = self.lasting(class, Kind::Tokens).await?;
                    self.sealer.install_tokens(class, id, &key);
                }
                Wanted::Subjects(class) => drop(self.subjects_key(class).await?),
                Wanted::Subject(class, subject) => subjects.entry(class).or_default().push(subject),
            }
        }
        for (class, wanted) in subjects {
            self.provide_subjects(class, &wanted).await?;
        }
        Ok(())
    }

    /// Stores a key in wrapped form. Returns `false` if there is already a lasting key of its kind.
    async fn add(&self, class: ClassId, id: &KeyId, key: &SecretKey) -> Result<bool, KeyError> {
        let name = self.sealer.name(class);
        let wrapped = self.class(name)?.master.wrap(key, &self.place(name, id)).await?;
        let stored = StoredKey {
            key: id.clone(),
            source: self.source.clone(),
            class: name.to_owned(),
            kind: id.kind(),
            master: wrapped.master,
            text: Some(wrapped.text),
            created_at: String::new(),
            retired_at: None,
            destroyed_at: None,
        };
        let added = self.store.add(&stored).await?;
        if added {
            self.kept.lock().await.key(&stored);
        }
        Ok(added)
    }

    /// Checks for each class whether keys could be made now: its master key wraps a key that is thrown away, and the
    /// key store is read.
    pub async fn probe(&self) -> Vec<(&str, Result<(), KeyError>)> {
        let mut found = Vec::new();
        for (name, class) in &self.classes {
            let id = KeyId::generate(Kind::Data);
            let wrapped = class.master.wrap(&SecretKey::generate(), &self.place(name, &id)).await;
            let stored = match wrapped {
                Ok(_) => self.store.lasting(&self.source, name, Kind::Tokens).await.map(drop),
                Err(error) => Err(error),
            };
            found.push((name.as_str(), stored));
        }
        found
    }

    /// Returns the only key of its kind that the class has: the stored one, or else a new one.
    async fn lasting(&self, class: ClassId, kind: Kind) -> Result<(KeyId, SecretKey), KeyError> {
        let name = self.sealer.name(class);
        let mut made = KeyId::generate(kind);
        for _ in 0..LOOKS {
            if let Some(stored) = self.store.lasting(&self.source, name, kind).await? {
                let key = self.class(name)?.unwrap(&stored.wrapped()?, &self.place(name, &stored.key)).await?;
                self.kept.lock().await.key(&stored);
                return Ok((stored.key, key));
            }
            let key = SecretKey::generate();
            made = KeyId::generate(kind);
            if self.add(class, &made, &key).await? {
                return Ok((made, key));
            }
        }
        Err(KeyError::Damaged { key: made })
    }

    async fn subjects_key(&self, class: ClassId) -> Result<(KeyId, SecretKey), KeyError> {
        let mut known = self.subjects.lock().await;
        if let Some((id, key)) = known.get(&class) {
            return Ok((id.clone(), key.clone()));
        }
        let (id, key) = self.lasting(class, Kind::Subjects).await?;
        self.sealer.install_subjects(class, &key);
        known.insert(class, (id.clone(), key.clone()));
        Ok((id, key))
    }

    /// Fetches the keys of subjects, and makes the missing ones, with one statement for each of the two steps.
    async fn provide_subjects(&self, class: ClassId, wanted: &[SubjectId]) -> Result<(), KeyError> {
        let (under, wrapping) = self.subjects_key(class).await?;
        let name = self.sealer.name(class);
        let mut missing = wanted.to_vec();
        missing.sort_unstable();
        missing.dedup();
        let mut made: HashSet<KeyId> = HashSet::new();
        for _ in 0..LOOKS {
            for stored in self.store.subjects(&self.source, name, &missing).await? {
                let key = unwrap_subject(&stored, &wrapping)?;
                let key = key.as_ref().map(|key| (stored.key.clone(), key));
                self.sealer.install_subject(class, stored.subject, key);
                missing.retain(|subject| *subject != stored.subject);
                if made.contains(&stored.key) {
                    self.kept.lock().await.subject(stored);
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            let make = |subject: &SubjectId| new_subject(&self.source, name, *subject, 1, (&under, &wrapping));
            let new = missing.iter().map(make).collect::<Result<Vec<_>, _>>()?;
            self.store.add_subjects(&new).await?;
            made.extend(new.into_iter().map(|key| key.key));
        }
        Err(KeyError::Damaged { key: under })
    }

    fn place<'a>(&'a self, class: &'a str, key: &'a KeyId) -> Place<'a> {
        Place { source: &self.source, class, kind: key.kind(), key }
    }

    fn class(&self, name: &str) -> Result<&Class, KeyError> {
        self.classes.get(name).ok_or_else(|| KeyError::NoClass { class: name.to_owned() })
    }
}

/// Makes a key for a subject, wrapped by its class's key for subjects.
pub(crate) fn new_subject(
    source: &str,
    class: &str,
    subject: SubjectId,
    generation: i32,
    (under, wrapping): (&KeyId, &SecretKey),
) -> Result<StoredSubject, KeyError> {
    let key = KeyId::generate(Kind::Subject);
    let mut stored = StoredSubject {
        source: source.to_owned(),
        class: class.to_owned(),
        subject,
        generation,
        under: under.clone(),
        wrapped: None,
        key,
    };
    let wrapped = wrap_key(&SecretKey::generate(), wrapping, &subject_context(&stored));
    stored.wrapped = Some(wrapped.map_err(|_| KeyError::Damaged { key: stored.key.clone() })?);
    Ok(stored)
}

/// Unwraps a subject's key. `None` if it was destroyed.
pub(crate) fn unwrap_subject(stored: &StoredSubject, wrapping: &SecretKey) -> Result<Option<SecretKey>, KeyError> {
    let Some(wrapped) = &stored.wrapped else { return Ok(None) };
    let key = unwrap_key(wrapped, wrapping, &subject_context(stored));
    key.map(Some).map_err(|_| KeyError::Damaged { key: stored.key.clone() })
}

/// Writes the context to which a subject's wrapped key is bound.
fn subject_context(stored: &StoredSubject) -> Vec<u8> {
    let StoredSubject { key, source, class, subject, generation, under, .. } = stored;
    let subject: String = subject.0.iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::json!([source, class, subject, generation, key.as_str(), under.as_str()]).to_string().into_bytes()
}

fn class_of(wanted: &Wanted) -> ClassId {
    match *wanted {
        Wanted::Data(class) | Wanted::Tokens(class) | Wanted::Subjects(class) | Wanted::Subject(class, _) => class,
    }
}
