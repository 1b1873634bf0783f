//! Secrets: the place of one ([`SecretRef`], a key of the configuration) and the text found there ([`Secret`]).
//!
//! A secret is never part of the configuration file, cannot be serialised, and shows nothing in `Debug`. Only
//! [`Secret::expose`] returns it, so that a search for that name finds every place that uses one.

use std::borrow::Cow;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A secret's text, overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(text.into()))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret is found: `{ env = "NAME" }` or `{ file = "/path" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretRef {
    /// The environment variable that holds the secret.
    #[schemars(example = &"NAME")]
    Env(String),
    /// The file that holds the secret; one line break at its end is not part of it.
    #[schemars(example = &"/run/secrets/name")]
    File(PathBuf),
}

/// The reason why a secret could not be read. It never contains any part of the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("environment variable {name} is not set")]
    Unset { name: String },
    #[error("{place} holds no valid UTF-8")]
    NotText { place: SecretRef },
    #[error("{place} is empty")]
    Empty { place: SecretRef },
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("other users of this machine can read {}, which holds a secret", path.display())]
    Open { path: PathBuf },
}

impl SecretError {
    /// Says what a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            SecretError::Unset { .. } => "set it in the daemon's environment, or name a file instead: { file = \"…\" }",
            SecretError::NotText { .. } => "store the secret as text, for example in base64 or hex",
            SecretError::Empty { .. } => "write the secret there",
            SecretError::Unreadable { .. } => "the file must exist and be readable by the daemon's user",
            SecretError::Open { .. } => {
                "chmod 600 (or 640, if its group is one of the daemon's); in Kubernetes set `defaultMode: 0440` and `fsGroup`, \
                 in a swarm of Docker `mode: 0440` and `gid`, which Docker Compose ignores; then renew what is in it, because it may be known"
            }
        }
    }
}

impl SecretRef {
    /// Reads the secret now. A relative path is relative to the working directory.
    ///
    /// # Errors
    /// Fails if the variable is not set or the file cannot be read, if others can read the file, or if the secret is
    /// empty or not UTF-8.
    pub fn resolve(&self) -> Result<Secret, SecretError> {
        let text = match self {
            SecretRef::Env(name) => self.read_env(name)?,
            SecretRef::File(path) => self.read_file(path)?,
        };
        if text.is_empty() {
            return Err(SecretError::Empty { place: self.clone() });
        }
        Ok(Secret::new(text))
    }

    fn read_env(&self, name: &str) -> Result<String, SecretError> {
        let value = std::env::var_os(name).ok_or_else(|| SecretError::Unset { name: name.to_owned() })?;
        value.into_string().map_err(|_| SecretError::NotText { place: self.clone() })
    }

    fn read_file(&self, path: &Path) -> Result<String, SecretError> {
        let text = String::from_utf8(read_guarded(path)?).map_err(|_| SecretError::NotText { place: self.clone() })?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Env(name) => write!(f, "environment variable {name}"),
            SecretRef::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// Reads a token that a platform writes into a file for all programs of a container, and renews. The platform decides
/// who may read it, and the operator cannot change that. Blanks around it are not part of it.
///
/// # Errors
/// Fails if the file cannot be read, is empty, or is not UTF-8.
pub fn read_projected_token(path: &Path) -> Result<Secret, SecretError> {
    let bytes = std::fs::read(path).map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
    let place = SecretRef::File(path.to_owned());
    match String::from_utf8(bytes) {
        Ok(text) if text.trim().is_empty() => Err(SecretError::Empty { place }),
        Ok(text) => Ok(Secret::new(text.trim())),
        Err(_) => Err(SecretError::NotText { place }),
    }
}

/// Reads a file that holds a secret, and that is not open to others ([`is_open_to_others`]).
///
/// # Errors
/// Fails if the file cannot be read or is open to others.
pub fn read_guarded(path: &Path) -> Result<Vec<u8>, SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    // We check the file that is open, because another file may have its name by now.
    if is_open_to_others(&file.metadata().map_err(unreadable)?) {
        return Err(SecretError::Open { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Checks that a file that another library reads is not open to others.
///
/// # Errors
/// Fails if the file does not exist or is open to others.
pub fn guarded(path: &Path) -> Result<(), SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    match is_open_to_others(&std::fs::metadata(path).map_err(unreadable)?) {
        true => Err(SecretError::Open { path: path.to_owned() }),
        false => Ok(()),
    }
}

/// Tells whether users other than its owner may read or write a file. Its group may read it if root owns the file,
/// which is libpq's rule for private keys, or if this process is in that group: Kubernetes (`fsGroup`) and Docker
/// (`gid`) provide secrets that way.
#[cfg(unix)]
pub fn is_open_to_others(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let group_may_read = metadata.uid() == 0 || is_our_group(metadata.gid());
    let forbidden = if group_may_read { 0o037 } else { 0o077 };
    metadata.mode() & forbidden != 0
}

#[cfg(unix)]
fn is_our_group(group: u32) -> bool {
    let ours = rustix::process::getgroups().unwrap_or_default();
    ours.into_iter().chain([rustix::process::getegid()]).any(|ours| ours.as_raw() == group)
}

#[cfg(not(unix))]
pub fn is_open_to_others(_: &Metadata) -> bool {
    false
}

/// Replaces the passwords in `text` by `…`: those of URLs (`scheme://user:password@host`) and of `password=…` settings,
/// as in PostgreSQL's key/value strings and URL queries.
///
/// It is for connection strings that are shown. It may hide too much, but not too little.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut shown = Cow::Borrowed(text);
    if let Some(range) = url_password(&shown) {
        shown.to_mut().replace_range(range, "…");
    }
    let mut from = 0;
    while let Some(start) = password_setting(&shown, from) {
        let end = start + setting_len(&shown[start..]);
        if end > start {
            shown.to_mut().replace_range(start..end, "…");
        }
        from = start;
    }
    shown
}

fn url_password(text: &str) -> Option<std::ops::Range<usize>> {
    let authority = text.find("://")? + 3;
    // The last `@` ends the password, because one that was not percent-encoded may itself contain `@` or `/`.
    let at = authority + text[authority..].rfind('@')?;
    let colon = authority + text[authority..at].find(':')?;
    Some(colon + 1..at)
}

/// Finds the offset at which the value of the next `password = value` begins.
fn password_setting(text: &str, from: usize) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let mut from = from;
    loop {
        let name_end = from + lower[from..].find("password")? + "password".len();
        let rest = lower[name_end..].trim_start();
        if let Some(value) = rest.strip_prefix('=') {
            return Some(lower.len() - value.trim_start().len());
        }
        from = name_end;
    }
}

fn setting_len(text: &str) -> usize {
    let Some(quoted) = text.strip_prefix('\'') else {
        return text.find(|c: char| c == '&' || c.is_whitespace()).unwrap_or(text.len());
    };
    let mut escaped = false;
    let close = quoted.find(|c| {
        let closes = c == '\'' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    close.map_or(text.len(), |close| close + 2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn file(content: &[u8]) -> (tempfile::NamedTempFile, SecretRef) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let place = SecretRef::File(file.path().to_owned());
        (file, place)
    }

    #[test]
    fn a_secret_comes_from_a_file_or_a_variable_and_is_never_shown() {
        let (_file, place) = file(b"pass word \n");
        let secret = place.resolve().unwrap();
        assert_eq!(secret.expose(), "pass word ");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        let path = SecretRef::Env("PATH".into()).resolve().unwrap();
        assert_eq!(path.expose(), std::env::var("PATH").unwrap());
    }

    #[test]
    fn what_is_missing_is_named_with_a_hint() {
        let unset = SecretRef::Env("CDC_AUDIT_NO_SUCH_VARIABLE".into()).resolve().unwrap_err();
        assert_eq!(unset.to_string(), "environment variable CDC_AUDIT_NO_SUCH_VARIABLE is not set");
        assert!(unset.hint().starts_with("set it"));
        let missing = SecretRef::File("/no/such/file".into()).resolve().unwrap_err();
        assert_eq!(missing.to_string(), "cannot read /no/such/file");
        let (_empty, place) = file(b"\n");
        assert!(matches!(place.resolve(), Err(SecretError::Empty { .. })));
        let (_binary, place) = file(b"\xff\xfe");
        assert!(matches!(place.resolve(), Err(SecretError::NotText { .. })));
    }

    #[cfg(unix)]
    fn set_mode(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let (file, place) = file(b"geheim");
        for (mode, refused) in [
            (0o600, false),
            (0o400, false),
            (0o640, false),
            (0o440, false),
            (0o644, true),
            (0o444, true),
            (0o604, true),
            (0o660, true),
        ] {
            set_mode(file.path(), mode);
            let found = place.resolve();
            assert_eq!(matches!(found, Err(SecretError::Open { .. })), refused, "{mode:o}");
            assert_eq!(guarded(file.path()).is_err(), refused, "{mode:o}");
            assert!(refused || found.is_ok(), "{mode:o}");
        }
        let hint = guarded(file.path()).unwrap_err().hint();
        assert!(
            hint.contains("defaultMode: 0440") && hint.contains("fsGroup") && hint.contains("mode: 0440"),
            "{hint}"
        );
    }

    /// Only root can make a file of another user, so other users check only the part without such a file.
    #[cfg(unix)]
    #[test]
    fn a_group_may_read_if_it_is_one_of_ours() {
        use std::os::unix::fs::{MetadataExt, chown};

        let (file, place) = file(b"geheim");
        let ours = std::fs::metadata(file.path()).unwrap().gid();
        let stranger = (1..).find(|&group| !is_our_group(group)).unwrap();
        assert!(is_our_group(ours) && !is_our_group(stranger));
        set_mode(file.path(), 0o440);
        for (group, refused) in [(ours, false), (stranger, true)] {
            if chown(file.path(), Some(65534), Some(group)).is_ok() {
                assert_eq!(place.resolve().is_err(), refused, "{group}");
            }
        }
    }

    /// In a volume of Kubernetes the file is a link to a link to the folder of the newest version.
    #[cfg(unix)]
    #[test]
    fn a_secret_and_a_token_are_read_as_kubernetes_gives_them() {
        use std::os::unix::fs::symlink;

        let volume = tempfile::tempdir().unwrap();
        std::fs::create_dir(volume.path().join("..2026")).unwrap();
        symlink("..2026", volume.path().join("..data")).unwrap();
        symlink("..data/key", volume.path().join("key")).unwrap();
        let (real, named) = (volume.path().join("..2026/key"), volume.path().join("key"));
        std::fs::write(&real, "geheim\n").unwrap();
        set_mode(&real, 0o440);
        assert_eq!(SecretRef::File(named.clone()).resolve().unwrap().expose(), "geheim");
        set_mode(&real, 0o644);
        assert!(matches!(SecretRef::File(named.clone()).resolve(), Err(SecretError::Open { .. })));
        assert_eq!(read_projected_token(&named).unwrap().expose(), "geheim");
    }

    #[test]
    fn passwords_in_connection_strings_are_hidden() {
        for (text, shown) in [
            ("postgres://ann:secret@db/shop", "postgres://ann:…@db/shop"),
            ("postgres://ann:se/c@ret@db:5432/shop", "postgres://ann:…@db:5432/shop"),
            ("postgres://ann@db:5432/shop", "postgres://ann@db:5432/shop"),
            ("postgres://db/shop?password=s&sslpassword=t&x=1", "postgres://db/shop?password=…&sslpassword=…&x=1"),
            ("host=db password = 'it\\'s me' user=ann", "host=db password = … user=ann"),
            ("host=db PASSWORD=secret", "host=db PASSWORD=…"),
            ("the password is secret", "the password is secret"),
            ("password=", "password="),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_redacted(text in "\\PC*", near in "(a://|password ?=|[@:'\\\\ &µ…a])*") {
            let _ = (redact(&text), redact(&near));
        }
    }
}
