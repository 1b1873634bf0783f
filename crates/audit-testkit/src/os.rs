//! Processes, users and names: the few things the other modules ask of the operating system.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, geteuid, kill_process};

/// The operating system's user that servers run as when the tests run as root, which PostgreSQL refuses.
pub(crate) const SERVER_USER: &str = "postgres";

/// Whether we may install packages, and whether servers need another user than ours.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// `program` as the user that servers run as.
pub(crate) fn as_server_user(program: impl AsRef<Path>) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", SERVER_USER, "--"]).arg(program.as_ref()).current_dir("/");
        command
    } else {
        Command::new(program.as_ref())
    };
    command.env("LC_ALL", "C").env_remove("PGDATA").env_remove("PGOPTIONS").env_remove("PGHOST").env_remove("PGPORT");
    command
}

/// Runs to the end and returns what was printed; the error names the command and holds its last words.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let input = input.to_owned();
    // A thread of its own, so that neither side waits for the other with a full pipe. A program may end without
    // reading everything; its exit status says whether that was an error.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output()?;
    drop(feeder.join());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}\n{}", output.status, text(&output.stderr), text(&output.stdout));
    }
    Ok(text(&output.stdout))
}

/// Gives a file or folder, and all in it, to the user that servers run as.
pub(crate) fn give_to_server_user(path: &Path) -> Result<()> {
    if is_root() {
        run(Command::new("chown").arg("-R").arg(SERVER_USER).arg(path))?;
    }
    Ok(())
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // A process that has ended meanwhile needs no signal.
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process runs; one that ended but was not yet reaped does not.
pub(crate) fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

pub(crate) fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| stat(pid).is_some_and(|(_, its_parent)| its_parent == parent)).collect()
}

/// State and parent from `/proc/PID/stat`, where the program's name stands in brackets and may hold anything.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// A field of `/proc/PID/status` that is given in kB, such as `VmHWM`, in bytes.
pub(crate) fn memory(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kb| kb * 1024)
}

/// A name that no other test on this machine uses, fit for a database, slot, role or topic: `prefix_1f3a_7`.
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}_{:x}_{count}", std::process::id())
}

/// A port nobody listens on. It lies below the range from which the kernel takes the ports of outgoing connections,
/// so that it is still free when a server that was stopped starts again.
pub fn free_port() -> u16 {
    static START: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Somewhere else in each process, so that parallel ones rarely look at the same port.
    let start = START.get_or_init(|| RandomState::new().hash_one("port") % 12_000);
    for _ in 0..1000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (start + step) % 12_000;
        let port = u16::try_from(port).expect("below 32,000");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20000 and 32000 on 127.0.0.1");
}
