//! Finds circles of imports inside a crate: files that import each other, directly or through others.
//!
//! An import leads from a file to the file that defines the imported name, through `pub use` where a module hands a
//! name on. Tests (`#[cfg(test)]`) do not count. A module and the modules inside it are one room: what they import from
//! each other does not count either.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// A module's path inside its crate: `[]` is `lib.rs` or `main.rs`, `["read", "files"]` is `read/files.rs`.
type Module = Vec<String>;

/// A module that has a file.
#[derive(Debug, Default)]
struct Source {
    /// Names that the file defines itself, those of its modules included.
    defined: BTreeSet<String>,
    /// Names that `use` brings in, each with the path that it stands for, which begins at the crate.
    used: BTreeMap<String, Module>,
    /// Paths from which everything is imported (`use …::*`).
    globs: Vec<Module>,
    /// All paths of this crate that the file mentions.
    paths: BTreeSet<Module>,
}

type Sources = BTreeMap<Module, Source>;

/// Describes each circle in the crate whose sources are in `folder`.
pub fn check(folder: &Path) -> Result<Vec<String>> {
    let mut texts = BTreeMap::new();
    read(folder, &Vec::new(), &mut texts)?;
    Ok(describe(&texts, folder))
}

fn describe(texts: &BTreeMap<Module, String>, folder: &Path) -> Vec<String> {
    let known: BTreeSet<Module> = texts.keys().cloned().collect();
    let sources: Sources =
        texts.iter().map(|(module, text)| (module.clone(), Source::parse(module, text, &known))).collect();
    let imports: BTreeMap<&Module, BTreeSet<Module>> =
        sources.iter().map(|(module, source)| (module, source.imports(module, &sources))).collect();
    let name = |module: &Module| match module.as_slice() {
        [] => "the crate's root".to_owned(),
        names => names.join("::"),
    };
    let circle = |members: Vec<&Module>| {
        let within = |module: &&Module| {
            let found = imports[*module].iter().filter(|import| members.contains(import)).map(name);
            format!("{} imports {}", name(module), found.collect::<Vec<_>>().join(", "))
        };
        let lines: Vec<String> = members.iter().map(within).collect();
        format!("{} has a circle of imports: {}", folder.display(), lines.join("; "))
    };
    circles(&imports).into_iter().map(circle).collect()
}

fn read(folder: &Path, module: &Module, texts: &mut BTreeMap<Module, String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let inner = |name: &str| module.iter().cloned().chain([name.to_owned()]).collect::<Module>();
        if path.is_dir() {
            read(&path, &inner(stem), texts)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") && stem != "tests" {
            let here = if matches!(stem, "lib" | "main" | "mod") { module.clone() } else { inner(stem) };
            texts.insert(here, without_tests(&fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

/// Removes comments, the contents of strings, and everything from the module of tests on, which ends a file.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut test = false;
    for line in text.lines() {
        let line = line.split_once("//").map_or(line, |(code, _)| code);
        match line.trim() {
            "#[cfg(test)]" => test = true,
            rest if test && rest.starts_with("mod ") && rest.ends_with('{') => break,
            rest if test && !rest.starts_with("#[") => test = false,
            _ => {}
        }
        let shown: Vec<&str> = line.split('"').step_by(2).collect();
        code += &shown.join("\"\"");
        code.push('\n');
    }
    code
}

impl Source {
    fn parse(module: &Module, text: &str, known: &BTreeSet<Module>) -> Source {
        let mut source = Source::default();
        let words = words(text);
        // The depths of braces at which modules inside this file end.
        let (mut depth, mut inside): (usize, Vec<usize>) = (0, Vec::new());
        for (at, word) in words.iter().enumerate() {
            let begins_path = at == 0 || words[at - 1] != "::";
            match *word {
                "{" => {
                    if at > 1 && words[at - 2] == "mod" {
                        inside.push(depth);
                    }
                    depth += 1;
                }
                "}" => {
                    depth = depth.saturating_sub(1);
                    inside.pop_if(|end| *end == depth);
                }
                // For a module inside this file, `super` is this file.
                "super" | "use" if !inside.is_empty() => {}
                "use" if begins_path => source.take_use(module, &words[at + 1..], known),
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "mod" | "macro_rules" | "union" => {
                    let name = words[at + 1..].iter().find(|name| !matches!(**name, "!" | "mut"));
                    source.defined.extend(name.map(|name| (*name).to_owned()));
                }
                "crate" | "super" | "self" if begins_path && words.get(at + 1) == Some(&"::") => {
                    let path = words[at..].iter().step_by(2).zip(words[at + 1..].iter().step_by(2).chain([&""]));
                    let end = path.clone().position(|(_, next)| *next != "::").map_or(0, |end| end + 1);
                    let path: Vec<&str> = path.take(end).map(|(word, _)| *word).collect();
                    source.paths.extend(absolute(module, &path));
                }
                // A path that begins with a module of this one.
                name if begins_path && words.get(at + 1) == Some(&"::") => {
                    let inner: Module = module.iter().cloned().chain([name.to_owned()]).collect();
                    if known.contains(&inner) {
                        let item = words.get(at + 2).map(|item| (*item).to_owned());
                        source.paths.insert(inner.into_iter().chain(item).collect());
                    }
                }
                _ => {}
            }
        }
        source
    }

    /// Takes the names of a `use`, whose words begin after it.
    fn take_use(&mut self, module: &Module, words: &[&str], known: &BTreeSet<Module>) {
        let end = words.iter().position(|word| *word == ";").unwrap_or(words.len());
        let mut branches: Vec<(Vec<&str>, &str)> = Vec::new();
        let (mut stack, mut path): (Vec<usize>, Vec<&str>) = (Vec::new(), Vec::new());
        let mut renamed = None;
        for word in words[..end].iter().chain([&","]) {
            match *word {
                "::" => {}
                "as" => renamed = Some(path.len()),
                "{" => stack.push(path.len()),
                "}" | "," => {
                    let from = stack.last().copied().unwrap_or(0);
                    if path.len() > from {
                        let (target, name) = match renamed.take() {
                            Some(at) => (path[..at].to_vec(), *path.last().unwrap_or(&"")),
                            None => (path.clone(), *path.last().unwrap_or(&"")),
                        };
                        branches.push((target, name));
                    }
                    path.truncate(from);
                    if *word == "}" {
                        stack.pop();
                        path.truncate(stack.last().copied().unwrap_or(0));
                    }
                }
                word => path.push(word),
            }
        }
        for (target, name) in branches {
            let own = target.first().is_some_and(|first| {
                matches!(*first, "crate" | "super" | "self")
                    || known.contains(&module.iter().cloned().chain([(*first).to_owned()]).collect::<Module>())
            });
            let Some(target) = own.then(|| absolute(module, &target)).flatten() else { continue };
            if name == "*" {
                self.globs.push(target[..target.len() - 1].to_vec());
            } else {
                let name = if name == "self" { target.last().cloned().unwrap_or_default() } else { name.to_owned() };
                self.used.insert(name, target.clone());
            }
            self.paths.insert(target);
        }
    }

    fn imports(&self, module: &Module, sources: &Sources) -> BTreeSet<Module> {
        let found = self.paths.iter().filter_map(|path| defining(path, sources, 0));
        found.filter(|import| !import.starts_with(module) && !module.starts_with(import)).collect()
    }
}

/// Returns the path from the crate's root on.
fn absolute(module: &Module, path: &[&str]) -> Option<Module> {
    let (mut from, mut rest) = (module.clone(), path);
    match rest.first()? {
        &"crate" => from.clear(),
        &"self" | &"super" => {}
        _ => return Some(from.into_iter().chain(rest.iter().map(|word| (*word).to_owned())).collect()),
    }
    while let Some(first @ ("crate" | "self" | "super")) = rest.first().copied() {
        if first == "super" {
            from.pop()?;
        }
        // `use a::{self}` names the module itself.
        rest = &rest[1..];
    }
    let rest = rest.iter().filter(|word| **word != "self").map(|word| (*word).to_owned());
    Some(from.into_iter().chain(rest).collect())
}

/// Finds the file that defines what a path names.
fn defining(path: &Module, sources: &Sources, depth: usize) -> Option<Module> {
    let longest = (0..=path.len()).rev().map(|end| &path[..end]).find(|part| sources.contains_key(*part))?;
    let source = &sources[longest];
    let Some(name) = path.get(longest.len()) else { return Some(longest.to_vec()) };
    if source.defined.contains(name) || depth > 8 {
        return Some(longest.to_vec());
    }
    if let Some(target) = source.used.get(name).filter(|target| *target != path) {
        return defining(target, sources, depth + 1);
    }
    let through = |glob: &Module| glob.iter().cloned().chain([name.clone()]).collect::<Module>();
    let behind = source.globs.iter().map(through).find(|path| {
        let file = (0..path.len()).rev().map(|end| &path[..end]).find(|part| sources.contains_key(*part));
        file.is_some_and(|file| sources[file].defined.contains(name))
    });
    behind.map_or(Some(longest.to_vec()), |path| defining(&path, sources, depth + 1))
}

/// Splits code into words and `::`; every other character is a word of its own.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            c if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        words.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    words
}

/// Finds the groups of modules in which each reaches every other one.
fn circles<'m>(imports: &BTreeMap<&'m Module, BTreeSet<Module>>) -> Vec<Vec<&'m Module>> {
    let reaches = |from: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = open.pop() {
            for import in imports.get(&module).into_iter().flatten() {
                if seen.insert(import.clone()) {
                    open.push(import.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        imports.keys().map(|module| (*module, reaches(module))).collect();
    let mut circles: Vec<Vec<&Module>> = Vec::new();
    for module in imports.keys().copied().filter(|module| reached[*module].contains(*module)) {
        if circles.iter().flatten().any(|other| *other == module) {
            continue;
        }
        let mutual = |other: &&Module| reached[module].contains(*other) && reached[*other].contains(module);
        circles.push(imports.keys().copied().filter(mutual).collect());
    }
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> usize {
        let module = |name: &str| name.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let texts = files.iter().map(|(name, text)| (module(name), without_tests(text))).collect();
        describe(&texts, Path::new("x")).len()
    }

    #[test]
    fn files_that_import_each_other_are_found() {
        let root = ("", "mod a;\nmod b;\npub use a::A;\n");
        assert_eq!(
            found(&[root, ("a", "use crate::b::B;\npub struct A;"), ("b", "use crate::a::A;\npub struct B;")]),
            1
        );
        assert_eq!(found(&[root, ("a", "use crate::b::B;\npub struct A;"), ("b", "use crate::A;\npub struct B;")]), 1);
        assert_eq!(found(&[root, ("a", "use crate::b::B;\npub struct A;"), ("b", "pub struct B;")]), 0);
        let inline = ("b", "pub fn b() { super::a::f() }");
        assert_eq!(found(&[root, ("a", "use crate::b::{self, c};\npub fn f() {}"), inline]), 1);
    }

    #[test]
    fn what_is_handed_on_and_what_tests_import_makes_no_circle() {
        let root = ("", "mod a;\npub use a::inner::I;\n");
        let a = ("a", "pub mod inner;\nuse inner::I;\npub struct A(I);");
        assert_eq!(found(&[root, a, ("a::inner", "pub struct I;")]), 0);
        assert_eq!(
            found(&[root, a, ("a::inner", "pub struct I;\n#[cfg(test)]\nmod tests {\n use crate::a::A;\n}")]),
            0
        );
        assert_eq!(found(&[root, a, ("a::inner", "use super::A;\npub struct I;")]), 0);
    }
}
