//! A process under measurement: wall time, its CPU time and peak memory, the CPU time of the walsender that serves it and of
//! the server's other processes, and what everything else on the machine took meanwhile.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde::Serialize;

/// A process that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(300);

/// Between two looks at `/proc`: what memory peaked at, and what the server's processes had used, in their last moments.
const LOOK: Duration = Duration::from_millis(10);

/// Looks between two searches for new processes of the server.
const SEARCH: u32 = 5;

/// Of a core. A run during which strangers took more says little about the program.
const DISTURBED: f64 = 0.15;

/// What one run of a process took.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// From its start to its end.
    pub seconds: f64,
    /// User and system time of all its threads.
    pub cpu_seconds: f64,
    pub peak_bytes: u64,
    /// Of all walsenders that came up meanwhile.
    pub walsender_cpu_seconds: f64,
    /// How long they were ready to run and had no core.
    pub walsender_wait_seconds: f64,
    /// Of the server's other processes.
    pub server_cpu_seconds: f64,
    /// Of everything else on this machine, and what a hypervisor withheld.
    pub strangers_cpu_seconds: f64,
    #[serde(skip)]
    pub output: String,
}

impl Cost {
    pub fn is_disturbed(&self) -> bool {
        self.strangers_cpu_seconds > DISTURBED * self.seconds
    }
}

/// `program`, which the kernel ends when this process ends in whatever way.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Runs to the end. The server's processes are the children of `postmaster`.
pub fn measure(mut command: Command, postmaster: u32) -> Result<Cost> {
    let output = tempfile::NamedTempFile::new()?;
    let errors = tempfile::NamedTempFile::new()?;
    command.stdin(Stdio::null()).stdout(File::create(output.path())?).stderr(File::create(errors.path())?);
    let ticks = ticks_per_second()?;
    let ended = AtomicBool::new(false);
    let mut server = Server::new(postmaster);
    let machine = machine_seconds(ticks)?;
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let pid = child.id();
    let (seconds, peak_bytes) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(pid, &mut server, &ended));
        let waited = wait_without_reaping(pid);
        let seconds = begun.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        let peak = watching.join().map_err(|_| anyhow::anyhow!("the watching thread failed"))?;
        waited.map(|()| (seconds, peak))
    })?;
    let machine = machine_seconds(ticks)? - machine;
    // What is left of it until it is reaped still tells its CPU time.
    let cpu_seconds = cpu_seconds(pid, ticks)?;
    let status = child.wait()?;
    let output = fs::read_to_string(output.path())?;
    if !status.success() {
        let errors = fs::read_to_string(errors.path())?;
        bail!("{command:?} failed ({status}) after {seconds:.1} s:\n{output}{errors}");
    }
    let walsender = server.total(true);
    let others = server.total(false);
    Ok(Cost {
        seconds,
        cpu_seconds,
        peak_bytes,
        walsender_cpu_seconds: walsender.cpu,
        walsender_wait_seconds: walsender.wait,
        server_cpu_seconds: others.cpu,
        strangers_cpu_seconds: (machine - cpu_seconds - walsender.cpu - others.cpu).max(0.0),
        output,
    })
}

fn wait_without_reaping(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process has a number")?;
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    Ok(())
}

/// Follows the process until it has `ended`; returns its peak of memory.
fn watch(pid: u32, server: &mut Server, ended: &AtomicBool) -> u64 {
    let begun = Instant::now();
    let mut peak = 0;
    for look in 0u32.. {
        let last = ended.load(Ordering::Relaxed);
        peak = peak.max(memory_peak(pid));
        if look.is_multiple_of(SEARCH) {
            server.search();
        }
        server.look();
        if last {
            break;
        }
        if begun.elapsed() > LIMIT {
            i32::try_from(pid).ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, Signal::KILL));
        }
        std::thread::sleep(LOOK);
    }
    peak
}

/// Time on a core, and time ready to run without one, in seconds.
#[derive(Clone, Copy, Default)]
struct Scheduled {
    cpu: f64,
    wait: f64,
}

struct Backend {
    is_walsender: bool,
    /// What it had used before the measurement.
    before: Scheduled,
    now: Scheduled,
}

/// The processes of a server; each has one thread.
struct Server {
    postmaster: u32,
    backends: HashMap<u32, Backend>,
}

impl Server {
    /// Notes what those that run already have used.
    fn new(postmaster: u32) -> Server {
        let mut server = Server { postmaster, backends: HashMap::new() };
        server.search();
        server.look();
        server.backends.values_mut().for_each(|backend| backend.before = backend.now);
        server
    }

    fn search(&mut self) {
        for pid in children(self.postmaster) {
            let backend = self.backends.entry(pid).or_insert(Backend {
                is_walsender: false,
                before: Scheduled::default(),
                now: Scheduled::default(),
            });
            // A session becomes one with its first replication command.
            backend.is_walsender = backend.is_walsender || is_walsender(pid);
        }
    }

    fn look(&mut self) {
        for (pid, backend) in &mut self.backends {
            backend.now = scheduled(*pid).unwrap_or(backend.now);
        }
    }

    fn total(&self, walsenders: bool) -> Scheduled {
        let wanted = self.backends.values().filter(|backend| backend.is_walsender == walsenders);
        wanted.fold(Scheduled::default(), |sum, backend| Scheduled {
            cpu: sum.cpu + backend.now.cpu - backend.before.cpu,
            wait: sum.wait + backend.now.wait - backend.before.wait,
        })
    }
}

/// `VmHWM` in bytes; 0 where it cannot be read any more.
pub fn memory_peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Of a process of one thread.
fn scheduled(pid: u32) -> Option<Scheduled> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let mut nanos = text.split_whitespace().map(|number| number.parse::<u64>().ok());
    let (cpu, wait) = (nanos.next()??, nanos.next()??);
    Some(Scheduled { cpu: cpu as f64 / 1e9, wait: wait as f64 / 1e9 })
}

/// User and system time of a process, ended threads included.
fn cpu_seconds(pid: u32, ticks: f64) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("a state after the name")?.1.split_whitespace().collect();
    let number =
        |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).context("a number of ticks");
    // Fields 14 and 15 of the line, which begins with the number and the name.
    Ok((number(11)? + number(12)?) / ticks)
}

/// What all cores have worked, and what a hypervisor has withheld from them: everything but idle and waiting for disks.
fn machine_seconds(ticks: f64) -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let numbers = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let numbers: Vec<f64> = numbers.filter_map(|number| number.parse().ok()).collect();
    let &[user, nice, system, _, _, interrupts, soft, withheld] = numbers.as_slice() else {
        bail!("/proc/stat has another form");
    };
    Ok((user + nice + system + interrupts + soft + withheld) / ticks)
}

fn ticks_per_second() -> Result<f64> {
    let output = Command::new("getconf").arg("CLK_TCK").output().context("cannot run getconf")?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn children(postmaster: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent(*pid) == Some(postmaster)).collect()
}

fn is_walsender(pid: u32) -> bool {
    let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    title.windows(9).any(|word| word == b"walsender")
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
