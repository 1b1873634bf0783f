//! Opens the stores of a lake: home's and its tenants'.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::prefix::PrefixStore;
use object_store::{Attribute, ObjectStore};

use super::{DurableLocal, Store, sync_folder};
use crate::cloud;
use crate::error::LakeError;
use crate::place::{Place, StoreConfig};

/// Maximum number of buckets and folders that are remembered as open.
const OPEN_MAX: usize = 64;

/// Opens the stores of one lake. Stores in the same bucket share its client; those opened last are remembered.
#[derive(Clone)]
pub struct Opener {
    config: Arc<StoreConfig>,
    create: bool,
    connector: cloud::Connector,
    /// Open stores by bucket or folder; the one used last is at the end.
    opened: Arc<Mutex<Vec<Opened>>>,
}

type Opened = (String, Arc<dyn ObjectStore>);

impl Opener {
    pub fn new(config: &StoreConfig, create: bool) -> Opener {
        let (config, connector) = (Arc::new(config.clone()), cloud::Connector::default());
        Opener { config, create, connector, opened: Arc::default() }
    }

    /// Opens a store. With `create` a missing folder is made.
    ///
    /// # Errors
    /// Fails if the folder cannot be made or opened, or if the settings of the bucket are invalid.
    pub fn open(&self, place: &Place) -> Result<Store, LakeError> {
        let shown = place.to_string();
        match place {
            Place::Folder(path) => {
                let folder = |source| LakeError::Folder { path: shown.clone(), source };
                let open = || {
                    if self.create {
                        make_folder(path).map_err(folder)?;
                    }
                    Ok(Arc::new(DurableLocal::new(path).map_err(folder)?) as Arc<dyn ObjectStore>)
                };
                let objects = self.remembered(shown.clone(), open)?;
                Ok(Store { folder: Some(path.as_path().into()), ..Store::over(objects, &shown) })
            }
            Place::Bucket(bucket) => {
                let open = || cloud::open(bucket, &self.config, &self.connector);
                let objects = self.remembered(format!("{:?}", bucket.name()), open)?;
                let class = self.config.storage_class.iter();
                let data = class.map(|class| (Attribute::StorageClass, class.clone())).collect();
                let prefixed = Arc::new(PrefixStore::new(objects, bucket.prefix.clone()));
                Ok(Store { data, ..Store::over(prefixed, &shown) })
            }
        }
    }

    fn remembered(
        &self,
        name: String,
        open: impl FnOnce() -> Result<Arc<dyn ObjectStore>, LakeError>,
    ) -> Result<Arc<dyn ObjectStore>, LakeError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = match opened.iter().position(|(known, _)| *known == name) {
            Some(at) => opened.remove(at).1,
            None => open()?,
        };
        if opened.len() >= OPEN_MAX {
            opened.remove(0);
        }
        opened.push((name, objects.clone()));
        Ok(objects)
    }
}

/// Makes a folder and those above it, each durable.
fn make_folder(path: &FilePath) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Err(ErrorKind::InvalidInput.into()) };
    make_folder(parent)?;
    // ⚠ A lake is readable only for its owner, whatever the umask is. An operator who wants others to read it changes
    // the folder's mode, or makes the folder first.
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(parent),
    }
}
