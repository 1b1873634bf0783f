//! Runs the built program as a process: [`Daemon`], and [`command`] for commands that end by themselves.
//!
//! `cargo xtask test` builds it first, with the feature `fault-points`. Output goes to files, so that a daemon whose
//! output nobody reads never waits for a full pipe.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::guard::Guard;
use crate::os::{self, Signal};
use crate::wait::{PATIENCE, eventually};

/// A running `cdc-audit run`, killed when dropped.
pub struct Daemon {
    child: Child,
    status: Option<ExitStatus>,
    // It is dismissed before `Drop` below reaps the child, so that it never kills another process with that number.
    guard: Option<Guard>,
    output: TempDir,
    kept: Option<PathBuf>,
}

/// The options for starting a daemon.
pub struct Launch {
    command: Command,
    faults: Vec<String>,
    kept: Option<PathBuf>,
}

/// Finds the program under test: `$CDC_AUDIT_BIN`, or else the one that was built next to this test.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("CDC_AUDIT_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    // For target/debug/deps/test-1234 it is one folder above, for target/debug/cdc-audit-demo in the same folder.
    let folders = test.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("cdc-audit")).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no cdc-audit beside {}; run `cargo build --workspace --features cdc-audit/fault-points --bin cdc-audit`",
            test.display()
        )
    })
}

/// Runs `cdc-audit` with these arguments to its end, with empty standard input.
pub fn command(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null()).output().expect("cdc-audit starts")
}

impl Launch {
    /// Adds a further argument of `run`, such as `--accept-gap`.
    pub fn argument(mut self, argument: &str) -> Launch {
        self.command.arg(argument);
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Launch {
        self.command.env(name, value);
        self
    }

    /// Starts it through another program, which gets the command as its last arguments: `sh -c '… exec "$@"' sh`.
    pub fn through(mut self, program: &[&str]) -> Launch {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(self.command.get_program()).args(self.command.get_args());
        let environment = self.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(environment);
        self.command = command;
        self
    }

    /// Arms a fault point: its name, and an action in the language of the crate `fail` (`panic`, `2*off->return`).
    pub fn fault(mut self, name: &str, action: &str) -> Launch {
        self.faults.push(format!("{name}={action}"));
        self
    }

    /// Adds its output to this file after it has ended.
    pub fn keep_output(mut self, file: PathBuf) -> Launch {
        self.kept = Some(file);
        self
    }

    pub fn start(mut self) -> Daemon {
        let output = tempfile::Builder::new().prefix("cdc-audit-daemon-").tempdir().expect("a temporary folder");
        let file = |name| File::create(output.path().join(name)).expect("a file for the daemon's output");
        if !self.faults.is_empty() {
            self.command.env("FAILPOINTS", self.faults.join(";"));
        }
        self.command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let child = self.command.spawn().expect("cdc-audit starts");
        let guard = Some(Guard::over_process(child.id()));
        Daemon { child, status: None, guard, output, kept: self.kept }
    }
}

impl Daemon {
    /// Starts `cdc-audit run` with this configuration file and no other options.
    pub fn start(config: &Path) -> Daemon {
        Daemon::launch(config).start()
    }

    pub fn launch(config: &Path) -> Launch {
        let mut command = Command::new(program());
        command.arg("run").arg("--config").arg(config);
        Launch { command, faults: Vec::new(), kept: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.output.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads everything that it wrote to both streams.
    pub fn output(&self) -> String {
        self.stdout() + &self.stderr()
    }

    /// Waits for a line of either stream that contains `text` and returns it. The test fails if the daemon ends first.
    #[track_caller]
    pub fn wait_for_line(&mut self, text: &str) -> String {
        let mut found = None;
        self.wait_for(&format!("a line with {text:?}"), |daemon| {
            found = daemon.output().lines().find(|line| line.contains(text)).map(str::to_owned);
            found.is_some()
        });
        found.expect("found above")
    }

    /// Waits until `holds` is true. The test fails if the daemon ends first, or takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, mut holds: impl FnMut(&Daemon) -> bool) {
        let begun = Instant::now();
        loop {
            // Ask this before the check, so that the check sees the last output of a daemon that has ended.
            let ended = self.ended();
            if holds(self) {
                return;
            }
            let output = || format!("{}{}", self.stdout(), self.stderr());
            if let Some(status) = ended {
                panic!("the daemon ended ({status}) before {what}:\n{}", output());
            }
            assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}:\n{}", output());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Returns the exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the daemon is a child of ours");
            if self.status.is_some() {
                self.guard.take();
            }
        }
        self.status
    }

    /// Waits until it ends.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the daemon ends", || self.ended().is_some());
        self.status.expect("ended above")
    }

    /// Sends SIGTERM, after which it finishes the current batch and stops.
    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGTERM and waits until it ends.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.sigterm();
        self.wait()
    }

    /// Sends SIGKILL and waits until it ends.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    pub fn sigstop(&self) {
        self.signal(Signal::STOP);
    }

    pub fn sigcont(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        // After a process was reaped, another one may have its number.
        if self.status.is_none() {
            os::signal(self.child.id(), signal);
        }
    }

    /// Peak of resident memory so far, in bytes (`VmHWM`). `None` after it has ended.
    pub fn memory_peak(&self) -> Option<u64> {
        os::memory(self.child.id(), "VmHWM")
    }

    /// Resident memory now, in bytes (`VmRSS`). `None` after it has ended.
    pub fn memory_now(&self) -> Option<u64> {
        os::memory(self.child.id(), "VmRSS")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.guard.take();
        self.signal(Signal::KILL);
        drop(self.child.wait());
        if let Some(file) = self.kept.as_ref().filter(|_| !std::thread::panicking()) {
            let kept = File::options().create(true).append(true).open(file);
            kept.and_then(|mut kept| kept.write_all(self.output().as_bytes())).expect("the daemon's output is kept");
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's output ---\n{}", self.output());
        }
    }
}
