//! The object store of the lake, and the only place that knows that it may be a local disk.
//!
//! [`DurableLocal`] gives a local folder the guarantees of the clouds: an object exists completely or not at all, a
//! create never replaces, and acknowledged writes survive a power failure. `object_store`'s own `LocalFileSystem` never
//! calls fsync, and leaves `name#1` next to the data when it is killed. Here every write is staged under
//! `_cdc_audit/tmp`, synced, then linked or renamed into place, and the folders that contain it are synced too, up to
//! the lake's own. A kill leaves files only in `_cdc_audit/tmp`, where [`Store::sweep`] removes them.

mod opener;

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    RenameTargetMode, Result, UploadPart,
};
use url::Url;

use crate::config::LakeConfig;
use crate::error::LakeError;
use crate::layout::{DATA, OWN_FOLDER, TMP};
use crate::place::Place;

pub use opener::Opener;

/// A lake's object store, whose root is the lake's.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    shown: Arc<str>,
    /// The lake's folder, if it is on a local disk.
    folder: Option<Arc<FilePath>>,
    data: Attributes,
}

/// Prints the store without its client, because some clients print their credentials.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the lake's home; with `create` a missing folder is made. Buckets are never made.
    ///
    /// # Errors
    /// Fails if the place is invalid or cannot be opened.
    pub fn open(config: &LakeConfig, create: bool) -> std::result::Result<Store, LakeError> {
        Opener::new(&config.store, create).open(&Place::parse(config.home_url())?)
    }

    /// A lake at the root of any object store.
    pub fn over(objects: Arc<dyn ObjectStore>, shown: &str) -> Store {
        Store { objects, shown: shown.into(), folder: None, data: Attributes::default() }
    }

    /// Whether an object can be written piece by piece under one name and then be renamed. In a bucket it would have to
    /// be copied: a second write, in the bucket's own storage class, and GCS's client makes it under the opposite
    /// condition.
    pub(crate) fn stages(&self) -> bool {
        self.folder.is_some()
    }

    /// Makes the name of a found object durable. An object that another process has put, or a put of our own that
    /// failed at its last step, can be visible before it is on disk. In a bucket this cannot happen.
    pub(crate) async fn sync(&self, found: &Path) -> std::result::Result<(), LakeError> {
        let Some(root) = self.folder.clone() else { return Ok(()) };
        let path = root.join(found.as_ref());
        let sync = move || {
            let mut folders = path.ancestors().skip(1).take_while(|folder| folder.starts_with(&root));
            folders.try_for_each(sync_folder)
        };
        let synced = tokio::task::spawn_blocking(sync).await.map_err(LakeError::Task)?;
        synced.map_err(|error| LakeError::store("sync", self.show(found), describe(found.to_string(), error)))
    }

    /// The attributes that a table's file is put with, by its path relative to the table's folder. Only files that stay
    /// get the storage class.
    pub(crate) fn attributes_of(&self, path: &str) -> Attributes {
        if path.starts_with(DATA) { self.data.clone() } else { Attributes::new() }
    }

    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// A path as messages show it.
    pub fn show(&self, path: &Path) -> String {
        format!("{}/{path}", self.shown)
    }

    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The Delta log of the table in `folder`. Its URL has its own scheme, so that the store is only reached through
    /// this object store.
    pub(crate) fn table_log(&self, folder: &str) -> std::result::Result<(LogStoreRef, Url), LakeError> {
        let url = Url::parse(&format!("lake:///{folder}/")).map_err(|error| LakeError::log(folder, error))?;
        let prefixed = Arc::new(PrefixStore::new(self.objects.clone(), Path::from(folder)));
        Ok((default_logstore(prefixed, self.objects.clone(), &url, &StorageConfig::default()), url))
    }

    /// Removes what interrupted writes left behind.
    pub(crate) async fn sweep(&self) -> std::result::Result<(), LakeError> {
        let tmp = Path::from(TMP);
        let left: Vec<ObjectMeta> = self
            .objects
            .list(Some(&tmp))
            .try_collect()
            .await
            .map_err(|error| LakeError::store("list", self.show(&tmp), error))?;
        for meta in left {
            match self.objects.delete(&meta.location).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(LakeError::store("remove", self.show(&meta.location), error)),
            }
        }
        Ok(())
    }
}

/// A local folder with the guarantees that the module's documentation describes.
#[derive(Clone, Debug)]
pub struct DurableLocal {
    inner: Arc<LocalFileSystem>,
    disk: Arc<Disk>,
}

#[derive(Debug)]
struct Disk {
    root: PathBuf,
    tmp: PathBuf,
    /// Prefix of the names of this process's staged files.
    run: String,
    next: AtomicU64,
    /// Folders whose entry in their parent is known to be on disk.
    synced: Mutex<HashSet<PathBuf>>,
}

/// Maximum number of folders that are remembered as synced; beyond it they are synced again, which is only slower.
const SYNCED_MAX: usize = 10_000;

impl DurableLocal {
    /// Opens `root`, which must exist.
    ///
    /// # Errors
    /// Fails if `root` does not exist or cannot be accessed.
    pub fn new(root: &FilePath) -> io::Result<DurableLocal> {
        let root = fs::canonicalize(root)?;
        let inner = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
        let disk = Disk {
            tmp: root.join(OWN_FOLDER).join("tmp"),
            root,
            run: format!("{}-{:016x}", std::process::id(), rand::random::<u64>()),
            next: AtomicU64::new(0),
            synced: Mutex::new(HashSet::new()),
        };
        Ok(DurableLocal { inner: Arc::new(inner), disk: Arc::new(disk) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce(&Disk) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let disk = self.disk.clone();
        let shown = path.to_string();
        let done = tokio::task::spawn_blocking(move || work(&disk)).await?;
        done.map_err(|error| describe(shown, error))
    }
}

fn describe(path: String, source: io::Error) -> Error {
    match source.kind() {
        ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        _ => Error::Generic { store: "local disk", source: source.into() },
    }
}

impl Disk {
    fn stage(&self) -> io::Result<(File, PathBuf)> {
        self.ensure_folder(&self.tmp)?;
        let path = self.tmp.join(format!("{}-{}", self.run, self.next.fetch_add(1, Ordering::Relaxed)));
        Ok((File::options().write(true).create_new(true).open(&path)?, path))
    }

    /// Writes an object: it is staged, synced, then given its name.
    fn put(&self, target: &FilePath, create: bool, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let (mut file, staged) = self.stage()?;
        if let Err(error) = write(&mut file).and_then(|()| sync_file(&file)) {
            let _ = fs::remove_file(&staged);
            return Err(error);
        }
        drop(file);
        self.place(&staged, target, create)
    }

    /// Makes `folder` and the folders above it, each durable.
    fn ensure_folder(&self, folder: &FilePath) -> io::Result<()> {
        if folder == self.root || self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.ensure_folder(parent)?;
            match fs::DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => sync_folder(parent)?,
            }
        }
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if synced.len() >= SYNCED_MAX {
            synced.clear();
        }
        synced.insert(folder.to_path_buf());
        Ok(())
    }

    /// Gives a staged and synced file its name.
    fn place(&self, staged: &FilePath, target: &FilePath, create: bool) -> io::Result<()> {
        let Some(folder) = target.parent() else { return Err(ErrorKind::InvalidInput.into()) };
        self.ensure_folder(folder)?;
        let put = || if create { fs::hard_link(staged, target) } else { fs::rename(staged, target) };
        let first = put();
        // A folder that was removed since it was last seen is made again.
        let put = match first {
            Err(error) if error.kind() == ErrorKind::NotFound && staged.exists() => {
                self.synced.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.ensure_folder(folder)?;
                put()
            }
            done => done,
        };
        if create || put.is_err() {
            let _ = fs::remove_file(staged);
        }
        // The existing file may be from an earlier attempt whose folder could not be synced, and a caller that takes it
        // for its own relies on it.
        if put.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
            sync_folder(folder)?;
        }
        put?;
        sync_folder(folder)
    }
}

fn sync_file(file: &File) -> io::Result<()> {
    fail::fail_point!("lake::sync_file", |_| Err(io::Error::other("fault point")));
    file.sync_all()
}

fn sync_folder(folder: &FilePath) -> io::Result<()> {
    fail::fail_point!("lake::sync_folder", |_| Err(io::Error::other("fault point")));
    File::open(folder)?.sync_all()
}

fn unsupported(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_string(), implementer: "DurableLocal".to_string() }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableLocal({})", self.disk.root.display())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(unsupported("put with `PutMode::Update`")),
        };
        if !opts.attributes.is_empty() {
            return Err(unsupported("put with attributes"));
        }
        let target = self.inner.path_to_filesystem(location)?;
        self.blocking(location, move |disk| {
            disk.put(&target, create, |file| payload.iter().try_for_each(|part| file.write_all(part)))?;
            Ok(PutResult { e_tag: None, version: None })
        })
        .await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if !opts.attributes.is_empty() {
            return Err(unsupported("put with attributes"));
        }
        let target = self.inner.path_to_filesystem(location)?;
        let (file, staged) = self.blocking(location, Disk::stage).await?;
        let state =
            UploadState { file: Mutex::new(file), disk: self.disk.clone(), location: location.to_string(), target };
        Ok(Box::new(DurableUpload { staged: Some(staged), offset: 0, state: Arc::new(state) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = location?;
                let path = store.inner.path_to_filesystem(&location)?;
                let work = move |_: &Disk| {
                    fs::remove_file(&path)?;
                    path.parent().map_or(Ok(()), sync_folder)
                };
                store.blocking(&location, work).await.map(|()| location)
            }
        };
        locations.map(delete).buffered(10).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    /// Lists in order of path, as the clouds do and as readers of a Delta log expect.
    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.inner.list_with_offset(prefix, offset);
        let sorted = async move {
            let mut all: Vec<ObjectMeta> = listed.try_collect().await?;
            all.sort_unstable_by(|a, b| a.location.cmp(&b.location));
            Ok::<_, Error>(futures::stream::iter(all.into_iter().map(Ok)))
        };
        futures::stream::once(sorted).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let create = matches!(options.mode, CopyMode::Create);
        let (source, target) = (self.inner.path_to_filesystem(from)?, self.inner.path_to_filesystem(to)?);
        self.blocking(to, move |disk| {
            // The target gets its own bytes: if two names belong to the same file, renaming one to the other leaves
            // both.
            let mut source = File::open(&source)?;
            disk.put(&target, create, |file| io::copy(&mut source, file).map(|_| ()))
        })
        .await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let create = matches!(options.target_mode, RenameTargetMode::Create);
        let (source, target) = (self.inner.path_to_filesystem(from)?, self.inner.path_to_filesystem(to)?);
        self.blocking(to, move |disk| {
            let Some(folder) = target.parent() else { return Err(ErrorKind::InvalidInput.into()) };
            disk.ensure_folder(folder)?;
            if create {
                fs::hard_link(&source, &target)?;
                fs::remove_file(&source)?;
            } else {
                fs::rename(&source, &target)?;
            }
            sync_folder(folder)?;
            source.parent().map_or(Ok(()), sync_folder)
        })
        .await
    }
}

#[derive(Debug)]
struct UploadState {
    file: Mutex<File>,
    disk: Arc<Disk>,
    location: String,
    target: PathBuf,
}

#[derive(Debug)]
struct DurableUpload {
    staged: Option<PathBuf>,
    offset: u64,
    state: Arc<UploadState>,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (offset, state) = (self.offset, self.state.clone());
        self.offset += data.content_length() as u64;
        let write = move || {
            let mut file = state.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(offset)).map_err(|error| describe(state.location.clone(), error))?;
            let written = data.iter().try_for_each(|part| file.write_all(part));
            written.map_err(|error| describe(state.location.clone(), error))
        };
        async move { tokio::task::spawn_blocking(write).await? }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let Some(staged) = self.staged.take() else {
            return Err(describe(self.state.location.clone(), io::Error::other("the upload has ended before")));
        };
        let state = self.state.clone();
        let work = move || {
            let placed = || {
                sync_file(&state.file.lock().unwrap_or_else(PoisonError::into_inner))?;
                state.disk.place(&staged, &state.target, false)
            };
            placed().map_err(|error| {
                let _ = fs::remove_file(&staged);
                describe(state.location.clone(), error)
            })
        };
        tokio::task::spawn_blocking(work).await??;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        let Some(staged) = self.staged.take() else { return Ok(()) };
        let location = self.state.location.clone();
        tokio::task::spawn_blocking(move || fs::remove_file(staged).map_err(|error| describe(location, error))).await?
    }
}

impl Drop for DurableUpload {
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            let _ = fs::remove_file(staged);
        }
    }
}
