//! `--since-last`: each version once, for jobs that ask the same question again and again.
//!
//! What is kept under a name is the position up to which every store had everything at the time of the last answer. It is moved on after the answer was
//! printed, so that a job that is killed asks for the same versions again.

use std::path::PathBuf;

use audit_core::position::{Position, Window};
use audit_core::search::Wanted;
use audit_history::search::{Deriver, candidates};
use serde::{Deserialize, Serialize};

use super::Search;
use crate::error::{CliError, code};

/// Versions that are read at a time.
const PAGE: usize = 500;

#[derive(Serialize, Deserialize)]
struct Kept {
    source: String,
    /// Versions before this position were part of an answer.
    before: Position,
}

pub async fn answer(search: &Search<'_>, name: &str) -> Result<u64, CliError> {
    let path = path(name)?;
    let kept = read(&path)?.filter(|kept| kept.source == search.source);
    let Some(end) = search.store.common_end() else { return Ok(0) };
    let window = Window { from: kept.as_ref().map(|kept| kept.before), to: Some(end) };
    let mut wanted = Wanted { window, ..search.wanted.clone() };
    let rules = search.config.rules();
    let (mut count, mut is_first) = (0, true);
    let mut deriver = Deriver::new(&search.store, search.source, &search.asked.matcher, &rules);
    loop {
        let page = candidates(&search.store, &mut wanted, &search.asked.matcher, PAGE).await?;
        let is_last = page.len() < PAGE;
        let mut found = Vec::new();
        for record in page {
            found.extend(deriver.told(record).await?);
        }
        count += found.len() as u64;
        if !search.args.quiet && (is_first || !found.is_empty()) {
            let found = search.named(found).await?;
            search.print(&super::Page { found, more: false }, None, is_first).await?;
            is_first = false;
        }
        if is_last {
            break;
        }
    }
    search.say_untold();
    // ⚠ Another sink, or one that was restored, may not be as far as the last answer was: its versions are not asked for
    // again.
    let before = kept.map_or(end, |kept| kept.before.max(end));
    let kept = Kept { source: search.source.to_owned(), before };
    write(&path, &kept)?;
    Ok(count)
}

/// The file of a cursor, in the folder for the state of programs.
fn path(name: &str) -> Result<PathBuf, CliError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(CliError::new(format!("{name:?} cannot be the name of a cursor"))
            .hint("take letters, digits, - and _".to_owned())
            .code(code::USAGE));
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").filter(|state| !state.is_empty()).map(PathBuf::from);
    let state = state.or_else(home).ok_or_else(|| {
        CliError::new("there is no folder for cursors").hint("set XDG_STATE_HOME or HOME".to_owned()).code(code::USAGE)
    })?;
    Ok(state.join("cdc-audit").join("cursors").join(format!("{name}.json")))
}

fn read(path: &PathBuf) -> Result<Option<Kept>, CliError> {
    let failed = |detail: String| {
        CliError::new(format!("the cursor {} cannot be read", path.display()))
            .detail(detail)
            .hint("remove the file to begin anew".to_owned())
    };
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| failed(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Replaces the file in one step: a half-written cursor would lose its place.
fn write(path: &PathBuf, kept: &Kept) -> Result<(), CliError> {
    let write = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(kept)?)?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, path)
    };
    let failed = |error: std::io::Error| {
        CliError::new(format!("the cursor {} cannot be stored", path.display())).detail(error.to_string())
    };
    write().map_err(failed)
}
