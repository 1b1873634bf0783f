//! Checks what the compiler cannot check: that the table in `ARCHITECTURE.md` is true (every crate has a row, and
//! imports only what the row says), that `tests/rules.toml` is true (every rule's text is in its file, and its test
//! exists), that only one folder of the program knows the types of sinks, and that nothing is in the tree that must not
//! stay there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cargo::{cargo, root};
use crate::circles;
use crate::rules;
use crate::step::output;

/// Only these packages may have the test kit as a normal dependency.
const RUN_TESTS: [&str; 3] = ["cdc-audit-demo", "cdc-audit-tests", "cdc-audit-benches"];

/// Maximum number of lines of a source file.
const LINES: usize = 800;

pub fn run() -> Result<()> {
    let mut problems = Vec::new();
    let packages = packages()?;
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).context("cannot read ARCHITECTURE.md")?;
    imports(&packages, &allowed(&map), &mut problems);
    let mut files = Vec::new();
    list(&root(), &mut files)?;
    for file in files {
        contents(&file, &mut problems);
    }
    problems.extend(rules::check()?);
    for folder in sources()? {
        problems.extend(circles::check(&folder)?);
    }
    if !problems.is_empty() {
        bail!("{} to tidy up:\n  {}", problems.len(), problems.join("\n  "));
    }
    Ok(())
}

/// The folders with the sources of our packages.
fn sources() -> Result<Vec<PathBuf>> {
    let crates = fs::read_dir(root().join("crates"))?.map(|entry| Ok(entry?.path().join("src")));
    let crates: Vec<PathBuf> = crates.collect::<Result<_>>()?;
    let others = ["benches", "demo", "tests"].map(|package| root().join(package).join("src"));
    let mut sources: Vec<PathBuf> = crates.into_iter().chain(others).filter(|folder| folder.is_dir()).collect();
    sources.sort();
    Ok(sources)
}

/// Our packages by name, each with those of our packages that it imports and the kind of dependency.
type Packages = BTreeMap<String, Vec<(String, Kind)>>;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Normal,
    Dev,
}

fn packages() -> Result<Packages> {
    let metadata = output(&mut cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let ours: Vec<String> = packages.iter().map(|package| text(&package["name"])).collect();
    let imports = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
        let kind = |dependency: &serde_json::Value| match dependency["kind"].as_str() {
            Some("dev") => Kind::Dev,
            _ => Kind::Normal,
        };
        let named = dependencies.iter().map(|dependency| (text(&dependency["name"]), kind(dependency)));
        named.filter(|(name, _)| ours.contains(name)).collect()
    };
    Ok(packages.iter().map(|package| (text(&package["name"]), imports(package))).collect())
}

/// The table of crates: each crate, with those of our crates that it may import. `None` if it may import all.
type Allowed = BTreeMap<String, Option<Vec<String>>>;

/// Reads rows of the form "| `audit-hot` | what it is | core, config |"; the prefix `audit-` may be left out.
fn allowed(map: &str) -> Allowed {
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let &[name, _, imports] = cells.as_slice() else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        let full = |word: &str| if word.contains("audit") { word.to_owned() } else { format!("audit-{word}") };
        let words = imports.split([',', ' ']).filter(|word| !matches!(*word, "" | "–"));
        Some((name.to_owned(), (imports != "all").then(|| words.map(full).collect())))
    };
    map.lines().filter_map(row).collect()
}

fn imports(packages: &Packages, allowed: &Allowed, problems: &mut Vec<String>) {
    for (package, imported) in packages {
        let Some(allowed) = allowed.get(package) else {
            problems.push(format!("{package} has no row in the table of ARCHITECTURE.md"));
            continue;
        };
        for (import, kind) in imported {
            let listed = allowed.as_ref().is_none_or(|allowed| allowed.contains(import));
            let fine = match (import.as_str(), kind) {
                // A crate's tests may import more than the crate itself.
                (_, Kind::Dev) => true,
                ("audit-testkit", Kind::Normal) => RUN_TESTS.contains(&package.as_str()),
                _ => listed,
            };
            if !fine {
                problems.push(format!("{package} must not import {import}"));
            }
        }
    }
    let gone = allowed.keys().filter(|name| !packages.contains_key(*name));
    problems.extend(gone.map(|name| format!("ARCHITECTURE.md names {name}, which is gone")));
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    const LEFT_OUT: [&str; 6] = ["target", ".git", ".servers", "corpus", "artifacts", "Cargo.lock"];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            continue;
        } else if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn contents(file: &Path, problems: &mut Vec<String>) {
    let Ok(text) = fs::read_to_string(file) else { return };
    let name = file.strip_prefix(root()).unwrap_or(file).display();
    let is_rust = file.extension().is_some_and(|extension| extension == "rs");
    let lines = text.lines().count();
    if is_rust && lines > LINES {
        problems.push(format!("{name} has {lines} lines, more than {LINES}"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(leftover) = leftover(line) {
            problems.push(format!("{name}:{number} holds {leftover:?}"));
        }
        if names_a_type_of_sink(&name.to_string(), line) {
            problems.push(format!("{name}:{number} names a type of sink: ask {} instead", KNOW_SINKS[0]));
        }
    }
}

/// The only places that know the types of sinks: the folder with the behaviour of each, and the file with the enum.
const KNOW_SINKS: [&str; 2] = ["crates/cdc-audit/src/sinks/", "crates/cdc-audit/src/config.rs"];

/// Tells whether a line outside of these places has a match arm for one type of sink. The compiler would not find all
/// of them when a type is added.
fn names_a_type_of_sink(file: &str, line: &str) -> bool {
    let mut named = line.split(concat!("SinkConfig", "::")).skip(1);
    let is_known = KNOW_SINKS.iter().any(|known| file.starts_with(known));
    !is_known && named.any(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Finds promises that nobody keeps, and paths of one machine. They are written here so that this file does not contain
/// them.
fn leftover(line: &str) -> Option<&'static str> {
    const WORDS: [&str; 5] =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("for", " now"), concat!("X", "XX"), concat!("HA", "CK")];
    const PATHS: [&str; 4] =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/home", "/"), concat!("/Use", "rs/")];
    let word = |word: &&&str| {
        line.match_indices(**word).any(|(at, _)| {
            let beside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !beside(line[..at].chars().next_back()) && !beside(line[at + word.len()..].chars().next())
        })
    };
    WORDS.iter().find(word).or_else(|| PATHS.iter().find(|path| line.contains(**path))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        run().map_err(|error| format!("{error:#}")).unwrap();
    }

    #[test]
    fn an_import_against_the_way_of_a_change_is_found() {
        let map = "| crate | what it is | may import |\n|---|---|---|\n| `audit-core` | pure | – |\n\
                   | `audit-hot` | the hot table | core, config |\n| `cdc-audit` | the program | all |";
        let check = |package: &str, import: &str, kind| {
            let mut problems = Vec::new();
            let mut packages: Packages = allowed(map).into_keys().map(|name| (name, Vec::new())).collect();
            packages.insert(package.to_owned(), vec![(import.to_owned(), kind)]);
            imports(&packages, &allowed(map), &mut problems);
            problems.len()
        };
        assert_eq!(check("audit-core", "audit-hot", Kind::Normal), 1);
        assert_eq!(check("audit-hot", "audit-core", Kind::Normal), 0);
        assert_eq!(check("cdc-audit", "audit-hot", Kind::Normal), 0);
        assert_eq!(check("cdc-audit", "audit-testkit", Kind::Normal), 1);
        assert_eq!(check("audit-hot", "audit-testkit", Kind::Dev), 0);
        assert_eq!(check("audit-new", "audit-core", Kind::Normal), 1);
    }

    #[test]
    fn a_type_of_sink_is_known_in_one_folder() {
        let arm = concat!("    Sink", "Config::Hot(hot) => 1,");
        assert!(names_a_type_of_sink("crates/cdc-audit/src/cli/check.rs", arm));
        assert!(!names_a_type_of_sink("crates/cdc-audit/src/sinks/mod.rs", arm));
        assert!(!names_a_type_of_sink("crates/cdc-audit/src/cli/check.rs", concat!("map(Sink", "Config::remains)")));
    }

    #[test]
    fn leftovers_are_found_as_words_only() {
        assert!(leftover(concat!("// TO", "DO: later")).is_some());
        assert!(leftover(concat!("good for", " now.")).is_some());
        assert!(leftover("for nowhere, mastodon").is_none());
        assert!(leftover(concat!("cp /ro", "ot/x")).is_some());
    }
}
