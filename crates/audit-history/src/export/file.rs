//! The file that an export writes ([`Hashed`]), and how it may be compressed.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    Gzip,
    Zstd,
}

/// A file of which the digest is taken while it is written.
pub struct Hashed {
    pub out: Out,
    pub digest: Sha256,
    pub bytes: u64,
}

/// Where its bytes go.
pub enum Out {
    File(BufWriter<File>),
    /// From here they are taken and uploaded.
    Pending(Pending),
}

/// Bytes that were not uploaded yet.
#[derive(Clone, Default)]
pub struct Pending(Arc<Mutex<Vec<u8>>>);

impl Pending {
    fn add(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }

    /// Takes exactly so many bytes; `None` if there are fewer.
    pub fn take(&self, count: usize) -> Option<Vec<u8>> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = (pending.len() >= count).then(|| pending.split_off(count))?;
        Some(std::mem::replace(&mut *pending, rest))
    }

    pub fn take_all(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Hashed {
    pub fn new(out: Out) -> Hashed {
        Hashed { out, digest: Sha256::new(), bytes: 0 }
    }

    pub fn to_file(file: File) -> Hashed {
        Hashed::new(Out::File(BufWriter::with_capacity(1 << 20, file)))
    }

    /// Waits until a file is on disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        match &self.out {
            Out::File(file) => file.get_ref().sync_all(),
            Out::Pending(_) => Ok(()),
        }
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Out::File(file) => file.write_all(bytes)?,
            Out::Pending(pending) => pending.add(bytes),
        }
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::File(file) => file.flush(),
            Out::Pending(_) => Ok(()),
        }
    }
}
