//! Runs the test programs, several at the same time, because tests wait more than they compute.
//!
//! Each program gets its own temporary folder. A test program that leaves a process running fails, like one whose tests
//! fail. Files that it leaves are named and removed. At the end the slowest tests are shown.
//!
//! A few failed tests are repeated, each alone. One that passes then is reported as unsteady, and its first output stays
//! in the log: it has found a fault of the product or of itself, but says nothing against the change that is tested.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cargo::cargo;
use crate::step::shown;
use crate::times::{Times, about};

/// Time after which a test program counts as hanging.
const PROGRAM_MAX: Duration = Duration::from_secs(45 * 60);

/// Maximum number of failed tests that are repeated. More of them have a common cause.
const REPEATED_MAX: usize = 3;

/// Number of the slowest tests that are shown at the end.
const SLOWEST: usize = 10;

/// Time in which the processes that a test program started must end after it: servers stop and remove their folders by
/// themselves.
const AFTERMATH: Duration = Duration::from_secs(300);

/// A test program, as cargo built it.
struct Program {
    /// `audit-lake::lake`, or only the crate for its unit tests.
    name: String,
    executable: PathBuf,
    /// The folder of its package, in which cargo would run it.
    folder: PathBuf,
}

/// The result of a test program.
struct Outcome {
    name: String,
    seconds: f64,
    passed: usize,
    failed: Vec<String>,
    /// The tests that failed, and passed when they were repeated.
    unsteady: Vec<String>,
    skipped: usize,
    /// Seconds and name of each test.
    tests: Vec<(f64, String)>,
    /// The reason why it counts as failed, other than failed tests.
    trouble: Option<String>,
}

/// Builds the test programs of a selection and runs them all.
///
/// # Errors
/// Fails if a test fails twice, or if a program leaves a process running or hangs.
pub fn tests(selection: &[&str], thorough: Option<&str>) -> Result<()> {
    let times = Times::of("test-programs");
    let programs = longest_first(&times, programs(selection)?);
    let expected: Option<BTreeMap<String, f64>> =
        programs.iter().map(|program| Some((program.name.clone(), times.get(&program.name)?))).collect();
    let count = programs.len();
    let queue = Mutex::new(programs.iter().collect::<VecDeque<_>>());
    let outcomes = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(2, usize::from);
    println!("{count} test programs, {workers} at a time");
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(program) = pop(&queue) {
                    let outcome = program.run(thorough, None).unwrap_or_else(|error| program.not_run(&error));
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(outcome);
                        println!("    {}", progress(expected.as_ref(), &outcomes, count, workers));
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_default();
    repeat(&programs, &mut outcomes, thorough);
    times.note(outcomes.iter().map(|outcome| (outcome.name.as_str(), outcome.seconds)))?;
    summary(&outcomes)
}

/// Repeats the tests that failed, if they are few.
fn repeat(programs: &[Program], outcomes: &mut [Outcome], thorough: Option<&str>) {
    if outcomes.iter().map(|outcome| outcome.failed.len()).sum::<usize>() > REPEATED_MAX {
        return;
    }
    for outcome in outcomes {
        let Some(program) = programs.iter().find(|program| program.name == outcome.name) else { continue };
        for test in std::mem::take(&mut outcome.failed) {
            let again = program.run(thorough, Some(&test)).unwrap_or_else(|error| program.not_run(&error));
            let passes = again.passed == 1 && again.failures().is_empty();
            if passes { &mut outcome.unsteady } else { &mut outcome.failed }.push(test);
        }
    }
}

fn pop<'a>(queue: &Mutex<VecDeque<&'a Program>>) -> Option<&'a Program> {
    queue.lock().ok()?.pop_front()
}

fn summary(outcomes: &[Outcome]) -> Result<()> {
    let mut tests: Vec<&(f64, String)> = outcomes.iter().flat_map(|outcome| &outcome.tests).collect();
    tests.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("\nThe slowest tests:");
    tests.iter().take(SLOWEST).for_each(|(seconds, name)| println!("  {seconds:>7.1} s  {name}"));
    println!("The slowest programs:");
    let mut programs: Vec<&Outcome> = outcomes.iter().collect();
    programs.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    programs.iter().take(SLOWEST).for_each(|program| println!("  {:>7.1} s  {}", program.seconds, program.name));
    let failed: Vec<String> = outcomes.iter().flat_map(Outcome::failures).collect();
    failed.iter().for_each(|name| println!("FAILED: {name}"));
    let unsteady: Vec<String> = outcomes.iter().flat_map(|outcome| outcome.named(&outcome.unsteady)).collect();
    unsteady.iter().for_each(|name| println!("UNSTEADY, failed once and must be looked into: {name}"));
    let passed: usize = outcomes.iter().map(|outcome| outcome.passed).sum();
    let skipped: usize = outcomes.iter().map(|outcome| outcome.skipped).sum();
    println!("\n{passed} passed, {} failed, {} unsteady, {skipped} skipped", failed.len(), unsteady.len());
    if !failed.is_empty() {
        bail!("{} tests or test programs failed", failed.len());
    }
    Ok(())
}

/// Lets cargo build the test programs, and reads their paths from its messages.
fn programs(selection: &[&str]) -> Result<Vec<Program>> {
    let mut command = cargo(&["test", "--no-run", "--message-format=json-render-diagnostics"]);
    command.args(selection).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run {}", shown(&command)))?;
    if !output.status.success() {
        bail!("{} ended with {}", shown(&command), output.status);
    }
    let messages = String::from_utf8(output.stdout).context("cargo's messages")?;
    Ok(messages.lines().filter_map(program).collect())
}

/// Returns the program that a message of cargo names, if it is a test program.
fn program(message: &str) -> Option<Program> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    if message["profile"]["test"] != true {
        return None;
    }
    let executable = PathBuf::from(message["executable"].as_str()?);
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let package = folder.file_name()?.to_str()?.to_owned();
    let target = message["target"]["name"].as_str()?.to_owned();
    let name = if message["target"]["kind"][0] == "test" { format!("{package}::{target}") } else { package };
    Some(Program { name, executable, folder })
}

impl Program {
    /// Runs all tests, or only the named one.
    fn run(&self, thorough: Option<&str>, only: Option<&str>) -> Result<Outcome> {
        println!("    {} begins{}", self.name, only.map_or_else(String::new, |test| format!(" again: {test}")));
        let begun = Instant::now();
        let temporary = Temporary::make(&self.name)?;
        let log = temporary.folder.with_extension("log");
        let file = File::create(&log)?;
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder).env("TMPDIR", &temporary.folder);
        // The stable test library shows the time of each test only if unstable options are allowed.
        command.args(["-Z", "unstable-options", "--report-time"]).env("RUSTC_BOOTSTRAP", "1");
        command.args(only.into_iter().chain(only.map(|_| "--exact")));
        command.envs(thorough.map(|name| (name, "1")));
        let mut child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        let hung = !ended_within(&mut child, PROGRAM_MAX)?;
        let status = child.wait()?;
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        fs::remove_file(&log)?;
        let left = temporary.left();
        temporary.files().for_each(|file| println!("    {} left {file} behind", self.name));
        let trouble = if hung {
            Some("was ended, because it ran for too long".to_owned())
        } else if !left.is_empty() {
            Some(format!("left behind: {}", left.join(", ")))
        } else {
            (!status.success() && !said.contains("test result: FAILED")).then(|| format!("ended with {status}"))
        };
        let outcome = self.outcome(&said, begun.elapsed(), trouble);
        println!("--- {} ({:.1} s)\n{}", self.name, outcome.seconds, said.trim());
        if let Some(trouble) = &outcome.trouble {
            println!("{} {trouble}", self.name);
        }
        Ok(outcome)
    }

    fn outcome(&self, said: &str, time: Duration, trouble: Option<String>) -> Outcome {
        let mut outcome = Outcome {
            name: self.name.clone(),
            seconds: time.as_secs_f64(),
            passed: 0,
            failed: Vec::new(),
            unsteady: Vec::new(),
            skipped: 0,
            tests: Vec::new(),
            trouble,
        };
        for line in said.lines() {
            let Some((test, result)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) else {
                continue;
            };
            match result.split_whitespace().next() {
                Some("ok") => outcome.passed += 1,
                Some("FAILED") => outcome.failed.push(test.to_owned()),
                _ => outcome.skipped += 1,
            }
            let seconds = result.split_once('<').and_then(|(_, time)| time.strip_suffix("s>")?.parse().ok());
            outcome.tests.extend(seconds.map(|seconds| (seconds, format!("{} {test}", self.name))));
        }
        outcome
    }

    fn not_run(&self, error: &anyhow::Error) -> Outcome {
        self.outcome("", Duration::ZERO, Some(format!("could not be run: {error:#}")))
    }
}

impl Outcome {
    fn failures(&self) -> Vec<String> {
        self.named(&self.failed).chain(self.named(self.trouble.as_slice())).collect()
    }

    fn named(&self, what: &[String]) -> impl Iterator<Item = String> {
        what.iter().map(|what| format!("{} {what}", self.name))
    }
}

/// Kills the child if it has not ended in time.
fn ended_within(child: &mut Child, time: Duration) -> Result<bool> {
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > time {
            child.kill()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(true)
}

/// The folder for a test program's temporary files. Its path is short, because paths of Unix sockets must be.
struct Temporary {
    folder: PathBuf,
}

impl Temporary {
    fn make(name: &str) -> Result<Temporary> {
        let short = name.rsplit("::").next().unwrap_or(name);
        // Use only letters, because tests that compare output replace long numbers in it.
        let digits = std::process::id().to_string();
        let letters: String = digits.bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
        let folder = std::env::temp_dir().join(format!("cdc-{letters}-{short}"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Temporary { folder })
    }

    /// Lists the processes that the program left running, after some time for servers to end.
    fn left(&self) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let left: Vec<String> = self.processes().collect();
            if left.is_empty() || begun.elapsed() > AFTERMATH {
                return left;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn files(&self) -> impl Iterator<Item = String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string())
    }

    /// Lists the processes that were started with this temporary folder.
    fn processes(&self) -> impl Iterator<Item = String> {
        let wanted = format!("TMPDIR={}\0", self.folder.display()).into_bytes();
        let running = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
        running.filter_map(move |process| {
            let environment = fs::read(process.join("environ")).ok()?;
            environment.windows(wanted.len()).any(|part| part == wanted).then_some(())?;
            let words = fs::read(process.join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            Some(format!("process {} ({})", process.file_name()?.to_string_lossy(), words.trim()))
        })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The files were reported; they must not fill the disk.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Sorts the programs, the longest first. Those without a known time come before, and among these the ones of `tests/`,
/// because they are long.
fn longest_first(times: &Times, mut programs: Vec<Program>) -> Vec<Program> {
    let seconds = |program: &Program| {
        let unknown = if program.name.starts_with("tests::") { f64::MAX } else { f64::MAX / 2.0 };
        times.get(&program.name).unwrap_or(unknown)
    };
    programs.sort_by(|a, b| seconds(b).total_cmp(&seconds(a)));
    programs
}

/// Describes the progress of the run. `expected` holds the seconds that each program took the last time, if all of them
/// have been run before.
fn progress(expected: Option<&BTreeMap<String, f64>>, outcomes: &[Outcome], count: usize, workers: usize) -> String {
    let ended = format!("{} of {count} test programs have ended", outcomes.len());
    let Some(expected) = expected else { return ended };
    let whole: f64 = expected.values().sum();
    let done: f64 = outcomes.iter().filter_map(|outcome| expected.get(&outcome.name)).sum();
    let left = (whole - done).max(0.0) / workers as f64;
    format!("{ended}, {:.0} % of the time, about {} left", 100.0 * done / whole.max(1.0), about(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_times_are_read() {
        let program = Program { name: "audit-x".to_owned(), executable: PathBuf::new(), folder: PathBuf::new() };
        let said = "running 3 tests\ntest a::b ... ok <0.250s>\ntest c ... FAILED <1.500s>\ntest d ... ignored\n";
        let outcome = program.outcome(said, Duration::from_secs(2), None);
        assert_eq!((outcome.passed, outcome.failures(), outcome.skipped), (1, vec!["audit-x c".to_owned()], 1));
        assert_eq!(outcome.tests, [(0.25, "audit-x a::b".to_owned()), (1.5, "audit-x c".to_owned())]);
        assert!(summary(&[outcome]).is_err());
    }

    /// A program whose test fails when it runs the first time, or always.
    fn script(folder: &Path, fails: &str) -> Program {
        use std::os::unix::fs::PermissionsExt;
        let executable = folder.join("program");
        let text = format!("#!/bin/sh\n{fails} && echo 'test a ... FAILED <0.1s>' || echo 'test a ... ok <0.1s>'\n");
        fs::write(&executable, text).unwrap();
        fs::set_permissions(&executable, fs::Permissions::from_mode(0o700)).unwrap();
        Program { name: "audit-x::again".to_owned(), executable, folder: folder.to_owned() }
    }

    #[test]
    fn a_failed_test_is_repeated_once() {
        let folder = Temporary::make("repeated").unwrap();
        for (fails, failed, unsteady) in [("mkdir begun 2>/dev/null", 0, 1), ("true", 1, 0)] {
            let program = script(&folder.folder, fails);
            let mut outcomes = [program.run(None, None).unwrap()];
            assert_eq!(outcomes[0].failed, ["a"]);
            repeat(std::slice::from_ref(&program), &mut outcomes, None);
            assert_eq!((outcomes[0].failed.len(), outcomes[0].unsteady.len()), (failed, unsteady));
            assert_eq!(summary(&outcomes).is_err(), failed == 1);
        }
    }

    #[test]
    fn progress_says_what_is_left() {
        let program = Program { name: "audit-x".to_owned(), executable: PathBuf::new(), folder: PathBuf::new() };
        let outcomes = [program.outcome("", Duration::from_secs(2), None)];
        let expected = BTreeMap::from([("audit-x".to_owned(), 100.0), ("audit-y".to_owned(), 300.0)]);
        let said = progress(Some(&expected), &outcomes, 2, 2);
        assert_eq!(said, "1 of 2 test programs have ended, 25 % of the time, about 2 min left");
        assert_eq!(progress(None, &outcomes, 2, 2), "1 of 2 test programs have ended");
    }

    #[test]
    fn what_a_program_leaves_behind_is_found() {
        let temporary = Temporary::make("left").unwrap();
        fs::write(temporary.folder.join("file"), "").unwrap();
        assert_eq!(temporary.files().count(), 1);
        let mut child = Command::new("sleep").arg("60").env("TMPDIR", &temporary.folder).spawn().unwrap();
        // A process shows its environment a moment after it was started.
        let begun = Instant::now();
        let mut found: Vec<String> = Vec::new();
        while found.is_empty() && begun.elapsed() < Duration::from_secs(60) {
            found = temporary.processes().collect();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [format!("process {} (sleep 60)", child.id())]);
        assert_eq!(temporary.processes().count(), 0);
    }
}
