//! Loads, checks, documents and shows configuration. Each crate owns the keys that configure it.
//!
//! A key is defined, documented, checked and given its default in one place, next to the code that it configures: as a
//! field of a struct that derives `Serialize`, `Deserialize` and `JsonSchema`. Everything else follows from the derive:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::path::Path;
//!
//! use audit_config::{ByteSize, Problems, SecretRef, Span};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! /// The captured database.
//! #[derive(Debug, Serialize, Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! pub struct Source {
//!     /// Names the source in every record; never change it.
//!     #[schemars(example = &"shop")]
//!     pub name: String,
//!     /// Where the password is found.
//!     pub password: Option<SecretRef>,
//!     /// A batch is written when it is this old, even if it is small.
//!     #[serde(default = "flush_after")]
//!     pub flush_after: Span,
//!     /// Memory for changes that are not yet written.
//!     #[serde(default = "memory")]
//!     pub memory: ByteSize,
//! }
//!
//! fn flush_after() -> Span {
//!     Span::secs(5)
//! }
//!
//! fn memory() -> ByteSize {
//!     ByteSize::mib(256)
//! }
//!
//! impl Source {
//!     /// Checks what the types cannot express. Paths are relative to the scope that the caller sets.
//!     pub fn check(&self, problems: &mut Problems) {
//!         if self.memory < ByteSize::mib(64) {
//!             problems.push("memory", "too small", "give at least \"64 MiB\"");
//!         }
//!     }
//! }
//!
//! #[derive(Debug, Serialize, Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! pub struct Config {
//!     pub source: Source,
//! }
//!
//! let text = "[source]\nname = 'shop'\nmemory = '1 MiB'\n";
//! let problems = audit_config::parse(Path::new("config.toml"), text, |config: &Config, problems| {
//!     problems.scope("source", |problems| config.source.check(problems));
//! });
//! assert_eq!(problems.unwrap_err().to_string(), "\
//! config.toml has 1 problem
//!   line 3, source.memory: too small
//!     hint: give at least \"64 MiB\"");
//!
//! assert!(audit_config::reference::<Config>().contains("# flush_after = \"5 s\"\n"));
//! ```
//!
//! This crate reads the following from a type:
//!
//! - The doc comment of a key is its text in `config.toml`; its first sentence is the hint if a required key is
//!   missing. The doc comment of a struct documents a section whose key has none.
//! - `#[serde(default …)]` and `Option` make a key optional. Defaults are shown by serialising them, which is why key
//!   structs derive `Serialize`, and why [`Secret`] does not.
//! - `#[schemars(example = &"…")]` on a required key is shown uncommented in `config.toml`, so give one that would
//!   work (schemars needs the `&` before a string literal).
//! - Enums of words, enums tagged by `#[serde(tag = "type")]` (alone, in maps, or flattened), untagged enums,
//!   `#[serde(flatten)]`, maps, lists and `#[schemars(range(…))]` are understood. `alias` and a flattened `Option` are
//!   not: their keys would be refused as unknown.
//!
//! **No value is ever printed.** Problems hold paths, lines, names of keys and kinds of values. The messages of a
//! `Deserialize` that you write yourself must keep to that.
//!
//! [`Problems`] prints no `error:` before itself, because the code that prints the error adds it.

mod chain;
mod check;
mod document;
mod load;
mod node;
mod problems;
mod reference;
pub mod secret;
pub mod units;
mod visible;

#[cfg(test)]
mod tests;

pub use chain::{Chain, causes};
pub use check::nearest;
pub use load::{effective, load, parse};
pub use problems::{Problems, quote};
pub use reference::reference;
pub use secret::{Secret, SecretError, SecretRef, redact};
pub use units::{ByteSize, Span, UnitError};
pub use visible::{visible, visible_lines};
