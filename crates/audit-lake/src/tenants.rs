//! The stores of a lake: its home and, if the key `url` names tenants, one for each of them.
//!
//! ```text
//! s3://acme-audit/shop/_cdc_audit/checkpoint/            home: the one checkpoint, the one owner epoch
//! s3://acme-audit/shop/_cdc_audit/tenants/initech.json   home: this tenant's store may hold something
//! s3://acme-audit/shop/public.orders/                    home: rows without a tenant; how far baselines are
//! s3://tenant-initech-audit/shop/_cdc_audit/home.json    the tenant's: which home it belongs to
//! s3://tenant-initech-audit/shop/public.orders/          the tenant's: a Delta table like any other
//! ```
//!
//! A plain lake has only a home. A tenant is noted in home, create-only, before anything is put into its store, so a
//! later daemon finds every store that exists.

use std::fmt;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::LakeConfig;
use crate::error::LakeError;
use crate::layout::OWN_FOLDER;
use crate::place::Place;
use crate::store::{Opener, Store};
use crate::tenant_names::{folder_of, hex, place_of};

/// Number of stores that are asked at a time.
const CONCURRENT: usize = 16;

/// The stores of a lake. A clone belongs to the same lake.
#[derive(Clone, Debug)]
pub struct Stores {
    home: Store,
    tenants: Option<Arc<Tenants>>,
}

struct Tenants {
    url: String,
    home: Place,
    opener: Opener,
}

/// Prints them without the client, like [`Store`].
impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What home knows of a tenant.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    tenant: String,
    /// Where its store is, or home's own place if it has none. It never changes, because otherwise earlier versions
    /// would be written again.
    url: String,
}

/// Where a tenant's rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    ToStore,
    ToHome,
}

/// What a tenant's store knows of home. This is not home's address, because the store may be handed over to the tenant.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    home_sha256: String,
}

impl Stores {
    /// Opens home; with `create` missing folders are made.
    ///
    /// # Errors
    /// Fails if home's place is invalid or cannot be opened.
    pub fn open(config: &LakeConfig, create: bool) -> Result<Stores, LakeError> {
        let place = Place::parse(config.home_url())?;
        let opener = Opener::new(&config.store, create);
        let home = opener.open(&place)?;
        let tenants = config.has_tenants().then(|| Tenants { url: config.url.clone(), home: place, opener });
        Ok(Stores { home, tenants: tenants.map(Arc::new) })
    }

    /// A lake without tenants.
    pub fn alone(home: Store) -> Stores {
        Stores { home, tenants: None }
    }

    pub fn home(&self) -> &Store {
        &self.home
    }

    pub fn has_tenants(&self) -> bool {
        self.tenants.is_some()
    }

    /// A tenant's store, or home. No request is sent to a bucket; a folder that does not exist is an error.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTenant`] for a tenant in a lake without tenants, and fails if the tenant's place cannot
    /// be opened.
    pub fn of(&self, tenant: Option<&str>) -> Result<Store, LakeError> {
        match (tenant, &self.tenants) {
            (None, _) => Ok(self.home.clone()),
            (Some(tenant), Some(tenants)) => tenants.opener.open(&tenants.place(tenant)?),
            (Some(tenant), None) => Err(LakeError::NoTenant { tenant: tenant.to_string() }),
        }
    }

    /// Where a tenant's store is, in the form of `url`.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTenant`] in a lake without tenants, and fails if `url` gives no place for the tenant.
    pub fn url_of(&self, tenant: &str) -> Result<String, LakeError> {
        let tenants = self.tenants.as_ref().ok_or_else(|| LakeError::NoTenant { tenant: tenant.to_string() })?;
        Ok(tenants.place(tenant)?.to_string())
    }

    /// The tenants whose stores may hold something, in order.
    ///
    /// # Errors
    /// Fails if one of them was noted at another place than `url` says now.
    pub async fn known(&self) -> Result<Vec<Arc<str>>, LakeError> {
        if !self.has_tenants() {
            return Ok(Vec::new());
        }
        let folder = Path::from(format!("{OWN_FOLDER}/tenants"));
        let failed = |error| LakeError::store("list", self.home.show(&folder), error);
        let listed: Vec<ObjectMeta> = self.home.objects().list(Some(&folder)).try_collect().await.map_err(failed)?;
        let read = |meta: ObjectMeta| async move {
            let note: Option<Note> = read(&self.home, &meta.location).await?;
            let note = note.filter(|note| !self.is_home(note));
            note.map(|note| self.checked(note, &meta.location)).transpose()
        };
        let read = futures::stream::iter(listed).map(read).buffer_unordered(CONCURRENT);
        let mut known: Vec<Arc<str>> = read.try_filter_map(async |note| Ok(note)).try_collect().await?;
        known.sort();
        Ok(known)
    }

    fn checked(&self, note: Note, path: &Path) -> Result<Arc<str>, LakeError> {
        let url = self.url_of(&note.tenant)?;
        if note.url != url {
            return Err(LakeError::Moved { path: self.home.show(path), was: note.url, is: url });
        }
        Ok(note.tenant.into())
    }

    fn is_home(&self, note: &Note) -> bool {
        self.tenants.as_ref().is_some_and(|tenants| note.url == tenants.home.to_string())
    }

    /// Notes a tenant in home, then writes into its store which home it belongs to. This is done before anything else
    /// is put there; a repeat changes nothing.
    ///
    /// # Errors
    /// If the store of a tenant that was never noted does not exist or refuses access ([`LakeError::has_no_store`]),
    /// this fails and nothing is noted.
    pub async fn note(&self, tenant: &str) -> Result<Goes, LakeError> {
        let noted = match read(&self.home, &note_path(tenant)).await? {
            Some(noted) => noted,
            None => {
                self.look(tenant).await.map_err(|error| error.of_tenant(tenant))?;
                self.decide(tenant, self.url_of(tenant)?).await?
            }
        };
        if self.is_home(&noted) {
            return Ok(Goes::ToHome);
        }
        self.checked(noted, &note_path(tenant))?;
        self.claim(tenant).await.map(|()| Goes::ToStore)
    }

    /// Notes that a tenant has no store: from now on its rows go to home, permanently, unless another daemon has found
    /// its store in the meantime.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTenant`] in a lake without tenants, and fails if home cannot be written.
    pub async fn send_home(&self, tenant: &str) -> Result<Goes, LakeError> {
        let Some(tenants) = &self.tenants else { return Err(LakeError::NoTenant { tenant: tenant.to_string() }) };
        let noted = self.decide(tenant, tenants.home.to_string()).await?;
        Ok(if self.is_home(&noted) { Goes::ToHome } else { Goes::ToStore })
    }

    /// ⚠ One object decides for all daemons where a tenant's rows go, and is created only once: otherwise a row could
    /// go to the store and, when it is sent again after a kill, to home.
    async fn decide(&self, tenant: &str, url: String) -> Result<Note, LakeError> {
        let note = Note { tenant: tenant.to_string(), url };
        let found = create(&self.home, &note_path(tenant), &note).await?;
        Ok(found.unwrap_or(note))
    }

    /// Checks that there is a place for the tenant, without putting anything there.
    async fn look(&self, tenant: &str) -> Result<(), LakeError> {
        let store = self.of(Some(tenant))?;
        let listed = store.objects().list_with_delimiter(None).await;
        listed.map(|_| ()).map_err(|error| LakeError::store("list", store.shown(), error))
    }

    async fn claim(&self, tenant: &str) -> Result<(), LakeError> {
        let Some(tenants) = &self.tenants else { return Err(LakeError::NoTenant { tenant: tenant.to_string() }) };
        let claim = Claim { home_sha256: hex(&Sha256::digest(tenants.home.to_string())) };
        let path = Path::from(format!("{OWN_FOLDER}/home.json"));
        let store = self.of(Some(tenant)).map_err(|error| error.of_tenant(tenant))?;
        let found = create(&store, &path, &claim).await.map_err(|error| error.of_tenant(tenant))?;
        match found.is_none_or(|found| found == claim) {
            true => Ok(()),
            false => {
                let other = "the store belongs to a lake with another home";
                Err(LakeError::altered(store.show(&path), other).of_tenant(tenant))
            }
        }
    }
}

impl Tenants {
    fn place(&self, tenant: &str) -> Result<Place, LakeError> {
        place_of(&self.url, &self.home, tenant)
    }
}

fn note_path(tenant: &str) -> Path {
    Path::from(format!("{OWN_FOLDER}/tenants/{}.json", folder_of(tenant)))
}

/// Creates an object. `Some` is what already existed, perhaps from an earlier attempt whose answer was lost.
async fn create<T: Serialize + DeserializeOwned>(
    store: &Store,
    path: &Path,
    value: &T,
) -> Result<Option<T>, LakeError> {
    let json = serde_json::to_vec_pretty(value).map_err(|error| LakeError::altered(path, error.to_string()))?;
    match store.objects().put_opts(path, json.into(), PutMode::Create.into()).await {
        Ok(_) => Ok(None),
        Err(error) => match read(store, path).await? {
            Some(found) => Ok(Some(found)),
            None => Err(LakeError::store("write", store.show(path), error)),
        },
    }
}

async fn read<T: DeserializeOwned>(store: &Store, path: &Path) -> Result<Option<T>, LakeError> {
    let failed = |error| LakeError::store("read", store.show(path), error);
    let bytes = match store.objects().get(path).await {
        Ok(found) => found.bytes().await.map_err(failed)?,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| LakeError::altered(store.show(path), error.to_string()))
}
