//! Encrypts every protected value on its way to the sinks: [`Sealer`].

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use zeroize::Zeroize as _;

use crate::form::{self, Method, RUN, VERSION, nonce};
use crate::key::{KeyId, SecretKey, fill};
use crate::subject::{ERASED, Known, Ready, SubjectId, Subjects};
use crate::token::Tokens;

/// A class of keys, as its index in this [`Sealer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassId(usize);

/// A key that is missing, so that a value cannot be encrypted. The caller obtains it, installs it, and tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    Data(ClassId),
    Tokens(ClassId),
    Subjects(ClassId),
    Subject(ClassId, SubjectId),
}

/// The reason why a value was not encrypted. Nothing was appended to the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("a key is not at hand")]
    Wanted(Wanted),
    /// The value is longer than 64 GiB, which no value of PostgreSQL can be.
    #[error("the value is too long to be encrypted")]
    TooLong,
}

/// Limits for the use of a class's keys.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A data key encrypts nothing after this time.
    pub rotate_after: Duration,
    /// A data key encrypts no more values than this.
    pub rotate_count: u64,
    /// Maximum number of subjects' keys in memory.
    pub subjects_max: NonZeroUsize,
    /// A subject's key, or the note that it was destroyed, is fetched again after this time.
    pub subject_for: Duration,
}

/// Encrypts the values of one run. Another task brings new keys through the `install` functions. Each class has a lock,
/// so that a key can be replaced while values are encrypted; the other task holds it only for that moment.
pub struct Sealer {
    source: String,
    run: [u8; RUN],
    /// The next nonce.
    counter: AtomicU64,
    classes: Vec<(String, Mutex<Class>)>,
}

struct Class {
    limits: Limits,
    data: Option<Data>,
    tokens: Option<Tokens>,
    subjects: Option<Known>,
    scratch: Vec<u8>,
}

struct Data {
    id: KeyId,
    gcm: LessSafeKey,
    left: u64,
    until: Instant,
}

pub(crate) const GCM_INFO: &[u8] = b"cdc-audit aes256gcm 1";

/// The next data key is made when only a quarter of the current key's life is left, so that a key service may be
/// unavailable for that long.
const AHEAD: u32 = 4;

/// A buffer larger than this, in bytes, is freed after its value.
const SCRATCH_KEPT: usize = 1 << 16;

impl Sealer {
    /// Begins a new run without any key. Make only one in each process: the [crate](crate) says why nonces need that.
    pub fn new(source: &str, classes: impl IntoIterator<Item = (String, Limits)>) -> Sealer {
        let mut run = [0; RUN];
        fill(&mut run);
        let class = |limits| Class { limits, data: None, tokens: None, subjects: None, scratch: Vec::new() };
        let classes = classes.into_iter().map(|(name, limits)| (name, Mutex::new(class(limits)))).collect();
        Sealer { source: source.to_owned(), run, counter: AtomicU64::new(0), classes }
    }

    /// The configured name of the source whose values these are.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns the class with this name.
    pub fn class(&self, name: &str) -> Option<ClassId> {
        self.classes.iter().position(|(known, _)| known == name).map(ClassId)
    }

    pub fn name(&self, class: ClassId) -> &str {
        self.classes.get(class.0).map_or("", |(name, _)| name)
    }

    /// Appends `aes256gcm:<key id>:<base64>` of a value to `out`.
    ///
    /// # Errors
    /// Fails with [`Failure`] if the class has no usable data key or the value is too long.
    pub fn encrypt(&self, class: ClassId, aad: &[u8], plain: &[u8], out: &mut String) -> Result<(), Failure> {
        let wanted = Failure::Wanted(Wanted::Data(class));
        let Class { data, scratch, .. } = &mut *self.lock(class).ok_or(wanted)?;
        let data = data.as_mut().filter(|data| data.left > 0 && Instant::now() < data.until).ok_or(wanted)?;
        data.left -= 1;
        self.seal(&data.id, &data.gcm, scratch, (aad, plain), out)
    }

    /// Returns the subject with this id.
    ///
    /// # Errors
    /// Fails with [`Failure::Wanted`] if the key that finds the class's subjects is not installed.
    pub fn subject(&self, class: ClassId, id: &[u8]) -> Result<SubjectId, Failure> {
        let wanted = Failure::Wanted(Wanted::Subjects(class));
        let mut class = self.lock(class).ok_or(wanted)?;
        Ok(class.subjects.as_mut().ok_or(wanted)?.find(id))
    }

    /// Returns the key that must be installed before values of the subject with this id can be encrypted.
    pub fn lacks(&self, class: ClassId, id: &[u8]) -> Option<Wanted> {
        let mut locked = self.lock(class)?;
        let Some(known) = locked.subjects.as_mut() else { return Some(Wanted::Subjects(class)) };
        let subject = known.find(id);
        known.get(&subject).is_none().then_some(Wanted::Subject(class, subject))
    }

    /// Maximum number of subjects' keys that are kept in memory.
    pub fn subjects_max(&self, class: ClassId) -> usize {
        self.lock(class).map_or(1, |class| class.limits.subjects_max.get())
    }

    /// Encrypts like [`Sealer::encrypt`], but under the subject's own key. Appends [`ERASED`] if the key was destroyed.
    ///
    /// # Errors
    /// Fails with [`Failure`] if the subject's key is not installed or the value is too long.
    pub fn encrypt_for(
        &self,
        class: ClassId,
        subject: &SubjectId,
        aad: &[u8],
        plain: &[u8],
        out: &mut String,
    ) -> Result<(), Failure> {
        let wanted = Failure::Wanted(Wanted::Subject(class, *subject));
        let Class { subjects, scratch, .. } = &mut *self.lock(class).ok_or(wanted)?;
        match subjects.as_mut().and_then(|known| known.get(subject)).ok_or(wanted)? {
            Ready::Key(id, gcm) => self.seal(id, gcm, scratch, (aad, plain), out),
            Ready::Destroyed => {
                out.push_str(ERASED);
                Ok(())
            }
        }
    }

    /// Appends `aes-siv:<key id>:<base64url>` of a value to `out`: the same text for the same value, class and domain.
    ///
    /// # Errors
    /// Fails with [`Failure`] if the class's token key is not installed or the value is too long.
    pub fn token(&self, class: ClassId, domain: &[u8], plain: &[u8], out: &mut String) -> Result<(), Failure> {
        let wanted = Failure::Wanted(Wanted::Tokens(class));
        let Class { tokens, scratch, .. } = &mut *self.lock(class).ok_or(wanted)?;
        let written = tokens.as_mut().ok_or(wanted)?.write(domain, plain, scratch, out);
        give_back(scratch);
        written.ok_or(Failure::TooLong)
    }

    /// Lists the classes that need a new data key: the current key was used and is in the last quarter of its time or
    /// count.
    pub fn due(&self) -> Vec<Wanted> {
        let now = Instant::now();
        let due = |(index, (_, class)): (usize, &(String, Mutex<Class>))| {
            let class = class.lock().unwrap_or_else(PoisonError::into_inner);
            let data = class.data.as_ref()?;
            let late = now + class.limits.rotate_after / AHEAD >= data.until;
            let few = data.left <= class.limits.rotate_count / u64::from(AHEAD);
            // A class whose key has not encrypted anything needs no new key yet.
            let used = data.left < class.limits.rotate_count;
            (used && (late || few)).then_some(Wanted::Data(ClassId(index)))
        };
        self.classes.iter().enumerate().filter_map(due).collect()
    }

    /// Lists the current data keys, which values were or may be encrypted under.
    pub fn in_use(&self) -> Vec<(ClassId, KeyId)> {
        let key = |(index, (_, class)): (usize, &(String, Mutex<Class>))| {
            let class = class.lock().unwrap_or_else(PoisonError::into_inner);
            class.data.as_ref().map(|data| (ClassId(index), data.id.clone()))
        };
        self.classes.iter().enumerate().filter_map(key).collect()
    }

    /// Encrypts the values of this class under this key from now on. It must already be stored in wrapped form.
    pub fn install_data(&self, class: ClassId, id: KeyId, key: &SecretKey) {
        let Some(gcm) = key.derive_gcm(&self.run, GCM_INFO) else { return };
        if let Some(mut class) = self.lock(class) {
            let Limits { rotate_after, rotate_count, .. } = class.limits;
            class.data = Some(Data { id, gcm, left: rotate_count, until: Instant::now() + rotate_after });
        }
    }

    /// Installs the token key of this class.
    pub fn install_tokens(&self, class: ClassId, id: KeyId, key: &SecretKey) {
        if let Some(mut class) = self.lock(class) {
            class.tokens = Tokens::new(id, key);
        }
    }

    /// Installs the key that finds the subjects of this class.
    pub fn install_subjects(&self, class: ClassId, key: &SecretKey) {
        if let Some(mut class) = self.lock(class) {
            let most = class.limits.subjects_max;
            class.subjects = Subjects::new(key).map(|index| Known::new(index, most));
        }
    }

    /// Installs a subject's key, which must already be stored. `None` if that key was destroyed.
    pub fn install_subject(&self, class: ClassId, subject: SubjectId, key: Option<(KeyId, &SecretKey)>) {
        let ready = match key {
            None => Ready::Destroyed,
            Some((id, key)) => match key.derive_gcm(&self.run, GCM_INFO) {
                Some(gcm) => Ready::Key(id, gcm),
                None => return,
            },
        };
        if let Some(mut class) = self.lock(class) {
            let until = Instant::now() + class.limits.subject_for;
            if let Some(known) = &mut class.subjects {
                known.put(subject, ready, until);
            }
        }
    }

    /// Locks a class. A class is a cache of keys, which a panic leaves usable, so a poisoned lock is no error.
    fn lock(&self, class: ClassId) -> Option<MutexGuard<'_, Class>> {
        Some(self.classes.get(class.0)?.1.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn seal(
        &self,
        id: &KeyId,
        gcm: &LessSafeKey,
        scratch: &mut Vec<u8>,
        (aad, plain): (&[u8], &[u8]),
        out: &mut String,
    ) -> Result<(), Failure> {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        scratch.clear();
        scratch.push(VERSION);
        scratch.extend_from_slice(&self.run);
        scratch.extend_from_slice(&counter.to_be_bytes());
        let start = scratch.len();
        scratch.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce(counter));
        let Ok(tag) = gcm.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut scratch[start..]) else {
            scratch.zeroize();
            return Err(Failure::TooLong);
        };
        scratch.extend_from_slice(tag.as_ref());
        form::write(Method::Encrypt, id, scratch, out);
        give_back(scratch);
        Ok(())
    }
}

/// Frees a large buffer, so that the memory of one long value is not kept for ever.
fn give_back(scratch: &mut Vec<u8>) {
    if scratch.capacity() > SCRATCH_KEPT {
        *scratch = Vec::new();
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.classes.iter().map(|(name, _)| name)).finish()
    }
}
