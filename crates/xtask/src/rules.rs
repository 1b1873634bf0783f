//! Proves `tests/rules.toml`, which lists the rules of the design that answer a failure, each with the test that fails
//! without it.
//!
//! The proof works on a copy of the tree, with its own builds. It takes out one rule after another, by replacing a text
//! in a source file, and runs the rule's test, which must then fail, and must pass otherwise.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cargo::{SELECTION, cargo, root, target_dir};
use crate::install;
use crate::step::{output, run, step};

const LIST: &str = "tests/rules.toml";

/// Seconds after which a test counts as hanging.
const TEST_MAX: &str = "600";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    /// The rule, and what happens without it.
    #[expect(dead_code, reason = "for readers of the list")]
    says: String,
    file: PathBuf,
    /// A text that occurs once in the file.
    find: String,
    /// The same text without the rule.
    replace: String,
    /// A test program (`e2e`), or a crate (`audit-core`) for its unit tests.
    target: String,
    /// The test's name, with its modules.
    test: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    rule: Vec<Rule>,
}

fn read() -> Result<Vec<Rule>> {
    let text = fs::read_to_string(root().join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    Ok(toml::from_str::<List>(&text).with_context(|| format!("cannot read {LIST}"))?.rule)
}

/// Finds errors in the list: texts that are not in the file, tests that do not exist.
pub fn check() -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for rule in &read()? {
        if !names.insert(rule.name.clone()) {
            problems.push(format!("{LIST} has two rules {}", rule.name));
        }
        let text = fs::read_to_string(root().join(&rule.file)).unwrap_or_default();
        let found = text.matches(&rule.find).count();
        if found != 1 || rule.find == rule.replace {
            let file = rule.file.display();
            problems.push(format!("{LIST}, {}: its text is in {file} {found} times, and must be once", rule.name));
        }
        if !rule.test_exists()? {
            problems.push(format!("{LIST}, {}: there is no test {} in {}", rule.name, rule.test, rule.target));
        }
    }
    Ok(problems)
}

impl Rule {
    fn is_of_a_crate(&self) -> bool {
        root().join("crates").join(&self.target).is_dir()
    }

    /// Searches the target's sources for the function.
    fn test_exists(&self) -> Result<bool> {
        let function = format!("fn {}(", self.test.rsplit("::").next().unwrap_or_default());
        let mut folders = vec![root().join("crates").join(&self.target).join("src")];
        if !self.is_of_a_crate() {
            folders = vec![root().join("tests").join(&self.target)];
            for entry in fs::read_dir(root().join("crates"))? {
                let tests = entry?.path().join("tests");
                folders.extend([tests.join(&self.target), tests.join(format!("{}.rs", self.target))]);
            }
        }
        Ok(folders.iter().any(|path| holds(path, &function)))
    }

    /// Returns cargo's options that select the test's target.
    fn target(&self) -> Vec<&str> {
        if self.is_of_a_crate() { vec!["--lib"] } else { vec!["--test", &self.target] }
    }

    /// Tells whether the test starts the built program, as the tests of the whole program do.
    fn needs_the_program(&self) -> bool {
        !self.is_of_a_crate() && root().join("tests").join(&self.target).is_dir()
    }
}

fn holds(path: &Path, text: &str) -> bool {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().any(|entry| holds(&entry.path(), text)),
        Err(_) => fs::read_to_string(path).is_ok_and(|content| content.contains(text)),
    }
}

/// The result of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Passed,
    Failed,
    Hung,
    NotBuilt,
    NotRun,
}

/// Proves the rules with these names, or all rules.
pub fn rules(names: &[String]) -> Result<()> {
    let mut rules = read()?;
    if let Some(unknown) = names.iter().find(|name| rules.iter().all(|rule| rule.name != **name)) {
        bail!("{LIST} has no rule {unknown}");
    }
    rules.retain(|rule| names.is_empty() || names.contains(&rule.name));
    // Sorted like this, neighbours share most of what has to be built again.
    rules.sort_by(|a, b| (&a.file, &a.target).cmp(&(&b.file, &b.target)));
    step("install", || install::for_tests(false))?;
    let scratch = Scratch::make()?;
    let mut broken = Vec::new();
    step("with every rule", || {
        for rule in &rules {
            let (outcome, seconds) = timed(|| scratch.outcome(rule))?;
            println!("{:60} {:?} in {seconds:.0} s", rule.test, outcome);
            broken.extend((outcome != Outcome::Passed).then_some(rule.name.as_str()));
        }
        Ok(())
    })?;
    if !broken.is_empty() {
        bail!("tests that do not pass with their rule prove nothing: {}", broken.join(", "));
    }
    let mut table = Vec::new();
    step("without each in turn", || {
        for rule in &rules {
            let (outcome, seconds) = timed(|| scratch.without(rule))?;
            let said = match outcome {
                Outcome::Failed => "fails without it",
                Outcome::Hung => "fails without it (hangs)",
                Outcome::Passed => "STILL PASSES",
                Outcome::NotBuilt => "DOES NOT COMPILE without it",
                Outcome::NotRun => "WAS NOT RUN",
            };
            println!("{:52} {said}, {seconds:.0} s", rule.name);
            table.push((rule, outcome, said));
        }
        Ok(())
    })?;
    println!("\n{:52} {:78} without the rule", "rule", "test");
    for (rule, _, said) in &table {
        println!("{:52} {:78} {said}", rule.name, format!("{}: {}", rule.target, rule.test));
    }
    let unproved = table.iter().filter(|(_, outcome, _)| !matches!(outcome, Outcome::Failed | Outcome::Hung)).count();
    if unproved > 0 {
        bail!("{unproved} of {} rules are not proved", table.len());
    }
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let begun = Instant::now();
    Ok((work()?, begun.elapsed().as_secs_f64()))
}

/// A copy of the tree, with its own builds.
struct Scratch {
    tree: PathBuf,
    build: PathBuf,
}

impl Scratch {
    /// Makes the copy, or updates an existing one, so that only what has changed is built again.
    fn make() -> Result<Scratch> {
        let folder = target_dir().join("rules");
        let scratch = Scratch { tree: folder.join("tree"), build: folder.join("build") };
        let built = target_dir().join("debug");
        if !scratch.build.exists() && built.exists() {
            fs::create_dir_all(&scratch.build)?;
            run(Command::new("cp").args(["-a", "--reflink=auto"]).args([&built, &scratch.build.join("debug")]))?;
        }
        let listed = output(Command::new("git").current_dir(root()).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let listed = String::from_utf8(listed).context("a file's name is no text")?;
        let mut kept = BTreeSet::new();
        for name in listed.split('\0').filter(|name| !name.is_empty() && root().join(name).is_file()) {
            let (from, to) = (root().join(name), scratch.tree.join(name));
            kept.insert(to.clone());
            if fs::read(&to).is_ok_and(|copied| fs::read(&from).is_ok_and(|text| text == copied)) {
                continue;
            }
            fs::create_dir_all(to.parent().unwrap_or(&to))?;
            let is_new = !to.exists();
            fs::copy(&from, &to).with_context(|| format!("cannot copy {name}"))?;
            if is_new {
                // A first copy keeps its time, because the copied builds are newer. A later copy is new, so that cargo
                // sees it.
                fs::File::options().write(true).open(&to)?.set_modified(from.metadata()?.modified()?)?;
            }
        }
        remove_others(&scratch.tree, &kept)?;
        Ok(scratch)
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo(arguments);
        command.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.build);
        command
    }

    /// Takes the rule out, runs its test, and puts the rule back.
    fn without(&self, rule: &Rule) -> Result<Outcome> {
        let file = self.tree.join(&rule.file);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        fs::write(&file, text.replace(&rule.find, &rule.replace))?;
        let outcome = self.outcome(rule);
        fs::write(&file, text)?;
        outcome
    }

    fn outcome(&self, rule: &Rule) -> Result<Outcome> {
        let mut build = self.cargo(&["test", "--no-run", "--quiet"]);
        if rule.needs_the_program() {
            build = self.cargo(&["build", "--quiet", "--bin", "cdc-audit"]);
        }
        let built = build.args(SELECTION).args(rule.target()).output()?;
        if !built.status.success() {
            println!("{}", String::from_utf8_lossy(&built.stderr));
            return Ok(Outcome::NotBuilt);
        }
        let test = self.cargo(&["test", "--quiet"]);
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", TEST_MAX]).arg(test.get_program()).args(test.get_args());
        command.current_dir(&self.tree);
        for (name, value) in test.get_envs() {
            // Removed variables matter as much, because cargo builds everything again in another environment.
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let ran = command.args(SELECTION).args(rule.target()).args(["--", "--exact", &rule.test]).output()?;
        let said = String::from_utf8_lossy(&ran.stdout);
        Ok(match ran.status.code() {
            Some(124 | 137) => Outcome::Hung,
            _ if said.contains(" 1 failed;") => Outcome::Failed,
            _ if said.contains(" 1 passed;") => Outcome::Passed,
            _ => Outcome::NotRun,
        })
    }
}

/// Removes the files in `folder` that are not in `kept`.
fn remove_others(folder: &Path, kept: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
