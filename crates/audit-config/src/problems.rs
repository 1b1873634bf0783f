//! Collects everything that is wrong with a configuration file in one list: [`Problems`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The problems of one file, each with the line and path of the key, and what to do about it.
///
/// Values of keys are never part of it, because one of them may be a password. Code that pushes a problem must keep to
/// that.
#[derive(Clone, Debug)]
pub struct Problems {
    file: PathBuf,
    /// Line of each key of the file, by its path.
    lines: BTreeMap<String, usize>,
    scope: String,
    list: Vec<Problem>,
}

#[derive(Clone, Debug)]
struct Problem {
    line: Option<usize>,
    path: String,
    message: String,
    hint: Option<String>,
}

impl Problems {
    /// An empty list for a file, with the lines of its keys where they are known.
    pub fn new(file: &Path, lines: BTreeMap<String, usize>) -> Problems {
        Problems { file: file.to_owned(), lines, scope: String::new(), list: Vec::new() }
    }

    /// Adds a problem of the key at `path`, for example `sinks.hot.url` or `tables[0].name` (see [`quote`]), relative
    /// to the scope. The line shown is that of the key, or of the nearest enclosing key that the file has.
    pub fn push<'h>(&mut self, path: &str, message: impl Into<String>, hint: impl Into<Option<&'h str>>) {
        let path = join(&self.scope, path);
        let line = self.line(&path);
        let hint = hint.into().map(str::to_owned);
        self.list.push(Problem { line, path, message: message.into(), hint });
    }

    /// Runs `check`, whose paths are relative to `path`, so that it need not know where in the file its keys are.
    pub fn scope(&mut self, path: &str, check: impl FnOnce(&mut Problems)) {
        let inner = join(&self.scope, path);
        let outer = std::mem::replace(&mut self.scope, inner);
        check(self);
        self.scope = outer;
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Makes an empty list for the same file.
    pub(crate) fn fresh(&self) -> Problems {
        Problems { list: Vec::new(), ..self.clone() }
    }

    pub(crate) fn append(&mut self, mut other: Problems) {
        self.list.append(&mut other.list);
    }

    /// Returns the list if it is still empty, so that checking goes on. Otherwise the list is the error.
    pub(crate) fn none_or_err(self) -> Result<Problems, Problems> {
        if self.is_empty() { Ok(self) } else { Err(self) }
    }

    /// Adds a problem of the text itself, which has no path yet.
    pub(crate) fn push_text(&mut self, line: Option<usize>, message: String, hint: Option<String>) {
        self.list.push(Problem { line, path: String::new(), message, hint });
    }

    fn line(&self, path: &str) -> Option<usize> {
        let around = |key: &&String| path.strip_prefix(key.as_str()).is_some_and(ends_key);
        let nearest = self.lines.keys().filter(around).max_by_key(|key| key.len())?;
        self.lines.get(nearest).copied()
    }
}

fn ends_key(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.list.len() == 1 { "" } else { "s" };
        write!(f, "{} has {} problem{plural}", self.file.display(), self.list.len())?;
        let mut list: Vec<_> = self.list.iter().collect();
        list.sort_by_key(|problem| problem.line);
        for Problem { line, path, message, hint } in list {
            let line = line.map(|line| format!("line {line}"));
            let path = Some(path.clone()).filter(|path| !path.is_empty());
            let place: Vec<_> = line.into_iter().chain(path).collect();
            let colon = if place.is_empty() { "" } else { ": " };
            write!(f, "\n  {}{colon}{message}", place.join(", "))?;
            if let Some(hint) = hint {
                write!(f, "\n    hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Joins to `path.key`; either part may be empty.
pub(crate) fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", _) => key.to_owned(),
        (_, "") => path.to_owned(),
        _ if key.starts_with('[') => format!("{path}{key}"),
        _ => format!("{path}.{key}"),
    }
}

/// Writes a key's name as TOML and paths do: bare, or in quotes if necessary.
pub fn quote(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) {
        return name.to_owned();
    }
    serde_json::Value::from(name).to_string()
}
