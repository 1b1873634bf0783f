//! Stores how long things took the last time, next to the builds, so that a chore can say how long it will take.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cargo::target_dir;

/// The times of one kind of thing, in seconds, by name.
pub struct Times {
    file: PathBuf,
    seconds: BTreeMap<String, f64>,
}

impl Times {
    /// Reads the times of `what`; there are none before the first time.
    pub fn of(what: &str) -> Times {
        let file = target_dir().join(format!("times-of-{what}.json"));
        let text = fs::read_to_string(&file).unwrap_or_default();
        Times { file, seconds: serde_json::from_str(&text).unwrap_or_default() }
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.seconds.get(name).copied()
    }

    /// Stores how long these took now. Others keep their earlier time.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn note<'n>(mut self, now: impl IntoIterator<Item = (&'n str, f64)>) -> Result<()> {
        self.seconds.extend(now.into_iter().map(|(name, seconds)| (name.to_owned(), seconds)));
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let text = serde_json::to_string(&self.seconds)?;
        fs::write(&self.file, text).with_context(|| format!("cannot write {}", self.file.display()))
    }
}

/// Writes a span of time as people say it.
pub fn about(seconds: f64) -> String {
    if seconds < 90.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}
