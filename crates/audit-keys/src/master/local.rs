//! A master key in a file on this machine.
//!
//! ```text
//! # comment
//! v1 7f0c…   name and 64 hex digits; the last line wraps, all of them unwrap
//! v2 03d1…
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use audit_cipher::{SecretKey, unwrap_key, wrap_key};
use audit_config::secret::{SecretError, is_open_to_others};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Place, Wrapped};
use crate::config::LocalMaster;
use crate::error::KeyError;

/// A keyring file. It is read at each use, so that a new version counts at once; there are only few data keys.
#[derive(Debug)]
pub struct Local {
    path: PathBuf,
}

const NAME: &str = "local";

/// Maximum length of a keyring in bytes, enough for thousands of versions.
const FILE_MAX: u64 = 1 << 20;

impl Local {
    pub(super) fn new(config: &LocalMaster) -> Local {
        Local { path: config.file.clone() }
    }

    pub(super) fn name(&self) -> &str {
        NAME
    }

    pub(super) fn wrap(&self, key: &SecretKey, place: &Place<'_>) -> Result<Wrapped, KeyError> {
        let versions = read(&self.path)?;
        let (version, master) = versions.last().ok_or_else(|| keyring(&self.path, "holds no key"))?;
        let wrapped = wrap_key(key, master, &place.bytes()).map_err(|_| self.refused("not wrapped"))?;
        Ok(Wrapped { master: format!("{NAME} {version}"), text: STANDARD.encode(wrapped) })
    }

    pub(super) fn unwrap(&self, wrapped: &Wrapped, place: &Place<'_>) -> Result<SecretKey, KeyError> {
        let versions = read(&self.path)?;
        let wanted = wrapped.master.split_once(' ').map_or("", |(_, version)| version);
        let found = versions.iter().find(|(version, _)| version == wanted);
        let no_master = || KeyError::NoMaster { service: NAME.to_owned(), said: format!("version {wanted:?}") };
        let (_, master) = found.ok_or_else(no_master)?;
        let bytes = STANDARD.decode(&wrapped.text).map_err(|_| self.refused("not base64"))?;
        unwrap_key(&bytes, master, &place.bytes()).map_err(|_| self.refused("does not open"))
    }

    fn refused(&self, said: &str) -> KeyError {
        KeyError::Refused { service: NAME.to_owned(), said: said.to_owned() }
    }
}

/// Reads the versions, the newest last.
fn read(path: &Path) -> Result<Vec<(String, SecretKey)>, KeyError> {
    let unreadable = |source| KeyError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if is_open_to_others(&metadata) {
        let source = SecretError::Open { path: path.to_owned() };
        return Err(KeyError::Secret { service: NAME.to_owned(), source });
    }
    if metadata.len() > FILE_MAX {
        return Err(keyring(path, "is too long for a keyring"));
    }
    let mut text = Zeroizing::new(String::with_capacity(metadata.len() as usize + 1));
    file.take(FILE_MAX).read_to_string(&mut text).map_err(unreadable)?;
    let mut versions: Vec<(String, SecretKey)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, key) = version(line).ok_or_else(|| keyring(path, &format!("holds no key in line {number}")))?;
        if versions.iter().any(|(known, _)| *known == name) {
            return Err(keyring(path, &format!("has a name twice, in line {number}")));
        }
        versions.push((name, key));
    }
    Ok(versions)
}

fn version(line: &str) -> Option<(String, SecretKey)> {
    let (name, digits) = line.split_once(char::is_whitespace)?;
    let named = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let mut bytes = Zeroizing::new([0; SecretKey::LEN]);
    hex::decode_to_slice(digits.trim(), bytes.as_mut_slice()).ok()?;
    named.then_some((name.to_owned(), SecretKey::from_slice(bytes.as_slice())?))
}

/// Adds a version to a keyring, and makes the file if there is none. Returns the version's name after it is durable.
///
/// # Errors
/// Fails if the file is not a keyring, can be read by others, or cannot be written.
pub fn append_version(path: &Path) -> Result<String, KeyError> {
    let unwritable = |source| KeyError::File { path: path.to_owned(), source };
    let versions = match read(path) {
        Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let taken = |name: &String| versions.iter().any(|(known, _)| known == name);
    let free = (versions.len() + 1..).map(|number| format!("v{number}")).find(|name| !taken(name));
    let name = free.unwrap_or_default();
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(unwritable)?;
    let digits = Zeroizing::new(hex::encode(SecretKey::generate().expose()));
    // A line break comes first too, because the last line may lack its own.
    let line = Zeroizing::new(format!("{}{name} {}\n", if versions.is_empty() { "" } else { "\n" }, digits.as_str()));
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(unwritable)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritable)?;
    Ok(name)
}

fn keyring(path: &Path, what: &str) -> KeyError {
    KeyError::Keyring { path: path.to_owned(), what: what.to_owned() }
}
