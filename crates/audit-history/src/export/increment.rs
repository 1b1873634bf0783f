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

use std::io;

use audit_core::position::Position;

use super::{ExportError, MANIFEST, Manifest, Target, UNFINISHED};

/// Where the next export of a series goes, and where it begins.
#[derive(Clone, Debug)]
pub struct Increment {
    pub to: Target,
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
pub async fn next(folder: &Target, name: &str, source: &str, tenant: Option<&str>) -> Result<Increment, ExportError> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
        return Err(ExportError::NoName { name: name.to_owned() });
    }
    let (mut after, mut number) = (None, 1);
    loop {
        let to = folder.join(&format!("{name}-{number:06}"));
        let Some(manifest) = to.read(MANIFEST).await.map_err(to.failed(MANIFEST))? else {
            let resume = to.read(UNFINISHED).await.map_err(to.failed(UNFINISHED))?.is_some();
            return Ok(Increment { to, resume, after });
        };
        let manifest = serde_json::from_slice::<Manifest>(&manifest).map_err(io::Error::from);
        let manifest = manifest.map_err(to.failed(MANIFEST))?;
        if manifest.source != source || manifest.store.tenant.as_deref() != tenant {
            return Err(ExportError::Another { path: to.shown(), what: "source or tenant" });
        }
        // An export of a sink without any version moves nothing.
        after = manifest.coverage.head.or(after);
        number += 1;
    }
}
