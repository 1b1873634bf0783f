//! What the compiler cannot check: who may import whom, what the map of the workspace names, and what must not stay in
//! the tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cargo::{cargo, root};
use crate::step::output;

/// Which of our crates each may import. The way of a change is one direction, and a line missing here keeps it so.
const IMPORTS: [(&str, &[&str]); 11] = [
    ("audit-core", &[]),
    ("audit-config", &[]),
    ("audit-pgoutput", &["audit-core"]),
    ("audit-connect", &["audit-config"]),
    ("audit-capture", &["audit-core", "audit-pgoutput", "audit-config", "audit-connect"]),
    ("audit-hot", &["audit-core", "audit-config", "audit-connect"]),
    ("audit-lake", &["audit-core", "audit-config"]),
    ("audit-pipeline", &["audit-core", "audit-config"]),
    ("audit-history", &["audit-core", "audit-config", "audit-hot", "audit-lake"]),
    ("audit-testkit", &[]),
    ("xtask", &["audit-testkit"]),
];

/// The program, the tests and the benchmarks may import all.
const UNBOUND: [&str; 3] = ["cdc-audit", "cdc-audit-tests", "cdc-audit-benches"];

/// Only these may have the test kit as more than a dev-dependency.
const RUN_TESTS: [&str; 3] = ["xtask", "cdc-audit-tests", "cdc-audit-benches"];

/// A file longer than this has learnt too much.
const LINES: usize = 800;

pub fn run() -> Result<()> {
    let mut problems = Vec::new();
    let packages = packages()?;
    imports(&packages, &mut problems);
    architecture(&packages, &mut problems);
    let mut files = Vec::new();
    list(&root(), &mut files)?;
    for file in files {
        contents(&file, &mut problems);
    }
    if !problems.is_empty() {
        bail!("{} to tidy up:\n  {}", problems.len(), problems.join("\n  "));
    }
    Ok(())
}

/// Our packages: name to names of ours that it imports, with the kind of dependency.
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

fn imports(packages: &Packages, problems: &mut Vec<String>) {
    for (package, imported) in packages {
        let allowed = IMPORTS.iter().find(|(name, _)| name == package).map(|(_, allowed)| *allowed);
        if allowed.is_none() && !UNBOUND.contains(&package.as_str()) {
            problems.push(format!("{package} is not in the table of imports in xtask/src/tidy.rs"));
        }
        for (import, kind) in imported {
            let is_kit = import == "audit-testkit";
            let fine = match (is_kit, kind, allowed) {
                (true, Kind::Dev, _) => true,
                (true, Kind::Normal, _) => RUN_TESTS.contains(&package.as_str()),
                // Tests of a crate may look further than the crate itself.
                (false, Kind::Dev, _) | (false, Kind::Normal, None) => true,
                (false, Kind::Normal, Some(allowed)) => allowed.contains(&import.as_str()),
            };
            if !fine {
                problems.push(format!("{package} must not import {import}"));
            }
        }
    }
}

fn architecture(packages: &Packages, problems: &mut Vec<String>) {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap_or_default();
    let unnamed = packages.keys().filter(|package| !map.contains(package.as_str()));
    problems.extend(unnamed.map(|package| format!("ARCHITECTURE.md does not name {package}")));
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
    }
}

/// Promises nobody keeps, and paths of one machine. Spelt so that this file does not hold them.
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
        let imported = |name: &str, kind| vec![(name.to_owned(), kind)];
        let check = |package: &str, imports_of| {
            let mut problems = Vec::new();
            imports(&Packages::from([(package.to_owned(), imports_of)]), &mut problems);
            problems.len()
        };
        assert_eq!(check("audit-core", imported("audit-hot", Kind::Normal)), 1);
        assert_eq!(check("audit-hot", imported("audit-core", Kind::Normal)), 0);
        assert_eq!(check("audit-hot", imported("audit-testkit", Kind::Normal)), 1);
        assert_eq!(check("audit-hot", imported("audit-testkit", Kind::Dev)), 0);
        assert_eq!(check("audit-new", Vec::new()), 1);
    }

    #[test]
    fn leftovers_are_found_as_words_only() {
        assert!(leftover(concat!("// TO", "DO: later")).is_some());
        assert!(leftover(concat!("good for", " now.")).is_some());
        assert!(leftover("for nowhere, mastodon").is_none());
        assert!(leftover(concat!("cp /ro", "ot/x")).is_some());
    }
}
