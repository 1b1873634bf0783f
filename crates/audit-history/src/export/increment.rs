//! Exports in a series, each of which begins where the one before ended ([`next`]).
//!
//! ```text
//! DIR/NAME-000001/manifest.json    everything up to position A
//! DIR/NAME-000002/manifest.json    after A, up to position B
//! DIR/NAME-000003/unfinished.jsonl after B: broke off; the next run goes on with it
//! ```
//!
//! The mark is the position in the manifest of the last folder that has one. So it cannot differ from what was exported,
//! needs no right to write into a database, and a run that fails does not move it.

use std::fs;
use std::path::{Path, PathBuf};

use audit_core::position::Position;

use super::{ExportError, MANIFEST, Manifest, UNFINISHED, make_folder};

/// Where the next export of a series goes, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Increment {
    pub to: PathBuf,
    /// Whether an export there broke off.
    pub resume: bool,
    /// Where the last whole one ended; `None` before the first.
    pub after: Option<Position>,
}

/// Finds the next export of a series in a folder.
///
/// # Errors
/// Fails if the name is none, or if the folder cannot be read or holds something else under such a name, such as exports
/// of another source or tenant, after which this one would lack what was committed before.
pub fn next(folder: &Path, name: &str, source: &str, tenant: Option<&str>) -> Result<Increment, ExportError> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
        return Err(ExportError::NoName { name: name.to_owned() });
    }
    make_folder(folder).map_err(|source| ExportError::Write { path: folder.to_path_buf(), source })?;
    let (mut after, mut number) = (None, 1);
    loop {
        let to = folder.join(format!("{name}-{number:06}"));
        let Ok(manifest) = fs::read(to.join(MANIFEST)) else {
            let resume = to.join(UNFINISHED).exists();
            return Ok(Increment { to, resume, after });
        };
        let unreadable =
            |error: serde_json::Error| ExportError::Write { path: to.join(MANIFEST), source: error.into() };
        let manifest: Manifest = serde_json::from_slice(&manifest).map_err(unreadable)?;
        if manifest.source != source || manifest.store.tenant.as_deref() != tenant {
            return Err(ExportError::Another { path: to, what: "source or tenant" });
        }
        // An export of a sink without any version moves nothing.
        after = manifest.coverage.head.or(after);
        number += 1;
    }
}
