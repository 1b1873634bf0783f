//! The places where the password may come from: [`PasswordSources`].
//!
//! They are searched in this order: `password_file`, `password_env`, the connection string, `PGPASSWORD`, the password
//! file (`passfile=`, `PGPASSFILE`, `~/.pgpass`). A place that the configuration names explicitly must have a password;
//! the others are libpq's places, and any of them may be empty. Files and variables are read when a session is opened,
//! so that a rotated password needs no restart.

use std::path::{Path, PathBuf};
use std::{env, fmt};

use audit_config::secret::read_guarded;
use zeroize::Zeroizing;

use crate::error::ConnectError;
use crate::passfile::{self, Wanted};
use crate::target::{Place, Target};

/// A password and, for hints, the place where it was found. It is overwritten when it is dropped, and `Debug` does not
/// show it.
#[derive(Clone)]
pub struct Password {
    bytes: Zeroizing<Vec<u8>>,
    origin: String,
}

impl Password {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The place where the password was found, as in "the password came from …".
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Password(from {})", self.origin)
    }
}

/// The result of a search: a password, or the possible reason why there is none.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Password(Password),
    /// No password was found. The text says what was wrong with the password file, if anything was.
    Nothing(Option<String>),
}

#[derive(Clone)]
pub(crate) struct PasswordSources {
    configured: Option<Configured>,
    in_url: Option<Zeroizing<Vec<u8>>>,
    passfile: Option<PathBuf>,
}

/// The place that the configuration names.
#[derive(Clone)]
pub(crate) enum Configured {
    File(PathBuf),
    Env(String),
}

impl Configured {
    /// Interprets the keys `password_file` and `password_env`.
    pub(crate) fn new(file: Option<&Path>, env: Option<&str>) -> Result<Option<Configured>, ConnectError> {
        match (file, env) {
            (Some(_), Some(_)) => {
                Err(ConnectError::config("password_file and password_env exclude each other", "keep one of them"))
            }
            (Some(file), None) => Ok(Some(Configured::File(file.to_owned()))),
            (None, Some(name)) => Ok(Some(Configured::Env(name.to_owned()))),
            (None, None) => Ok(None),
        }
    }
}

impl PasswordSources {
    /// Makes the list of places. `in_url` is the password in the connection string, `passfile` its option of that name.
    pub(crate) fn new(
        configured: Option<Configured>,
        in_url: Option<&[u8]>,
        passfile: Option<PathBuf>,
    ) -> PasswordSources {
        // As in libpq, an empty password counts as none.
        let in_url = in_url.filter(|password| !password.is_empty()).map(|password| Zeroizing::new(password.to_vec()));
        PasswordSources { configured, in_url, passfile }
    }

    pub(crate) fn find(&self, user: &str, dbname: &str, target: &Target) -> Result<Found, ConnectError> {
        let found =
            |bytes: Vec<u8>, origin: String| Ok(Found::Password(Password { bytes: Zeroizing::new(bytes), origin }));
        match &self.configured {
            Some(Configured::File(path)) => return found(read_file(path)?, format!("the file {}", path.display())),
            Some(Configured::Env(name)) => return found(read_env(name)?, format!("the environment variable {name}")),
            None => {}
        }
        if let Some(bytes) = &self.in_url {
            return found(bytes.to_vec(), "the connection string".to_owned());
        }
        if let Some(bytes) = env_bytes("PGPASSWORD") {
            return found(bytes, "the environment variable PGPASSWORD".to_owned());
        }
        let Some(path) = self.passfile.clone().or_else(passfile::default_path) else { return Ok(Found::Nothing(None)) };
        let wanted = Wanted { host: passfile_host(target), port: target.port, dbname, user };
        match passfile::search(&path, &wanted) {
            Ok(Some(bytes)) => found(bytes, format!("the password file {}", path.display())),
            Ok(None) => Ok(Found::Nothing(None)),
            // Ignored, as in libpq, because the server may not ask for a password. If it does, the hint repeats this.
            Err(why) => {
                tracing::warn!(file = %path.display(), "password file ignored: {why}");
                Ok(Found::Nothing(Some(format!("the password file {} was ignored: {why}", path.display()))))
            }
        }
    }
}

/// Returns the host to look up in the password file. As in libpq, a socket in a usual folder is `localhost` there.
fn passfile_host(target: &Target) -> &str {
    match &target.place {
        Place::Unix(_) if matches!(target.name.as_str(), "/tmp" | "/var/run/postgresql" | "/run/postgresql") => {
            "localhost"
        }
        _ => &target.name,
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, ConnectError> {
    let mut bytes = read_guarded(path).map_err(|error| ConnectError::secret("password_file", path, error))?;
    // Editors end a file with a line break, which is not part of the password.
    for end in [b'\n', b'\r'] {
        bytes.pop_if(|last| *last == end);
    }
    Ok(bytes)
}

fn read_env(name: &str) -> Result<Vec<u8>, ConnectError> {
    env_bytes(name).ok_or_else(|| {
        let what = format!("password_env names the environment variable {name}, which is not set");
        ConnectError::config(what, "set it for the daemon (systemd: EnvironmentFile=), or use password_file")
    })
}

fn env_bytes(name: &str) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    env::var_os(name).map(OsStringExt::into_vec).filter(|bytes| !bytes.is_empty())
}
