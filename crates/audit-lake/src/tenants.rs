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
//! later daemon finds every store that exists. Names of tenants are values of rows, and become part of a path or of a
//! bucket's name: they are written so that no two tenants share a place and that no place is outside of what `url` says
//! ([`in_path`], [`in_bucket`]).

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

/// The placeholder for a tenant in `url`.
pub const TENANT: &str = "{tenant}";
/// Number of stores that are asked at a time.
const CONCURRENT: usize = 16;
/// Longest name in a path, in bytes. A longer one is cut and ends in a hash.
const PATH_MAX: usize = 150;
/// Longest name of a bucket, on every cloud.
const BUCKET_MAX: usize = 63;
/// Length of what [`in_bucket`] writes for a name that it cannot keep.
const HASHED: usize = 34;

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

/// The folder's name for a tenant's name. No other tenant gets the same folder, and it leads to no other place.
pub fn folder_of(tenant: &str) -> String {
    in_path(tenant, false)
}

/// Where a tenant's store is. A name that would put the store inside home, or home inside the store, is written in
/// another way.
pub(crate) fn place_of(url: &str, home: &Place, tenant: &str) -> Result<Place, LakeError> {
    for plain in [true, false] {
        let place = Place::parse(&fill(url, tenant, plain))?;
        if !place.overlaps(home) {
            return Ok(place);
        }
    }
    Err(LakeError::Place { url: url.to_string() })
}

/// Splits a url into what precedes the authority, the authority, which names the bucket, and what follows it.
fn authority(url: &str) -> (&str, &str, &str) {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = match start {
        0 => 0,
        start => url[start..].find('/').map_or(url.len(), |at| start + at),
    };
    (&url[..start], &url[start..end], &url[end..])
}

/// How long a tenant's name may be in a bucket's name; `None` if it is not part of it.
pub(crate) fn room_in_bucket(url: &str) -> Option<usize> {
    let bucket = authority(url).1.split('@').next().unwrap_or_default();
    bucket.contains(TENANT).then(|| BUCKET_MAX.saturating_sub(bucket.replace(TENANT, "").len()))
}

/// Whether `{tenant}` is where it can be: at most once in a bucket's name, not in an account's, and with room for every
/// name.
pub(crate) fn is_sound(url: &str) -> bool {
    let (scheme, bucket, path) = authority(url);
    let (container, account) = bucket.split_once('@').unwrap_or((bucket, ""));
    !scheme.contains(TENANT)
        && !account.contains(TENANT)
        && container.matches(TENANT).count() <= 1
        && path.matches(TENANT).count() <= 1
        && room_in_bucket(url).is_none_or(|room| room >= HASHED)
}

fn fill(url: &str, tenant: &str, plain: bool) -> String {
    let (scheme, bucket, path) = authority(url);
    let room = room_in_bucket(url).unwrap_or_default();
    let bucket = bucket.replace(TENANT, &in_bucket(tenant, room, plain));
    format!("{scheme}{bucket}{}", path.replace(TENANT, &in_path(tenant, !plain)))
}

/// A tenant's name as part of a path. ASCII letters, digits, `_`, `.` and a `-` between two letters or digits are kept;
/// any other byte, and a `_` or `.` at the beginning, is written as `--` and two hex digits. So a UUID stays as it is,
/// and no name contains a slash or is `..`. With `escaped` every byte is written in this way.
fn in_path(tenant: &str, escaped: bool) -> String {
    let bytes = tenant.as_bytes();
    let is_plain = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let mut name = String::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        let keeps = match byte {
            b'-' => at > 0 && is_plain(at - 1) && is_plain(at + 1),
            b'_' | b'.' => at > 0,
            byte => byte.is_ascii_alphanumeric(),
        };
        match keeps && !escaped {
            true => name.push(*byte as char),
            false => name.push_str(&format!("--{byte:02x}")),
        }
    }
    if name.len() > PATH_MAX {
        name.truncate(PATH_MAX - 35);
        // `x` is not a hex digit, so no other name ends like this.
        name.push_str("--x");
        name.push_str(&hex(&Sha256::digest(bytes)[..16]));
    }
    name
}

/// A tenant's name as part of a bucket's name. Lower-case letters, digits, and single `-` between them are kept if they
/// fit into `room`. Any other name, and one that begins with `x-`, becomes `x-` and a hash of it. No cloud allows much
/// more.
fn in_bucket(tenant: &str, room: usize, plain: bool) -> String {
    let words = |name: &str| {
        let word = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        name.split('-').all(|part| !part.is_empty() && word(part))
    };
    match plain && words(tenant) && !tenant.starts_with("x-") && tenant.len() <= room {
        true => tenant.to_string(),
        false => format!("x-{}", hex(&Sha256::digest(tenant)[..16])),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    const TRICKS: [&str; 22] = [
        "initech",
        "Initech",
        "INITECH",
        "a/b",
        "a--2fb",
        "..",
        ".",
        "--2e.",
        "_cdc_audit",
        "a b",
        "a-b",
        "a--b",
        "-a",
        "a-",
        "ä",
        "shop",
        "--73--68--6f--70",
        "x-0",
        "a%2fb",
        "a\\b",
        "a{tenant}b",
        "3f2a9c1e-7d4b-4a1a-9b0e-0c1d2e3f4a5b",
    ];

    #[test]
    fn no_two_tenants_share_a_place_and_none_leaves_it() {
        for (url, home) in [
            ("s3://tenant-{tenant}-audit/shop", "s3://tenant-initech-audit/shop"),
            ("s3://acme/{tenant}/shop", "s3://acme/shop"),
            ("abfss://t-{tenant}@acme.dfs.core.windows.net/shop", "abfss://home@acme.dfs.core.windows.net/shop"),
            ("/lake/{tenant}", "/lake/shop"),
            ("file:///lake/of-{tenant}/x", "file:///lake/home"),
        ] {
            let home = Place::parse(home).unwrap();
            let long = ["a".repeat(100), "ä".repeat(100), format!("{}ö", "ä".repeat(99))];
            let tenants = TRICKS.into_iter().chain(long.iter().map(String::as_str));
            let places: Vec<String> = tenants.map(|tenant| place_of(url, &home, tenant).unwrap().to_string()).collect();
            assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len(), "{places:#?}");
            let depth = url.trim_start_matches("file://").matches('/').count();
            for place in places {
                assert_eq!(place.matches('/').count(), depth, "{place}");
                assert!(!Place::parse(&place).unwrap().overlaps(&home), "{place}");
                assert!(!place.split('/').any(|part| part == ".." || part == "."), "{place}");
                let bucket = authority(&place).1.split('@').next().unwrap().to_string();
                let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                assert!(bucket.len() <= BUCKET_MAX && bucket.bytes().all(fits) && !bucket.contains("--"), "{bucket}");
            }
        }
    }

    #[test]
    fn names_that_people_give_stay_what_they_are() {
        let uuid = "3f2a9c1e-7d4b-4a1a-9b0e-0c1d2e3f4a5b";
        for name in ["42", "initech", "acme-eu", uuid] {
            assert_eq!(in_path(name, false), name);
            assert_eq!(in_bucket(name, 50, true), name);
        }
        assert_eq!(in_path("Acme Corp", false), "Acme--20Corp");
        assert_eq!(in_path("../x", false), "--2e.--2fx");
        assert_eq!(in_bucket("Acme", 50, true).len(), HASHED);
    }

    #[test]
    fn a_template_has_room_for_every_name() {
        for (url, sound) in [
            ("s3://tenant-{tenant}-audit/shop", true),
            ("s3://{tenant}/{tenant}", true),
            ("s3://{tenant}-{tenant}/x", false),
            ("s3://a-rather-long-name-for-a-bucket-{tenant}/x", false),
            ("abfss://audit@{tenant}.dfs.core.windows.net/x", false),
        ] {
            assert_eq!(is_sound(url), sound, "{url}");
        }
    }
}
