//! Where an export goes ([`Target`]): a folder, or a part of a bucket.
//!
//! In a bucket an object is there as a whole or not at all, and nothing is appended to it. So a file is an object when it
//! is whole, the list of an unfinished export is put anew with each file, and a file that a kill has cut leaves nothing
//! but an upload that the bucket's own rules remove.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_lake::store::Store;
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStoreExt};
use serde::Serialize;

use super::{BEGUN, ExportError, ManifestFile, UNFINISHED};

/// Makes a folder that only the exporting user can read, whatever the umask.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Returns the options for writing a file that only the exporting user can read.
pub(crate) fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.write(true).mode(0o600);
    options
}

/// The place of an export's files.
#[derive(Clone, Debug)]
pub enum Target {
    Folder(PathBuf),
    Bucket(Store),
}

impl Target {
    /// The place as people name it.
    pub fn shown(&self) -> PathBuf {
        match self {
            Target::Folder(folder) => folder.clone(),
            Target::Bucket(store) => store.shown().into(),
        }
    }

    /// A folder inside of it.
    pub fn join(&self, name: &str) -> Target {
        match self {
            Target::Folder(folder) => Target::Folder(folder.join(name)),
            Target::Bucket(store) => {
                let inner = Arc::new(PrefixStore::new(store.objects().clone(), name));
                Target::Bucket(Store::over(inner, &format!("{}/{name}", store.shown())))
            }
        }
    }

    pub(super) fn failed(&self, name: &str) -> impl FnOnce(io::Error) -> ExportError {
        let path = self.shown().join(name);
        |source| ExportError::Write { path, source }
    }

    /// Checks that nothing is there; a folder is made.
    pub(super) async fn prepare(&self) -> Result<(), ExportError> {
        let path = self.shown();
        if self.read(UNFINISHED).await.map_err(self.failed(UNFINISHED))?.is_some() {
            return Err(ExportError::BrokeOff { path });
        }
        match self {
            Target::Folder(folder) => prepare(folder),
            Target::Bucket(store) => match store.objects().list(None).try_next().await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err(ExportError::NotEmpty { path }),
                Err(error) => Err(self.failed("")(other(error))),
            },
        }
    }

    /// Reads a small file; `None` if it is not there.
    pub(super) async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self {
            Target::Folder(folder) => match fs::read(folder.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                read => read.map(Some),
            },
            Target::Bucket(store) => match store.objects().get(&object(name)?).await {
                Err(Error::NotFound { .. }) => Ok(None),
                found => Ok(Some(found.map_err(other)?.bytes().await.map_err(other)?.to_vec())),
            },
        }
    }

    /// Writes a small file, which is there as a whole or not at all.
    pub(super) async fn write(&self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Target::Folder(folder) => write_whole(folder, name, &bytes),
            Target::Bucket(store) => store.objects().put(&object(name)?, bytes.into()).await.map(|_| ()).map_err(other),
        }
    }

    /// Removes a small file, after everything that was written is on disk.
    pub(super) async fn remove(&self, name: &str) -> io::Result<()> {
        match self {
            Target::Folder(folder) => {
                fs::remove_file(folder.join(name))?;
                File::open(folder)?.sync_all()
            }
            Target::Bucket(store) => store.objects().delete(&object(name)?).await.map_err(other),
        }
    }

    /// Whether a file is as it was when it became whole.
    pub(super) async fn has(&self, file: &ManifestFile) -> Result<bool, ExportError> {
        let found = match self {
            Target::Folder(folder) => {
                return Ok(fs::metadata(folder.join(&file.path)).is_ok_and(|found| found.len() == file.bytes));
            }
            Target::Bucket(store) => match object(&file.path) {
                Ok(path) => store.objects().head(&path).await,
                Err(error) => return Err(self.failed(&file.path)(error)),
            },
        };
        match found {
            Ok(found) => Ok(found.size == file.bytes && (file.e_tag.is_none() || found.e_tag == file.e_tag)),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed(&file.path)(other(error))),
        }
    }
}

/// Makes a folder, and checks that nothing is in it.
pub(crate) fn prepare(folder: &Path) -> Result<(), ExportError> {
    let failed = |source| ExportError::Write { path: folder.to_path_buf(), source };
    make_folder(folder).map_err(failed)?;
    match is_empty(folder).map_err(failed)? {
        true => Ok(()),
        false => Err(ExportError::NotEmpty { path: folder.to_path_buf() }),
    }
}

/// Writes a file that is there as a whole, or not at all.
pub(crate) fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = folder.join(format!("{name}.part"));
    let mut file = private().create(true).truncate(true).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fail::fail_point!("export::before_placed", |_| Ok(()));
    fs::rename(&part, folder.join(name))?;
    File::open(folder)?.sync_all()
}

/// The text of a manifest.
pub(crate) fn pretty(manifest: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(manifest)?;
    text.push(b'\n');
    Ok(text)
}

/// ⚠ A list that does not say yet how an export began is no export.
fn is_empty(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if entry?.file_name() != BEGUN {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The name of an object, which is that of the file: nothing in it is encoded.
pub(super) fn object(name: &str) -> io::Result<ObjectPath> {
    ObjectPath::parse(name).map_err(io::Error::other)
}

pub(super) fn other(error: Error) -> io::Error {
    io::Error::other(error)
}
