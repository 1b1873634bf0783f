//! Keys of data subjects: destroying a subject's key makes all values of that person unreadable.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Instant;

use aws_lc_rs::aead::LessSafeKey;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use lru::LruCache;
use zeroize::Zeroizing;

use crate::key::{KeyId, SecretKey};

/// The text stored in place of a value whose subject's key was destroyed.
pub const ERASED: &str = "[ERASED]";

/// A data subject as the key store knows it: an HMAC of the id that the application gave, which reveals nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectId(pub [u8; 32]);

impl fmt::Debug for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectId({}…)", hex::encode(&self.0[..4]))
    }
}

/// The key with which a class finds its subjects, derived from its key of [`Kind::Subjects`](crate::Kind::Subjects).
#[derive(Clone)]
pub struct Subjects(hmac::Key);

const INDEX_INFO: &[u8] = b"cdc-audit subject index 1";

impl Subjects {
    /// Derives the index key. `None` only if the library fails.
    pub fn new(key: &SecretKey) -> Option<Subjects> {
        let mut index = Zeroizing::new([0; SecretKey::LEN]);
        key.derive(&[], INDEX_INFO, index.as_mut_slice())?;
        Some(Subjects(hmac::Key::new(HMAC_SHA256, index.as_slice())))
    }

    /// Returns the subject with this id. Blanks at its end do not count, because PostgreSQL sends a `char(n)` with them
    /// and people who name a subject leave them out.
    pub fn find(&self, id: &[u8]) -> SubjectId {
        let id = id.trim_ascii_end();
        let mut found = [0; 32];
        found.copy_from_slice(hmac::sign(&self.0, id).as_ref());
        SubjectId(found)
    }
}

impl fmt::Debug for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subjects")
    }
}

/// A subject's key, ready for use, or the fact that it was destroyed.
pub(crate) enum Ready {
    Key(KeyId, LessSafeKey),
    Destroyed,
}

/// Cache of the subjects seen recently.
pub(crate) struct Known {
    index: Subjects,
    /// The id found last, because the values of a row, and often of the next row, belong to the same person.
    last: Option<(Vec<u8>, SubjectId)>,
    keys: LruCache<SubjectId, (Ready, Instant)>,
}

/// The cache holds at least two subjects, because the old and the new row of a change may belong to two people.
const LEAST: NonZeroUsize = NonZeroUsize::new(2).unwrap();

impl Known {
    pub fn new(index: Subjects, most: NonZeroUsize) -> Known {
        Known { index, last: None, keys: LruCache::new(most.max(LEAST)) }
    }

    /// Returns the subject with this id.
    pub fn find(&mut self, id: &[u8]) -> SubjectId {
        match &self.last {
            Some((last, subject)) if last == id => *subject,
            _ => {
                let subject = self.index.find(id);
                self.last = Some((id.to_vec(), subject));
                subject
            }
        }
    }

    /// Returns a subject's key. `None` if it was not seen recently, or must be fetched again.
    pub fn get(&mut self, subject: &SubjectId) -> Option<&Ready> {
        let until = self.keys.peek(subject)?.1;
        if until < Instant::now() {
            self.keys.pop(subject);
            return None;
        }
        self.keys.get(subject).map(|(ready, _)| ready)
    }

    pub fn put(&mut self, subject: SubjectId, ready: Ready, until: Instant) {
        self.keys.put(subject, (ready, until));
    }
}
