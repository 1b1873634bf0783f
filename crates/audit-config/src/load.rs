//! Loads a file into a checked type ([`load`]), and writes it back as text ([`effective`]).

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::check::check;
use crate::document::{self, Reader};
use crate::node::Node;
use crate::problems::Problems;
use crate::secret::redact;

/// Reads the file at `path` as a `T`. `owner` adds problems that only the meaning of the keys shows.
///
/// An unknown key is refused even if the type does not say `deny_unknown_fields`.
///
/// # Errors
/// Problems come in three rounds, and each round reports all of its kind: first what is not TOML, then what does not
/// fit the type (unknown, missing and mistyped keys, wrong units), then what `owner` finds.
pub fn load<T>(path: &Path, owner: impl FnOnce(&T, &mut Problems)) -> Result<T, Problems>
where
    T: DeserializeOwned + JsonSchema,
{
    let text = std::fs::read_to_string(path).map_err(|error| {
        let mut problems = Problems::new(path, Default::default());
        let hint = "name the file with --config; `cdc-audit config` prints one with every key documented";
        problems.push_text(None, format!("cannot be read: {error}"), Some(hint.to_owned()));
        problems
    })?;
    parse(path, &text, owner)
}

/// Does the same as [`load`] for a text that was read from `path`.
///
/// # Errors
/// Fails with the same problems as [`load`].
pub fn parse<T>(path: &Path, text: &str, owner: impl FnOnce(&T, &mut Problems)) -> Result<T, Problems>
where
    T: DeserializeOwned + JsonSchema,
{
    let (value, mut problems) = document::parse(path, text)?;
    let schema = schemars::schema_for!(T).to_value();
    check(&Node::root(&schema), &value, "", &mut problems);
    let mut problems = problems.none_or_err()?;
    match T::deserialize(Reader(value)) {
        Ok(config) => {
            owner(&config, &mut problems);
            problems.none_or_err().map(|_| config)
        }
        Err(fault) => {
            let (message, hint) = match fault.message.split_once(": ") {
                Some((message, hint)) => (message, Some(hint)),
                None => (fault.message.as_str(), None),
            };
            problems.push(&fault.path, message, hint);
            Err(problems)
        }
    }
}

/// Writes the configuration in force as TOML, including every default.
///
/// A secret shows only its place, because nothing else of it can be serialised. Passwords that were nevertheless
/// written into a connection string are replaced by `…`.
///
/// # Errors
/// Fails if TOML cannot express a value.
pub fn effective<T: Serialize>(config: &T) -> Result<String, toml::ser::Error> {
    let mut table = toml::Table::try_from(config)?;
    table.iter_mut().for_each(|(_, value)| hide(value));
    toml::to_string(&table)
}

fn hide(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => *text = redact(text).into_owned(),
        toml::Value::Array(list) => list.iter_mut().for_each(hide),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| hide(value)),
        _ => {}
    }
}
